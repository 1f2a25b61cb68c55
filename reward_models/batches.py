"""Comparisons as the batches that `RewardModel.loss` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reward_models.preference_files import MappedPreferences
from reward_models.preferences import Preferences
from reward_models.segments import Segments

Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> [N, P]


class PairBatches:
    """A data set for `diffdecide.train.fit`: batches by index.

    Args:
        data: in memory, or mapped from disk.
        members: M, draws Poisson(1) weights [B, M] keyed by (seed, row), so that they do not depend on batches.
        length: T; None is each batch's longest segment, needed for data mapped from disk.
        embed: texts of the prompt column to embeddings, for a model that is conditioned on them.
        costs: hand out cost_1 and cost_2.
        inputs: a model's `StepInputs`: its results are made once and handed out in place of observations and actions
            (data in memory only).
        collapse: "sum" or "mean" hands out one step for a whole segment, where all are of one length: differences of
            scores that are linear in the inputs stay what they are, at a fraction of the work.
    """

    def __init__(
        self,
        data: Preferences | MappedPreferences,
        *,
        members: int = 0,
        seed: int = 0,
        length: int | None = None,
        embed: Embed | None = None,
        costs: bool = False,
        inputs: nn.Module | None = None,
        collapse: str | None = None,
    ) -> None:
        self.data, self.members, self.seed, self.embed, self.costs = data, members, seed, embed, costs
        self.length = data.longest if length is None and isinstance(data, Preferences) else length
        self._weights: np.ndarray | None = None
        self._ready: list[Segments] = []
        self._each = 1
        if isinstance(data, Preferences):
            if inputs is not None:
                self._ready = [_prepare(side, inputs) for side in (data.first, data.second)]
                if collapse is not None and len({*data.first.lengths.tolist(), *data.second.lengths.tolist()}) == 1:
                    self._each = data.longest if collapse == "mean" else 1
                    self._ready = [_collapsed(side, self._each) for side in self._ready]
                    self.length = 1
            if costs and data.cost_1 is None:
                raise ValueError("a cost head needs the columns cost_1 and cost_2, the data has none")
            if embed is not None and data.prompt is None:
                raise ValueError("a prompt-conditioned reward needs the column prompt, the data has none")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        rows = np.asarray(indices, dtype=np.int64)
        batch: dict[str, np.ndarray] = {}
        if self._ready and isinstance(self.data, Preferences):
            for number, side in enumerate(self._ready, 1):
                batch[f"inputs_{number}"], _, batch[f"mask_{number}"] = side.padded(rows, self.length)
            part: Any = _Columns(self.data, rows)
        else:
            part = self.data.take(rows)
            everything = np.arange(len(rows))
            longest = part.longest if self.length is None else self.length
            for number, side in ((1, part.first), (2, part.second)):
                names = (f"obs_{number}", f"act_{number}", f"mask_{number}")
                batch |= dict(zip(names, side.padded(everything, longest), strict=True))
        batch["label"] = part.label
        if part.margin is not None:
            batch["margin"] = part.margin
        if self.costs:
            if part.cost_1 is None or part.cost_2 is None:
                raise ValueError("a cost head needs the columns cost_1 and cost_2, the data has none")
            batch |= {"cost_1": part.cost_1, "cost_2": part.cost_2}
        if self.members > 1:
            batch["bootstrap"] = self._bootstrap()[rows]
        if self.embed is not None:
            batch["prompt"] = np.asarray(self.embed([str(text) for text in part.prompt]), np.float32)
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in batch.items()}

    @property
    def ready(self) -> bool:
        """Whether inputs were made once, for all."""
        return bool(self._ready)

    def summed_differences(self) -> np.ndarray:
        """Summed inputs of the first segment minus those of the second, [N, width]; ValueError without made inputs."""
        if not self._ready:
            raise ValueError("summed_differences needs data in memory and `inputs`")
        sums = [np.add.reduceat(side.observations, side.offsets[:-1], axis=0) for side in self._ready]
        return (sums[0] - sums[1]) * self._each

    def _bootstrap(self) -> np.ndarray:
        if self._weights is None:
            rng = np.random.default_rng((self.seed, 7))
            self._weights = rng.poisson(1.0, (len(self), self.members)).astype(np.float32)
        return self._weights


class _Columns:
    """The columns of some rows, without their segments."""

    def __init__(self, data: Preferences, rows: np.ndarray) -> None:
        self._data, self._rows = data, rows

    def __getattr__(self, name: str) -> Any:
        column = getattr(self._data, name)
        return None if column is None else column[self._rows]


def _collapsed(side: Segments, divisor: int) -> Segments:
    sums = np.add.reduceat(side.observations, side.offsets[:-1], axis=0) / divisor
    return Segments(sums, np.zeros((len(sums), 1), np.float32), np.arange(len(sums) + 1))


@torch.no_grad()
def _prepare(side: Segments, inputs: nn.Module) -> Segments:
    parts = []
    for start in range(0, len(side.observations), 8192):
        rows = slice(start, start + 8192)
        step = [torch.from_numpy(array[rows])[None] for array in (side.observations, side.actions)]
        parts.append(inputs(*step)[0].numpy())
    return Segments(np.concatenate(parts), np.zeros((len(side.actions), 1), np.float32), side.offsets)
