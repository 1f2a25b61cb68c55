"""Writing episodes: DSRL's flat HDF5 with our extras beside it, in shards while collecting, and Minari.

Layout of the HDF5 file (N steps in all, M episodes):

| data set | shape | |
|---|---|---|
| observations, next_observations, actions, rewards, costs, terminals, timeouts | [N, ...] | as in DSRL |
| constraints/NAME | [N] | NaN in episodes without it |
| subgoals | [N] | -1 in episodes without |
| plans | [N, P, a] | NaN where there is no label |
| episodes/metadata | [M] | JSON strings |

The file attribute `settings` holds JSON about the whole data set.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from diffdecide.data.episode import REQUIRED_KEYS, DataError, Episode
from diffdecide.data.readers import HDF5Source

CHUNK_ROWS = 1024


def temporary_path(path: Path) -> Path:
    """A name beside `path` that no other process uses; on the same file system, so that renaming is atomic."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


class HDF5Writer:
    """Append episodes one by one; the file appears under its name when the `with` block ends without an exception.

    Args:
        path: the file to create; replaced when it exists
        settings: JSON values about the data set as a whole
        compression: gzip level 0 (none) to 9

    Raises:
        DataError: an episode that does not fit to those before it, or an open one (see `Episode.closed`)
    """

    def __init__(self, path: str | Path, *, settings: Mapping[str, Any] | None = None, compression: int = 4) -> None:
        if not 0 <= compression <= 9:
            raise ValueError(f"compression: expected 0 to 9, got {compression}")
        self.path = Path(path)
        self.episodes = 0
        self.steps = 0
        self._options: dict[str, Any] = {"compression": "gzip", "compression_opts": compression} if compression else {}
        self._settings = json.dumps(dict(settings or {}), sort_keys=True)
        self._temporary = temporary_path(self.path)
        self._file: h5py.File | None = None

    def __enter__(self) -> HDF5Writer:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = h5py.File(self._temporary, "w")
        self._file.attrs["settings"] = self._settings
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if kind is None and self.episodes:
            os.replace(self._temporary, self.path)
            return
        self._temporary.unlink(missing_ok=True)
        if kind is None:
            raise DataError(f"{self.path}: expected at least one episode to write, got none")

    def append(self, episode: Episode) -> None:
        if self._file is None:
            raise RuntimeError("HDF5Writer.append is to be called inside a `with` block")
        if episode.is_open:
            raise DataError(
                f"episode {self.episodes}: expected a terminal or a time-out at its last step, got an open episode; "
                "in a flat file it would run into the next one (Episode.closed() sets a time-out)"
            )
        if self.episodes:
            for key in ("observations", "actions"):
                width, expected = getattr(episode, key).shape[1], self._file[key].shape[1]
                if width != expected:
                    raise DataError(f"episode {self.episodes}: {key}: expected [T, {expected}], got [T, {width}]")
            if episode.plans is not None and "plans" in self._file:
                expected = self._file["plans"].shape[1]
                if episode.plans.shape[1] != expected:
                    raise DataError(
                        f"episode {self.episodes}: plans: expected [T, {expected}, a], got {episode.plans.shape}"
                    )
        rows: dict[str, tuple[np.ndarray, Any]] = {key: (getattr(episode, key), 0) for key in REQUIRED_KEYS}
        rows |= {f"constraints/{name}": (value, np.nan) for name, value in episode.constraints.items()}
        if episode.subgoals is not None:
            rows["subgoals"] = (episode.subgoals, -1)
        if episode.plans is not None:
            rows["plans"] = (episode.plans, np.nan)
        for name, (value, fill) in rows.items():
            self._dataset(name, value, fill)
        optional = [name for name in ("subgoals", "plans") if name in self._file]
        optional += [f"constraints/{name}" for name in self._file.get("constraints", {})]
        stop = self.steps + len(episode)
        for name in {*rows, *optional}:
            self._file[name].resize(stop, axis=0)  # rows that are not written hold the fill value
            if name in rows:
                self._file[name][self.steps :] = rows[name][0]
        if "episodes/metadata" not in self._file:
            kind = h5py.string_dtype()
            self._file.create_dataset("episodes/metadata", (0,), kind, maxshape=(None,), chunks=(CHUNK_ROWS,))
        texts = self._file["episodes/metadata"]
        texts.resize(self.episodes + 1, axis=0)
        texts[self.episodes] = json.dumps(dict(episode.metadata), sort_keys=True)
        self.steps, self.episodes = stop, self.episodes + 1

    def _dataset(self, name: str, value: np.ndarray, fill: Any) -> None:
        assert self._file is not None  # append() has checked
        if name not in self._file:
            tail = value.shape[1:]
            # One chunk never far above 1 MiB, h5py's chunk cache.
            rows = max(1, min(CHUNK_ROWS, 2**20 // max(1, value.dtype.itemsize * int(np.prod(tail)))))
            self._file.create_dataset(
                name,
                (self.steps, *tail),
                value.dtype,
                maxshape=(None, *tail),
                chunks=(rows, *tail),
                fillvalue=fill,
                **self._options,
            )


def write_hdf5(path: str | Path, episodes: Iterable[Episode], *, settings: Mapping[str, Any] | None = None) -> Path:
    """Write a data set atomically; `episodes` may be a generator, one episode is held at a time."""
    with HDF5Writer(path, settings=settings) as writer:
        for episode in episodes:
            writer.append(episode)
    return writer.path


class ShardedWriter:
    """Collection that may be killed at any moment and from many processes at once.

    Finished episodes go to shard files in the folder `PATH.shards`, each written atomically. `merge` streams them,
    sorted by seed, into `PATH`. An episode is known by `metadata["seed"]`; `missing` says what remains to be done.

    Args:
        path: the data set in the end
        settings: how it is collected; resuming with other settings is refused

    Raises:
        DataError: shards or the data set were collected with other settings
    """

    def __init__(self, path: str | Path, *, settings: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.folder = Path(f"{self.path}.shards")
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings or {})))
        for file in self._files():
            with HDF5Source(file) as source:
                if source.settings != self.settings:
                    raise DataError(f"{file}: was collected with settings {source.settings}, got {self.settings}")

    def _files(self) -> list[Path]:
        files = [self.path] if self.path.exists() else []
        return files + sorted(self.folder.glob("*.hdf5"))

    def seeds(self) -> set[int]:
        """Seeds that are on disk, merged or in shards."""
        return set(self._index())

    def missing(self, seeds: Iterable[int]) -> list[int]:
        """Those of `seeds` that are not on disk, in their order."""
        present = self.seeds()
        return [seed for seed in seeds if seed not in present]

    def add(self, episodes: Sequence[Episode]) -> Path:
        """Write one shard; safe from several processes at once."""
        seeds = [episode.seed for episode in episodes]
        if None in seeds:
            raise DataError(
                f"episode {seeds.index(None)}: metadata: expected a 'seed' to know the episode by, got none"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{min(seeds, default=0):08d}-{uuid.uuid4().hex[:12]}.hdf5"  # type: ignore[type-var]
        return write_hdf5(self.folder / name, episodes, settings=self.settings)

    def merge(self, *, keep_shards: bool = False) -> Path:
        """All episodes on disk into one file, in the order of their seeds; the first of equal seeds counts."""
        index = self._index()
        if not index:
            raise DataError(f"{self.folder}: expected at least one episode to merge, got none")
        source: HDF5Source | None = None
        try:
            with HDF5Writer(self.path, settings=self.settings) as writer:
                for seed in sorted(index):
                    file, position = index[seed]
                    if source is None or source.path != file:
                        if source is not None:
                            source.close()
                        source = HDF5Source(file)
                    writer.append(source[position])
        finally:
            if source is not None:
                source.close()
        if not keep_shards:
            shutil.rmtree(self.folder, ignore_errors=True)
        return self.path

    def _index(self) -> dict[int, tuple[Path, int]]:
        index: dict[int, tuple[Path, int]] = {}
        for file in self._files():
            with HDF5Source(file) as source:
                for position in range(len(source)):
                    seed = source.metadata(position).get("seed")
                    if seed is None:
                        raise DataError(f"{file}: episode {position}: metadata: expected a 'seed', got none")
                    index.setdefault(int(seed), (file, position))
        return index


def write_minari(path: str | Path, episodes: Sequence[Episode], *, dataset_id: str) -> Path:
    """Write a Minari data set (0.5) atomically into the folder `path`, which must not exist.

    Costs, constraints, sub-goals and plans go to `infos`, with the same keys in every episode and one entry per step.
    To load it by id put the folder at `$MINARI_DATASETS_PATH/DATASET_ID`, or open it by
    `minari.MinariDataset(path / "data")`.

    Args:
        dataset_id: "(namespace/)name-vN"
    """
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.dataset.minari_storage import MinariStorage

    try:
        parse_dataset_id(dataset_id)
    except (TypeError, ValueError):  # minari turns a missing version into int(None)
        raise DataError(f"dataset_id: expected '(namespace/)name-vN', got {dataset_id!r}") from None
    target = Path(path)
    if target.exists():
        raise DataError(f"{target}: expected a folder that does not exist yet")
    if not episodes:
        raise DataError(f"{target}: expected at least one episode to write, got none")
    box = lambda width: gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)  # noqa: E731
    spaces = box(episodes[0].observations.shape[1]), box(episodes[0].actions.shape[1])
    names = sorted({name for episode in episodes for name in episode.constraints})
    labelled = [episode.plans.shape[1] for episode in episodes if episode.plans is not None]
    temporary = temporary_path(target)
    try:
        (temporary / "data").mkdir(parents=True)
        storage = MinariStorage.new(temporary / "data", observation_space=spaces[0], action_space=spaces[1])
        storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__})
        for number, episode in enumerate(episodes):
            length, width = episode.actions.shape
            infos: dict[str, Any] = {"cost": episode.costs}
            infos |= {f"constraint_{n}": episode.constraints.get(n, np.full(length, np.nan, np.float32)) for n in names}
            if any(other.subgoals is not None for other in episodes):
                infos["subgoal"] = np.full(length, -1, np.int32) if episode.subgoals is None else episode.subgoals
            if labelled:
                empty = np.full((length, max(labelled), width), np.nan, np.float32)
                if episode.plans is not None:
                    empty[:, : episode.plans.shape[1]] = episode.plans
                infos["plan"] = empty
            observations = np.concatenate([episode.observations, episode.next_observations[-1:]])
            buffer = EpisodeBuffer(
                id=number,
                seed=episode.seed,
                observations=observations,  # type: ignore[arg-type]
                actions=episode.actions,  # type: ignore[arg-type]
                rewards=episode.rewards,  # type: ignore[arg-type]
                terminations=episode.terminals,  # type: ignore[arg-type]
                truncations=episode.timeouts,  # type: ignore[arg-type]
                infos=infos,
            )
            storage.update_episodes([buffer])
            text = json.dumps(dict(episode.metadata), sort_keys=True)
            storage.update_episode_metadata([{"diffdecide": text}], [number])
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
