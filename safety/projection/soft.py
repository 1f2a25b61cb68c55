"""Projection where some rows may give way, and others never do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from safety.projection.problem import Array, Projection, Status, check
from safety.projection.project import project


@dataclass(frozen=True)
class SoftProjection(Projection):
    """A `Projection` (status and violation speak of the hard rows) and what the soft rows gave.

    slack: [..., m_soft] >= 0, how far each soft row is missed, in its own units; NaN where there is no answer.
    active: hard rows first, then soft ones. relaxed: [...] bool, the soft rows could not all be kept.
    """

    slack: Array
    relaxed: Array


def project_soft(
    x: Array,
    A_hard: Array,
    b_hard: Array,
    A_soft: Array,
    b_soft: Array,
    penalty: float = 1e4,
    *,
    weights: Array | None = None,
    tol: float = 1e-9,
) -> SoftProjection:
    """The nearest point that satisfies every hard row, and the soft ones as far as the hard ones leave room.

    First all rows are taken as hard; where that has an answer it is the answer, with no slack, whatever the penalty.
    Only elsewhere are soft rows relaxed:
    min sum_i w_i (z_i - x_i)^2 / 2 + sum_j (penalty s_j + s_j^2 / 2)  s.t.  A_hard z <= b_hard, A_soft z <= b_soft + s,
    s >= 0. Hard rows stay rows of that problem, so no slack ever displaces one. Where (z', s') has the least total
    slack possible, the answer's total slack exceeds it by at most (|z' - x|^2_w + |s'|^2) / (2 penalty), in practice
    mostly by nothing; the quadratic term shares slack among rows and makes the answer unique (exact penalties: J.
    Nocedal, S. Wright, Numerical Optimization, 2006, ch. 17.2). Completing the square makes this a projection too, of
    (x, -penalty), so it has the same solvers, statuses and gradients.

    x: [..., n]; A_hard: [..., m, n], b_hard: [..., m]; A_soft: [..., k, n], b_soft: [..., k]; any of m, k may be 0.
    weights: [..., n] > 0. Rows are taken in the units given: unit rows make slack metres. Status INFEASIBLE means that
    the hard rows alone have no answer. Raises ValueError as `project` does, and for a penalty that is not positive.
    """
    if not (np.isfinite(penalty) and penalty > 0):
        raise ValueError(f"penalty must be finite and positive, got {penalty}")
    tensors = [e for e in (x, A_hard, b_hard, A_soft, b_soft, weights) if isinstance(e, torch.Tensor)]
    if tensors:
        device = tensors[0].device
        x = torch.as_tensor(x, device=device)
        A_hard, b_hard, A_soft, b_soft = (
            torch.as_tensor(entry, device=device).double() for entry in (A_hard, b_hard, A_soft, b_soft)
        )
        weights = None if weights is None else torch.as_tensor(weights, device=device).double()
    else:
        x = np.asarray(x)
        A_hard, b_hard, A_soft, b_soft = (
            np.asarray(entry, dtype=np.float64) for entry in (A_hard, b_hard, A_soft, b_soft)
        )
        weights = None if weights is None else np.asarray(weights, dtype=np.float64)
    check(x, A_hard, b_hard, weights, "A_hard, b_hard")
    check(x, A_soft, b_soft, None, "A_soft, b_soft")
    return _solve(x, A_hard, b_hard, A_soft, b_soft, penalty, weights, tol)


def _solve(
    x: Array,
    A_hard: Array,
    b_hard: Array,
    A_soft: Array,
    b_soft: Array,
    penalty: float,
    weights: Array | None,
    tol: float,
) -> SoftProjection:
    lib = torch if isinstance(x, torch.Tensor) else np
    shapes = [x.shape[:-1], A_hard.shape[:-2], b_hard.shape[:-1], A_soft.shape[:-2], b_soft.shape[:-1]]
    if weights is not None:
        shapes.append(weights.shape[:-1])
    try:
        shape = tuple(np.broadcast_shapes(*(tuple(s) for s in shapes)))
    except ValueError as error:
        raise ValueError(f"batch shapes of x and the rows do not broadcast: {[tuple(s) for s in shapes]}") from error
    size, hard, soft = x.shape[-1], b_hard.shape[-1], b_soft.shape[-1]
    batch = int(np.prod(shape))

    def flat(entry: Array, *tail: int) -> Array:
        return lib.broadcast_to(entry, (*shape, *tail)).reshape(batch, *tail)

    x = flat(x, size)
    A = _join([flat(A_hard, hard, size), flat(A_soft, soft, size)])
    b = _join([flat(b_hard, hard), flat(b_soft, soft)])
    weights = None if weights is None else flat(weights, size)
    first = project(x, A, b, weights=weights, tol=tol)
    z, status, active = first.x, first.status, first.active
    relaxed = status != int(Status.SOLVED)
    if soft and bool(relaxed.any()):
        again = relaxed.nonzero()[:, 0] if isinstance(x, torch.Tensor) else np.flatnonzero(relaxed)
        part = _relax(x[again], A[again], b[again], soft, penalty, None if weights is None else weights[again], tol)
        found = (part.x[..., :size], part.status, part.active[..., : hard + soft])
        if isinstance(x, torch.Tensor):
            z, status, active = (
                whole.index_put((again,), new) for whole, new in zip((z, status, active), found, strict=True)
            )
        else:
            z, status, active = z.copy(), status.copy(), active.copy()
            for whole, new in zip((z, status, active), found, strict=True):
                whole[again] = new
        relaxed = relaxed & (status == int(Status.SOLVED))
    else:
        relaxed = relaxed & False
    known = (status == int(Status.SOLVED))[:, None]
    point = lib.where(known, z, x)
    excess = (A @ point[..., None].astype(A.dtype) if lib is np else A @ point[..., None].to(A))[..., 0] - b
    excess = excess.clip(0.0, None)
    violation = excess[:, :hard].max(-1, initial=0.0) if lib is np else _largest(excess[:, :hard])
    slack = lib.where(known, excess[:, hard:], float("nan"))
    return SoftProjection(
        x=z.reshape(*shape, size),
        status=status.reshape(shape),
        violation=violation.reshape(shape),
        active=active.reshape(*shape, hard + soft),
        slack=slack.reshape(*shape, soft),
        relaxed=relaxed.reshape(shape),
    )


def _relax(x: Array, A: Array, b: Array, soft: int, penalty: float, weights: Array | None, tol: float) -> Projection:
    """The relaxed problem as a projection of (x, -penalty) over (z, s); the last `soft` rows of A are the soft ones."""
    batch, count, size = A.shape
    below = np.vstack([np.zeros((count - soft, soft)), -np.eye(soft), -np.eye(soft)])  # [count + soft, soft]
    if isinstance(x, torch.Tensor):
        slack = torch.as_tensor(below, dtype=A.dtype, device=A.device).expand(batch, -1, -1)
        rows = torch.cat([torch.cat([A, A.new_zeros(batch, soft, size)], 1), slack], 2)
        bounds = torch.cat([b, b.new_zeros(batch, soft)], 1)
        target = torch.cat([x.double(), A.new_full((batch, soft), -penalty)], 1)
        scales = None if weights is None else torch.cat([weights, weights.new_ones(batch, soft)], 1)
        part = project(target, rows, bounds, weights=scales, tol=tol, method="daqp")
        return Projection(part.x.to(x.dtype), part.status, part.violation, part.active)
    rows = np.concatenate(
        [np.concatenate([A, np.zeros((batch, soft, size))], 1), np.broadcast_to(below, (batch, *below.shape))], 2
    )
    bounds = np.concatenate([b, np.zeros((batch, soft))], 1)
    target = np.concatenate([x.astype(np.float64), np.full((batch, soft), -penalty)], 1)
    scales = None if weights is None else np.concatenate([weights, np.ones((batch, soft))], 1)
    return project(target, rows, bounds, weights=scales, tol=tol, method="daqp")


def _join(parts: list[Array]) -> Array:
    return torch.cat(parts, 1) if isinstance(parts[0], torch.Tensor) else np.concatenate(parts, 1)


def _largest(excess: torch.Tensor) -> torch.Tensor:
    return excess.amax(-1) if excess.shape[-1] else excess.new_zeros(len(excess))
