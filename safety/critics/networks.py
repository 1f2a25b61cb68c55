"""Ensembles of multilayer perceptrons, all members in one batched product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EnsembleMLP(nn.Module):
    """E independent networks [B, inputs] -> [E, B, outputs], SiLU between layers.

    Args:
        inputs, outputs: widths.
        hidden: widths between.
        members: E.
        trained: False keeps the weights as buffers: a target network, saved but never touched by an optimizer.
        seed: of the initial weights; members differ.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: Sequence[int], members: int, *, trained: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = [inputs, *hidden, outputs]
        self.layers = len(sizes) - 1
        for index, (before, after) in enumerate(itertools.pairwise(sizes)):
            bound = 1 / math.sqrt(before)
            weight = (2 * torch.rand(members, before, after, generator=generator) - 1) * bound
            if index == self.layers - 1:
                weight = 0.1 * weight  # first predictions near zero: bootstrapping starts from nothing
            for name, value in ((f"weight{index}", weight), (f"bias{index}", torch.zeros(members, 1, after))):
                if trained:
                    self.register_parameter(name, nn.Parameter(value))
                else:
                    self.register_buffer(name, value)

    def tensors(self) -> list[Tensor]:
        """Weights and biases, layer by layer."""
        return [getattr(self, f"{kind}{index}") for index in range(self.layers) for kind in ("weight", "bias")]

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [E, B, outputs]."""
        out = x.expand(len(self.tensors()[0]), *x.shape)
        for index in range(self.layers):
            out = torch.baddbmm(getattr(self, f"bias{index}"), out, getattr(self, f"weight{index}"))
            if index < self.layers - 1:
                out = F.silu(out)
        return out

    @torch.no_grad()
    def follow(self, other: EnsembleMLP, rate: float) -> None:
        """Move a share `rate` towards the weights of `other`."""
        torch._foreach_lerp_(self.tensors(), [tensor.detach() for tensor in other.tensors()], rate)
