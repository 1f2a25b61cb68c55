"""The backup-set filter for everything the tasks hold: moving obstacles, walls, touchable targets.

It stands around `safety.filters.SafetyFilter`, which knows discs that stand still, and adds:

- what a task charges for decides what is hard (Goal2's vases, Push1's hazards), and the button that is the goal may be
  touched;
- a wall is a disc of 10 km radius that touches it beside the agent: within 5 m a straight line to 1.3 mm;
- an obstacle that moves is met where it will be, with a radius that grows by what it may accelerate. Braking is no
  backup against something that comes along, so driving on with a constant command counts as one too ("evading").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety.backup import BackupSet
from safety.buttons import GOAL_GATE, without_goal_button
from safety.constraints import Ball, HalfSpace
from safety.controllers.objective import HARD_KINDS
from safety.dynamics import Dynamics, dynamics_for
from safety.filter_inputs import check_scene, checked_action, checked_plan
from safety.filters import FilterConfig, FilterReport, SafetyFilter
from safety.layout import EnvSpec
from safety.scene import KIND_ID, KINDS, Scene

Floats = NDArray[np.float64]
WALL_RADIUS = 1e4  # m
_AT_ONCE = 12  # candidates judged together
_HELD = np.array([(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)], dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """What is assumed of moving obstacles.

    Attributes:
        acceleration: m/s^2 by which one may change its velocity; gremlins go round at 0.3 m, 1 rad/s.
        slowest: m/s below which an obstacle counts as standing.
        horizon: s over which its motion is predicted; it stays where it is then.
        goal_gate: m, a button this near to the goal is the goal.
    """

    acceleration: float = 0.35
    slowest: float = 0.02
    horizon: float = 1.0
    goal_gate: float = GOAL_GATE

    def __post_init__(self) -> None:
        for name in ("acceleration", "slowest", "horizon", "goal_gate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"MotionConfig.{name} must be a finite number >= 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class _Discs:
    """Obstacles that may move, margins included."""

    centers: Floats  # [N, 2] m
    velocities: Floats  # [N, 2] m/s
    radii: Floats  # [N] m
    hard: NDArray[np.bool_]  # [N]

    def clearance(self, paths: Floats, times: Floats, acceleration: float) -> Floats:
        """Smallest clearance [C, N] of paths [C, T, 2], whose waypoints are passed at `times` [T] (s from now)."""
        time = times[:, None]
        moving = (np.hypot(self.velocities[:, 0], self.velocities[:, 1]) > 0).astype(np.float64)
        dx = paths[:, :, 0, None] - (self.centers[:, 0] + time * self.velocities[:, 0])
        dy = paths[:, :, 1, None] - (self.centers[:, 1] + time * self.velocities[:, 1])
        spread = 0.5 * acceleration * time**2 * moving
        return np.asarray((np.sqrt(dx * dx + dy * dy) - spread).min(1) - self.radii)


class MovingFilter:
    """One per environment. `margin` [m] is kept beyond the radius of every hard obstacle and from every wall."""

    def __init__(
        self,
        dynamics: Dynamics,
        *,
        margin: float = 0.03,
        config: FilterConfig | None = None,
        motion: MotionConfig | None = None,
        hard_kinds: Sequence[str] = HARD_KINDS,
    ) -> None:
        unknown = [kind for kind in hard_kinds if kind not in KIND_ID]
        if unknown:
            raise ValueError(f"hard_kinds must be among {', '.join(KINDS)}, got {unknown}")
        self._still = SafetyFilter(dynamics, margin=margin, config=config)
        self.dynamics, self.margin, self.config = dynamics, margin, self._still.config
        self.motion = motion or MotionConfig()
        self.hard_kinds = tuple(hard_kinds)
        self._backup = BackupSet(dynamics, steps=self.config.backup_steps)
        axis = np.linspace(-1, 1, self.config.grid)
        self._grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        steps = np.arange(0, self.config.backup_steps + 1, self._backup.stride)
        self._times = np.minimum((steps + 1) * dynamics.dt, self.motion.horizon)  # the path begins after one step

    @classmethod
    def for_spec(
        cls,
        spec: EnvSpec,
        *,
        margin: float = 0.03,
        config: FilterConfig | None = None,
        motion: MotionConfig | None = None,
    ) -> MovingFilter:
        """The filter of a task: what it charges for is hard.

        Raises:
            ValueError: the agent has no fitted dynamics, or the task has no geometry to filter by.
        """
        kinds = tuple(kind for kind in spec.costly if kind in KIND_ID)
        if not kinds and "sigwalls" not in spec.costly:
            raise ValueError(f"{spec.id} charges for nothing that has a place; it needs a learned filter")
        return cls(dynamics_for(spec.agent), margin=margin, config=config, motion=motion, hard_kinds=kinds)

    def reset(self) -> None:
        """Forget the last episode."""
        self._still.reset()

    def filter(
        self,
        scene: Scene,
        action: NDArray[np.floating],
        *,
        soft: Sequence[Ball] = (),
        walls: Sequence[HalfSpace] = (),
        plan: NDArray[np.floating] | None = None,
    ) -> FilterReport:
        """The nearest safe action to `action` [2]; `walls` are hard, in the scene's frame.

        `soft` and `plan` are those of `SafetyFilter.filter`.

        Raises:
            ValueError: as `SafetyFilter.filter`.
        """
        wanted, plan = checked_action(action), checked_plan(plan)
        check_scene(scene)
        hard = self._prepared(scene, walls)
        discs = self._coming(hard, soft)
        if discs is None:
            return self._still.filter(hard, wanted, soft=soft, plan=plan)
        # A way out that was found before something came along says nothing now.
        self._still.reset()
        return self._evade(hard.state, wanted, discs, plan)

    def _prepared(self, scene: Scene, walls: Sequence[HalfSpace]) -> Scene:
        """A scene that holds just what is hard here, all as "hazards", walls as large discs."""
        index = scene.of_kind(*self.hard_kinds)
        if "buttons" in self.hard_kinds:
            index = without_goal_button(scene, index, gate=self.motion.goal_gate)
        position = scene.state[:2]
        feet = [(np.asarray(w.normal), w.offset - float(w.margin)) for w in walls]
        centers = [position + (offset - normal @ position + WALL_RADIUS) * normal for normal, offset in feet]
        count = len(centers)
        still = np.hypot(scene.velocities[index, 0], scene.velocities[index, 1]) <= self.motion.slowest
        return Scene(
            state=scene.state,
            positions=np.concatenate([scene.positions[index], np.reshape(centers, (count, 2))]),
            velocities=np.concatenate([np.where(still[:, None], 0.0, scene.velocities[index]), np.zeros((count, 2))]),
            kinds=np.full(len(index) + count, KIND_ID["hazards"]),
            radii=np.concatenate([scene.radii[index], np.full(count, WALL_RADIUS)]),
            sigma=np.concatenate([scene.sigma[index], np.zeros(count)]),
        )

    def _coming(self, scene: Scene, soft: Sequence[Ball]) -> _Discs | None:
        """All obstacles within reach, if one of them moves; else None."""
        config, motion = self.config, self.motion
        fast = np.hypot(scene.velocities[:, 0], scene.velocities[:, 1])
        horizon = float(self._times[-1])
        grown = scene.radii + config.kept(self.margin, scene.sigma)
        gap = np.hypot(*(scene.positions - scene.state[:2]).T) - grown
        speed = max(float(np.hypot(scene.state[3], scene.state[4])), self.dynamics.top_speed)
        near = gap < (speed + fast + 0.5 * motion.acceleration * horizon * (fast > 0)) * horizon
        if not (near & (fast > 0)).any():
            return None
        zones = [np.asarray(ball.center, dtype=np.float64) for ball in soft]
        count = int(near.sum())
        return _Discs(
            centers=np.concatenate([scene.positions[near], np.reshape(zones, (len(zones), 2))]),
            velocities=np.concatenate([scene.velocities[near], np.zeros((len(zones), 2))]),
            radii=np.concatenate([grown[near], [float(ball.radius) + float(ball.margin) for ball in soft]]),
            hard=np.arange(count + len(zones)) < count,
        )

    def _evade(self, state: Floats, action: Floats, discs: _Discs, plan: NDArray[np.floating] | None) -> FilterReport:
        """The nearest of many commands behind which some backup keeps clear of everything that moves and stands."""
        tolerance = self.config.tolerance
        nominal = np.asarray(self.dynamics.effective(action), dtype=np.float64)
        gap = np.hypot(*(discs.centers - state[:2]).T) - discs.radii
        level = np.minimum(gap, 0.0)
        inside = bool((gap[discs.hard] < -self.config.recovery_depth).any())
        if inside:
            # Depth is only counted from here on: the command with the most room is wanted, not one that keeps it.
            level = np.zeros_like(level)
        wanted = self._best(state, nominal[None], discs, level)
        if wanted.min() >= -tolerance:
            return FilterReport(action, False, False, 0.0, float(wanted.min()), 0.0, "pass")
        if plan is not None:
            path = self.dynamics.rollout(state, plan[: self.config.plan_steps])
            times = np.minimum(np.arange(1, len(path) + 1) * self.dynamics.dt, self.motion.horizon)
            along = discs.clearance(path[None, :, :2], times, self.motion.acceleration)
            rest = self._backup.straight(path[-1:])
            later = np.minimum(times[-1] + self._times, self.motion.horizon)
            kept = np.minimum(along, discs.clearance(rest, later, self.motion.acceleration)) - level
            if kept.min() >= -tolerance:
                return FilterReport(action, False, False, 0.0, float(kept.min()), 0.0, "plan")
        brakes = [self._backup.brake_command(state, align=align) for align in (False, True)]
        tried = np.vstack([self._grid, *brakes])
        distance = np.sqrt(((tried - nominal) ** 2).sum(1))
        order = np.argsort(distance)
        tried, distance = tried[order], distance[order]
        # Nearest first: what lies behind the first safe command need not be judged.
        values = np.zeros((0, len(level)))
        for start in range(0, len(tried), _AT_ONCE):
            values = np.vstack([values, self._best(state, tried[start : start + _AT_ONCE], discs, level)])
            if (values.min(1) >= -tolerance).any():
                break
        distance = distance[: len(values)]
        worst = values.min(1)
        worst_hard = values[:, discs.hard].min(1, initial=np.inf)
        worst_soft = values[:, ~discs.hard].min(1, initial=np.inf)
        method = "candidate"
        if (worst >= -tolerance).any():
            allowed = worst >= -tolerance
        elif (worst_hard >= -tolerance).any():
            best = np.where(worst_hard >= -tolerance, worst_soft, -np.inf)
            allowed = best >= best.max() - 1e-3
        else:
            # The very best: what is given away here is given away again in every step, and adds up.
            allowed = worst_hard >= worst_hard.max() - 1e-5
            method = "recovery" if inside else "fallback"
        chosen = int(np.argmin(np.where(allowed, distance, np.inf)))
        return FilterReport(
            action=np.asarray(self.dynamics.command(tried[chosen])),
            intervened=True,
            infeasible=method != "candidate",
            delta=float(distance[chosen]),
            clearance=float(worst[chosen]),
            slack=max(0.0, float(-worst_soft[chosen])),
            method=method,
        )

    def _best(self, state: Floats, effective: Floats, discs: _Discs, level: Floats) -> Floats:
        """Clearance [C, N] beyond `level` of the best backup after each motor command in `effective` [C, 2]."""
        after = self.dynamics.rollout(state, self.dynamics.command(effective)[:, None, :])[:, 0]
        acceleration, times = self.motion.acceleration, self._times
        values = discs.clearance(self._backup.straight(after), times, acceleration) - level
        turns = [None] if self.dynamics.holonomic_momentum else []
        for held in [*_HELD, *turns]:
            bad = np.flatnonzero(values[:, discs.hard].min(1) < -self.config.tolerance)
            if not len(bad):
                break
            path = self._backup.aligned(after[bad]) if held is None else self._driven(after[bad], held)
            other = discs.clearance(path, times, acceleration) - level
            better = other[:, discs.hard].min(1) > values[bad][:, discs.hard].min(1)
            values[bad[better]] = other[better]
        return values

    def _driven(self, states: Floats, held: Floats) -> Floats:
        """Positions [C, T, 2] while one motor command is held, the start included."""
        stride = self._backup.stride
        actions = np.broadcast_to(self.dynamics.command(held), (len(states), self.config.backup_steps, 2))
        path = self.dynamics.rollout(states, actions)[:, stride - 1 :: stride, :2]
        return np.concatenate([states[:, None, :2], path], axis=1)
