"""A learned reward in place of the recorded one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diffdecide.data.episode import Episode
from reward_models.model import RewardModel


@torch.no_grad()
def step_rewards(
    model: RewardModel, episode: Episode, *, window: int | None = None, prompt: Tensor | None = None
) -> np.ndarray:
    """Learned rewards [T] float32 of an episode.

    Args:
        window: steps that a model over segments sees at once: the episode is cut into pieces of at most that many
            (default: 32). Models of single steps see each step alone in any case.

    Raises:
        ValueError: the episode is of another environment than the model.
    """
    model.require_env(str(episode.metadata.get("env_id", model.config.env_id)), episode.observations.shape[1])
    if model.config.network in ("linear", "mlp"):
        window = len(episode)
    window = min(window or 32, len(episode))
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(episode), window):
        rows = slice(start, start + window)
        obs, act = (torch.from_numpy(a[rows])[None].to(device) for a in (episode.observations, episode.actions))
        parts.append(model.predict(obs, act, prompt=prompt).reward[0].cpu().numpy())
    return np.concatenate(parts).astype(np.float32)


def relabel(
    episodes: Iterable[Episode], model: RewardModel, *, window: int | None = None, prompt: Tensor | None = None
) -> Iterator[Episode]:
    """Episodes with learned rewards; costs stay as recorded, and the metadata say where the rewards are from.

    Learned rewards never replace constraints.
    """
    for episode in episodes:
        rewards = step_rewards(model, episode, window=window, prompt=prompt)
        note = {"rewards": "learned", "reward_data": model.meta.get("data"), "true_return": episode.total_return}
        yield replace(episode, rewards=rewards, metadata={**episode.metadata, **note})
