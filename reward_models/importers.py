"""Other projects' preference data in our schema: index files, fragments, chosen and rejected columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reward_models.preferences import PreferenceError, Preferences, nearest_name, rows_text
from reward_models.restricted_pickle import load_numbers
from reward_models.segments import Segments


def load_index_array(path: str | os.PathLike[str], *, allow_pickle: bool = False) -> np.ndarray:
    """Numbers of a .npy, .txt / .csv or pickle file (any other suffix), as an array."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix in (".txt", ".csv"):
        return np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None)
    value = load_numbers(path, allow_pickle=allow_pickle)
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PreferenceError(f"{path}: expected an array of numbers, got {type(value).__name__} ({error})") from None


def from_indices(
    observations: np.ndarray,
    actions: np.ndarray,
    ends: np.ndarray,
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    length: int,
    costs: np.ndarray | None = None,
    source: str = "",
) -> Preferences:
    """Labels of Preference Transformer (Kim et al. 2023) and Uni-RLHF (Yuan et al. 2024): indices into a data file.

    Args:
        observations, actions: [S, o], [S, a] of the data file, all steps in its order.
        ends: [S] bool, True at the last step of each episode; a segment must not run across one.
        labels: [N]: 0 the first is preferred, 1 the second, -1 a tie; or [N, 2], probabilities of both.
        first, second: [N] index of each segment's first step.
        length: steps of a segment.
        costs: [S], optional.

    Raises:
        PreferenceError: labels and indices that do not fit each other or the data; with row numbers.
    """
    labels, ends = np.asarray(labels), np.asarray(ends, bool).reshape(-1)
    total = len(observations)
    if len(actions) != total or len(ends) != total:
        raise PreferenceError(f"data file: expected {total} actions and ends, got {len(actions)} and {len(ends)}")
    starts = []
    for name, value in (("indices_1", first), ("indices_2", second)):
        array = np.asarray(value).reshape(-1)
        if len(array) != len(labels):
            raise PreferenceError(f"{name}: expected {len(labels)} rows as labels, got {len(array)}")
        if not np.isfinite(array).all() or (array != np.floor(array)).any():
            raise PreferenceError(f"{name}: expected whole numbers")
        array = array.astype(np.int64)
        outside = np.flatnonzero((array < 0) | (array + length > total))
        if len(outside):
            raise PreferenceError(
                f"{name}: {rows_text(outside)}: a segment of {length} steps from step {array[outside[0]]} does not fit "
                f"into {total} steps: is this the data file that was labelled?"
            )
        before = np.concatenate([[0], np.cumsum(ends)])
        across = np.flatnonzero(before[array + length - 1] != before[array])
        if len(across):
            raise PreferenceError(
                f"{name}: {rows_text(across)}: the segment from step {array[across[0]]} runs across the end of an "
                "episode: labels of D4RL's `qlearning_dataset` need its indexing, which leaves out last steps"
            )
        starts.append(array)
    if labels.ndim == 2 and labels.shape[1] == 2:
        bad = np.flatnonzero(~np.isclose(labels.sum(1), 1))
        if len(bad):
            raise PreferenceError(f"labels: expected two shares that add up to 1, not so in {rows_text(bad)}")
        label = labels[:, 0]
    elif labels.ndim == 1:
        bad = np.flatnonzero(~np.isin(labels, (-1, 0, 1)))
        if len(bad):
            raise PreferenceError(f"labels: expected 0, 1 or -1 (tie), got {labels[bad[0]]} in {rows_text(bad)}")
        label = np.where(labels == -1, 0.5, 1.0 - labels)
    else:
        raise PreferenceError(f"labels: expected [N] or [N, 2], got shape {labels.shape}")
    episode = np.concatenate([[0], np.cumsum(ends)[:-1]])
    rows = [start[:, None] + np.arange(length) for start in starts]
    sides = [
        Segments(observations[r.reshape(-1)], actions[r.reshape(-1)], np.arange(len(r) + 1) * length) for r in rows
    ]
    extras: dict[str, Any] = {}
    for number, (start, row) in enumerate(zip(starts, rows, strict=True), 1):
        extras[f"trajectory_{number}"] = np.array([str(e) for e in episode[start]], dtype=object)
        if costs is not None:
            extras[f"cost_{number}"] = np.asarray(costs)[row].sum(1)
    if source:
        extras["source"] = np.full(len(label), source, dtype=object)
    return Preferences(sides[0], sides[1], label, **extras)


def qlearning_rows(terminals: np.ndarray, timeouts: np.ndarray) -> np.ndarray:
    """Rows of a D4RL file that `d4rl.qlearning_dataset` keeps: all but the last step and those of a time-out.

    Index files made with it count these rows only: use `observations[rows]` and so on.
    """
    timeouts = np.asarray(timeouts, bool).reshape(-1)
    kept = ~timeouts
    kept[-1] = False
    return np.flatnonzero(kept)


def from_fragments(fragments: Sequence[Sequence[Any]], preferences: np.ndarray) -> Preferences:
    """Fragment pairs of the `imitation` library: objects with `obs` [T + 1, o] and `acts` [T, a].

    Args:
        fragments: N pairs.
        preferences: [N] probability that the first of a pair is preferred.
    """
    sides: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []), ([], [])]
    for row, pair in enumerate(fragments):
        if len(pair) != 2:
            raise PreferenceError(f"row {row}: expected a pair of fragments, got {len(pair)}")
        for (observations, actions), fragment in zip(sides, pair, strict=True):
            obs, acts = np.asarray(fragment.obs), np.asarray(fragment.acts)
            if len(obs) != len(acts) + 1:
                raise PreferenceError(f"row {row}: expected one more obs than acts, got {len(obs)} and {len(acts)}")
            observations.append(obs[:-1].reshape(len(acts), -1))
            actions.append(acts.reshape(len(acts), -1))
    return Preferences(Segments.of(*sides[0]), Segments.of(*sides[1]), np.asarray(preferences, np.float32))


def from_chosen(
    rows: Sequence[dict[str, Any]], *, rng: np.random.Generator | None = None, names: tuple[str, str] = ("obs", "act")
) -> Preferences:
    """TRL's preference format: `chosen` and `rejected`, each a mapping with observations and actions.

    Args:
        rows: such as a `datasets.Dataset`; "prompt" and "margin" are taken over.
        rng: shuffles which of the two comes first, so that labels are not all 1; None keeps the chosen one first.
    """
    if len(rows) == 0:
        raise PreferenceError("expected at least one comparison, got none")
    for name in ("chosen", "rejected"):
        if name not in rows[0]:
            raise PreferenceError(f"missing column {name!r}{nearest_name(name, rows[0])}: it has {', '.join(rows[0])}")
    given = ("chosen", "rejected", *(name for name in ("prompt", "margin") if rows[0].get(name) is not None))
    swap = np.zeros(len(rows), bool) if rng is None else rng.uniform(size=len(rows)) < 0.5
    sides: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []), ([], [])]
    for number, (row, turned) in enumerate(zip(rows, swap, strict=True)):
        absent = [name for name in given if row.get(name) is None]
        if absent:
            raise PreferenceError(f"row {number}: {absent[0]}: expected a value as in row 0, got none")
        for name, place in (("chosen", int(turned)), ("rejected", 1 - int(turned))):
            part = row[name]
            if not isinstance(part, dict) or any(key not in part for key in names):
                raise PreferenceError(f"row {number}: {name}: expected a mapping with {names[0]!r} and {names[1]!r}")
            for values, key in zip(sides[place], names, strict=True):
                values.append(np.asarray(part[key], np.float32))
    extras = {}
    if "prompt" in given:
        extras["prompt"] = np.array([str(row["prompt"]) for row in rows], dtype=object)
    if "margin" in given:
        extras["margin"] = np.array([row["margin"] for row in rows], np.float32)
    return Preferences(Segments.of(*sides[0]), Segments.of(*sides[1]), np.where(swap, 0.0, 1.0), **extras)
