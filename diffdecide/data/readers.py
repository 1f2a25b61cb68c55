"""Reading episodes: DSRL and D4RL HDF5, Minari, OmniSafe; `read` picks by content.

All readers return `Episode`s, so that shapes, lengths and NaN are checked in one place, and prefix what is wrong with
the file and the number of the episode.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import h5py
import numpy as np

from diffdecide.data.episode import FLAG_KEYS, REQUIRED_KEYS, DataError, Episode

OpenEpisode = Literal["keep", "drop"]
_WITHOUT_SUCCESSOR = "next_observations"


class HDF5Source:
    """Episodes of a flat HDF5 file by number, read from disk when asked for.

    Args:
        path: a file with DSRL's keys, each [N, ...]; (N, 1) counts as (N,)
        open_episode: what becomes of steps behind the last terminal or time-out; both warn
        d4rl: costs and next_observations may be missing: costs are then 0; the last step before a time-out has no
            successor on record and is left out, the time-out moves one step forward

    Raises:
        DataError: not an HDF5 file, missing keys, unequal lengths
    """

    def __init__(self, path: str | Path, *, open_episode: OpenEpisode = "keep", d4rl: bool = False) -> None:
        if open_episode not in ("keep", "drop"):
            raise ValueError(f"open_episode: expected 'keep' or 'drop', got {open_episode!r}")
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise DataError(f"{self.path}: expected an HDF5 file, could not open it ({error})") from None
        try:
            self._check_keys(d4rl)
            self._split(open_episode)
        except BaseException:
            self._file.close()
            raise

    def _check_keys(self, d4rl: bool) -> None:
        optional = ("costs", _WITHOUT_SUCCESSOR) if d4rl else ()
        missing = [key for key in REQUIRED_KEYS if key not in self._file and key not in optional]
        if missing:
            hint = "; a D4RL file is read by read_d4rl, with costs of 0" if missing == ["costs"] else ""
            expected, got = list(REQUIRED_KEYS), sorted(self._file)
            raise DataError(f"{self.path}: missing keys {missing}; expected {expected}, got {got}{hint}")
        self._steps = [key for key in REQUIRED_KEYS if key in self._file]
        self._steps += [key for key in ("subgoals", "plans") if key in self._file]
        constraints = self._file.get("constraints")
        self._constraints = list(constraints) if isinstance(constraints, h5py.Group) else []
        self._steps += [f"constraints/{name}" for name in self._constraints]
        lengths = {}
        for key in self._steps:
            if not isinstance(self._file[key], h5py.Dataset) or self._file[key].ndim == 0:
                raise DataError(f"{self.path}: {key}: expected an array [N, ...], got {self._file[key]!r}")
            lengths[key] = self._file[key].shape[0]
        if len(set(lengths.values())) != 1:
            raise DataError(f"{self.path}: expected equal lengths, got {lengths}")
        self.steps = lengths["observations"]
        if self.steps == 0:
            raise DataError(f"{self.path}: expected at least one step, got none")

    def _split(self, open_episode: OpenEpisode) -> None:
        done = np.zeros(self.steps, dtype=bool)
        for key in FLAG_KEYS:
            flags = self._file[key][()]
            if flags.size != self.steps:
                raise DataError(f"{self.path}: {key}: expected [{self.steps}], got shape {flags.shape}")
            done |= flags.reshape(-1).astype(bool)
        ends = np.flatnonzero(done) + 1
        left = self.steps - (int(ends[-1]) if len(ends) else 0)
        if left:
            what = "kept as an open episode" if open_episode == "keep" else "dropped"
            warnings.warn(
                f"{self.path}: the last {left} steps end in neither a terminal nor a time-out; {what}", stacklevel=4
            )
            if open_episode == "keep":
                ends = np.append(ends, self.steps)
            elif not len(ends):
                raise DataError(f"{self.path}: expected a finished episode, got one open episode, which is dropped")
        self._ends = ends
        self._starts = np.concatenate([[0], ends[:-1]])
        self._metadata: list[dict[str, Any]] = [{} for _ in ends]
        if "episodes/metadata" in self._file:
            texts = self._file["episodes/metadata"].asstr()[()]
            if len(texts) != len(ends):
                raise DataError(f"{self.path}: episodes/metadata: expected {len(ends)} entries, got {len(texts)}")
            self._metadata = [json.loads(text) for text in texts]

    @property
    def settings(self) -> dict[str, Any]:
        """What the writer said about the data set as a whole."""
        return dict(json.loads(self._file.attrs.get("settings", "{}")))

    def metadata(self, index: int) -> dict[str, Any]:
        return self._metadata[index]

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(f"episode: expected 0 to {len(self) - 1}, got {index}")
        rows = slice(int(self._starts[index]), int(self._ends[index]))
        arrays: dict[str, Any] = {key: self._file[key][rows] for key in self._steps}
        where = f"{self.path}: episode {index}"
        constraints = {name: arrays.pop(f"constraints/{name}") for name in self._constraints}
        # The writer fills what an episode does not have.
        constraints = {name: value for name, value in constraints.items() if not np.isnan(value).all()}
        subgoals, plans = arrays.pop("subgoals", None), arrays.pop("plans", None)
        if subgoals is not None and subgoals.dtype.kind == "i" and (subgoals < 0).all():
            subgoals = None
        if plans is not None and np.isnan(plans).all():
            plans = None
        arrays.setdefault("costs", np.zeros(rows.stop - rows.start, np.float32))
        if _WITHOUT_SUCCESSOR not in arrays:
            arrays = _with_successors(arrays, where)
        extras = {"constraints": constraints, "subgoals": subgoals, "plans": plans}
        return Episode.from_arrays(arrays, where=where, metadata=self._metadata[index], **extras)

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> HDF5Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _with_successors(arrays: dict[str, Any], where: str) -> dict[str, Any]:
    """Next observations by shifting; see `HDF5Source(d4rl=True)`."""
    observations = np.asarray(arrays["observations"])
    if np.asarray(arrays["terminals"]).reshape(-1)[-1]:
        # Nothing follows a terminal state and nobody bootstraps from it: any finite value will do.
        return arrays | {_WITHOUT_SUCCESSOR: np.concatenate([observations[1:], observations[-1:]])}
    if len(observations) < 2:
        raise DataError(f"{where}: {_WITHOUT_SUCCESSOR} are missing and one step alone has no successor")
    shifted = observations[1:]
    arrays = {key: value[:-1] for key, value in arrays.items()} | {_WITHOUT_SUCCESSOR: shifted}
    timeouts = np.zeros(len(shifted), dtype=bool)
    timeouts[-1] = True
    return arrays | {"timeouts": timeouts}


def iter_hdf5(path: str | Path, *, open_episode: OpenEpisode = "keep") -> Iterator[Episode]:
    """Episodes of a DSRL file one at a time, for data sets that do not fit into memory."""
    with HDF5Source(path, open_episode=open_episode) as source:
        yield from source


def read_hdf5(path: str | Path, *, open_episode: OpenEpisode = "keep") -> list[Episode]:
    """Episodes of a file in DSRL's format, with our extras where it has them; see `HDF5Source`."""
    with HDF5Source(path, open_episode=open_episode) as source:
        return list(source)


def read_d4rl(path: str | Path, *, open_episode: OpenEpisode = "keep") -> list[Episode]:
    """Episodes of a D4RL file: as DSRL, but costs and next_observations may be missing; see `HDF5Source`."""
    with HDF5Source(path, open_episode=open_episode, d4rl=True) as source:
        return list(source)


def read_minari(dataset: Any) -> list[Episode]:
    """Episodes of a Minari data set; the cost is `infos["cost"]`.

    Info keys that are missing or NaN in places (`goal_met` of Safety-Gymnasium) do not matter. Infos may start at the
    reset (T + 1 entries) or at the first step (T).

    Args:
        dataset: a folder, or a `minari.MinariDataset`
    """
    import minari

    if isinstance(dataset, str | Path):
        folder = Path(dataset)
        folder = folder / "data" if (folder / "data").is_dir() else folder
        try:
            dataset = minari.MinariDataset(folder)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder}: expected a Minari data set ({error})") from None
    env_id = getattr(dataset.spec.env_spec, "id", None)
    details = dataset.storage.get_episode_metadata(dataset.episode_indices)
    episodes = []
    for item, detail in zip(dataset.iterate_episodes(), details, strict=True):
        where = f"{dataset.spec.dataset_id}: episode {item.id}"
        length, infos = len(item), item.infos or {}
        steps = lambda key, n=length, where=where, infos=infos: _info_steps(where, key, infos[key], n)  # noqa: E731
        if "cost" not in infos:
            raise DataError(f"{where}: missing key 'infos/cost', got infos {sorted(infos)}")
        observations = np.asarray(item.observations)
        if observations.ndim != 2 or len(observations) != length + 1:
            raise DataError(f"{where}: observations: expected [{length + 1}, o], got shape {observations.shape}")
        metadata = {"env_id": env_id} if env_id else {}
        if detail.get("seed") is not None:
            metadata["seed"] = detail["seed"]
        metadata |= json.loads(str(detail.get("diffdecide", "{}")))
        names = [key for key in infos if key.startswith("constraint_") and not np.isnan(steps(key)).all()]
        subgoals = steps("subgoal") if "subgoal" in infos else None
        plans = steps("plan") if "plan" in infos else None
        arrays = {
            "observations": observations[:-1],
            "next_observations": observations[1:],
            "actions": item.actions,
            "rewards": item.rewards,
            "costs": steps("cost"),
            "terminals": item.terminations,
            "timeouts": item.truncations,
        }
        episodes.append(
            Episode.from_arrays(
                arrays,
                where=where,
                constraints={key.removeprefix("constraint_"): steps(key) for key in names},
                subgoals=None if subgoals is None or (subgoals < 0).all() else subgoals,
                plans=None if plans is None or np.isnan(plans).all() else plans,
                metadata=metadata,
            )
        )
    return episodes


def _info_steps(where: str, key: str, value: Any, length: int) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim == 0 or len(array) not in (length, length + 1):
        raise DataError(f"{where}: infos/{key}: expected {length} or {length + 1} entries, got shape {array.shape}")
    return array[-length:]  # T + 1 entries: the first belongs to the reset


def read_omnisafe(path: str | Path, *, max_steps: int | None = None) -> list[Episode]:
    """Episodes of an OmniSafe npz: `obs, action, reward, cost, next_obs, done`.

    `done` does not tell a terminal from a time-out: an episode of `max_steps` steps timed out, a shorter one
    terminated.

    Args:
        max_steps: time limit in steps; None: the longest episode in the file
    """
    names = {
        "observations": "obs",
        "actions": "action",
        "rewards": "reward",
        "costs": "cost",
        "next_observations": "next_obs",
    }
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected an npz file ({error})") from None
    missing = [key for key in (*names.values(), "done") if key not in arrays]
    if missing:
        raise DataError(f"{path}: missing keys {missing}; expected {[*names.values(), 'done']}, got {sorted(arrays)}")
    lengths = {key: len(arrays[key]) for key in (*names.values(), "done")}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{path}: expected equal lengths, got {lengths}")
    ends = np.flatnonzero(arrays["done"].reshape(-1)) + 1
    if not len(ends) or ends[-1] != lengths["done"]:
        warnings.warn(f"{path}: the last steps are not done; kept as an open episode", stacklevel=2)
        ends = np.append(ends, lengths["done"])
    starts = np.concatenate([[0], ends[:-1]])
    limit = int((ends - starts).max()) if max_steps is None else max_steps
    episodes = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        length = int(end - start)
        last = np.arange(length) == length - 1
        done = bool(arrays["done"].reshape(-1)[end - 1])
        flags = {"terminals": last & (done and length < limit), "timeouts": last & (done and length >= limit)}
        values = {key: arrays[name][start:end] for key, name in names.items()}
        episodes.append(Episode.from_arrays(values | flags, where=f"{path}: episode {number}"))
    return episodes


def read(path: str | Path) -> list[Episode]:
    """Episodes of any supported format, told apart by what is inside, not by the name.

    A file without costs is an error here: whether they are really 0 is for the caller to say, by `read_d4rl`.

    Raises:
        FileNotFoundError: nothing there
        DataError: no supported format, or bad content
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        return read_minari(path)
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            is_minari = any(key.startswith("episode_") and isinstance(file[key], h5py.Group) for key in file)
        return read_minari(path.parent) if is_minari else read_hdf5(path)
    if zipfile.is_zipfile(path):
        return read_omnisafe(path)
    raise DataError(f"{path}: expected HDF5 (DSRL, D4RL), a Minari folder or an OmniSafe npz; it is none of these")
