"""The whole guard of one environment: observation and wanted action in, safe action and report out.

Perception, memory, walls and the filter in one object, so that anything that acts (a PPO policy, a language model, a
person with a joystick) can be put in front of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from safety.claims import ClaimedObstacles
from safety.constraints import HalfSpace
from safety.filters import FilterConfig, FilterReport
from safety.layout import EnvSpec
from safety.moving_filter import MovingFilter
from safety.perception import LidarTracker
from safety.scene import Scene
from safety.scene_memory import SceneMemory
from safety.surprise import Surprise
from safety.walls import Walls


class Guard(Protocol):
    """What `safety.wrappers` puts between a policy and an environment."""

    def reset(self) -> None:
        """Begin an episode."""
        ...

    def guard(self, observation: np.ndarray, action: np.ndarray) -> FilterReport:
        """The report on `action` [A] after `observation` [O]; its `.action` is what to execute."""
        ...


class GeometricGuard:
    """Guards by geometry, decoded from lidar or read from the simulator, by the same filter.

    Observations that are not finite never reach the tracker: the guard then brakes on the last scene and reports the
    step as infeasible ("blind").
    """

    def __init__(
        self,
        spec: EnvSpec,
        *,
        margin: float = 0.03,
        config: FilterConfig | None = None,
        env: Any = None,
        memory: bool = True,
    ) -> None:
        """
        Args:
            spec: of the environment.
            margin: m kept beyond the radius of whatever costs.
            env: read the simulator's ground truth of this environment instead of decoding the lidars.
            memory: keep obstacles that vanish from the decoded scene for a while.

        Raises:
            ValueError: the task has no geometry, the agent no fitted dynamics, or the margin is not a number >= 0.
        """
        self.spec = spec
        self.filter = MovingFilter.for_spec(spec, margin=margin, config=config)
        self._env = env
        self._tracker = LidarTracker(spec) if env is None else None
        self._memory = SceneMemory(self.filter.hard_kinds, spec.dt) if memory and env is None else None
        self._claims = ClaimedObstacles(spec, self.filter.hard_kinds) if env is None else None
        # A body with momentum of its own goes on as it was going; one that rolls is at the mercy of its wheels.
        self._surprise = None if self.filter.dynamics.holonomic_momentum else Surprise(self.filter.dynamics)
        self._walls = Walls(spec)
        self.scene: Scene | None = None
        self.walls: tuple[HalfSpace, ...] = ()  # in the scene's frame
        self._sees = False

    def reset(self) -> None:
        """Begin an episode: forget all that was seen."""
        if self._tracker is not None:
            self._tracker.reset()
        if self._memory is not None:
            self._memory.reset()
        self._walls.reset()
        self.filter.reset()
        if self._surprise is not None:
            self._surprise.reset()
        self.scene, self.walls, self._sees = None, (), False

    def guard(
        self,
        observation: NDArray[np.floating],
        action: NDArray[np.floating],
        *,
        plan: NDArray[np.floating] | None = None,
    ) -> FilterReport:
        """The nearest safe action; `plan` [T, 2] is what the caller means to do, as in `SafetyFilter.filter`.

        Raises:
            ValueError: the action is not finite or of the wrong shape.
        """
        self.see(observation)
        return self.decide(action, plan=plan)

    def see(self, observation: NDArray[np.floating]) -> Scene | None:
        """What stands where after `observation` [O], once per step; None while nothing can be made of it."""
        self._sees = False  # also where the next line raises
        self._sees = self._look(np.asarray(observation, dtype=np.float64))
        if self._surprise is not None and self._sees and self.scene is not None:
            self._surprise.seen(self.scene.state)
        return self.scene if self._sees else None

    def decide(self, action: NDArray[np.floating], *, plan: NDArray[np.floating] | None = None) -> FilterReport:
        """The nearest safe action by what `see` saw last; for those who plan on that scene first.

        Raises:
            ValueError: as `guard`.
        """
        if not self._sees or self.scene is None:
            return self._blind()
        if self._surprise is None:
            return self.filter.filter(self.scene, action, walls=self.walls, plan=plan)
        scene, walls = self._with_room(self.scene, self._surprise.room)
        report = self.filter.filter(scene, action, walls=walls, plan=plan)
        self._surprise.expect(scene.state, report.action)
        return report

    def _with_room(self, scene: Scene, room: float) -> tuple[Scene, tuple[HalfSpace, ...]]:
        """Obstacles and walls wider by `room` [m], as far as the agent is not inside then: it comes no nearer, but is
        not driven out in haste either, which would make the wheels slip again."""
        if room <= 0:
            return scene, self.walls
        position, margin = scene.state[:2], self.filter.margin
        gaps = np.linalg.norm(scene.positions - position, axis=1) - scene.radii
        gaps -= self.filter.config.kept(margin, scene.sigma)
        walls = []
        for wall in self.walls:
            gap = float(wall.offset) - float(np.asarray(wall.normal) @ position) - float(wall.margin) - margin
            walls.append(replace(wall, margin=wall.margin + float(np.clip(gap, 0, room))))
        return replace(scene, sigma=scene.sigma + np.clip(gaps, 0, room)), tuple(walls)

    def _look(self, observation: NDArray[np.float64]) -> bool:
        """Take the scene and the walls from `observation`; False if it tells nothing."""
        if self._tracker is None:
            from safety import truth

            scene = truth.scene(self._env)
            if not (np.isfinite(scene.state).all() and np.isfinite(scene.positions).all()):
                return False  # the physics diverged
            self.scene, self.walls = scene, self._walls.world()
            return True
        if not np.isfinite(observation).all():
            return False
        scene = self._tracker.update(observation)
        known = scene if self._memory is None else self._memory.recall(scene)
        self.scene = known if self._claims is None else self._claims.added(known, observation)
        self.walls = self._walls.decoded(scene, observation)
        return bool(self.walls) or not self._walls.present  # walls that nobody has seen yet could be anywhere

    def _blind(self) -> FilterReport:
        """Brake: nothing else is known to be safe without eyes."""
        dynamics = self.filter.dynamics
        state = np.zeros(6) if self.scene is None else self.scene.state
        thrust = float(np.clip(-dynamics.decay * float(dynamics.forward_speed(state)) / dynamics.gain, -1, 1))
        command = dynamics.motors(np.float64(thrust), np.float64(0.0))
        action = np.asarray(dynamics.command(command), dtype=np.float64)
        if self.scene is not None:
            # Dead reckoning, so that the next blind step brakes from the speed that is left.
            moved = dynamics.rollout(self.scene.state, action[None])[0]
            self.scene = replace(self.scene, state=np.asarray(moved))
        return FilterReport(action, True, True, float("nan"), float("-inf"), 0.0, "blind")
