"""Comparisons of segments: one schema, checked once at the door.

`label` is the probability that segment 1 is preferred: 1 for the first, 0 for the second, 0.5 for a tie.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from reward_models.segments import Segments

REQUIRED = ("obs_1", "act_1", "obs_2", "act_2", "label")
NUMBERS = ("margin", "cost_1", "cost_2")  # optional, one number a row
TEXTS = ("prompt", "annotator", "source", "trajectory_1", "trajectory_2")  # optional, one text a row
COLUMNS = REQUIRED + NUMBERS + TEXTS


class PreferenceError(ValueError):
    """A preference data set does not hold what it must; the message names column and rows."""


def rows_text(rows: np.ndarray, limit: int = 8) -> str:
    """ "row 3" or "rows 3, 7, 9 … (41 in all)"."""
    rows = np.asarray(rows)
    shown = ", ".join(str(int(row)) for row in rows[:limit])
    more = f" … ({len(rows)} in all)" if len(rows) > limit else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"


@dataclass(frozen=True, eq=False)
class Preferences:
    """N comparisons.

    Attributes:
        first, second: the segments; observation and action widths agree.
        label: [N] float32 in [0, 1], probability that the first is preferred.
        margin: [N] >= 0, how much better the preferred one is (Touvron et al. 2023, Llama 2, eq. 2).
        cost_1, cost_2: [N] >= 0, summed cost of each segment.
        prompt, annotator, source: [N] texts.
        trajectory_1, trajectory_2: [N] names of the trajectories that the segments were cut from; splits keep them
            apart.

    Raises:
        PreferenceError: labels outside [0, 1], NaN, unequal widths or lengths; names the rows.
    """

    first: Segments
    second: Segments
    label: np.ndarray
    margin: np.ndarray | None = None
    cost_1: np.ndarray | None = None
    cost_2: np.ndarray | None = None
    prompt: np.ndarray | None = None
    annotator: np.ndarray | None = None
    source: np.ndarray | None = None
    trajectory_1: np.ndarray | None = None
    trajectory_2: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.first)
        if count == 0:
            raise PreferenceError("expected at least one comparison, got none")
        if len(self.second) != count:
            raise PreferenceError(f"obs_2: expected {count} rows as obs_1, got {len(self.second)}")
        for name in ("observations", "actions"):
            one, two = (getattr(side, name).shape[1] for side in (self.first, self.second))
            if one != two:
                column = "obs" if name == "observations" else "act"
                raise PreferenceError(f"{column}_1 is {one} wide and {column}_2 is {two} wide: expected one width")
        for number, side in ((1, self.first), (2, self.second)):
            for name, array in ((f"obs_{number}", side.observations), (f"act_{number}", side.actions)):
                bad = ~np.isfinite(array).all(1)
                if bad.any():
                    rows = np.unique(np.searchsorted(side.offsets, np.flatnonzero(bad), side="right") - 1)
                    raise PreferenceError(f"{name}: expected finite values, got NaN or infinity in {rows_text(rows)}")
        label = self._column("label", np.float32)
        outside = ~((label >= 0) & (label <= 1))
        if outside.any():
            rows = np.flatnonzero(outside)
            raise PreferenceError(f"label: expected values in [0, 1], got {label[rows[0]]} in {rows_text(rows)}")
        for name in NUMBERS:
            if getattr(self, name) is not None:
                values = self._column(name, np.float32)
                bad = ~(np.isfinite(values) & (values >= 0))
                if bad.any():
                    rows = np.flatnonzero(bad)
                    raise PreferenceError(f"{name}: expected finite numbers >= 0, {rows_text(rows)}: {values[rows[0]]}")
        for name in TEXTS:
            if getattr(self, name) is not None:
                self._column(name, object)
        if (self.cost_1 is None) != (self.cost_2 is None):
            raise PreferenceError("cost_1 and cost_2: expected both or none")

    def _column(self, name: str, dtype: Any) -> np.ndarray:
        array = np.asarray(getattr(self, name), dtype=dtype)
        if array.shape != (len(self.first),):
            raise PreferenceError(f"{name}: expected {len(self.first)} rows, got shape {array.shape}")
        object.__setattr__(self, name, array)
        return array

    def __len__(self) -> int:
        return len(self.first)

    @property
    def observation_dim(self) -> int:
        return self.first.observations.shape[1]

    @property
    def action_dim(self) -> int:
        return self.first.actions.shape[1]

    @property
    def longest(self) -> int:
        """Steps of the longest segment."""
        return int(max(self.first.lengths.max(), self.second.lengths.max()))

    def take(self, indices: Iterable[int] | np.ndarray) -> Preferences:
        """The comparisons at `indices`, in that order."""
        rows = np.asarray(indices if isinstance(indices, np.ndarray) else list(indices), dtype=np.int64)
        if len(rows) == 0:
            raise PreferenceError("expected at least one comparison, got an empty selection")
        changes: dict[str, Any] = {"first": self.first.take(rows), "second": self.second.take(rows)}
        for item in fields(self)[2:]:
            value = getattr(self, item.name)
            changes[item.name] = None if value is None else value[rows]
        return Preferences(**changes)

    def with_labels(self, label: np.ndarray) -> Preferences:
        return replace(self, label=label)

    def flipped(self, share: float, rng: np.random.Generator) -> Preferences:
        """With each label turned round (l -> 1 - l) with probability `share`: noise of a careless annotator."""
        if not 0 <= share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {share}")
        turn = rng.uniform(size=len(self)) < share
        return self.with_labels(np.where(turn, 1 - self.label, self.label))

    def fingerprint(self) -> str:
        """SHA-256 of segments and labels, for model cards."""
        total = hashlib.sha256()
        for side in (self.first, self.second):
            for array in (side.observations, side.actions, side.offsets):
                total.update(f"{array.dtype.str}{array.shape}".encode())
                total.update(np.ascontiguousarray(array).tobytes())
        total.update(self.label.tobytes())
        return total.hexdigest()


def nearest_name(name: str, known: Iterable[str]) -> str:
    """ "; did you mean …?" or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Doubles:
    """What is said twice in a data set.

    Attributes:
        identical: rows that repeat the comparison of an earlier row with the same label.
        contradictory: pairs (earlier row, row) that compare the same two segments and prefer different ones.
        trivial: rows that compare a segment with itself.
    """

    identical: tuple[int, ...]
    contradictory: tuple[tuple[int, int], ...]
    trivial: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{len(self.identical)} repeated, {len(self.contradictory)} contradictory, "
            f"{len(self.trivial)} comparisons of a segment with itself"
        )


def doubles(data: Preferences) -> Doubles:
    """Repeated and contradictory comparisons; (a, b, l) and (b, a, 1 - l) say the same."""
    keys = [[_digest(side.segment(i)) for i in range(len(data))] for side in (data.first, data.second)]
    seen: dict[tuple[bytes, bytes], tuple[int, float]] = {}
    identical, contradictory, trivial = [], [], []
    for row, (one, two) in enumerate(zip(*keys, strict=True)):
        if one == two:
            trivial.append(row)
            continue
        label = float(data.label[row])
        key, label = ((one, two), label) if one < two else ((two, one), 1 - label)
        if key not in seen:
            seen[key] = (row, label)
        elif abs(seen[key][1] - label) < 1e-6:
            identical.append(row)
        elif (seen[key][1] - 0.5) * (label - 0.5) < 0:
            contradictory.append((seen[key][0], row))
    return Doubles(tuple(identical), tuple(contradictory), tuple(trivial))


def _digest(segment: tuple[np.ndarray, np.ndarray]) -> bytes:
    total = hashlib.blake2b(digest_size=16)
    for array in segment:
        total.update(f"{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.digest()
