"""`diffdecide label import` and `label chosen`: preference data of other projects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class LabelImport:
    """Import labels of Preference Transformer or Uni-RLHF: a label file and two index files over an episode file."""

    data: Annotated[Path, tyro.conf.Positional]
    """The D4RL or DSRL file that was labelled."""
    labels: Path
    """0 the first is preferred, 1 the second, -1 a tie; or two columns."""
    indices_1: Path
    indices_2: Path
    out: Path
    """Parquet file to write."""
    segment: int = 100
    """Steps of a segment (`len_query`)."""
    indexing: Literal["file", "qlearning"] = "file"
    """Whether indices count the steps of the file or of D4RL's qlearning_dataset, which leaves out last steps."""
    allow_pickle: bool = False
    """Read pickles, by a reader that knows numbers and arrays only."""

    def execute(self) -> int:
        import h5py
        import numpy as np

        from reward_models.importers import from_indices, load_index_array, qlearning_rows
        from reward_models.preference_files import write_preferences

        if not self.data.is_file() or not h5py.is_hdf5(self.data):
            raise ValueError(f"{self.data}: expected an HDF5 file")
        with h5py.File(self.data, "r") as file:
            missing = [name for name in ("observations", "actions", "terminals") if name not in file]
            if missing:
                raise ValueError(f"{self.data}: missing keys {missing}, it has {sorted(file)}")
            columns = {name: file[name][()] for name in ("observations", "actions", "terminals")}
            timeouts = file["timeouts"][()] if "timeouts" in file else np.zeros_like(columns["terminals"])
            costs = file["costs"][()].reshape(-1) if "costs" in file else None
        ends = columns["terminals"].reshape(-1).astype(bool) | timeouts.reshape(-1).astype(bool)
        rows = np.arange(len(ends))
        if self.indexing == "qlearning":
            rows = qlearning_rows(columns["terminals"], timeouts)
            # Where a time-out is left out, the episode ends one step earlier.
            ends = ends[rows] | np.append(np.diff(rows) > 1, True)
        arrays = [load_index_array(p, allow_pickle=self.allow_pickle) for p in (self.labels, self.indices_1)]
        data = from_indices(
            columns["observations"][rows],
            columns["actions"][rows],
            ends,
            arrays[0],
            arrays[1],
            load_index_array(self.indices_2, allow_pickle=self.allow_pickle),
            length=self.segment,
            costs=None if costs is None else costs[rows],
            source=self.data.name,
        )
        write_preferences(data, self.out)
        print(f"{len(data)} comparisons, {int((data.label == 0.5).sum())} ties; written to {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class LabelChosen:
    """Import TRL's columns: chosen and rejected, each with obs and act; prompt and margin are taken over."""

    data: Annotated[Path, tyro.conf.Positional]
    """Parquet file, or JSON lines."""
    out: Path
    """Parquet file to write."""
    seed: int = 0
    """Of the coin that says which of the two comes first."""

    def execute(self) -> int:
        import numpy as np

        from reward_models.importers import from_chosen
        from reward_models.preference_files import write_preferences

        data = from_chosen(_rows(self.data), rng=np.random.default_rng(self.seed))
        write_preferences(data, self.out)
        print(f"{len(data)} comparisons; written to {self.out}")
        return 0


def _rows(path: Path) -> list[dict[str, Any]]:
    import json

    import pyarrow
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix == ".parquet":
        try:
            return parquet.read_table(path).to_pylist()
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path}: expected a Parquet file ({error})") from None
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: row {number}: expected a line of JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {number}: expected an object, got {type(row).__name__}")
        rows.append(row)
    return rows
