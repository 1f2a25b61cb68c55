"""What a controller is sent out to do in any task that has geometry."""

from __future__ import annotations

from collections.abc import Sequence

from safety.constraints import HalfSpace
from safety.controllers.circle import CircleJudge
from safety.controllers.objective import SubGoal
from safety.scene import Scene
from safety.tasks.driving import DrivingView


def errand(
    view: DrivingView, scene: Scene, walls: Sequence[HalfSpace], *, margin: float
) -> tuple[Scene, SubGoal | CircleJudge]:
    """The scene to plan in and what to plan for; `walls` are kept `margin` [m] away from, negative is beyond them.

    A sampling MPC can be paid for going round as the Circle tasks do, so it is; all else is driving.
    """
    if len(scene.of_kind("circle")):
        return scene, CircleJudge(scene, walls, margin=margin)
    return view.see(scene, walls), SubGoal(target="goal")
