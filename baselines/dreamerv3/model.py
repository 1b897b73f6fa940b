"""The networks around the latent dynamics: encoder, decoder, reward, continuation, actor, critic."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.images import ImageDecoder, ImageEncoder
from baselines.dreamerv3.nets import linear, mlp
from baselines.dreamerv3.rssm import RSSM, State
from m3po.api import EnvSpec
from m3po.kit.distributions import Gaussian
from m3po.kit.symlog import symexp_bins, symlog, symmetric_two_hot_mean, two_hot_losses

__all__ = ["BoundedNormal", "TwoHotHead", "WorldModel", "gaussian_entropy"]


class TwoHotHead(nn.Module):
    """A scalar predicted as a distribution over symexp-spaced bins; starts at exactly zero."""

    bins: Tensor

    def __init__(self, inputs: int, units: int, layers: int, bins: int) -> None:
        super().__init__()
        self.logits = mlp(inputs, units, layers, bins, scale=0.0)
        self.register_buffer("bins", symexp_bins(bins), persistent=False)

    def forward(self, feature: Tensor) -> Tensor:
        """Logits ``[..., bins]`` of ``feature [..., F]``."""
        logits: Tensor = self.logits(feature)
        return logits

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value ``[...]`` of ``logits [..., bins]``."""
        return symmetric_two_hot_mean(logits, self.bins)

    def losses(self, logits: Tensor, *targets: Tensor) -> Tensor:
        """Cross-entropies ``[..., m]`` of ``logits [..., bins]`` against each of m ``targets [...]``."""
        return two_hot_losses(F.log_softmax(logits, dim=-1), torch.stack(targets, dim=-1), self.bins)


class BoundedNormal(nn.Module):
    """The actor: a Gaussian over actions with tanh mean and a standard deviation in [min_std, max_std]."""

    def __init__(self, inputs: int, units: int, layers: int, action_dim: int, min_std: float, max_std: float) -> None:
        super().__init__()
        self.min_std, self.max_std = min_std, max_std
        self.trunk = mlp(inputs, units, layers)
        self.mean = linear(units, action_dim, scale=0.01)
        self.std = linear(units, action_dim, scale=0.01)

    def forward(self, feature: Tensor) -> Gaussian:
        """Distribution over ``[..., A]`` for ``feature [..., F]``; samples may leave [-1, 1] and are clipped."""
        x = self.trunk(feature)
        share = torch.sigmoid(self.std(x) + 2.0)
        return Gaussian(torch.tanh(self.mean(x)), self.min_std + (self.max_std - self.min_std) * share)


def gaussian_entropy(dist: Gaussian, mask: Tensor) -> Tensor:
    """Entropy ``[...]`` in nats over the entries that ``mask [..., A]`` says exist: Σ ½ log(2πe σ²)."""
    return (mask * (torch.log(dist.std) + 0.5 * math.log(2 * math.pi * math.e))).sum(-1)


class WorldModel(nn.Module):
    """What is learned about the tasks: latent dynamics and what they look like, pay and end.

    With K > 1 tasks the task's one-hot code is appended to observation, action and feature (to an image's token instead
    of the image); with one task nothing is.
    """

    observation_mask: Tensor
    action_mask: Tensor

    def __init__(self, spec: EnvSpec, config: DreamerV3Config) -> None:
        super().__init__()
        c = config
        self.images = len(spec.observation_shape) == 3
        self.code_size = spec.num_tasks if spec.num_tasks > 1 else 0
        rest = c.stoch * c.classes + self.code_size
        self.feature_size = c.deter + rest
        self.register_buffer("action_mask", torch.from_numpy(spec.action_mask).float(), persistent=False)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if self.images:
            self.encoder = ImageEncoder(spec.observation_shape, c.depth)
            self.decoder = ImageDecoder(c.deter, rest, c.units, c.blocks, spec.observation_shape, c.depth)
            token_size = self.encoder.size + self.code_size
        else:
            self.register_buffer("observation_mask", torch.from_numpy(spec.observation_mask).clone(), persistent=False)
            self.encoder = mlp(spec.observation_size + self.code_size, c.units, c.layers)
            self.decoder = mlp(self.feature_size, c.units, c.layers, spec.observation_size)
            token_size = c.units
        self.rssm = RSSM(
            token_size,
            spec.action_dim + self.code_size,
            deter=c.deter,
            hidden=c.hidden,
            stoch=c.stoch,
            classes=c.classes,
            blocks=c.blocks,
            unimix=c.unimix,
        )
        self.reward = TwoHotHead(self.feature_size, c.units, 1, c.bins)
        self.goes_on = mlp(self.feature_size, c.units, 1, 1)

    def code(self, task: Tensor) -> Tensor:
        """One-hot codes ``[..., K]`` of ``task`` int64 ``[...]``, or ``[..., 0]`` when there is one task."""
        if self.code_size:
            return F.one_hot(task, self.code_size).float()
        return torch.zeros(*task.shape, 0, device=task.device)

    def visible(self, observation: Tensor, task: Tensor) -> Tensor:
        """What is encoded and reconstructed of ``observation [..., D]``: its symlog, padded entries zero whatever they
        held. Of images ``[..., H, W, C]`` uint8: their brightness in [0, 1].
        """
        if self.images:
            return observation.float() / 255
        return symlog(torch.where(self.observation_mask[task], observation, 0.0))

    def token(self, visible: Tensor, task: Tensor) -> Tensor:
        """Encoded observations ``[..., E]`` of :meth:`visible` ones."""
        if self.images:
            return torch.cat([self.encoder(visible), self.code(task)], dim=-1)
        token: Tensor = self.encoder(torch.cat([visible, self.code(task)], dim=-1))
        return token

    def reconstruction_error(self, feature: Tensor, visible: Tensor, task: Tensor) -> Tensor:
        """Squared error ``[T, B]`` of decoding :meth:`feature` ``[T, B, F]``, summed over an observation's entries."""
        error: Tensor = (self.decoder(feature) - visible) ** 2
        if not self.images:
            error = error * self.observation_mask[task]
        return error.flatten(2).sum(-1)

    def control(self, action: Tensor, task: Tensor) -> Tensor:
        """What drives the dynamics: ``action [..., A]`` without padding, and the task's code."""
        return torch.cat([action * self.action_mask[task], self.code(task)], dim=-1)

    def feature(self, state: State, task: Tensor) -> Tensor:
        """What every head sees, ``[..., F]``."""
        return torch.cat([state.deter, state.stoch.flatten(-2), self.code(task)], dim=-1)

    def continuation(self, feature: Tensor) -> Tensor:
        """Logits ``[...]`` that the episode goes on; the discount is part of the probability."""
        logits: Tensor = self.goes_on(feature)
        return logits.squeeze(-1)
