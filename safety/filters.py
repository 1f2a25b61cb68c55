"""The backup-set filter: the nearest action after which a backup manoeuvre still keeps clear of everything.

For agents with inertia a one-step projection comes too late, and for the Point a one-step quadratic program can only
brake (its yaw does not appear in the second derivative of the position). Here an action is judged by what can still be
done after it (backup-set invariance; Gurriet et al., "A scalable safety critical control framework", 2020). The nearest
safe action comes from a quadratic program on the linearised backup, and where that fails from candidates.

Fail-closed: the raw action is passed on only after it was found safe; if nothing is, the least unsafe action is taken
and the report says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safety.backup import BackupSet
from safety.constraints import Ball
from safety.controllers.objective import HARD_KINDS
from safety.dynamics import Dynamics
from safety.filter_inputs import check_scene, checked_action, checked_plan
from safety.projection import project
from safety.scene import Scene

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """How the filter judges and searches; the operator's margin is an argument of the filter itself."""

    sigma_factor: float = 1.0  # metres of margin per metre of position uncertainty
    sigma_cap: float = 0.10  # m: an old, unconfirmed obstacle grows no further than this
    grid: int = 7  # candidates per motor command
    tolerance: float = 1e-4  # m: a clearance above -tolerance counts as kept
    recovery_depth: float = 2e-3  # m inside a margin from which the filter drives out instead of only not deeper
    recovery_steps: int = 8
    plan_steps: int = 30  # control steps of a caller's plan that count as its manoeuvre, a brake behind them
    backup_steps: int = 40

    def kept(self, margin: float, sigma: Floats) -> Floats:
        """Metres [N] kept from obstacles known to `sigma` [N] m.

        Never less than 1.5 times the depth at which recovery begins: a margin may be undercut by that depth, and by
        what one more step tolerates, before the agent is driven out; what costs may not be.
        """
        return max(margin, 1.5 * self.recovery_depth) + self.grown(sigma)

    def grown(self, sigma: Floats) -> Floats:
        """Metres [N] by which uncertainty alone widens obstacles known to `sigma` [N] m."""
        return np.asarray(np.minimum(self.sigma_factor * sigma, self.sigma_cap))

    def __post_init__(self) -> None:
        if self.grid < 2:
            raise ValueError(f"FilterConfig.grid must be at least 2, got {self.grid=}")
        for name in ("sigma_factor", "sigma_cap", "tolerance", "recovery_depth"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"FilterConfig.{name} must be >= 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class FilterReport:
    """What the filter did in one step."""

    action: Floats  # [2] the action to execute
    intervened: bool  # the executed action differs in effect from the requested one
    infeasible: bool  # no action kept all hard constraints: the least unsafe one was taken
    delta: float  # ‖change‖ in motor commands, each in [-1, 1]
    clearance: float  # m: what the backup after the executed action keeps beyond the margins (inf: nothing near)
    slack: float  # m by which soft constraints (an instruction's zones) had to be relaxed
    method: str  # "pass", "plan", "qp", "candidate", "way out", "recovery" or "fallback"


@dataclass(frozen=True)
class _Obstacles:
    """The discs within reach, in the frame of the scene."""

    centers: Floats  # [N, 2]
    radii: Floats  # [N] m, margins included
    level: Floats  # [N] m, <= 0: the clearance that must not be undercut
    hard: NDArray[np.bool_]  # [N]

    def clearance(self, paths: Floats) -> Floats:
        """Smallest clearance [C, N] of paths [C, T, 2] beyond the level."""
        return _path_clearance(paths, self.centers, self.radii) - self.level


class SafetyFilter:
    """One per environment. `margin` [m] is kept beyond the radius of every hard obstacle."""

    def __init__(self, dynamics: Dynamics, *, margin: float = 0.03, config: FilterConfig | None = None) -> None:
        if not np.isfinite(margin) or margin < 0:
            raise ValueError(f"the filter's margin must be a finite number of metres >= 0, got {margin}")
        self.dynamics = dynamics
        self.margin = margin
        self.config = config or FilterConfig()
        self._backup = BackupSet(dynamics, steps=self.config.backup_steps)
        axis = np.linspace(-1, 1, self.config.grid)
        self._grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        # Sideways momentum dies by drag alone: it carries the agent speed / drag further.
        glide = dynamics.dt / (1 - dynamics.decay) if dynamics.holonomic_momentum else 0.0
        self._reach_per_speed = max(glide, dynamics.stopping_distance(1.0))

        self.reset()

    def reset(self) -> None:
        """Forget the last episode."""
        # A manoeuvre [T, 2] in motor commands that was verified in the last step: its rest is a way out in this one.
        self._way_out: Floats | None = None

    def filter(
        self,
        scene: Scene,
        action: ArrayLike,
        *,
        soft: Sequence[Ball] = (),
        plan: NDArray[np.floating] | None = None,
    ) -> FilterReport:
        """The nearest safe action to `action` [2] in `scene`.

        `soft` are constraints of lower rank (zones that an instruction forbids): they hold too where possible, but
        never at the price of a hard one. `plan` are the actions [T, 2] that the caller means to take, `action` first:
        a manoeuvre that is judged like any other backup, so that a planner may swerve where braking comes too late.

        Raises:
            ValueError: action, plan or scene are not finite or of the wrong shape; see `safety.filter_inputs`.
        """
        action, plan = checked_action(action), checked_plan(plan)
        check_scene(scene)
        nominal = np.asarray(self.dynamics.effective(action))
        way_out = None if self._way_out is None or len(self._way_out) == 0 else self._way_out
        self._way_out = None
        centers, radii, hard = self._obstacles(scene, soft)
        if not len(centers):
            return FilterReport(action, False, False, 0.0, float("inf"), 0.0, "pass")
        # Whoever is already inside a margin need not be outside at once, but must not go deeper.
        offset = scene.state[:2] - centers
        current = np.sqrt((offset**2).sum(1)) - radii
        level = np.minimum(current, 0.0)

        if current.min() < -self.config.recovery_depth:
            return self._recover(scene.state, action, nominal, centers, radii, current, hard)
        obstacles = _Obstacles(centers, radii, level, hard)
        value = float(self._brakes(scene.state, nominal[None], obstacles).min())
        if value >= -self.config.tolerance:
            return FilterReport(action, False, False, 0.0, value, 0.0, "pass")
        if plan is not None:
            intended = np.asarray(self.dynamics.effective(plan[: self.config.plan_steps]))
            value = float(self._manoeuvre(scene.state, intended, obstacles).min())
            if value >= -self.config.tolerance:
                self._way_out = intended[1:]
                return FilterReport(action, False, False, 0.0, value, 0.0, "plan")
        return self._search(scene.state, nominal, obstacles, way_out)

    def _obstacles(self, scene: Scene, soft: Sequence[Ball]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Discs within reach: centres [N, 2], radii with margins [N], which are hard [N]."""
        index = scene.of_kind(*HARD_KINDS)
        config = self.config
        growth = config.kept(self.margin, scene.sigma[index])
        centers, radii = scene.positions[index], scene.radii[index] + growth
        hard = np.ones(len(index), dtype=bool)
        if soft:
            centers = np.vstack([centers, [np.asarray(ball.center, dtype=np.float64) for ball in soft]])
            radii = np.concatenate([radii, [float(ball.radius) + float(ball.margin) for ball in soft]])
            hard = np.concatenate([hard, np.zeros(len(soft), dtype=bool)])
        speed = float(np.hypot(scene.state[3], scene.state[4]))
        reach = (speed + self.dynamics.gain) * (self._reach_per_speed + self.dynamics.dt) + 0.03
        near = ((centers - scene.state[:2]) ** 2).sum(1) < (radii + reach) ** 2
        return centers[near], radii[near], hard[near]

    def _brakes(self, state: Floats, effective: Floats, obstacles: _Obstacles) -> Floats:
        """Clearance [C, N] beyond the level while braking straight after each motor command in `effective` [C, 2]."""
        after = self.dynamics.rollout(state, self.dynamics.command(effective)[:, None, :])[:, 0]
        return obstacles.clearance(self._backup.straight(after))

    def _values(self, state: Floats, effective: Floats, obstacles: _Obstacles) -> Floats:
        """Clearance [C, N] beyond the level of the better brake after each motor command in `effective` [C, 2]."""
        after = self.dynamics.rollout(state, self.dynamics.command(effective)[:, None, :])[:, 0]
        values = obstacles.clearance(self._backup.straight(after))
        if self.dynamics.holonomic_momentum:
            bad = np.flatnonzero(values.min(1) < -self.config.tolerance)
            if len(bad):
                turned = obstacles.clearance(self._backup.aligned(after[bad]))
                better = turned.min(1) > values[bad].min(1)
                values[bad[better]] = turned[better]
        return values

    def _manoeuvre(self, state: Floats, effective: Floats, obstacles: _Obstacles) -> Floats:
        """Clearance [N] beyond the level of motor commands [T, 2] with a straight brake behind them."""
        states = self.dynamics.rollout(state, self.dynamics.command(effective))
        path = np.concatenate([states[None, :, :2], self._backup.straight(states[-1:])], axis=1)
        return obstacles.clearance(path)[0]

    def _search(self, state: Floats, nominal: Floats, obstacles: _Obstacles, way_out: Floats | None) -> FilterReport:
        brakes = [self._backup.brake_command(state, align=align) for align in (False, True)]
        solution = self._quadratic_program(state, nominal, obstacles)
        tried = np.vstack([self._grid, *brakes] if solution is None else [self._grid, *brakes, solution])
        values = self._values(state, tried, obstacles)
        if way_out is not None:
            tried = np.vstack([tried, way_out[:1]])
            values = np.vstack([values, self._manoeuvre(state, way_out, obstacles)])
        worst = values.min(1)
        distance = np.sqrt(((tried - nominal) ** 2).sum(1))
        tolerance, hard = self.config.tolerance, obstacles.hard
        # Soft constraints give way first, as little as possible; hard ones only where nothing keeps them.
        worst_hard = values[:, hard].min(1, initial=np.inf)
        worst_soft = values[:, ~hard].min(1, initial=np.inf)
        if (worst >= -tolerance).any():
            chosen = int(np.argmin(np.where(worst >= -tolerance, distance, np.inf)))
            method = "qp" if solution is not None and chosen == len(self._grid) + 2 else "candidate"
        elif (worst_hard >= -tolerance).any():
            best = np.where(worst_hard >= -tolerance, worst_soft, -np.inf)
            chosen = int(np.argmin(np.where(best >= best.max() - 1e-3, distance, np.inf)))
            method = "candidate"
        else:
            chosen = int(np.argmin(np.where(worst_hard >= worst_hard.max() - 1e-3, distance, np.inf)))
            method = "fallback"
        if way_out is not None and chosen == len(tried) - 1:
            self._way_out = way_out[1:]
            method = "fallback" if method == "fallback" else "way out"
        return FilterReport(
            action=np.asarray(self.dynamics.command(tried[chosen])),
            intervened=True,
            infeasible=method == "fallback",
            delta=float(distance[chosen]),
            clearance=float(worst[chosen]),
            slack=max(0.0, float(-worst_soft[chosen])),
            method=method,
        )

    def _recover(
        self,
        state: Floats,
        action: Floats,
        nominal: Floats,
        centers: Floats,
        radii: Floats,
        current: Floats,
        hard: NDArray[np.bool_],
    ) -> FilterReport:
        """Out of a margin that perception or model error has let the agent into.

        Every command is held for a few steps, then braked; wanted is the nearest to the request that gains at least
        half of what the best one gains, without going deeper anywhere else. Hard constraints decide first.
        """
        tried = np.vstack([self._grid, nominal])
        held = np.repeat(self.dynamics.command(tried)[:, None, :], self.config.recovery_steps, axis=1)
        states = self.dynamics.rollout(state, held)
        rest = self._backup.straight(states[:, -1])
        way = np.concatenate([states[:, :, :2], rest], axis=1)
        through = _path_clearance(way, centers, radii)  # [C, N] lowest on the way
        end = _path_clearance(rest[:, -1:], centers, radii)
        decisive = hard if (current[hard] < -self.config.recovery_depth).any() else ~hard
        inside = decisive & (current < -self.config.recovery_depth)
        gain = np.minimum(end[:, inside], 0.01).min(1) - current[inside].min()
        # Depth below what is allowed: never deeper than now where inside, never inside where outside.
        excess = np.maximum(np.minimum(current, 0.0) - through, 0.0)
        score = gain - 3.0 * excess[:, decisive].max(1) - 0.5 * excess.max(1)
        distance = np.sqrt(((tried - nominal) ** 2).sum(1))
        lost = False
        if hard.any() and not inside[hard].any():
            # Out of a forbidden zone, but never at a hard constraint's price: only what keeps those is eligible.
            others = _Obstacles(centers[hard], radii[hard], np.minimum(current[hard], 0.0), hard[hard])
            value = self._values(state, tried, others).min(1)
            kept = value >= -self.config.tolerance
            lost = not kept.any()
            score = np.where(value >= value.max() - 1e-3 if lost else kept, score, -np.inf)
        good = score >= max(0.5 * score.max(), score.max() - 0.02)
        chosen = int(np.argmin(np.where(good, distance, np.inf))) if good.any() else int(np.argmax(score))
        slack = max(0.0, float(-current[~hard].min())) if (~hard).any() else 0.0
        return FilterReport(
            action=action if chosen == len(tried) - 1 else np.asarray(self.dynamics.command(tried[chosen])),
            intervened=chosen != len(tried) - 1,
            infeasible=bool(inside[hard].any()) or lost,
            delta=float(distance[chosen]),
            clearance=float(through[chosen].min()),
            slack=slack,
            method="recovery",
        )

    def _quadratic_program(self, state: Floats, nominal: Floats, obstacles: _Obstacles) -> Floats | None:
        """The projection [2] of `nominal` onto the linearised backup clearances; None where it has no solution.

        Each obstacle's clearance is linearised by finite differences, so that it is the same quantity that is checked.
        """
        step = 0.25
        signs = np.where(nominal > 0, -1.0, 1.0)  # towards the inside of the box
        around = nominal + np.array([[0.0, 0.0], [step * signs[0], 0.0], [0.0, step * signs[1]]])
        values = self._values(state, around, obstacles)
        gradient = (values[1:] - values[0]) / (step * signs[:, None])  # [2, N]
        rows = np.vstack([-gradient.T, np.eye(2), -np.eye(2)])
        bounds = np.concatenate([values[0] - gradient.T @ nominal, np.ones(4)])
        try:
            result = project(nominal, rows, bounds, method="daqp")
        except ValueError:
            return None
        if not bool(result.solved):
            return None
        return np.clip(np.asarray(result.x, dtype=np.float64).reshape(2), -1, 1)


def _path_clearance(paths: Floats, centers: Floats, radii: Floats) -> Floats:
    """Smallest clearance [C, N] of paths [C, T, 2] from discs; waypoints are close enough to need no segments."""
    dx = paths[:, :, 0, None] - centers[:, 0]
    dy = paths[:, :, 1, None] - centers[:, 1]
    return np.sqrt((dx * dx + dy * dy).min(1)) - radii
