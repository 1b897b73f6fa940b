"""How fast a cell goes."""

from __future__ import annotations

from m3po.bench.pace import PACE_SECONDS, Pace


def test_steps_before_the_first_update_make_no_rate() -> None:
    pace = Pace()
    for second in range(10):
        pace.mark(second, 1000 * second, learning=False)
    assert pace.rate() is None
    pace.mark(10, 10_000, learning=True)
    assert pace.rate() is None
    pace.mark(12, 10_040, learning=True)
    assert pace.rate() == 20  # 40 steps in 2 seconds; with the steps before it would be 10 040 in 12


def test_an_agent_that_never_updates_has_a_pace_after_a_while() -> None:
    pace = Pace()
    for second in range(int(PACE_SECONDS)):
        pace.mark(second, 7 * second, learning=False)
    assert pace.rate() is None
    pace.mark(PACE_SECONDS, int(7 * PACE_SECONDS), learning=False)
    assert pace.rate() == 7


def test_only_the_last_minutes_count() -> None:
    pace = Pace()
    # 10 steps a second, then 1 a second for longer than what counts as now
    for second in range(1000):
        pace.mark(second, 10 * second, learning=True)
    slow = int(PACE_SECONDS) + 1
    for second in range(slow):
        pace.mark(1000 + second, 10_000 + second, learning=True)
    assert pace.rate() == 1


def test_a_rate_spans_at_least_what_counts_as_now() -> None:
    pace = Pace()
    # one beat every 400 s: the last two alone are 400 s apart, longer than the span, and both stay
    for beat in range(5):
        pace.mark(400 * beat, 100 * beat, learning=True)
    assert pace.rate() == 100 / 400


def test_a_cell_that_stands_still_has_no_rate() -> None:
    pace = Pace()
    pace.mark(0, 50, learning=True)
    pace.mark(5, 50, learning=True)
    assert pace.rate() is None
