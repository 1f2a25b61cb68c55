"""Small episodes and features for the tests of the data package."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffdecide.data.episode import Episode


def arrays(length: int = 7, *, seed: int = 0, width: int = 5, actions: int = 2, end: str = "timeout") -> dict[str, Any]:
    """DSRL arrays of one episode that ends in a "timeout", a "terminal" or not at all ("open")."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(length + 1, width)).astype(np.float32)
    last = np.arange(length) == length - 1
    return {
        "observations": observations[:-1].copy(),
        "next_observations": observations[1:].copy(),
        "actions": rng.uniform(-1, 1, (length, actions)).astype(np.float32),
        "rewards": rng.normal(size=length).astype(np.float32),
        "costs": (rng.uniform(size=length) < 0.3).astype(np.float32),
        "terminals": last & (end == "terminal"),
        "timeouts": last & (end == "timeout"),
    }


def episode(length: int = 7, *, seed: int = 0, width: int = 5, end: str = "timeout", **extras: Any) -> Episode:
    extras.setdefault("metadata", {"seed": seed, "env_id": "Test-v0"})
    return Episode.from_arrays(arrays(length, seed=seed, width=width, end=end), **extras)


def features(item: Episode, *, tokens: int = 3) -> dict[str, np.ndarray]:
    """Features from which the step can be read off: ego and goal hold the first observation value and the step."""
    steps = np.arange(len(item), dtype=np.float32)
    return {
        "ego": np.stack([item.observations[:, 0], steps], 1),
        "tokens": np.repeat(item.observations[:, None, :4], tokens, 1),
        "token_mask": np.tile(np.arange(tokens) < 2, (len(item), 1)),
        "goal": np.repeat(steps[:, None], 4, 1),
        "target_index": np.arange(len(item)) % tokens - 1,
    }
