"""From a pointer to metres: what a goal embedding asks for in the scene at hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffdecide.features import SceneTokens, token_kind
from safety.constraints import Ball
from safety.controllers.objective import HARD_KINDS, Objective, soft_obstacles
from safety.scene import Scene


def aim(scene: Scene, tokens: SceneTokens, logits: Tensor, constraints: Sequence[Ball] = ()) -> tuple[Objective, float]:
    """The objective that the pointer's `logits` [K] over the scene's tokens choose, and their probability for it.

    Only the pointer decides which object is the target. While it points at none that is in view the objective is the
    middle of what is, and the probability 0.

    Args:
        constraints: further balls to keep clear of, hard like hazards.
    """
    hard = scene.of_kind(*HARD_KINDS)
    centers, radii = scene.positions[hard], scene.radii[hard]
    if constraints:
        centers = np.vstack([centers, [np.asarray(ball.center) for ball in constraints]])
        radii = np.concatenate([radii, [float(ball.radius) for ball in constraints]])
    probability = torch.softmax(logits, -1).numpy()
    token = int(np.argmax(probability))
    kind = token_kind(tokens, token)
    found = kind == "goal" or kind.endswith("_zone")
    if found:
        index = int(scene.of_kind(kind)[0])
        target, radius = scene.positions[index], float(scene.radii[index])
    else:
        target = scene.positions.mean(0) if len(scene.positions) else scene.state[:2]
        radius = 0.1
    objective = Objective(
        target=np.asarray(target, dtype=np.float64),
        radius=radius,
        dwell=kind.endswith("_zone"),
        hard_centers=centers,
        hard_radii=radii,
        **soft_obstacles(scene, kind),
    )
    return objective, float(probability[token]) if found else 0.0
