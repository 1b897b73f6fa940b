import pytest

from suites.errors import SuiteError
from suites.protocols import PROTOCOLS, protocol


@pytest.mark.parametrize(
    ("name", "repeat", "decisions", "score", "high"),
    [
        ("metaworld-v3", 1, 500, "success_any", 1),
        ("metaworld-tdmpc2", 2, 100, "success_last", 1),
        ("dmc-1000", 1, 1000, "return", 1000),
    ],
)
def test_the_named_protocols(name, repeat, decisions, score, high):
    found = protocol(name)
    assert (found.action_repeat, found.decisions, found.score, found.low, found.high) == (
        repeat,
        decisions,
        score,
        0,
        high,
    )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_overriding_the_repeat_keeps_the_environment_steps(name):
    plain, repeated = protocol(name), protocol(name, 4)
    assert repeated.action_repeat * repeated.decisions == plain.action_repeat * plain.decisions
    assert repeated.action_repeat == 4


def test_a_repeat_that_does_not_divide_the_episode_is_refused():
    with pytest.raises(SuiteError, match="action_repeat 3 does not divide the 1000 environment steps"):
        protocol("dmc-1000", 3)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(SuiteError, match="unknown protocol 'metaworld-3'; nearest: 'metaworld-v3'"):
        protocol("metaworld-3")
