"""A task that the planner was not trained for, seen as driving to a goal and guarded by its own geometry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.planner_config import PlannerConfig
from safety.buttons import without_goal_button
from safety.guard import GeometricGuard
from safety.moving_filter import MovingFilter
from safety.tasks.driving import DrivingView

if TYPE_CHECKING:
    from safety.filters import FilterReport
    from safety.layout import EnvSpec
    from safety.scene import Scene

# More hazards than in any state of the training data: constant commands are ranked too, and plans that the filter
# would stop rank last. On selection seeds 5000-5003 the Point's return rose from 17.6 to 23.3 in Goal2.
ESCAPES, STOPPED_COST = True, 2.0


def for_other_task(config: Any) -> Any:
    """A planner's settings for tasks that it was not trained for; those of a cloned policy, which has none, as is.

    Only where there is something to rank, and a `stopped_cost` that was chosen stays.
    """
    if not isinstance(config, PlannerConfig) or config.candidates == 1:
        return config
    return replace(config, escapes=ESCAPES, stopped_cost=config.stopped_cost or STOPPED_COST)


class OtherTask:
    """One per environment. `see` every step, then `filter` what shall be done."""

    def __init__(self, spec: EnvSpec, *, margin: float) -> None:
        """
        Raises:
            ValueError: the task cannot be told as driving, or has no geometry to guard by.
        """
        self.spec = spec
        self._view = DrivingView(spec)
        self._guard = GeometricGuard(spec, margin=margin)

    def reset(self) -> None:
        """Begin an episode."""
        self._view.reset()
        self._guard.reset()

    def set_margin(self, margin: float) -> None:
        """Metres that the filter keeps from now on; what was seen is kept."""
        self._guard.filter = MovingFilter.for_spec(self.spec, margin=margin)

    def see(self, observation: np.ndarray) -> tuple[Scene, Scene] | None:
        """What stands where, and the same as a task of driving; None while nothing can be made of the observation.

        Raises:
            ValueError: the observation is of the wrong width.
        """
        scene = self._guard.see(observation)
        return None if scene is None else (scene, self._view.see(scene, self._guard.walls))

    def filter(self, action: np.ndarray, plan: np.ndarray | None = None) -> FilterReport:
        """The safe action nearest to `action` [2] after the last observation; `plan` [T, 2] is what is meant.

        After an observation that nothing could be made of it brakes, whatever the action.
        """
        return self._guard.decide(action, plan=plan)

    def costs(self, scene: Scene) -> bool:
        """Whether the agent stands in `scene`, as it was seen last, where the task charges for it."""
        index = without_goal_button(scene, scene.of_kind(*self._guard.filter.hard_kinds))
        position = scene.state[:2]
        gaps = np.linalg.norm(scene.positions[index] - position, axis=1) - scene.radii[index]
        beyond = [float(np.asarray(wall.normal) @ position) - float(wall.offset) for wall in self._guard.walls]
        return bool((gaps <= 0).any()) or any(gap > 0 for gap in beyond)
