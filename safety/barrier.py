"""A constraint from any differentiable function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from safety.constraint_arrays import Array, check_rank, like, minimum, number, pick
from safety.constraint_types import Linearisation, Rank


@dataclass(frozen=True)
class Barrier:
    """Any differentiable function: fn(x) >= 0 is allowed (metres or m/s, as the function says).

    fn: torch, x [..., F] -> [...], each entry depending on its own x only. `linearise` is its first-order expansion by
    autograd; where the gradient vanishes the row is zero, and a projection then reports infeasible if the value is
    negative, since first order knows no way out. `segment_value` samples `samples` points per segment: not exact.
    """

    fn: Callable[[torch.Tensor], torch.Tensor]
    margin: float = 0.0
    rank: Rank = "hard"
    samples: int = 9

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise ValueError(f"Barrier.fn must be callable, got {type(self.fn).__name__}")
        object.__setattr__(self, "margin", number("Barrier.margin", self.margin))
        check_rank("Barrier.rank", self.rank)
        if self.samples < 2:
            raise ValueError(f"Barrier.samples must be >= 2, got {self.samples}")

    def _evaluate(self, x: torch.Tensor) -> torch.Tensor:
        out = self.fn(x)
        if not isinstance(out, torch.Tensor) or out.shape != x.shape[:-1]:
            got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise ValueError(f"Barrier.fn must return a tensor {tuple(x.shape[:-1])} for x {tuple(x.shape)}, got {got}")
        if not bool(torch.isfinite(out).all()):
            raise ValueError(f"Barrier.fn returned NaN or infinite values for x of shape {tuple(x.shape)}")
        return out - self.margin

    def value(self, x: Array, t: Array | float = 0.0) -> Array:
        """fn(x) - margin [...] at x [..., F]."""
        point = pick("Barrier", x, (0,), whole=True)
        if isinstance(point, torch.Tensor):
            return self._evaluate(point)
        return like(point, self._evaluate(torch.from_numpy(np.ascontiguousarray(point))))

    def linearise(self, x: Array, t: Array | float = 0.0) -> Linearisation:
        """First-order expansion at x, detached from its graph: A [..., 1, F], b [..., 1]."""
        point = pick("Barrier", x, (0,), whole=True)
        tensor = point if isinstance(point, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(point))
        with torch.enable_grad():
            leaf = tensor.detach().clone().requires_grad_(True)
            out = self._evaluate(leaf)
            if not out.requires_grad:
                raise ValueError("Barrier.fn must be differentiable in x: its value does not depend on x")
            (gradient,) = torch.autograd.grad(out.sum(), leaf)
        bound = out.detach() - (gradient * leaf.detach()).sum(-1)
        return Linearisation(like(point, -gradient[..., None, :]), like(point, bound[..., None]))

    def segment_value(self, x0: Array, x1: Array, t0: Array | float = 0.0, t1: Array | float = 0.0) -> Array:
        """The smallest of `samples` values [...] between x0 and x1 [..., F], both ends included."""
        result = self.value(x0, t0)
        for part in np.linspace(0.0, 1.0, self.samples)[1:]:
            result = minimum(result, self.value(x0 + float(part) * (x1 - x0), t1))
        return result
