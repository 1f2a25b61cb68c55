"""The backup-set filter for everything the tasks hold: moving obstacles, walls, touchable targets.

It stands around `safety.filters.SafetyFilter`, which knows discs that stand still, and adds:

- what a task charges for decides what is hard (Goal2's vases, Push1's hazards), and the button that is the goal may be
  touched;
- a wall is a disc of 10 km radius that touches it beside the agent: within 5 m a straight line to 1.3 mm;
- an obstacle that moves is met where it will be, with a radius that grows by what it may accelerate, and evaded by
  driving on where braking is no way out (`safety.evasion`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safety.backup import BackupSet
from safety.buttons import without_goal_button
from safety.coming import Coming, MotionConfig
from safety.constraints import Ball, HalfSpace
from safety.controllers.objective import HARD_KINDS
from safety.dynamics import Dynamics, dynamics_for
from safety.evasion import LENGTHS, Judge, Verdicts
from safety.filter_inputs import check_scene, checked_action, checked_plan
from safety.filters import FilterConfig, FilterReport, SafetyFilter
from safety.layout import EnvSpec
from safety.motion import turn_rates, unknown_speeds
from safety.scene import KIND_ID, KINDS, Scene

Floats = NDArray[np.float64]
WALL_RADIUS = 1e4  # m
_AT_ONCE = 12  # candidates judged together


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
        self._way_out: Floats | None = None  # actions [T, 2] by which the last step was safe

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
        self._way_out = None

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
        coming = self._coming(hard, soft)
        if coming is None:
            self._way_out = None
            return self._still.filter(hard, wanted, soft=soft, plan=plan)
        # A way out that was found before something came along says nothing now.
        self._still.reset()
        return self._evade(hard.state, wanted, coming, plan)

    def _prepared(self, scene: Scene, walls: Sequence[HalfSpace]) -> Scene:
        """A scene that holds just what is hard here, walls as large discs; all as "hazards" but for what turns."""
        hazards = KIND_ID["hazards"]
        index = scene.of_kind(*self.hard_kinds)
        if "buttons" in self.hard_kinds:
            index = without_goal_button(scene, index, gate=self.motion.goal_gate)
        position, kinds = scene.state[:2], scene.kinds[index]
        feet = [(np.asarray(w.normal), w.offset - float(w.margin)) for w in walls]
        centers = [position + (offset - normal @ position + WALL_RADIUS) * normal for normal, offset in feet]
        count = len(centers)
        still = np.hypot(scene.velocities[index, 0], scene.velocities[index, 1]) <= self.motion.slowest
        return Scene(
            state=scene.state,
            positions=np.concatenate([scene.positions[index], np.reshape(centers, (count, 2))]),
            velocities=np.concatenate([np.where(still[:, None], 0.0, scene.velocities[index]), np.zeros((count, 2))]),
            kinds=np.concatenate([np.where(turn_rates(kinds) != 0, kinds, hazards), np.full(count, hazards)]),
            radii=np.concatenate([scene.radii[index], np.full(count, WALL_RADIUS)]),
            sigma=np.concatenate([scene.sigma[index], np.zeros(count)]),
        )

    def _coming(self, scene: Scene, soft: Sequence[Ball]) -> Coming | None:
        """All obstacles within reach, if one of them moves; else None."""
        config, motion = self.config, self.motion
        wandering = unknown_speeds(scene.kinds, scene.velocities)
        fast = np.maximum(np.hypot(scene.velocities[:, 0], scene.velocities[:, 1]), wandering)
        horizon = self.dynamics.dt * config.backup_steps
        grown = scene.radii + config.kept(self.margin, scene.sigma)
        gap = np.hypot(*(scene.positions - scene.state[:2]).T) - grown
        speed = max(float(np.hypot(scene.state[3], scene.state[4])), self.dynamics.top_speed)
        if not ((gap < (speed + fast + 0.5 * motion.acceleration * horizon) * horizon) & (fast > 0)).any():
            return None
        # Ways out lead farther than a brake: what stands there counts too.
        longest = horizon + self.dynamics.dt * max(LENGTHS)
        near = gap < (speed + fast + 0.5 * motion.acceleration * longest * (fast > 0)) * longest
        zones = [np.asarray(ball.center, dtype=np.float64) for ball in soft]
        count = int(near.sum())
        return Coming(
            centers=np.concatenate([scene.positions[near], np.reshape(zones, (len(zones), 2))]),
            velocities=np.concatenate([scene.velocities[near], np.zeros((len(zones), 2))]),
            rates=np.concatenate([turn_rates(scene.kinds[near]), np.zeros(len(zones))]),
            wandering=np.concatenate([wandering[near], np.zeros(len(zones))]),
            motion=motion,
            radii=np.concatenate([grown[near], [float(ball.radius) + float(ball.margin) for ball in soft]]),
            hard=np.arange(count + len(zones)) < count,
        )

    def _evade(self, state: Floats, action: Floats, coming: Coming, plan: NDArray[np.floating] | None) -> FilterReport:
        """The nearest of many commands behind which some backup keeps clear of everything that moves and stands."""
        config, way_out = self.config, self._way_out
        self._way_out = None
        nominal = np.asarray(self.dynamics.effective(action), dtype=np.float64)
        gap = coming.gaps(state[None, None, :2], np.zeros(1))[0, 0]
        within = coming.hard & (gap < -config.recovery_depth)
        inside, level = bool(within.any()), np.minimum(gap, 0.0)
        judge = Judge(self.dynamics, self._backup, coming, level, config.tolerance, inside=within if inside else None)
        wanted = judge.commands(state, nominal[None])
        if wanted.keeps_all(config.tolerance)[0]:
            self._way_out = wanted.way_out(0, self.dynamics)
            return FilterReport(action, False, False, 0.0, wanted.lowest(0), 0.0, "pass")
        if plan is not None and not inside:
            meant = np.asarray(plan[: config.plan_steps], dtype=np.float64)
            kept = judge.manoeuvre(state, meant)
            if kept.keeps_all(config.tolerance)[0]:
                self._way_out = meant[1:]
                return FilterReport(action, False, False, 0.0, kept.lowest(0), 0.0, "plan")
        return self._search(state, nominal, judge, way_out, "recovery" if inside else "fallback")

    def _search(
        self, state: Floats, nominal: Floats, judge: Judge, way_out: Floats | None, if_lost: str
    ) -> FilterReport:
        """The nearest safe command; where none is safe the least bad, reported as infeasible and as `if_lost`."""
        tolerance = self.config.tolerance
        brakes = [self._backup.brake_command(state, align=align) for align in (False, True)]
        tried = np.vstack([self._grid, *brakes])
        tried = tried[np.argsort(((tried - nominal) ** 2).sum(1))]
        found = Verdicts.none()
        if way_out is not None and len(way_out):
            # What was a way out a step ago still is one, but for what was not known then.
            found = judge.manoeuvre(state, way_out)
            tried = np.vstack([self.dynamics.effective(way_out[0]), tried])
        kept = len(found.score)
        # Nearest first: what lies behind the first safe command need not be judged.
        for start in range(kept, len(tried), _AT_ONCE):
            batch = judge.commands(state, tried[start : start + _AT_ONCE])
            found = found.joined(batch)
            if batch.keeps_all(tolerance).any():
                break
        tried = tried[: len(found.score)]
        distance = np.sqrt(((tried - nominal) ** 2).sum(1))
        safe = found.score >= 0
        allowed = found.keeps_all(tolerance)
        if not allowed.any() and safe.any():
            # Soft constraints give way first, as little as possible.
            soft = np.where(safe, found.soft, -np.inf)
            allowed = soft >= soft.max() - 1e-3
        elif not safe.any():
            # The very best: what is given away here is given away again in every step, and adds up.
            allowed = found.score >= found.score.max() - 1e-5
        chosen = int(np.argmin(np.where(allowed, distance, np.inf)))
        if chosen < kept and way_out is not None:
            self._way_out = way_out[1:]
        else:
            self._way_out = found.way_out(chosen, self.dynamics)
        return FilterReport(
            action=np.asarray(self.dynamics.command(tried[chosen])),
            intervened=True,
            infeasible=not safe[chosen],
            delta=float(distance[chosen]),
            clearance=found.lowest(chosen),
            slack=max(0.0, float(-found.soft[chosen])),
            method="candidate" if safe[chosen] else if_lost,
        )
