"""What a projection is asked and what it answers; checks, broadcasting and scaling."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import torch

Array: TypeAlias = Any  # np.ndarray or torch.Tensor
ZERO_ROW = 1e-12  # a row shorter than this is `0 z <= b`: no constraint, or one that nothing satisfies


class Status(IntEnum):
    """How the projection of one point ended."""

    SOLVED = 0  # x is the nearest point, all rows hold to the tolerance
    INFEASIBLE = 1  # no point satisfies all rows to the tolerance; x is NaN
    FAILED = 2  # the solver gave up and no other could decide; x is NaN


class InfeasibleError(ValueError):
    """Raised by `Projection.require` where a point has no projection."""


@dataclass(frozen=True)
class Projection:
    """The answer, of the type (numpy or torch) that was asked in.

    x: [..., n], the projections; NaN where the status is not SOLVED, so that an unsolved row can never pass for the
    input. status: [...] int8, see `Status`. violation: [...], max(A z - b, 0) in the caller's units, of the returned
    point (of the input where there is none). active: [..., m] bool, the rows that hold the point where it is.
    """

    x: Array
    status: Array
    violation: Array
    active: Array

    @property
    def solved(self) -> Array:
        """[...] bool."""
        return self.status == int(Status.SOLVED)

    @property
    def infeasible(self) -> Array:
        """[...] bool."""
        return self.status == int(Status.INFEASIBLE)

    def require(self) -> Array:
        """`x` if every row was solved, else raises InfeasibleError saying how many were not."""
        bad = int((self.status != int(Status.SOLVED)).sum())
        if bad:
            total = int(np.prod(self.status.shape))
            none = int(self.infeasible.sum())
            raise InfeasibleError(f"{bad} of {total} projections failed: {none} infeasible, {bad - none} undecided")
        return self.x


@dataclass(frozen=True)
class Scaled:
    """The same problems around the origin, with unit rows: min |y|^2 s.t. rows y <= bounds; z = x + y * scale.

    rows [B, m, n]; bounds [B, m] (+inf for rows that say nothing, -inf for `0 <= negative`); scale [B or 1, n], which
    is 1/sqrt(weights). length [B, m]: what a row was divided by (0 for zero rows).
    """

    rows: Array
    bounds: Array
    scale: Array | None
    length: Array


def check(x: Array, A: Array, b: Array, weights: Array | None, names: str = "A, b") -> None:
    """Raises ValueError, naming the input, unless x [..., n], A [..., m, n], b [..., m], weights [..., n] fit."""
    row_name, bound_name = (part.strip() for part in names.split(","))
    if x.ndim < 1:
        raise ValueError(f"x must have shape [..., n], got {tuple(x.shape)}")
    if A.ndim < 2 or A.shape[-1] != x.shape[-1]:
        wanted = f"[..., m, {x.shape[-1]}] for x of shape {tuple(x.shape)}"
        raise ValueError(f"{row_name} must have shape {wanted}, got {tuple(A.shape)}")
    if b.ndim < 1 or b.shape[-1] != A.shape[-2]:
        raise ValueError(f"{bound_name} must have shape [..., {A.shape[-2]}], one per row, got {tuple(b.shape)}")
    lib: Any = torch if isinstance(x, torch.Tensor) else np
    finite, nan = lib.isfinite, lib.isnan
    if not bool(finite(x).all()):
        raise ValueError(f"x must be finite, got NaN or infinite entries in shape {tuple(x.shape)}")
    if not bool(finite(A).all()):
        raise ValueError(f"{row_name} must be finite, got NaN or infinite entries in shape {tuple(A.shape)}")
    if bool((nan(b) | (b == -float("inf"))).any()):
        raise ValueError(f"{bound_name} must be finite or +inf (no constraint), got NaN or -inf")
    if weights is not None:
        if weights.ndim < 1 or weights.shape[-1] != x.shape[-1]:
            raise ValueError(f"weights must have shape [..., {x.shape[-1]}], got {tuple(weights.shape)}")
        if not bool(finite(weights).all()) or bool((weights <= 0).any()):
            raise ValueError("weights must be finite and positive")


def scale(x: Array, A: Array, b: Array, weights: Array | None) -> Scaled:
    """Shift to x, weigh, and divide rows by their length. x [B, n], A [B, m, n], b [B, m], all float64.

    Around the origin the precision is relative to the correction, not to where in the world the point is; with unit
    rows every tolerance is a distance.
    """
    factor = None if weights is None else weights**-0.5
    gap = b - (A @ x[..., None])[..., 0]
    rows = A if factor is None else A * factor[:, None, :]
    if isinstance(x, torch.Tensor):
        length = rows.square().sum(-1).sqrt()
        zero = length <= ZERO_ROW
        divisor = torch.where(zero, 1.0, length)
    else:
        length = np.sqrt(np.einsum("bmn,bmn->bm", rows, rows))
        zero = length <= ZERO_ROW
        divisor = np.where(zero, 1.0, length)
    rows, bounds = rows / divisor[..., None], gap / divisor
    if bool(zero.any()):
        rows = rows * ~zero[..., None]
        inf = float("inf")
        if isinstance(x, torch.Tensor):
            bounds = torch.where(zero, torch.where(b >= 0, inf, -inf).to(bounds), bounds)
            length = torch.where(zero, 0.0, length)
        else:
            bounds = np.where(zero, np.where(b >= 0, inf, -inf), bounds)
            length = np.where(zero, 0.0, length)
    return Scaled(rows, bounds, factor, length)
