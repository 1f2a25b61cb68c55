"""What is preferred among plans: scores that rank the candidates and steer the sampler.

A preference chooses among plans; it never stands in for a constraint. Candidates that come too close keep their full
price, the projection and the filter stay, and a score can move a candidate's cost by a bounded amount only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from diffdecide.guidance import Guide
from diffdecide.plan import PlanRows
from safety.dynamics import Dynamics, dynamics_for
from safety.scene import Scene

PlanScore = Callable[[Scene, Tensor, Tensor], Tensor]  # scene, states [C, T, 6], actions [C, T, 2] -> [C]
Situation = Mapping[str, Tensor]  # ego [1, E], tokens [1, K, F], token_mask [1, K], goal [1, G]
LIMIT = 3.0  # standard deviations: beyond them a score counts no more


@runtime_checkable
class SituatedScore(Protocol):
    """A score that looks at the situation as the planner's networks see it, such as a network on their features."""

    def at(self, situation: Situation) -> PlanScore: ...


@runtime_checkable
class GuidingScore(Protocol):
    """A score that knows a better guide than the gradient of its value."""

    def guide(self, scale: float) -> Guide: ...


@dataclass(frozen=True, kw_only=True)
class Preference:
    """A score with its strength.

    Attributes:
        score: scene, states [C, T, 6] after each action, actions [C, T, 2] in the environment's bounds -> [C], torch,
            higher is better. It must be differentiable where `guidance` is used.
        weight: how much a candidate that is one standard deviation better than the mean candidate gains, in the units
            of the plan cost (about metres of way).
        guidance: scale of the gradient guide, see `diffdecide.guidance`; 0 ranks only.
    """

    score: PlanScore
    weight: float = 0.1
    guidance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("weight", "guidance"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"Preference.{name} must be finite and >= 0, got {value}")

    def at(self, situation: Situation) -> Preference:
        """This preference in a situation; the same one where the score does not ask for it."""
        return replace(self, score=self.score.at(situation)) if isinstance(self.score, SituatedScore) else self

    def gain(self, scene: Scene, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """What to take off the candidates' costs, [C]: within ± `LIMIT` times the weight, 0 on average."""
        return standardised(rank(self.score, scene, states, actions), self.weight)


def standardised(values: np.ndarray, weight: float) -> np.ndarray:
    """Weight times the deviations [C] of `values` from their mean in standard deviations, cut off at `LIMIT`."""
    spread = values.std()
    if spread < 1e-9:
        return np.zeros(len(values))
    return weight * np.clip((values - values.mean()) / spread, -LIMIT, LIMIT)


def rank(score: PlanScore, scene: Scene, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Scores [C] of candidate plans [C, T, 6] and [C, T, 2], higher is better.

    A plan whose score is not finite gets the lowest one: a reward must not decide by an overflow.
    """
    with torch.no_grad():
        values = score(scene, *(torch.as_tensor(np.asarray(a), dtype=torch.float32) for a in (states, actions)))
    values = values.double().numpy()
    finite = np.isfinite(values)
    return np.where(finite, values, values[finite].min() if finite.any() else 0.0)


def score_guide(
    score: PlanScore,
    scene: Scene,
    rows: PlanRows,
    agent: str | Dynamics,
    *,
    scale: float = 0.1,
    normalise: bool = True,
) -> Guide:
    """A guide for `sampling.sample`: the gradient of the score through the roll-out of the plan.

    Args:
        scene: what the plans start from; make a new guide for each plan.
        rows: how a plan's H rows of motor commands become control steps.
        scale, normalise: see `diffdecide.guidance.Guide`; a `GuidingScore` has its own rule.
    """
    if isinstance(score, GuidingScore):
        return score.guide(scale)
    dynamics = dynamics_for(agent) if isinstance(agent, str) else agent
    state = torch.as_tensor(np.asarray(scene.state), dtype=torch.float32)

    def objective(clean: Tensor, t: int) -> Tensor:
        actions = dynamics.command(rows.expand(clean))
        return score(scene, torch.as_tensor(dynamics.rollout(state, actions)), torch.as_tensor(actions))

    return Guide(objective, scale, normalise)
