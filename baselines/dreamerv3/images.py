"""Encoder and decoder of images: convolutions between the picture and a map of a sixteenth of its height and width.

Maps are ``[N, height, width, channels]`` between layers, so that norms run over the last axis, as in the original.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dreamerv3.config import MULTIPLES, SHRINKAGE
from baselines.dreamerv3.nets import Activated, BlockLinear, mlp, truncated_normal_

__all__ = ["ImageDecoder", "ImageEncoder"]

KERNEL = 5
"""Side of the convolutions' kernels (original)."""

# [parity, low-resolution offset, tap]: which taps of the kernel, laid on a picture of doubled pixels, meet the same
# pixel. Tap k of output 2i + p meets pixel ⌊(2i + p + k − 2)/2⌋, one of i − 1, i, i + 1.
MERGED_TAPS = torch.tensor(
    [[[(p + k - 2) // 2 == offset for k in range(KERNEL)] for offset in (-1, 0, 1)] for p in (0, 1)]
).float()


class Convolution(nn.Module):
    """5 × 5 convolution of ``[N, h, w, inputs]`` with zero padding: the same size, ``outputs`` channels.

    With ``doubled`` the picture's pixels are doubled first, so that it becomes ``[N, 2h, 2w, outputs]``.
    """

    merged_taps: Tensor

    def __init__(self, inputs: int, outputs: int, *, doubled: bool = False) -> None:
        super().__init__()
        self.doubled = doubled
        self.weight = nn.Parameter(torch.empty(outputs, inputs, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(outputs))
        truncated_normal_(self.weight.data, inputs * KERNEL**2)
        self.register_buffer("merged_taps", MERGED_TAPS, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.doubled:
            return F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, padding=KERNEL // 2).permute(0, 2, 3, 1)
        # Doubling pixels only to convolve over them costs 25 products for each output; its four parities are
        # convolutions with 3 x 3 sums of the kernel's taps instead.
        taps = self.merged_taps
        weight = torch.einsum("ayk,bxl,oikl->aboiyx", taps, taps, self.weight).flatten(0, 2)
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, self.bias.repeat(4), padding=1).permute(0, 2, 3, 1)
        n, h, w, _ = y.shape
        return y.view(n, h, w, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, -1)


class ImageEncoder(nn.Module):
    """Images ``[..., H, W, C]`` in [0, 1] → tokens ``[..., size]``: convolution, pooling to half, RMSNorm, SiLU."""

    def __init__(self, shape: tuple[int, ...], depth: int) -> None:
        super().__init__()
        height, width, channels = shape
        depths = [depth * multiple for multiple in MULTIPLES]
        self.size = height * width // SHRINKAGE**2 * depths[-1]
        self.convolutions = nn.ModuleList(Convolution(a, b) for a, b in itertools.pairwise([channels, *depths]))
        self.norms = nn.ModuleList(Activated(size) for size in depths)

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(0, -4) - 0.5
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            pooled = F.max_pool2d(convolution(x).permute(0, 3, 1, 2), 2)
            x = norm(pooled.permute(0, 2, 3, 1))
        return x.reshape(*image.shape[:-3], self.size)


class ImageDecoder(nn.Module):
    """Features ``[..., deter + rest]`` → images ``[..., H, W, C]`` in [0, 1].

    The coarsest map is a block-diagonal product of deter plus a network of the rest; each further layer doubles it.
    """

    def __init__(self, deter: int, rest: int, units: int, blocks: int, shape: tuple[int, ...], depth: int) -> None:
        super().__init__()
        depths = [depth * multiple for multiple in MULTIPLES]
        self.deter, self.blocks = deter, blocks
        self.coarse = (shape[0] // SHRINKAGE, shape[1] // SHRINKAGE, depths[-1])
        size = self.coarse[0] * self.coarse[1] * self.coarse[2]
        self.from_deter = BlockLinear(deter, size, blocks)
        self.from_rest = mlp(rest, 2 * units, 1, size)
        sizes = [*reversed(depths), shape[-1]]
        self.norms = nn.ModuleList(Activated(size) for size in sizes[:-1])
        self.convolutions = nn.ModuleList(Convolution(a, b, doubled=True) for a, b in itertools.pairwise(sizes))

    def forward(self, feature: Tensor) -> Tensor:
        height, width, channels = self.coarse
        flat = feature.flatten(0, -2)
        # A block makes its share of the channels of the whole map.
        made = self.from_deter(flat[:, : self.deter].reshape(len(flat), self.blocks, -1))
        made = made.reshape(len(flat), self.blocks, height, width, -1).permute(0, 2, 3, 1, 4).flatten(3)
        x = made + self.from_rest(flat[:, self.deter :]).view(-1, height, width, channels)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = convolution(norm(x))
        return torch.sigmoid(x).reshape(*feature.shape[:-1], *x.shape[1:])
