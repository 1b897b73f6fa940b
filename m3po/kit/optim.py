"""What makes optimising cheap."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["flatten_parameters"]


def flatten_parameters(module: nn.Module) -> nn.Parameter:
    """One vector of all of ``module``'s parameters, with its gradient, for the optimiser to work on.

    The parameters and their gradients become views of it: small networks spend more time in an optimiser's work per
    tensor than in the mathematics. Clear gradients in place (``zero_grad(set_to_none=False)``), do not move the module
    to another device afterwards, and load weights with ``load_state_dict``.
    """
    parameters = list(module.parameters())
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for p in parameters:
        end = start + p.numel()
        p.data = flat.data[start:end].view_as(p)
        p.grad = flat.grad[start:end].view_as(p)
        start = end
    return flat
