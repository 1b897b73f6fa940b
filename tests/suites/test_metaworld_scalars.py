"""Values, and types too: what a float32 of the action is multiplied with decides how the product is rounded."""

import numpy as np
import pytest


@pytest.fixture
def scalars():
    """The module; imported late because it imports the simulator, which a test of images may want to prepare."""
    from suites import metaworld_scalars

    return metaworld_scalars


def assert_same(found, expected):
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found, expected)


def rotations(number):
    """Rotation matrices as MuJoCo makes them; a third turn by a quarter or a half, where entries are equal."""
    import mujoco

    rng, matrix = np.random.default_rng(0), np.zeros(9)
    for index in range(number):
        turn = rng.normal(size=4)
        if index % 3 == 0:
            turn = rng.integers(-1, 2, size=4) + np.array([0.0, 0.0, 0.0, 2.0])
        mujoco.mju_quat2Mat(matrix, turn / np.linalg.norm(turn))
        yield matrix.reshape(3, 3).copy()


def test_quaternions_are_scipys(scalars):
    from scipy.spatial.transform import Rotation

    largest = set()
    for matrix in rotations(3000):
        expected = Rotation.from_matrix(matrix).as_quat()
        largest.add(int(np.argmax(np.abs(expected))))
        np.testing.assert_array_equal(scalars.quaternion(matrix), expected)
        np.testing.assert_array_equal(scalars.QuickRotation.from_matrix(matrix).as_quat(), expected)
    assert largest == {0, 1, 2, 3}  # every branch was taken


def test_norms_are_numpys(scalars):
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 4, 9):
        for x in rng.normal(size=(200, size)):
            assert_same(scalars.norm(x), np.linalg.norm(x))
            assert_same(scalars.norm(x, ord=2), np.linalg.norm(x, ord=2))


@pytest.mark.parametrize(
    "x",
    [
        np.array([0.1, 0.2, 0.3], dtype=np.float32),
        np.array([[0.1, 0.2], [0.3, 0.4]]),
        np.arange(9.0)[::4],
        np.array([1, 2]),
        np.array([0.3 + 0.1j]),
        [0.1, 0.2],
        np.float64(-0.5),
    ],
)
def test_other_norms_are_left_to_numpy(scalars, x):
    assert_same(scalars.norm(x), np.linalg.norm(x))


def test_another_order_is_left_to_numpy(scalars):
    x = np.array([3.0, -4.0])
    assert_same(scalars.norm(x, ord=1), np.linalg.norm(x, ord=1))


@pytest.mark.parametrize("kind", [float, np.float64, np.float32])
def test_clipping_is_numpys(scalars, kind):
    for x in (-1.5, -1.0, -0.3, 0.0, 0.7, 1.0, 2.0, float("nan")):
        assert_same(scalars.clip(kind(x), -1, 1), np.clip(kind(x), -1, 1))
        assert_same(scalars.clip(kind(x), 0.0, 1.0), np.clip(kind(x), 0.0, 1.0))
    assert_same(scalars.clip(np.array([2.0, kind(0.5)]), 0.0, 1.0), np.array([1.0, 0.5]))


@pytest.mark.parametrize("kind", [float, np.float64, np.float32])
@pytest.mark.parametrize("sigmoid", ["long_tail", "gaussian"])
@pytest.mark.parametrize("margin_kind", [float, np.float64])
def test_tolerance_is_the_packages(scalars, kind, sigmoid, margin_kind):
    from metaworld.utils import reward_utils

    rng = np.random.default_rng(0)
    for x, low, width, margin in rng.uniform(0, 0.5, size=(300, 4)):
        # A tenth of the margins are zero, and some x lie on a bound.
        margin = margin_kind(0 if margin < 0.05 else margin)
        for value in (kind(x), kind(-x), kind(low), kind(low + width)):
            arguments = value, (low, low + width), margin, sigmoid
            assert_same(scalars.tolerance(*arguments), reward_utils.tolerance(*arguments))


def test_tolerance_refuses_what_the_package_refuses(scalars):
    with pytest.raises(ValueError, match="non-negative"):
        scalars.tolerance(0.3, (0, 0.1), -0.1, "long_tail")
    with pytest.raises(ValueError, match="Lower bound"):
        scalars.tolerance(0.3, (0.2, 0.1), 0.1, "long_tail")
    with pytest.raises(ValueError, match="Unknown sigmoid"):
        scalars.tolerance(0.3, (0, 0.1), 0.1, "tail")
