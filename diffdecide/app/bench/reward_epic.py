"""EPIC distances of a learned reward: to the task's own, to a reward from noisier labels, to one that means nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffdecide.data.episode import Episode
from reward_models import judging
from reward_models.model import RewardModel
from safety.layout import EnvSpec

GOAL_RADIUS = 0.3  # m, of the built-in goal tasks


def task_reward(spec: EnvSpec) -> judging.Reward | None:
    """The reward of a built-in goal task, from what is observed; None for another task.

    Metres that the agent comes nearer in the step, foreseen by the velocimeter (off by 0.3 mm), and 1 where the goal is
    reached. Beyond the lidar's range it is 0.
    """
    layout, reach = spec.layout, spec.lidar_max_dist
    if layout is None or reach is None or "Goal" not in spec.id or "goal_lidar" not in layout:
        return None
    ring, velocity = layout["goal_lidar"], layout["velocimeter"]

    def reward(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        values = np.asarray(observations[:, ring], np.float64)
        bins = values.shape[1]
        index = values.argmax(1)
        around = (np.arange(bins) - index[:, None] + bins // 2) % bins - bins // 2
        angle = (np.arange(bins) + 0.5) * (2 * np.pi / bins)
        sides = (values * (np.abs(around) <= 1)) @ np.stack([np.cos(angle), np.sin(angle)], 1)
        sides /= np.maximum(np.linalg.norm(sides, axis=1, keepdims=True), 1e-9)
        nearer = spec.dt * (observations[:, velocity][:, :2] * sides).sum(1)
        seen = values.max(1) > 0
        after = reach * (1 - values.max(1)) - nearer
        return np.where(seen, nearer + (after < GOAL_RADIUS), 0.0)

    return reward


def epic_distances(
    model: RewardModel, other: RewardModel, episodes: Sequence[Episode], spec: EnvSpec, *, seed: int
) -> dict[str, float]:
    """Distances of `model` over the steps of `episodes`.

    Args:
        other: learned from noisier comparisons of the same teacher.
    """
    observations = np.concatenate([episode.observations for episode in episodes])
    actions = np.concatenate([episode.actions for episode in episodes])
    direction = np.random.default_rng((seed, 12)).normal(size=observations.shape[1] + actions.shape[1])

    def unrelated(obs: np.ndarray, act: np.ndarray) -> np.ndarray:
        return np.concatenate([obs, act], 1) @ direction

    rewards: dict[str, judging.Reward | None] = {
        "to the task's reward": task_reward(spec),
        "to a model from labels with 10 % noise": judging.step_reward(other),
        "to an unrelated linear reward": unrelated,
    }
    options: dict[str, Any] = {"observations": observations, "actions": actions}
    ours = judging.step_reward(model)
    return {
        name: judging.epic_distance(ours, reward, rng=np.random.default_rng(1), **options)
        for name, reward in rewards.items()
        if reward is not None
    }
