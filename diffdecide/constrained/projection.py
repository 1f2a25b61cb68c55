"""The nearest plans that keep their constraints: sequential quadratic programs on the linearised constraints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecide.constrained.plan_constraints import HalfSpaces, PlanConstraints, violation
from safety.projection import project, project_soft

TOLERANCE = 1e-4  # in the constraints' units: what counts as kept


@dataclass(frozen=True)
class PlanProjectionResult:
    """Projected plans and what became of each.

    Attributes:
        plans: [B, H, D].
        violation: [B] depth of the worst violation that is left, in the constraints' units.
        relaxed: [B] bool, soft rows had to give way.
        infeasible: [B] bool, even the hard rows could not all be kept: the least violation was taken instead.
    """

    plans: Tensor
    violation: Tensor
    relaxed: Tensor
    infeasible: Tensor


def project_plans(
    plans: Tensor,
    constraints: PlanConstraints,
    *,
    iterations: int = 4,
    clip: float | None = None,
    active_rows: int = 48,
) -> PlanProjectionResult:
    """The nearest plans [B, H, D] (Euclidean, in plan coordinates) that keep the constraints.

    Exact in one iteration for linear constraints. Otherwise the constraints are linearised again at each answer, and
    it is always the original plan that is projected, so that the answer stays the nearest one, not only a feasible one
    (sequential quadratic programming; J. Nocedal, S. Wright, Numerical Optimization, 2006, ch. 18).

    Args:
        iterations: how often to linearise.
        clip: plans stay within [-clip, clip] as well.
        active_rows: the quadratic program holds this many of the tightest rows; the others are far from touching.

    Raises:
        ValueError: plans that are not finite, or shapes that do not fit.
    """
    if not bool(torch.isfinite(plans).all()):
        raise ValueError(f"plans must be finite, got NaN or infinite entries in shape {tuple(plans.shape)}")
    if iterations < 1 or active_rows < 1:
        raise ValueError(f"iterations and active_rows must be at least 1, got {iterations} and {active_rows}")
    original = plans if clip is None else plans.clamp(-clip, clip)
    result = original.clone()
    relaxed = torch.zeros(len(plans), dtype=torch.bool, device=plans.device)
    infeasible = relaxed.clone()
    left = violation(constraints, result)
    for _ in range(iterations):
        bad = torch.nonzero(left > TOLERANCE)[:, 0]
        if not len(bad):
            break
        rows = constraints.linearise(result[bad])
        moved, gave, none = nearest(original[bad].flatten(1), rows, clip, active_rows, result[bad].flatten(1))
        candidate = moved.reshape(result[bad].shape)
        after = violation(constraints, candidate)
        # A step on curved constraints may overshoot; one that makes things worse is not taken.
        better = after < left[bad]
        result[bad[better]] = candidate[better]
        left[bad[better]] = after[better]
        relaxed[bad], infeasible[bad] = gave, none
    # A linearisation may have no answer where the curved problem has one: what counts is what is left.
    infeasible &= left > TOLERANCE
    return PlanProjectionResult(result, left, relaxed, infeasible)


def nearest(
    x: Tensor, spaces: HalfSpaces, clip: float | None, active_rows: int, around: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The points [B, n] nearest to x [B, n] within all half-spaces: (points, relaxed [B], infeasible [B]).

    Hard rows that cannot hold together are met as far as possible and flagged; soft ones never displace them.
    """
    rows, bounds, hard = spaces
    batch, count, size = rows.shape
    if count == 1 and clip is None:
        return _onto_half_space(x, rows[:, 0], bounds[:, 0])
    hard = hard.to(rows.device)
    if count > active_rows:
        at = x if around is None else around
        length = rows.norm(dim=-1).clamp_min(1e-9)
        gap = torch.minimum(
            bounds - (rows @ at[..., None])[..., 0], bounds - (rows @ x[..., None])[..., 0]
        ) / length  # fmt: skip
        picked = gap.topk(active_rows, dim=1, largest=False).indices
        rows = rows.gather(1, picked[..., None].expand(-1, -1, size))
        bounds = bounds.gather(1, picked)
        is_hard = hard[picked]
    else:
        is_hard = hard.expand(batch, -1)
    inf = torch.full_like(bounds, float("inf"))
    box_rows, box_bounds = _box(x, clip)
    # Ranks differ from plan to plan once rows are picked: a row of the other rank is there without a bound.
    hard_bounds = torch.where(is_hard, bounds, inf)
    soft_bounds = torch.where(is_hard, inf, bounds)
    both = torch.cat([rows, box_rows], 1)
    first = project(x, both, torch.cat([bounds, box_bounds], 1))
    bad = torch.nonzero(~first.solved)[:, 0]
    answer, relaxed = first.x, torch.zeros(batch, dtype=torch.bool, device=x.device)
    infeasible = relaxed.clone()
    if not len(bad):
        return answer, relaxed, infeasible
    answer = answer.clone()
    strict = torch.cat([hard_bounds, box_bounds], 1)
    again = project_soft(x[bad], both[bad], strict[bad], rows[bad], soft_bounds[bad])
    answer[bad], relaxed[bad] = again.x, again.relaxed
    worst = bad[~again.solved]
    if len(worst):
        last = project_soft(x[worst], box_rows[worst], box_bounds[worst], rows[worst], hard_bounds[worst])
        answer[worst] = torch.where(last.solved[:, None], last.x, x[worst])
        infeasible[worst] = True
    return answer, relaxed, infeasible


def _box(x: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
    batch, size = x.shape
    if clip is None:
        return x.new_zeros(batch, 0, size), x.new_zeros(batch, 0)
    eye = torch.eye(size, dtype=x.dtype, device=x.device)
    return torch.cat([eye, -eye]).expand(batch, -1, -1), x.new_full((batch, 2 * size), clip)


def _onto_half_space(x: Tensor, row: Tensor, bound: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    squared = row.square().sum(-1)
    excess = (row * x).sum(-1) - bound
    stuck = (squared <= 1e-12) & (excess > 0)
    move = torch.where(squared > 1e-12, excess.clamp_min(0) / squared.clamp_min(1e-12), torch.zeros_like(excess))
    return x - move[:, None] * row, torch.zeros_like(stuck), stuck
