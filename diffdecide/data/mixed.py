"""Several data sets as one: tasks whose observations differ but whose features agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from diffdecide.data.windows import WindowDataset


class MixedWindows(Dataset[dict[str, Tensor]]):
    """The windows of `parts` one behind the other; batches keep the order of the indices asked for."""

    def __init__(self, parts: Sequence[WindowDataset]) -> None:
        if not parts:
            raise ValueError("MixedWindows needs at least one data set")
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        chosen = np.asarray(indices)
        part_of = np.searchsorted(self._ends, chosen, side="right")
        batches, places = [], []
        for number, part in enumerate(self.parts):
            rows = np.flatnonzero(part_of == number)
            if len(rows):
                begin = self._ends[number] - len(part)
                batches.append(part.__getitems__(chosen[rows] - begin))
                places.append(rows)
        order = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))
        return {name: torch.cat([batch[name] for batch in batches])[order] for name in batches[0]}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def split(self, share: float) -> tuple[Subset[dict[str, Tensor]], Subset[dict[str, Tensor]]]:
        """The windows without, and those of, the last `share` of each part's episodes: no episode is on both sides."""
        held = torch.cat([part.of_last_episodes(share) for part in self.parts])
        return Subset(self, (~held).nonzero()[:, 0].tolist()), Subset(self, held.nonzero()[:, 0].tolist())
