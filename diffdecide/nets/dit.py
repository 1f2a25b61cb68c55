"""DiT-1d: a transformer over the rows of a plan, modulated by time and context."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from diffdecide.nets.mlp import TimeEmbedding, check_denoiser_input, check_sizes


class DiT1d(ModelMixin, ConfigMixin):
    """Diffusion transformer with adaLN-zero blocks (Peebles and Xie 2023) on plan rows (Dong et al. 2024).

    Every block starts as the identity and the output at zero, which keeps deep stacks trainable.

    Args:
        horizon: H rows of a plan, each a token.
        dim: D values per row.
        context_dim: C.
        width, blocks, heads: size; the defaults give about 1.3 million parameters.
    """

    @register_to_config
    def __init__(
        self, horizon: int, dim: int, context_dim: int = 128, width: int = 192, blocks: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        check_sizes(horizon=horizon, dim=dim, context_dim=context_dim, width=width, blocks=blocks, heads=heads)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width=} and {heads=}")
        self.shape = (horizon, dim)
        self.time = TimeEmbedding(context_dim)
        self.enter = nn.Linear(dim, width)
        self.place = nn.Parameter(torch.randn(horizon, width, generator=torch.Generator().manual_seed(0)) * 0.02)
        self.stack = nn.ModuleList(_Block(width, context_dim, heads) for _ in range(blocks))
        self.final_modulation = nn.Linear(context_dim, 2 * width)
        self.leave = nn.Linear(width, dim)
        for layer in (self.final_modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Denoise x [B, H, D] at times t [B] or [1] under context [B, C] or [1, C]: [B, H, D]."""
        check_denoiser_input(x, t, context, self.shape)
        condition = F.silu(self.time(t) + context)
        h = self.enter(x) + self.place
        for block in self.stack:
            h = block(h, condition)
        scale, shift = self.final_modulation(condition)[:, None].chunk(2, -1)
        return self.leave(F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift)


class _Block(nn.Module):
    def __init__(self, width: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(context_dim, 6 * width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale_a, shift_a, gate_a, scale_f, shift_f, gate_f = self.modulation(condition)[:, None].chunk(6, -1)
        inner = F.layer_norm(h, h.shape[-1:]) * (1 + scale_a) + shift_a
        query, key, value = self.query_key_value(inner).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        h = h + gate_a * self.out(read)
        inner = F.layer_norm(h, h.shape[-1:]) * (1 + scale_f) + shift_f
        return h + gate_f * self.feed(inner)
