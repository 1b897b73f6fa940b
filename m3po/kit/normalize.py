"""Running statistics that are part of an agent's state; each is an ``nn.Module`` so that it is saved with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["PercentileScale", "RunningMoments", "standardise", "sum_by_group"]


class RunningMoments(nn.Module):
    """Mean and variance per entry, per group (task), over all that was shown (Chan et al. 1979, parallel form).

    With ``memory`` of the newest only: an update's own rows of a group or, where it has fewer than so many, those with
    what was there before, which counts for the rest. Buffers ``mean, var`` float64 ``[K, D]`` and ``count`` ``[K]``.
    Entries start at mean 0, variance 1 and a count of 1e-4, as is usual.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, groups: int = 1, *, memory: int | None = None) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("mean", torch.zeros(groups, size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(groups, size, dtype=torch.float64))
        self.register_buffer("count", torch.full((groups,), 1e-4, dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor, group: Tensor | None = None) -> None:
        """Take in rows ``x [B, D]``; ``group`` int64 ``[B]`` says which of the K groups each belongs to."""
        x = x.to(self.mean)
        groups = self.mean.shape[0]
        if group is None:
            group = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        count = sum_by_group(torch.ones_like(x[:, 0]), group, groups)
        safe = count.clamp(min=1)[:, None]
        mean = sum_by_group(x, group, groups) / safe
        var = sum_by_group((x - mean[group]) ** 2, group, groups) / safe
        seen = (count > 0).view(groups, 1)
        if self.memory is not None:
            self.count.copy_(torch.minimum(self.count, (self.memory - count).clamp(min=0)))
            self.mean.mul_((self.count > 0)[:, None] | ~seen)  # a mean without weight would still round the next one
        total = (self.count + count)[:, None]
        delta = mean - self.mean
        merged = self.var * self.count[:, None] + var * count[:, None]
        merged = merged + delta**2 * self.count[:, None] * count[:, None] / total
        self.mean.copy_(torch.where(seen, self.mean + delta * count[:, None] / total, self.mean))
        self.var.copy_(torch.where(seen, merged / total, self.var))
        self.count.add_(count)

    def normalize(self, x: Tensor, group: Tensor | None = None, clip: float = 10.0) -> Tensor:
        """(x − mean)/std clipped to ±``clip``, float32 ``[B, D]``."""
        index: Tensor | int = 0 if group is None else group
        scale = torch.rsqrt(self.var[index] + 1e-8)
        return ((x - self.mean[index]) * scale).clamp(-clip, clip).float()

    def std(self, group: Tensor | None = None) -> Tensor:
        """Standard deviations, float32 ``[K, D]``, or ``[B, D]`` for the groups asked for."""
        return torch.sqrt(self.var + 1e-8)[slice(None) if group is None else group].float()


class PercentileScale(nn.Module):
    """Moving 5–95 % range of returns per group (DreamerV3 section 3; TD-MPC2 ``RunningScale``).

    S ← (1 − rate) S + rate (P₉₅ − P₅); divide by max(``floor``, S).
    Buffers ``low, high`` float32 ``[K]``, ``seen`` bool ``[K]``.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, groups: int = 1, rate: float = 0.01, floor: float = 1.0) -> None:
        super().__init__()
        self.rate, self.floor = rate, floor
        self.register_buffer("low", torch.zeros(groups))
        self.register_buffer("high", torch.zeros(groups))
        self.register_buffer("seen", torch.zeros(groups, dtype=torch.bool))

    @torch.no_grad()
    def update(self, x: Tensor, group: Tensor | None = None) -> None:
        """Take in returns ``x [B]`` of groups ``group [B]``; a group's first batch sets its range."""
        if group is None:
            group = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        # All groups at once: sorted by value within sorted groups, each group's values lie side by side.
        ordered = x.float().sort()
        by_group = group[ordered.indices].sort(stable=True).indices
        values, count = ordered.values[by_group], torch.bincount(group, minlength=len(self.seen))
        here = count > 0
        rate = torch.where(self.seen, self.rate, 1.0) * here
        for bound, share in ((self.low, 0.05), (self.high, 0.95)):
            place = share * (count - 1).clamp(min=0)
            below = (count.cumsum(0) - count + place.long()).clamp(max=len(values) - 1)
            above = (below + 1).clamp(max=len(values) - 1)
            quantile = torch.lerp(values[below], values[above], place.frac())
            bound += rate * (quantile - bound)
        self.seen |= here

    def scale(self, group: Tensor | None = None) -> Tensor:
        """max(floor, P₉₅ − P₅): float32 ``[K]``, or ``[B]`` for the groups asked for."""
        spread = (self.high - self.low).clamp(min=self.floor)
        return spread if group is None else spread[group]


def standardise(x: Tensor, group: Tensor, groups: int) -> Tensor:
    """(x − mean_k)/std_k of ``x [B]`` within each of ``groups`` groups ``group [B]``."""
    moments = RunningMoments(1, groups, memory=0).to(x.device)
    moments.update(x.unsqueeze(-1), group)
    return moments.normalize(x.unsqueeze(-1), group, clip=float("inf")).squeeze(-1)


def sum_by_group(x: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sums ``[K, ...]`` of the rows of ``x [B, ...]`` in each of K ``groups``, ``group`` int64 ``[B]``.

    Every time the same to the last bit, which a GPU's ``index_add_`` is not: it adds in whatever order threads arrive.
    """
    sums = x.new_zeros(groups, *x.shape[1:])
    return sums.index_put_((group,), x, accumulate=True) if x.is_cuda else sums.index_add_(0, group, x)
