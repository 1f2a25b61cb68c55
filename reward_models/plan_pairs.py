"""What plans are worth to a `PlanScore` in recorded situations: the teacher that answers about a planner's plans.

The scene is read back from the features that the planner sees, so that any plan score can label pairs of plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from diffdecide.features import GEOMETRY, SceneTokens
from diffdecide.plan import PlanRows
from diffdecide.preference import PlanScore, SituatedScore
from safety.dynamics import Dynamics
from safety.scene import Scene

SITUATION = ("ego", "tokens", "token_mask", "goal")
PlanScorer = Callable[[Tensor, Mapping[str, Tensor]], np.ndarray]


def scene_of(features: SceneTokens) -> Scene:
    """The scene that features were made of, in the agent's own frame (pose 0), without the objects left out of them."""
    vx, vy, rate = (float(value) for value in features.ego[:3])
    rows = np.asarray(features.tokens, dtype=np.float64)[np.asarray(features.mask)]
    column = {name: rows[:, index] for index, name in enumerate(GEOMETRY)}
    return Scene(
        state=np.array([0.0, 0.0, 0.0, vx, vy, rate]),
        positions=np.stack([column["x"], column["y"]], 1),
        velocities=np.stack([column["vx"] + vx, column["vy"] + vy], 1),
        kinds=rows[:, len(GEOMETRY) :].argmax(1) if len(rows) else np.zeros(0, dtype=int),
        radii=column["radius"],
        sigma=np.zeros(len(rows)),
    )


def plan_scorer(score: PlanScore, rows: PlanRows, dynamics: Dynamics) -> PlanScorer:
    """What `dpo.pair_plans` asks for: (plans [N, H, 2] in motor commands, situations) -> what each is worth [N]."""

    @torch.no_grad()
    def worth(plans: Tensor, situations: Mapping[str, Tensor]) -> np.ndarray:
        values = np.empty(len(plans))
        for index in range(len(plans)):
            scene = scene_of(SceneTokens(*(situations[n][index].numpy() for n in ("ego", "tokens", "token_mask"))))
            situation = {name: situations[name][index : index + 1] for name in SITUATION if name in situations}
            judge = score.at(situation) if isinstance(score, SituatedScore) else score
            actions = dynamics.command(rows.expand(plans[index : index + 1]))
            state = torch.as_tensor(scene.state, dtype=actions.dtype)
            values[index] = float(judge(scene, torch.as_tensor(dynamics.rollout(state, actions)), actions)[0])
        return values

    return worth
