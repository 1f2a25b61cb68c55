"""A learned reward as a Gymnasium wrapper, for other people's reinforcement learning."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from reward_models.model import RewardModel


class LearnedReward(gymnasium.Wrapper):
    """Replaces the reward of `step`; the task's own is kept in `info["task_reward"]`, the cost is not touched.

    Args:
        env: five-value environment whose observations the model was trained on.
        model: judges the observation before the step and the action.
        window: steps that a model over segments looks back at.
        prompt: [P] or [1, P] for a model that is conditioned on one.

    Raises:
        ValueError: the environment is not the one that the model was trained for.
    """

    def __init__(
        self, env: gymnasium.Env, model: RewardModel, *, window: int = 32, prompt: Tensor | None = None
    ) -> None:
        super().__init__(env)
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        shape = env.observation_space.shape
        name = env.spec.id if env.spec is not None else str(getattr(env, "env_id", model.config.env_id))
        model.require_env(name, None if shape is None else int(shape[0]))
        self.model = model.eval()
        single = model.config.network in ("linear", "mlp")
        self._history: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=1 if single else window)
        self._prompt = prompt if prompt is None else prompt.reshape(1, -1)
        self._observation: np.ndarray | None = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._history.clear()
        observation, info = self.env.reset(**options)
        self._observation = np.asarray(observation, np.float32)
        return observation, info

    @torch.no_grad()
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._observation is None:
            raise ValueError("call reset() before step()")
        self._history.append((self._observation, np.asarray(action, np.float32)))
        observation, reward, terminated, truncated, info = self.env.step(action)
        steps = [torch.from_numpy(np.stack(part))[None] for part in zip(*self._history, strict=True)]
        learned = self.model.predict(*steps, prompt=self._prompt).reward[0, -1]
        self._observation = np.asarray(observation, np.float32)
        return observation, float(learned), terminated, truncated, {**info, "task_reward": float(reward)}
