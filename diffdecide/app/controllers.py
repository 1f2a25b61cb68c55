"""The controllers of `safety.controllers` as policies: the rows that a learned planner is compared with."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.policy import Action
from safety.caution import DEFAULT_MARGIN

if TYPE_CHECKING:
    import gymnasium

    from safety.constraints import HalfSpace
    from safety.controllers.circle import CircleJudge
    from safety.controllers.objective import SubGoal
    from safety.layout import EnvSpec
    from safety.scene import Scene
    from safety.tasks.spec import TaskJudge, TaskSpec

CONTROLLERS = ("mpc", "proportional", "random")


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """Which controller, what it knows, and whether the filter stands behind it.

    Attributes:
        controller: one of `CONTROLLERS`.
        filtered: pass every action through `safety.filters.SafetyFilter`.
        guarded: somebody else's guard of the same margin stands behind it; the MPC plans for that.
        margin: metres that the filter keeps; what a task's caution adds comes on top, as for the agent.
        tour: visit all zones in a fixed order, whatever was asked.
    """

    controller: str = "mpc"
    filtered: bool = False
    guarded: bool = False
    margin: float = DEFAULT_MARGIN
    tour: bool = False

    def __post_init__(self) -> None:
        if self.controller not in CONTROLLERS:
            raise ValueError(f"controller must be one of {', '.join(CONTROLLERS)}, got {self.controller!r}")
        if not np.isfinite(self.margin) or self.margin < 0:
            raise ValueError(f"margin must be a finite number of metres >= 0, got {self.margin}")


class ControllerPolicy:
    """Sees observations only: the scene is decoded from the lidars and tracked."""

    def __init__(self, config: ControllerConfig | None = None) -> None:
        self.config = config or ControllerConfig()
        self._for: EnvSpec | None = None

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        """Begin an episode.

        Raises:
            ValueError: the agent has no fitted dynamics, or the task has no lidar.
        """
        if self._for != spec:  # the sensor's errors count too
            self._build(spec)
            self._for = spec
        self._tracker.reset()
        if self._controller is not None:
            self._controller.reset(seed=seed)
        if self._view is not None:
            self._view.reset()
        self._walls.reset()
        self._set_margin("normal" if "Zones" in spec.id else "rush")
        self._generator = np.random.default_rng(seed)
        self._steps = 0
        self._task: TaskSpec | None = None
        self._judge: TaskJudge | None = None
        if self.config.tour:
            from safety.tasks.spec import ZONES

            self._leg, self._legs, self._inside_for = 0, ZONES, 0

    def _build(self, spec: EnvSpec) -> None:
        from safety.controllers.mpc import MPCConfig, SamplingMPC
        from safety.controllers.proportional import ProportionalController
        from safety.dynamics import dynamics_for
        from safety.perception import LidarTracker
        from safety.tasks.driving import DrivingView
        from safety.walls import Walls

        config, dynamics = self.config, dynamics_for(spec.agent)
        if config.filtered and not spec.charges_for_hazards_only:
            raise ValueError(
                f"{spec.id} charges for {', '.join(spec.costly)}: a controller's own filter knows hazards alone, put "
                "a GuardedPolicy around it"
            )
        if config.tour and "Zones" not in spec.id:
            raise ValueError(f"{spec.id} has no zones to tour")
        self._spec, self._dynamics = spec, dynamics
        self._tracker = LidarTracker(spec)
        self._view = None if "Zones" in spec.id or config.controller == "random" else DrivingView(spec)
        self._walls = Walls(spec)
        self._controller: Any = None
        self._replan = 1
        if config.controller == "mpc":
            self._controller = SamplingMPC(dynamics, MPCConfig())
            self._replan = self._controller.config.replan
        elif config.controller == "proportional":
            self._controller = ProportionalController(dynamics)

    def _set_margin(self, caution: str) -> None:
        """The same margins as the agent's; what the MPC keeps without a filter is its own margin plus the caution's."""
        from safety.caution import PLAN_EXTRA, margin_for
        from safety.controllers.mpc import MPCConfig
        from safety.filters import SafetyFilter

        self._margin = margin_for(caution, self.config.margin)
        self._filter = SafetyFilter(self._dynamics, margin=self._margin)
        if self.config.controller == "mpc":
            behind = self.config.filtered or self.config.guarded
            own = self._margin + PLAN_EXTRA if behind else margin_for(caution, MPCConfig().margin)
            self._controller.config = replace(self._controller.config, margin=own)

    def assign(self, task: TaskSpec) -> None:
        """Take the task of this episode; called after `reset`."""
        from safety.tasks.spec import TaskJudge

        self._task, self._judge = task, TaskJudge(task)
        self._set_margin(task.caution)

    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        decoded = self._tracker.update(observation)
        scene = self._scene(decoded)
        report: dict[str, Any] = {}
        started = time.perf_counter()
        if self._controller is None:
            value = self._generator.uniform(-1, 1, size=self._spec.action_dim)
        else:
            value = np.asarray(self._controller.act(*self._errand(scene, observation)), dtype=np.float64)
            if self._steps % self._replan == 0:  # in between, the controller only reads the next action off its plan
                report["plan_ms"] = 1e3 * (time.perf_counter() - started)
        self._steps += 1
        if self.config.filtered:
            started = time.perf_counter()
            # The filter sees what an agent's filter sees, even where its controller sees more.
            result = self._filter.filter(decoded, value, soft=self._forbidden(decoded))
            report |= {
                "filter_ms": 1e3 * (time.perf_counter() - started),
                "intervened": result.intervened,
                "infeasible": result.infeasible,
                "clearance": result.clearance,
            }
            value = result.action
        return Action(value, report)

    def _scene(self, decoded: Scene) -> Scene:
        return decoded

    def _walls_around(self, scene: Scene, observation: np.ndarray) -> tuple[HalfSpace, ...]:
        return self._walls.decoded(scene, observation)

    def _errand(self, scene: Scene, observation: np.ndarray) -> tuple[Scene, SubGoal | CircleJudge]:
        """The scene to plan in and what the controller is asked to do there."""
        from safety.controllers.errand import errand
        from safety.controllers.objective import SubGoal

        if self._view is None or self._task is not None:
            return scene, self._sub_goal(scene)
        walls = self._walls_around(scene, observation)
        if self.config.controller == "mpc":
            return errand(self._view, scene, walls, margin=self._controller.config.margin)
        return self._view.see(scene, walls), SubGoal(target="goal")

    def _sub_goal(self, scene: Scene) -> SubGoal:
        from safety.controllers.objective import SubGoal
        from safety.scene import zones_around
        from safety.tasks.spec import VISIT_STEPS

        if self.config.tour:
            zone = self._legs[self._leg]
            self._inside_for = self._inside_for + 1 if zone in zones_around(scene) else 0
            if self._inside_for > VISIT_STEPS and self._leg + 1 < len(self._legs):
                self._leg, self._inside_for = self._leg + 1, 0
            return SubGoal(target=f"{self._legs[self._leg]}_zone", dwell=True)
        if self._task is None or self._judge is None:
            raise ValueError(f"{self._spec.id} has no goal besides its zones, and no task was assigned")
        verdict = self._judge.update(zones_around(scene))
        target = self._task.targets[min(verdict.current, len(self._task.targets) - 1)]
        return SubGoal(target=f"{target}_zone", dwell=True, avoid=tuple(f"{zone}_zone" for zone in self._task.avoid))

    def _forbidden(self, scene: Scene) -> list[Any]:
        from safety.constraints import Ball

        if self._task is None or self.config.tour:
            return []
        indices = scene.of_kind(*(f"{zone}_zone" for zone in self._task.avoid)) if self._task.avoid else ()
        return [Ball(scene.positions[i], float(scene.radii[i]), margin=self._margin, rank="soft") for i in indices]


class PrivilegedControllerPolicy(ControllerPolicy):
    """Sees the simulator's true scene: the ceiling. A filter behind it still sees the decoded one."""

    def bind(self, env: gymnasium.Env) -> None:
        """Take the environment whose state is read."""
        self._env = env

    def _scene(self, decoded: Scene) -> Scene:
        from safety import truth

        return truth.scene(self._env)

    def _walls_around(self, scene: Scene, observation: np.ndarray) -> tuple[HalfSpace, ...]:
        return self._walls.world()
