"""Constraint objects of `safety.constraints`, applied to whole plans [B, H, D] in the units of the constraints.

A plan holds normalised numbers; constraints are in metres and metres per second. What lies between is here: either the
rows of the plan are the constrained quantities themselves (`RowConstraints`), or the plan holds motor commands and the
constrained states follow from them by the agent's dynamics (`MotionConstraints`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from diffdecide.plan import PlanRows
from safety.constraints import Constraint
from safety.dynamics import Dynamics
from safety.scene import STATE_DIM

_STEP = 1e-4  # motor command; second-order error far below what the linearisation itself leaves out


class HalfSpaces(NamedTuple):
    """Rows A z <= b in plan coordinates, M over the whole plan."""

    A: Tensor  # [B, M, H * D]
    b: Tensor  # [B, M]
    hard: Tensor  # [M] bool: rows that never give way


class PlanConstraints(Protocol):
    """What a method needs to know about what is allowed."""

    def value(self, plans: Tensor) -> Tensor:
        """Signed clearance [B, V] of plans [B, H, D], >= 0 allowed, in the constraints' units; differentiable."""
        ...

    def linearise(self, plans: Tensor) -> HalfSpaces:
        """Half-spaces around the plans [B, H, D] that imply value >= 0 to first order."""
        ...


def violation(constraints: PlanConstraints, plans: Tensor) -> Tensor:
    """The depth [B] of the worst violation of each plan [B, H, D], 0 where all is kept."""
    return (-constraints.value(plans)).clamp_min(0).amax(1)


def total_violation(constraints: PlanConstraints, plans: Tensor) -> Tensor:
    """Mean depth [B] of violation over all rows: a cost that is zero exactly on the allowed plans; differentiable."""
    return (-constraints.value(plans)).clamp_min(0).mean(1)


def _checked(constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
    if not constraints:
        raise ValueError("plan constraints need at least one constraint, got none")
    for constraint in constraints:
        if not (hasattr(constraint, "value") and hasattr(constraint, "linearise")):
            raise ValueError(f"expected constraints with value() and linearise(), got {type(constraint).__name__}")
    return tuple(constraints)


class RowConstraints:
    """Every row of the plan, x = plan * scale + offset, is held to `constraints`.

    Args:
        constraints: act on features of a row by their `dims`.
        rows: H of the plans.
        offset, scale: [D] what undoes the normalisation; None for 0 and 1.
        dt: seconds between rows, the time at which moving constraints are met; row i is at i * dt.
    """

    def __init__(
        self,
        constraints: Sequence[Constraint],
        rows: int,
        *,
        offset: Tensor | None = None,
        scale: Tensor | None = None,
        dt: float = 0.0,
    ) -> None:
        self.constraints = _checked(constraints)
        if rows < 1:
            raise ValueError(f"RowConstraints.rows must be at least 1, got {rows}")
        self.rows = rows
        self.offset, self.scale = offset, scale
        self.times = torch.arange(rows, dtype=torch.float32) * dt

    def _states(self, plans: Tensor) -> Tensor:
        if plans.ndim != 3 or plans.shape[1] != self.rows:
            raise ValueError(f"plans must have shape [B, {self.rows}, D], got {tuple(plans.shape)}")
        for name in ("offset", "scale"):
            given = getattr(self, name)
            if given is not None and given.shape != plans.shape[-1:]:
                raise ValueError(f"{name} must have shape [{plans.shape[-1]}], got {tuple(given.shape)}")
        states = plans if self.scale is None else plans * self.scale.to(plans)
        return states if self.offset is None else states + self.offset.to(plans)

    def value(self, plans: Tensor) -> Tensor:
        """Values [B, H * N], row by row."""
        states, times = self._states(plans), self.times.to(plans)
        return torch.stack([constraint.value(states, times) for constraint in self.constraints], -1).flatten(1)

    def linearise(self, plans: Tensor) -> HalfSpaces:
        """Half-spaces, each of which touches one row of the plan."""
        states, times = self._states(plans), self.times.to(plans)
        batch, rows, dim = plans.shape
        parts, bounds, hard = [], [], []
        for constraint in self.constraints:
            slopes, bound = constraint.linearise(states, times)  # [B, H, m, D], [B, H, m]
            if self.offset is not None:
                bound = bound - (slopes * self.offset.to(plans)).sum(-1)
            if self.scale is not None:
                slopes = slopes * self.scale.to(plans)
            count = slopes.shape[2]
            block = plans.new_zeros(batch, rows, count, rows, dim)
            index = torch.arange(rows)
            block[:, index, :, index] = slopes.transpose(0, 1)
            parts.append(block.reshape(batch, rows * count, rows * dim))
            bounds.append(bound.reshape(batch, rows * count))
            hard.append(torch.full((rows * count,), constraint.rank == "hard"))
        return HalfSpaces(torch.cat(parts, 1), torch.cat(bounds, 1), torch.cat(hard))


class MotionConstraints:
    """Plans of motor commands in [-1, 1]; the states they lead to are held to `constraints`, between waypoints too.

    Args:
        dynamics: of the agent.
        rows: how plan rows cover control steps.
        state: [6] where the plan starts.
        constraints: on states [..., 6] (`safety.scene.STATE_DIM`); moving ones are met at the time of each state.
        stride: states are looked at every `stride`-th control step, and on the segments between.
    """

    def __init__(
        self, dynamics: Dynamics, rows: PlanRows, state: Tensor, constraints: Sequence[Constraint], *, stride: int = 3
    ) -> None:
        self.constraints = _checked(constraints)
        if state.shape != (STATE_DIM,):
            raise ValueError(f"state must have shape ({STATE_DIM},), got {tuple(state.shape)}")
        if not bool(torch.isfinite(state).all()):
            raise ValueError("state must be finite, got NaN or infinite entries")
        if not 1 <= stride <= rows.span:
            raise ValueError(f"stride must lie between 1 and the plan's {rows.span} steps, got {stride}")
        self.dynamics, self.rows, self.state, self.stride = dynamics, rows, state, stride
        self.times = torch.arange(stride, rows.span + 1, stride) * dynamics.dt

    def _check(self, plans: Tensor) -> None:
        if plans.ndim != 3 or plans.shape[1:] != (self.rows.rows, 2):
            raise ValueError(f"plans must have shape [B, {self.rows.rows}, 2], got {tuple(plans.shape)}")

    def states(self, plans: Tensor) -> Tensor:
        """States [B, T, 6] that are looked at; differentiable."""
        actions = self.dynamics.command(self.rows.expand(plans))
        return self.dynamics.rollout(self.state.to(plans), actions)[..., self.stride - 1 :: self.stride, :]

    def value(self, plans: Tensor) -> Tensor:
        """Values [B, T * N] on the segments that end at each looked-at state, the first one starting at `state`."""
        self._check(plans)
        states, times = self.states(plans), self.times.to(plans)
        first = self.state.to(plans).expand(len(plans), 1, STATE_DIM)
        before = torch.cat([first, states[:, :-1]], 1)
        earlier = torch.cat([times.new_zeros(1), times[:-1]])
        values = [c.segment_value(before, states, earlier, times) for c in self.constraints]
        # Where the agent stands no plan can change: the start of the first segment does not count.
        ends = [c.value(states[:, 0], times[0]) for c in self.constraints]
        firsts = [torch.where(c.value(first[:, 0], 0.0) < 0, e, v[:, 0]) for c, v, e in zip(
            self.constraints, values, ends, strict=True
        )]  # fmt: skip
        values = [torch.cat([f[:, None], v[:, 1:]], 1) for f, v in zip(firsts, values, strict=True)]
        return torch.stack(values, -1).flatten(1)

    def linearise(self, plans: Tensor) -> HalfSpaces:
        """Half-spaces through the linearised dynamics, at the looked-at states."""
        self._check(plans)
        batch, size = len(plans), plans.shape[1] * plans.shape[2]
        with torch.no_grad():
            states, times = self.states(plans), self.times.to(plans)
            flat = plans.reshape(batch, size)
            jacobian = self._jacobian(flat.double(), states.shape[1]).to(plans)  # [B, T, 6, n]
            parts, bounds, hard = [], [], []
            for constraint in self.constraints:
                slopes, bound = constraint.linearise(states, times)  # [B, T, m, 6], [B, T, m]
                rows = slopes @ jacobian  # [B, T, m, n]
                bound = bound - (slopes @ states[..., None])[..., 0] + (rows @ flat[:, None, :, None])[..., 0]
                parts.append(rows.flatten(1, 2))
                bounds.append(bound.flatten(1))
                hard.append(torch.full((bounds[-1].shape[1],), constraint.rank == "hard"))
        return HalfSpaces(torch.cat(parts, 1), torch.cat(bounds, 1), torch.cat(hard))

    def _jacobian(self, flat: Tensor, steps: int) -> Tensor:
        """Derivative [B, T, 6, n] of the states by plans [B, n] in float64, by differences in one batched roll-out.

        Steps go towards zero, so that at the motors' saturation the derivative is that of the side that still moves
        the agent. (Forward-mode autograd takes about four times as long here.)
        """
        batch, size = flat.shape
        step = torch.where(flat > 0, -_STEP, _STEP)
        moved = flat[:, None, :] + torch.diag_embed(step)
        around = torch.cat([flat[:, None, :], moved], 1).reshape(-1, self.rows.rows, 2)
        states = self.states(around).reshape(batch, size + 1, steps, STATE_DIM)
        return ((states[:, 1:] - states[:, :1]) / step[:, :, None, None]).permute(0, 2, 3, 1)
