"""The residual MLP denoiser: the whole plan as one vector. Cheap enough to rank dozens of candidates per plan."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sinusoidal features of the diffusion time (Vaswani et al. 2017), then two layers: [B] -> [B, width]."""

    def __init__(self, width: int, frequencies: int = 64) -> None:
        super().__init__()
        scale = torch.exp(-math.log(10_000.0) * torch.arange(frequencies // 2) / (frequencies // 2))
        self.register_buffer("scale", scale, persistent=False)
        self.layers = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None].to(self.scale.dtype) * self.scale
        return self.layers(torch.cat((angle.cos(), angle.sin()), -1).to(self.layers[0].weight.dtype))


class ResidualMLP(ModelMixin, ConfigMixin):
    """Residual MLP over the flattened plan with adaptive layer norm (Perez et al. 2018; Peebles and Xie 2023).

    The modulation is a sum of one linear map of the time embedding and one of the context, so a single context row
    serves a whole batch of candidates at the price of one row.

    Args:
        horizon: H rows of a plan.
        dim: D values per row.
        context_dim: C.
        width, blocks: size; the defaults give about 1.2 million parameters.
    """

    @register_to_config
    def __init__(self, horizon: int, dim: int, context_dim: int = 128, width: int = 384, blocks: int = 3) -> None:
        super().__init__()
        check_sizes(horizon=horizon, dim=dim, context_dim=context_dim, width=width, blocks=blocks)
        self.shape = (horizon, dim)
        self.time = TimeEmbedding(context_dim)
        self.enter = nn.Linear(horizon * dim, width)
        self.stack = nn.ModuleList(_Block(width, context_dim) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, horizon * dim)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Denoise x [B, H, D] at times t [B] or [1] under context [B, C] or [1, C]: [B, H, D]."""
        check_denoiser_input(x, t, context, self.shape)
        condition = self.time(t) + context
        h = self.enter(x.flatten(1))
        for block in self.stack:
            h = block(h, condition)
        return self.leave(self.norm(h)).view_as(x)


class _Block(nn.Module):
    def __init__(self, width: int, context_dim: int) -> None:
        super().__init__()
        self.width = (width,)
        self.modulation = nn.Linear(context_dim, 2 * width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition).chunk(2, -1)
        inner = torch.addcmul(shift, F.layer_norm(h, self.width), 1 + scale)
        return h + self.second(F.silu(self.first(inner)))


def check_sizes(**sizes: int) -> None:
    """Raise a ValueError that names the first size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def check_denoiser_input(x: Tensor, t: Tensor, context: Tensor, shape: tuple[int | None, int]) -> None:
    """Check what every denoiser checks: x [B, H, D], t [B] or [1], context [B, C] or [1, C]; H None is any.

    Raises:
        ValueError: naming the tensor, the expected and the given shape.
    """
    horizon, dim = shape
    if x.ndim != 3 or x.shape[2] != dim or (horizon is not None and x.shape[1] != horizon):
        raise ValueError(f"x must have shape [B, {horizon or 'H'}, {dim}], got {tuple(x.shape)}")
    if t.ndim != 1 or len(t) not in (1, len(x)):
        raise ValueError(f"t must have shape [{len(x)}] or [1], got {tuple(t.shape)}")
    if context.ndim != 2 or len(context) not in (1, len(x)):
        raise ValueError(f"context must have shape [{len(x)}, C] or [1, C], got {tuple(context.shape)}")
