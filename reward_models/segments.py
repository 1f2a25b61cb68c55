"""Segments of unequal length in two flat arrays: no padding in memory, one copy when a batch is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Segments:
    """N segments of observations and actions.

    Attributes:
        observations: [S, o] float32, all segments one behind the other.
        actions: [S, a] float32.
        offsets: [N + 1] int64; segment i is rows offsets[i] to offsets[i + 1], at least one.

    Raises:
        ValueError: arrays that do not fit together; the message names the row.
    """

    observations: np.ndarray
    actions: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        for name in ("observations", "actions"):
            array = np.asarray(getattr(self, name), dtype=np.float32)
            if array.ndim != 2:
                raise ValueError(f"{name}: expected [steps, width], got shape {array.shape}")
            object.__setattr__(self, name, array)
        offsets = np.asarray(self.offsets, dtype=np.int64)
        object.__setattr__(self, "offsets", offsets)
        if offsets.ndim != 1 or len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(self.observations):
            raise ValueError(f"offsets: expected 0 ... {len(self.observations)}, got shape {offsets.shape}")
        if len(self.actions) != len(self.observations):
            raise ValueError(f"actions: expected {len(self.observations)} rows as observations: {len(self.actions)}")
        if (np.diff(offsets) < 1).any():
            raise ValueError(f"row {int(np.argmin(np.diff(offsets)))}: expected a segment of at least one step")

    @classmethod
    def of(cls, observations: Sequence[np.ndarray], actions: Sequence[np.ndarray]) -> Segments:
        """From one array [T, o] and one [T, a] per segment."""
        if len(observations) != len(actions) or not observations:
            raise ValueError(f"expected as many actions as observations, got {len(actions)} and {len(observations)}")
        widths = {np.asarray(item).shape[-1] for item in observations}
        if len(widths) != 1:
            odd = next(i for i, o in enumerate(observations) if o.shape[-1] != observations[0].shape[-1])
            raise ValueError(f"row {odd}: expected observations of one width, got {sorted(widths)}")
        for row, (obs, act) in enumerate(zip(observations, actions, strict=True)):
            if len(obs) != len(act):
                raise ValueError(f"row {row}: {len(obs)} observations, but {len(act)} actions")
        lengths = [len(item) for item in observations]
        return cls(np.concatenate(observations), np.concatenate(actions), np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """[N] steps."""
        return np.diff(self.offsets)

    def segment(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Observations [T, o] and actions [T, a] of one segment (views)."""
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.observations[rows], self.actions[rows]

    def take(self, indices: np.ndarray) -> Segments:
        """The segments at `indices` [M], in that order."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(self.offsets[indices] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Segments(self.observations[rows], self.actions[rows], offsets)

    def padded(
        self, indices: np.ndarray | None = None, length: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations [B, T, o], actions [B, T, a] (zeros behind the end) and mask [B, T] (True = a step).

        Args:
            length: T; None is the longest of these segments.
        """
        indices = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[indices]
        longest = int(lengths.max())
        length = longest if length is None else length
        if longest > length:
            raise ValueError(f"a segment has {longest} steps, expected at most {length}")
        steps = np.arange(length)
        mask = steps < lengths[:, None]
        rows = self.offsets[indices][:, None] + np.minimum(steps, lengths[:, None] - 1)
        shape = mask[..., None]
        return self.observations[rows] * shape, self.actions[rows] * shape, mask
