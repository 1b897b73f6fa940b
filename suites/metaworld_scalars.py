"""Functions that Meta-World's tasks call on single numbers and triples, quick for these and equal to the last bit.

Equal to the last bit asks for two things. The same operations in the same order: a sum of squares is the same ``dot``
(which may fuse multiplication and addition), a square the same ``pow`` (which is not always ``x * x``). And the same
types: a float of Python times a float32, such as an entry of an action, is rounded to float32, a ``np.float64`` times
it is not. Whatever a function is not quick for, it leaves to the one it replaces.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from metaworld.utils import reward_utils
from numpy.typing import NDArray

Array = NDArray[np.float64]


class QuickRotation:
    """As much of scipy's ``Rotation`` as the tasks use."""

    def __init__(self, quaternion: Array) -> None:
        self._quaternion = quaternion

    @classmethod
    def from_matrix(cls, matrix: Array) -> QuickRotation:
        return cls(quaternion(matrix))

    def as_quat(self) -> Array:
        return self._quaternion


def quaternion(matrix: Array) -> Array:
    """The quaternion ``[4]`` (x, y, z, w) of a rotation ``[3, 3]``, as scipy computes it.

    scipy also looks whether the matrix is a rotation; those of MuJoCo are. The entry taken first is the largest of the
    four, by Markley, "Unit Quaternion from Rotation Matrix", Journal of Guidance, Control, and Dynamics 31(2), 2008.
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    trace = a + e + i
    largest = max(a, e, i, trace)
    if a == largest:
        x, y, z, w = 1 - trace + 2 * a, d + b, g + c, h - f
    elif e == largest:
        x, y, z, w = d + b, 1 - trace + 2 * e, h + f, c - g
    elif i == largest:
        x, y, z, w = g + c, h + f, 1 - trace + 2 * i, d - b
    else:
        x, y, z, w = h - f, c - g, d - b, 1 + trace
    length = sqrt(x * x + y * y + z * z + w * w)
    return np.array((x / length, y / length, z / length, w / length))


def norm(x: Any, ord: Any = None) -> Any:
    """``np.linalg.norm``; quick for a vector of float64 that lies in one piece."""
    if type(x) is np.ndarray and x.strides == (8,) and ord in (None, 2):
        square = x.dot(x)
        if type(square) is np.float64:
            return np.float64(sqrt(square))
    return np.linalg.norm(x, ord)


def clip(x: Any, low: Any, high: Any) -> Any:
    """``np.clip``; quick for one float between bounds that its type holds exactly."""
    kind = np.float64 if type(x) is float else type(x)
    if kind is np.float64 or kind is np.float32:
        return kind(min(max(x, low), high))
    return np.clip(x, low, high)


def tolerance(
    x: Any,
    bounds: tuple[float, float] = (0.0, 0.0),
    margin: Any = 0.0,
    sigmoid: Any = "gaussian",
    value_at_margin: float = 0.1,
) -> Any:
    """``reward_utils.tolerance``; quick for one float64 and the sigmoid that nearly all tasks use.

    1 within the bounds, falling to 0.1 at a distance of ``margin``. Raises ``ValueError`` where that does.
    """
    lower, upper = bounds
    quick = sigmoid == "long_tail" and value_at_margin == 0.1 and (type(x) is float or type(x) is np.float64)
    if not quick or margin <= 0 or lower > upper:
        return reward_utils.tolerance(x, bounds, margin, sigmoid, value_at_margin)
    if lower <= x <= upper:
        return 1.0
    distance = float(lower - x if x < lower else x - upper) / float(margin)
    return 1 / ((distance * 3.0) ** 2 + 1)  # 3 = √(1 / 0.1 - 1), exact in float64 too
