"""What the networks are told at each step, laid out flat over a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from diffdecide.data.episode import DataError, Episode

# What `features(episode)` must hold, per step: name -> number of axes behind the first.
FEATURES = {"ego": 1, "tokens": 2, "token_mask": 1, "goal": 1, "target_index": 0}
Features = Mapping[str, np.ndarray]


def flat_features(
    episodes: Sequence[Episode], features: Callable[[Episode], Features] | Sequence[Features]
) -> dict[str, Tensor]:
    """Features of all steps, name -> [N, ...]; filled in place, so that they are never held twice."""
    if not callable(features) and len(features) != len(episodes):
        raise DataError(f"features: expected one mapping for each of {len(episodes)} episodes, got {len(features)}")
    total = sum(len(episode) for episode in episodes)
    flat: dict[str, np.ndarray] = {}
    position = 0
    for number, episode in enumerate(episodes):
        where, length = f"features of episode {number}", len(episode)
        arrays = features(episode) if callable(features) else features[number]
        missing = [name for name in FEATURES if name not in arrays]
        if missing:
            raise DataError(f"{where}: missing keys {missing}; expected {list(FEATURES)}, got {sorted(arrays)}")
        if flat and set(arrays) != set(flat):
            raise DataError(f"{where}: expected keys {sorted(flat)} as before, got {sorted(arrays)}")
        for name, value in arrays.items():
            array = np.asarray(value)
            expected = (length, *flat[name].shape[1:]) if flat.get(name) is not None else None
            wrong_axes = name in FEATURES and array.ndim != FEATURES[name] + 1
            if wrong_axes or len(array) != length or (expected is not None and array.shape != expected):
                shape = expected or (length, *("n" * FEATURES.get(name, array.ndim - 1)))
                raise DataError(f"{where}: {name}: expected shape {shape}, got {array.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"{where}: {name}: expected finite values, got a NaN or infinity")
            if expected is None:
                kind = {"token_mask": np.dtype(bool), "target_index": np.dtype(np.int64)}.get(name, array.dtype)
                kind = np.dtype(np.float32) if kind == np.float64 else kind
                flat[name] = np.empty((total, *array.shape[1:]), kind)
            flat[name][position : position + length] = array
        if arrays["tokens"].shape[1] != arrays["token_mask"].shape[1]:
            raise DataError(
                f"{where}: expected as many tokens as mask entries, got {arrays['tokens'].shape[1]} "
                f"and {arrays['token_mask'].shape[1]}"
            )
        highest = int(np.max(arrays["target_index"]))
        if highest >= arrays["tokens"].shape[1] or int(np.min(arrays["target_index"])) < -1:
            raise DataError(f"{where}: target_index: expected -1 to {arrays['tokens'].shape[1] - 1}, got {highest}")
        position += length
    return {name: torch.from_numpy(values) for name, values in flat.items()}
