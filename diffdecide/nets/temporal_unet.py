"""The temporal U-Net: one-dimensional convolutions over the rows of a plan, for plans of any length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from diffdecide.nets.mlp import TimeEmbedding, check_denoiser_input, check_sizes


class TemporalUnet(ModelMixin, ConfigMixin):
    """U-Net over time (Janner et al. 2022) with the context entering each block by FiLM (Chi et al. 2023).

    Plans are padded to a multiple of the coarsest stride by repeating their last row, and cropped behind, so any
    horizon works, also one that differs from the training horizon.

    Args:
        horizon: H rows of a plan in training; kept for the configuration only.
        dim: D values per row.
        context_dim: C.
        channels: channels of each level; the resolution halves between levels.
        kernel: width of the convolutions, odd.
        groups: groups of the group norms; divides every entry of `channels`.
    """

    @register_to_config
    def __init__(
        self,
        horizon: int,
        dim: int,
        context_dim: int = 128,
        channels: Sequence[int] = (32, 64, 128),
        kernel: int = 5,
        groups: int = 8,
    ) -> None:
        super().__init__()
        check_sizes(horizon=horizon, dim=dim, context_dim=context_dim, kernel=kernel, groups=groups)
        if not channels or any(count < 1 or count % groups for count in channels):
            raise ValueError(f"channels must be positive multiples of groups={groups}, got {tuple(channels)}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel=}")
        self.dim, self.stride = dim, 2 ** (len(channels) - 1)
        self.time = TimeEmbedding(context_dim)

        def block(before: int, after: int) -> _Block:
            return _Block(before, after, context_dim, kernel, groups)

        widths = [dim, *channels]
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(block(before, after) for before, after in pairs)
        self.downsample = nn.ModuleList(nn.Conv1d(count, count, 3, stride=2, padding=1) for count in channels[:-1])
        self.middle = block(channels[-1], channels[-1])
        ups = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.upsample = nn.ModuleList(nn.ConvTranspose1d(coarse, fine, 4, stride=2, padding=1) for coarse, fine in ups)
        self.up = nn.ModuleList(block(2 * fine, fine) for _, fine in ups)
        self.leave = nn.Conv1d(channels[0], dim, 1)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Denoise x [B, H, D] at times t [B] or [1] under context [B, C] or [1, C]: [B, H, D], any H."""
        check_denoiser_input(x, t, context, (None, self.dim))
        condition = F.silu(self.time(t) + context)
        rows = x.shape[1]
        h = x.transpose(1, 2)
        short = -rows % self.stride
        if short:
            h = F.pad(h, (0, short), mode="replicate")
        skips = []
        for level, block in enumerate(self.down):
            h = block(h, condition)
            if level < len(self.downsample):
                skips.append(h)
                h = self.downsample[level](h)
        h = self.middle(h, condition)
        for upsample, block in zip(self.upsample, self.up, strict=True):
            h = block(torch.cat((upsample(h), skips.pop()), 1), condition)
        return self.leave(h)[..., :rows].transpose(1, 2)


class _Block(nn.Module):
    """Two convolutions with group norm, FiLM between them, and a residual path: [B, before, H] -> [B, after, H]."""

    def __init__(self, before: int, after: int, context_dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(before, after, kernel, padding=kernel // 2)
        self.second = nn.Conv1d(after, after, kernel, padding=kernel // 2)
        self.norm_first, self.norm_second = nn.GroupNorm(groups, after), nn.GroupNorm(groups, after)
        self.modulation = nn.Linear(context_dim, 2 * after)
        self.residual = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[..., None].chunk(2, 1)
        inner = F.silu(self.norm_first(self.first(h))) * (1 + scale) + shift
        return self.residual(h) + F.silu(self.norm_second(self.second(inner)))
