"""Transitions as the trainer wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Transitions:
    """N steps; give whole batches by `__getitems__`.

    Attributes:
        observation, next_observation: [N, o] float32.
        action: [N, a] float32.
        cost: [N] float32, >= 0.
        terminal: [N] float32: the task itself ended; time-outs are 0, so that critics bootstrap there.
        constraint: [N] float32: the smallest continuous constraint value of the state after the step, >= 0 allowed.
        episode: [N] int64 number of the episode.
        continuous: the constraint values are real clearances, not made from the binary cost.
    """

    observation: Tensor
    action: Tensor
    next_observation: Tensor
    cost: Tensor
    terminal: Tensor
    constraint: Tensor
    episode: Tensor
    continuous: bool

    @classmethod
    def of_episodes(cls, episodes: Sequence[Mapping[str, object]]) -> Transitions:
        """Join episodes, each a mapping with observations [T, o], next_observations, actions [T, a], costs [T],
        terminals [T] and optionally constraints (name -> [T], the values after each step).

        Raises:
            ValueError: no episodes, missing or non-finite columns, lengths or widths that differ; the message names the
                episode and the column.
        """
        if not episodes:
            raise ValueError("expected at least one episode, got none")
        columns: dict[str, list[Floats]] = {name: [] for name in _SOURCES}
        constraints: list[Floats] = []
        numbers: list[NDArray[np.int64]] = []
        continuous = all(bool(episode.get("constraints")) for episode in episodes)
        for index, episode in enumerate(episodes):
            length = -1
            for name, source in _SOURCES.items():
                if source not in episode:
                    raise ValueError(f"episode {index} lacks {source!r}; it has {sorted(episode)}")
                column = np.asarray(episode[source], dtype=np.float32)
                if column.ndim != (2 if name in _WIDE else 1) or (length >= 0 and len(column) != length):
                    raise ValueError(f"episode {index}: {source} has shape {column.shape}, the first column {length}")
                if not np.isfinite(column).all():
                    raise ValueError(f"episode {index}: {source} holds NaN or infinite values")
                if columns[name] and column.shape[1:] != columns[name][0].shape[1:]:
                    raise ValueError(f"episode {index}: {source} is {column.shape[1:]} wide, unlike the first episode")
                length = len(column)
                columns[name].append(column)
            numbers.append(np.full(length, index))
            constraints.append(_constraint(episode, columns["cost"][-1], continuous=continuous, index=index))
        joined = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in columns.items()}
        return cls(
            **joined,
            constraint=torch.from_numpy(np.concatenate(constraints)),
            episode=torch.from_numpy(np.concatenate(numbers)),
            continuous=continuous,
        )

    def __len__(self) -> int:
        return len(self.cost)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[0] for name, column in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        rows = torch.as_tensor(indices)
        return {name: getattr(self, name)[rows] for name in (*_SOURCES, "constraint")}

    def of(self, wanted: Sequence[int]) -> Transitions:
        """The steps of the episodes numbered `wanted`: to keep some out of training."""
        rows = torch.isin(self.episode, torch.as_tensor(list(wanted)))
        names = (*_SOURCES, "constraint", "episode")
        return Transitions(**{name: getattr(self, name)[rows] for name in names}, continuous=self.continuous)


_SOURCES = {
    "observation": "observations",
    "action": "actions",
    "next_observation": "next_observations",
    "cost": "costs",
    "terminal": "terminals",
}
_WIDE = ("observation", "action", "next_observation")


def _constraint(episode: Mapping[str, object], cost: Floats, *, continuous: bool, index: int) -> Floats:
    if not continuous:
        return np.where(cost > 0, -1.0, 1.0).astype(np.float32)
    given = episode["constraints"]
    if not isinstance(given, Mapping):
        raise ValueError(f"episode {index}: constraints must map names to values, got {type(given).__name__}")
    lowest = np.full(len(cost), np.inf, dtype=np.float32)
    for name, values in given.items():
        column = np.asarray(values, dtype=np.float32)
        if column.shape != cost.shape or np.isnan(column).any():
            raise ValueError(f"episode {index}: constraint {name!r} must be [{len(cost)}] without NaN")
        lowest = np.minimum(lowest, column)
    return np.minimum(lowest, np.float32(1e3))  # +inf: no such obstacle around
