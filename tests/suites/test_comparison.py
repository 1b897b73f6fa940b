import numpy as np
import pytest

from suites import comparison, pools
from suites.comparison import compare, critical, distance, measure, play
from tests.suites.tasks import task


def test_the_distance_is_that_of_kolmogorov_and_smirnov():
    from scipy.stats import ks_2samp

    generator = np.random.default_rng(0)
    for second in (generator.normal(0.3, 1, 50), generator.normal(0, 2, 200), generator.integers(0, 3, 70)):
        first = generator.normal(0, 1, 90).round(1)
        assert distance(first, second) == pytest.approx(ks_2samp(first, second).statistic)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_shift_within_the_tolerance_is_no_distance(sign):
    first = np.linspace(0, 1, 11)
    assert distance(first, first + sign * 0.3, 0.3 + 1e-9) == 0
    # shifted by 0.5 where 0.3 is nothing: two steps of 0.1 remain, each a share of 1 / 11
    assert distance(first, first + sign * 0.5, 0.3 + 1e-9) == pytest.approx(2 / 11)


def test_a_tolerance_does_not_hide_another_spread():
    first = np.linspace(-1, 1, 101)
    assert distance(first, 3 * first, 0.05) > 0.3


def test_equal_distributions_seldom_pass_the_critical_distance(monkeypatch):
    monkeypatch.setattr(comparison, "ALPHA", 0.1)
    generator = np.random.default_rng(0)
    limit = critical(20, 64, 64)
    passed = [
        max(distance(*generator.normal(size=(2, 64))) for _ in range(20)) > limit
        for _ in range(300)
    ]  # fmt: skip
    assert np.mean(passed) <= 0.1


def sample(generator, **changed):
    """What two equal engines would give."""
    return {
        "first observation": generator.normal(size=(128, 39)),
        "reward after 50 decisions": generator.uniform(0, 1, (128, 1)),
        comparison.UNTIL_SUCCESS: generator.integers(60, 90, (128, 1)).astype(float),
    } | changed


def test_only_what_differs_is_named_with_place_and_means():
    generator = np.random.default_rng(0)
    native, pooled = sample(generator), sample(generator)
    figures, faults = compare(native, pooled, "metaworld")
    assert faults == []
    assert figures["critical distance"] == pytest.approx(0.297, abs=1e-3)  # √(ln(2 · 41 / 0.001) / 2 · 2 / 128)
    pooled["first observation"][:, 7] += 2
    pooled["reward after 50 decisions"] += 4
    figures, faults = compare(native, pooled, "metaworld")
    assert [fault.split(":")[0] for fault in faults] == [
        "first observation, entry 7",
        "reward after 50 decisions, entry 0",
    ]
    assert figures["first observation"]["entry"] == 7
    first, second = figures["reward after 50 decisions"]["means"]
    assert f"mean {first:g} and in EnvPool {second:g}" in faults[1]


@pytest.mark.parametrize(
    ("name", "family", "entry", "shift"),
    [
        ("first observation", "metaworld", 0, 1e-3),  # a millimetre
        ("first observation", "metaworld", 3, 1e-2),  # and one of the gripper's
        ("first observation", "dm_control", 3, 1e-3),
        ("reward after 10 decisions", "metaworld", 0, 1e-2),  # a thousandth of 10
        ("reward after 10 decisions", "dm_control", 0, 1e-3),
        ("return of 50 decisions", "dm_control", 0, 5e-2),
        (comparison.UNTIL_SUCCESS, "metaworld", 0, 1.0),
    ],
)
def test_what_is_no_difference_is_said_in_units(name, family, entry, shift):
    constant = np.zeros((128, 39 if "observation" in name else 1))
    nearly, beyond = constant.copy(), constant.copy()
    nearly[:, entry], beyond[:, entry] = 0.99 * shift, 1.01 * shift
    native = {"first observation": np.zeros((128, 39)), name: constant}
    assert compare(native, native | {name: nearly}, family)[1] == []
    assert len(compare(native, native | {name: beyond}, family)[1]) == 1


class Counting:
    """Two environments: observations count decisions, rewards are 1 and 2; the second succeeds at the 70th."""

    n = 2

    def reset(self):
        self.decision = 0
        return np.zeros((2, 1), np.float32)

    def step(self, action):
        self.decision += 1
        return np.full((2, 1), self.decision, np.float32), np.array([1.0, 2.0]), np.array([True, self.decision >= 70])


def test_what_is_measured_in_an_episode(monkeypatch):
    monkeypatch.setattr(comparison, "EPISODES", 4)
    player, seen = Counting(), []

    def act(decision, observation):
        seen.append(decision)
        return observation

    found = {name: values[:, 0].tolist() for name, values in play(player, act, 100).items()}
    assert found == {
        "first observation": [0] * 4,
        "observation after 10 decisions": [10] * 4,
        "reward after 10 decisions": [1, 2, 1, 2],
        "return of 10 decisions": [10, 20, 10, 20],
        "observation after 50 decisions": [50] * 4,
        "reward after 50 decisions": [1, 2, 1, 2],
        "return of 50 decisions": [50, 100, 50, 100],
        comparison.UNTIL_SUCCESS: [1, 70, 1, 70],
    }
    assert seen == [*range(1, 71)] * 2, "an episode ends when all have succeeded"
    assert play(player, act, 60)[comparison.UNTIL_SUCCESS][:, 0].tolist() == [1, 61, 1, 61]


@pytest.fixture
def installed():
    pytest.importorskip("envpool", reason="the optional package envpool is not installed")


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:`in1d`")
def test_a_copy_passes_and_another_order_of_the_observation_does_not(monkeypatch):
    monkeypatch.setattr(comparison, "EPISODES", 48)
    swimming = task("dm_control", "fish-swim")
    assert measure(swimming)["certified"]
    monkeypatch.setitem(pools.__dict__, "PARTS", {})
    swapped = measure(swimming)
    assert not swapped["certified"]
    assert "first observation, entry" in swapped["reasons"][0]


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_expert_that_fails_in_envpool_alone_is_a_reason(monkeypatch):
    monkeypatch.setattr(comparison, "EPISODES", 16)
    turning = measure(task("metaworld", "dial-turn-v3"))
    assert turning["expert"]["success"] == [1, 0]
    assert "expert: succeeds in 100% of the episodes and in EnvPool in 0%" in turning["reasons"]


@pytest.mark.usefixtures("installed")
def test_other_spaces_are_a_reason(monkeypatch):
    monkeypatch.setitem(pools.__dict__, "PARTS", {"finger-spin": ("position",)})
    found = measure(task("dm_control", "finger-spin"))
    assert found == {"certified": False, "reasons": ["spaces ((4,), 2), natively ((9,), 2)"]}
