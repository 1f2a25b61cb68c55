"""Which button is the goal: it may be touched, the others cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety.scene import KIND_ID, Scene

GOAL_GATE = 0.15  # m, a button this near to the goal is the goal


def without_goal_button(scene: Scene, index: NDArray[np.integer], *, gate: float = GOAL_GATE) -> NDArray[np.integer]:
    """Those of the objects `index` [N] that are not the button within `gate` [m] of the goal."""
    goals = scene.positions[scene.of_kind("goal")]
    if not len(goals) or not len(index):
        return index
    gap = np.linalg.norm(scene.positions[index][:, None] - goals[None], axis=-1).min(1)
    return index[~((scene.kinds[index] == KIND_ID["buttons"]) & (gap < gate))]
