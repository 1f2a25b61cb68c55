"""Training and held-out comparisons that share no trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_models.preferences import PreferenceError, Preferences


@dataclass(frozen=True)
class Split:
    """Two sides and what was lost between them.

    Attributes:
        train, held_out: comparisons; no trajectory is on both sides.
        dropped: comparisons whose two segments fell on different sides.
    """

    train: Preferences
    held_out: Preferences
    dropped: int


def split(data: Preferences, *, share: float = 0.1, rng: np.random.Generator) -> Split:
    """Hold out about `share` of the trajectories, with every comparison among them.

    Comparisons across the two sides are dropped, and counted. Where the trajectories are not named, each comparison
    counts as its own.

    Raises:
        PreferenceError: a side would be empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    if data.trajectory_1 is None or data.trajectory_2 is None:
        held = np.zeros(len(data), dtype=bool)
        held[rng.permutation(len(data))[: max(1, round(share * len(data)))]] = True
        first = second = held
    else:
        names, index = np.unique(
            np.concatenate([data.trajectory_1, data.trajectory_2]).astype(str), return_inverse=True
        )
        held = np.zeros(len(names), dtype=bool)
        held[rng.permutation(len(names))[: max(1, round(share * len(names)))]] = True
        first, second = held[index[: len(data)]], held[index[len(data) :]]
    train, test = np.flatnonzero(~first & ~second), np.flatnonzero(first & second)
    for name, rows in (("training", train), ("held-out", test)):
        if len(rows) == 0:
            raise PreferenceError(
                f"split: the {name} side is empty: {len(data)} comparisons, {share=}; "
                "name more trajectories, hold out another share, or make the comparisons within each side"
            )
    return Split(data.take(train), data.take(test), len(data) - len(train) - len(test))
