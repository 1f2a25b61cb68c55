"""Preference data sets in Parquet (readable by `datasets`), whole or as a stream; hub id, folder or file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.files import write_atomic
from reward_models.preferences import (
    COLUMNS,
    NUMBERS,
    REQUIRED,
    TEXTS,
    PreferenceError,
    Preferences,
    nearest_name,
    rows_text,
)
from reward_models.segments import Segments

if TYPE_CHECKING:
    import pyarrow


def write_preferences(data: Preferences, path: str | os.PathLike[str]) -> Path:
    """Write one Parquet file, whole or not at all. Columns as in `preferences.COLUMNS`; absent ones are left out."""
    import pyarrow.parquet as parquet

    table = to_table(data)
    return write_atomic(path, lambda temporary: parquet.write_table(table, temporary, row_group_size=1024))


def read_preferences(source: str | os.PathLike[str], *, split: str = "train") -> Preferences:
    """Read and check a data set.

    Args:
        source: a Parquet file, a folder of Parquet files, or the id of a data set on the Hugging Face hub.
        split: for hub ids.

    Raises:
        PreferenceError: missing or misnamed columns (with the nearest name), labels outside [0, 1], NaN, unequal
            widths, no rows; with row numbers.
        FileNotFoundError: nothing there.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    files = _files(source)
    if files is None:
        import datasets

        return from_table(datasets.load_dataset(str(source), split=split).data.table, where=str(source))
    try:
        table = pyarrow.concat_tables([parquet.read_table(file) for file in files])
    except pyarrow.ArrowInvalid as error:
        raise PreferenceError(f"{os.fspath(source)}: expected Parquet files of one schema ({error})") from None
    return from_table(table, where=os.fspath(source))


def stream_preferences(
    source: str | os.PathLike[str], *, rows: int = 1024, split: str = "train"
) -> Iterator[Preferences]:
    """The data set in pieces of at most `rows` comparisons, so that only one piece is in memory."""
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    files = _files(source)
    done = 0
    if files is None:
        import datasets
        import pyarrow

        stream = datasets.load_dataset(str(source), split=split, streaming=True)
        for batch in stream.iter(batch_size=rows):
            yield from_table(pyarrow.table(batch), where=f"{source} (rows counted from {done})")
            done += len(batch["label"])
        return
    import pyarrow.parquet as parquet
    from pyarrow import Table

    for file in files:
        with parquet.ParquetFile(file) as reader:
            for batch in reader.iter_batches(batch_size=rows):
                yield from_table(Table.from_batches([batch]), where=f"{file} (rows counted from {done})")
                done += batch.num_rows


class MappedPreferences:
    """Random access to a data set that stays on disk: Arrow tables mapped into memory by `datasets`."""

    def __init__(self, source: str | os.PathLike[str], *, split: str = "train", cache: str | None = None) -> None:
        import datasets

        files = _files(source)
        if files is None:
            self._data = datasets.load_dataset(str(source), split=split, cache_dir=cache)
        else:
            names = [str(file) for file in files]
            self._data = datasets.load_dataset("parquet", data_files=names, split="train", cache_dir=cache)
        _check_columns(self._data.column_names, os.fspath(source))
        if len(self._data) == 0:
            raise PreferenceError(f"{os.fspath(source)}: expected at least one comparison, got none")
        self._data = self._data.with_format("arrow")
        self._where = os.fspath(source)

    def __len__(self) -> int:
        return len(self._data)

    def take(self, indices: Sequence[int] | np.ndarray) -> Preferences:
        """The comparisons at `indices`, read from disk and checked."""
        return from_table(self._data[[int(i) for i in indices]], where=self._where)


def to_table(data: Preferences) -> pyarrow.Table:
    """The Arrow table of a data set."""
    import pyarrow

    columns: dict[str, Any] = {}
    for number, side in ((1, data.first), (2, data.second)):
        for name, array in ((f"obs_{number}", side.observations), (f"act_{number}", side.actions)):
            columns[name] = _nested(array, side.offsets)
    columns["label"] = pyarrow.array(data.label, type=pyarrow.float32())
    for name in NUMBERS:
        if getattr(data, name) is not None:
            columns[name] = pyarrow.array(getattr(data, name), type=pyarrow.float32())
    for name in TEXTS:
        if getattr(data, name) is not None:
            columns[name] = pyarrow.array([str(text) for text in getattr(data, name)], type=pyarrow.string())
    return pyarrow.table(columns)


def from_table(table: pyarrow.Table, *, where: str = "preferences") -> Preferences:
    """Check an Arrow table and take it over; unknown columns are left aside.

    Raises:
        PreferenceError: see `read_preferences`.
    """
    _check_columns(table.column_names, where)
    if table.num_rows == 0:
        raise PreferenceError(f"{where}: expected at least one comparison, got none")
    try:
        sides = []
        for number in (1, 2):
            observations, offsets = _flat(table[f"obs_{number}"], f"obs_{number}")
            actions, action_offsets = _flat(table[f"act_{number}"], f"act_{number}")
            odd = np.flatnonzero(np.diff(offsets) != np.diff(action_offsets))
            if len(odd):
                raise PreferenceError(f"row {odd[0]}: obs_{number} and act_{number} differ in length")
            sides.append(Segments(observations, actions, offsets))
        columns = {}
        for name in ("label", *NUMBERS, *TEXTS):
            if name in table.column_names:
                column = table[name]
                if column.null_count == len(column) and name != "label":
                    continue
                if column.null_count:
                    rows = np.flatnonzero(column.is_null().to_numpy())
                    if name in TEXTS:
                        columns[name] = np.array(["" if v is None else v for v in column.to_pylist()], dtype=object)
                        continue
                    raise PreferenceError(f"{name}: expected a value in every row, got none in row {rows[0]}")
                columns[name] = np.asarray(column.to_numpy(), dtype=object if name in TEXTS else np.float32)
        return Preferences(sides[0], sides[1], **columns)
    except PreferenceError as error:
        raise PreferenceError(f"{where}: {error}") from None
    except (ValueError, TypeError) as error:
        raise PreferenceError(f"{where}: {error}") from error


def _check_columns(names: Sequence[str], where: str) -> None:
    missing = [name for name in REQUIRED if name not in names]
    others = [name for name in names if name not in COLUMNS]
    if missing:
        hints = "".join(f"{name!r}{nearest_name(name, others)} " for name in missing)
        raise PreferenceError(f"{where}: missing columns {hints.strip()} (it has {', '.join(names)})")
    absent = [name for name in COLUMNS if name not in names]
    for name in others:
        # Other columns are left aside, but one that is meant for ours must not be.
        near = difflib.get_close_matches(name, absent, n=1, cutoff=0.8)
        if near:
            hint = f"did you mean {near[0]!r}? Rename or drop it"
            raise PreferenceError(f"{where}: column {name!r} is none of ours; {hint}")


def _nested(array: np.ndarray, offsets: np.ndarray) -> pyarrow.Array:
    import pyarrow

    width = array.shape[1]
    values = pyarrow.array(np.ascontiguousarray(array).reshape(-1), type=pyarrow.float32())
    inner = pyarrow.LargeListArray.from_arrays(np.arange(len(array) + 1, dtype=np.int64) * width, values)
    return pyarrow.LargeListArray.from_arrays(offsets, inner)


def _flat(column: pyarrow.ChunkedArray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values [S, width] and offsets [N + 1] of a column of lists of lists."""
    import pyarrow

    chunks, lengths, first = [], [], 0
    for chunk in column.chunks:
        if not (_is_list(chunk.type) and _is_list(chunk.type.value_type)):
            raise PreferenceError(f"{name}: expected lists of lists of numbers, got {chunk.type}")
        if chunk.null_count:
            rows = first + np.flatnonzero(chunk.is_null().to_numpy(zero_copy_only=False))
            raise PreferenceError(f"{name}: expected a segment in every row, got none in {rows_text(rows)}")
        steps = np.asarray(chunk.value_lengths())
        row_of_step = first + np.repeat(np.arange(len(chunk)), steps)
        first += len(chunk)
        inner = chunk.flatten()
        if inner.null_count:
            rows = np.unique(row_of_step[inner.is_null().to_numpy(zero_copy_only=False)])
            raise PreferenceError(f"{name}: expected values in every step, got none in {rows_text(rows)}")
        widths = np.asarray(inner.value_lengths())
        odd = np.flatnonzero(widths != widths[0]) if len(widths) else widths
        if len(odd):
            raise PreferenceError(
                f"{name}: expected one width in all rows, got {sorted(set(widths.tolist()))}, "
                f"{rows_text(np.unique(row_of_step[odd]))}"
            )
        values = inner.flatten()
        if not (pyarrow.types.is_floating(values.type) or pyarrow.types.is_integer(values.type)):
            raise PreferenceError(f"{name}: expected numbers, got {values.type}")
        if values.null_count:
            places = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)) // widths[0]
            rows = np.unique(row_of_step[places])
            raise PreferenceError(f"{name}: expected finite values, got missing ones in {rows_text(rows)}")
        lengths.append(steps)
        if len(widths):
            chunks.append(np.asarray(values.to_numpy(zero_copy_only=False), np.float32).reshape(len(widths), widths[0]))
    if not chunks:
        raise PreferenceError(f"{name}: expected segments of at least one step, got none")
    if len({chunk.shape[1] for chunk in chunks}) > 1:
        raise PreferenceError(f"{name}: expected one width in all rows, got {sorted({c.shape[1] for c in chunks})}")
    return np.concatenate(chunks), np.concatenate([[0], np.cumsum(np.concatenate(lengths))])


def _is_list(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _files(source: str | os.PathLike[str]) -> list[Path] | None:
    """Parquet files of a path; None for what can only be a hub id."""
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(path.rglob("*.parquet"))
        if not found:
            raise PreferenceError(f"{path}: expected Parquet files in this folder, found none")
        return found
    text = os.fspath(source)
    if path.suffix or path.is_absolute() or text.startswith(".") or text.count("/") != 1:
        raise FileNotFoundError(f"{text}: no such file or folder")
    return None
