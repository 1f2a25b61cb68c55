"""Any reward as a ranker or a guide of the planner. It says what is preferred: constraints and filter stay."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffdecide.guidance import Guide
from diffdecide.plan import PlanRows
from diffdecide.preference import PlanScore, Situation
from reward_models.model import RewardModel
from reward_models.plan_observations import PlanObservations
from reward_models.relative import RelativeReward
from safety.dynamics import Dynamics
from safety.layout import EnvSpec
from safety.scene import Scene


class LearnedPlanScore:
    """A reward model as a `PlanScore`: imagined observations and actions, summed over the plan. Differentiable.

    Args:
        model: trained on this environment.
        spec: the environment.
        prompt: [P] for a model that is conditioned on one.

    Raises:
        ValueError: the model belongs to another environment.
    """

    def __init__(self, model: RewardModel, spec: EnvSpec, *, prompt: Tensor | None = None) -> None:
        model.require_env(spec.id, spec.observation_dim)
        self.model = model.eval().requires_grad_(False)
        self.observe = PlanObservations(spec)
        self.prompt = None if prompt is None else prompt.reshape(1, -1)

    def __call__(self, scene: Scene, states: Tensor, actions: Tensor) -> Tensor:
        """Scores [C] of plans: states [C, T, 6] after each action, actions [C, T, 2] in the environment's bounds."""
        prompt = None if self.prompt is None else self.prompt.expand(len(states), -1)
        return self.model.predict(
            imagined(self.observe, scene, states), actions.to(states.dtype), prompt=prompt
        ).reward.sum(1)


def imagined(observe: PlanObservations, scene: Scene, states: Tensor) -> Tensor:
    """What would be observed before each action [C, T, o] of plans that lead to states [C, T, 6]."""
    now = torch.as_tensor(np.asarray(scene.state), dtype=states.dtype).expand(len(states), 1, 6)
    return observe(scene, torch.cat([now, states[:, :-1]], 1))


class RelativePlanScore:
    """A relative reward as a `PlanScore`: which of two planners a plan looks like. Differentiable.

    It judges plans as the planners denoise them, rows of motor commands in a situation, so the planner hands it the
    situation (`at`) before it is called.

    Args:
        reward: fitted to planners of this environment, with `rows` in its config.
        spec: the environment.

    Raises:
        ValueError: the reward belongs to other environments, or does not say how its rows become control steps.
    """

    def __init__(self, reward: RelativeReward, spec: EnvSpec, dynamics: Dynamics) -> None:
        config = reward.config
        if config.environments and spec.id not in config.environments:
            raise ValueError(
                f"this relative reward was fitted for {', '.join(config.environments)}, it cannot judge {spec.id}"
            )
        if config.rows is None:
            raise ValueError("this relative reward does not say how its rows become control steps (config.rows)")
        dense, strided, stride = config.rows
        self.rows = PlanRows(dense=dense, strided=strided, stride=stride)
        self.reward, self.dynamics = reward.eval().requires_grad_(False), dynamics
        self._encoded: Tensor | None = None

    def at(self, situation: Situation) -> RelativePlanScore:
        """This score in a situation: ego [1, E], tokens [1, K, F], token_mask [1, K], goal [1, G]."""
        placed = copy.copy(self)
        placed._encoded = self.reward.encode(situation)
        return placed

    def guide(self, scale: float) -> Guide:
        """See `RelativeReward.transport`: at a scale of 1 the base planner plans as the expert does."""
        self._require_situation()
        return self.reward.transport(self._encoded, scale)

    def __call__(self, scene: Scene, states: Tensor, actions: Tensor) -> Tensor:
        """Relative rewards [C] of plans: actions [C, T, 2] in the environment's bounds; the states follow from them."""
        self._require_situation()
        return self.reward.judge(self.rows.contract(self.dynamics.effective(actions)), self._encoded)

    def _require_situation(self) -> None:
        if self._encoded is None and self.reward.situation is not None:
            raise ValueError("a relative score needs the situation before it can judge: call at(situation)")


@dataclass(frozen=True)
class FunctionPlanScore:
    """A known reward as a `PlanScore`, such as the true one that a learned one is compared with.

    Attributes:
        function: (scene, states [C, T, 6], actions [C, T, 2]) -> [C], torch.
    """

    function: PlanScore

    def __call__(self, scene: Scene, states: Tensor, actions: Tensor) -> Tensor:
        return self.function(scene, states, actions)


def unhurried_plan(scene: Scene, states: Tensor, actions: Tensor, *, scale: Sequence[float] | None = None) -> Tensor:
    """The teacher `unhurried` on plans: minus squared action and half its squared change.

    Args:
        scale: the largest action, such as `Dynamics.saturation`; None is the largest of these plans.
    """
    if scale is None:
        largest = actions.abs().amax((0, 1), keepdim=True).clamp_min(1e-6)
    else:
        largest = torch.as_tensor(scale, dtype=actions.dtype)
    shares = actions / largest
    change = torch.diff(shares, dim=1, prepend=shares[:, :1])
    return -shares.square().sum((1, 2)) - 0.5 * change.square().sum((1, 2))


def goal_seeking_plan(scene: Scene, states: Tensor, actions: Tensor) -> Tensor:
    """Progress towards the goal in metres, and 1 for reaching it: the task's reward on plans.

    Raises:
        ValueError: the scene has no goal.
    """
    rows = scene.of_kind("goal")
    if len(rows) == 0:
        raise ValueError("goal_seeking_plan: the scene has no goal")
    goal = torch.as_tensor(np.asarray(scene.positions)[rows[0]], dtype=states.dtype)
    now = torch.as_tensor(np.asarray(scene.state)[:2], dtype=states.dtype)
    distance = (states[..., :2] - goal).square().sum(-1).add(1e-12).sqrt()
    nearest = distance.amin(1)
    reached = torch.sigmoid((float(scene.radii[rows[0]]) - nearest) / 0.01)
    return (now - goal).norm() - nearest + reached
