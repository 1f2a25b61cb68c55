"""One episode: what was seen, done, earned and paid, checked once at the door.

Every reader ends here, so that nothing behind it has to ask again whether the shapes fit or a NaN slipped in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

# DSRL's flat HDF5 keys in DSRL's order (Liu et al. 2023, "Datasets and Benchmarks for Offline Safe RL").
ARRAY_KEYS = ("observations", "next_observations", "actions", "rewards", "costs")
FLAG_KEYS = ("terminals", "timeouts")
REQUIRED_KEYS = ARRAY_KEYS + FLAG_KEYS


class DataError(ValueError):
    """A data set does not hold what it must: names the key, what was expected and what came."""


@dataclass(frozen=True, eq=False)
class Episode:
    """T transitions of one episode.

    `terminals` and `timeouts` may be set at the last step only. Neither set means that the recording was cut off
    ("open"). Arrays are converted to float32 / bool / int32 and not copied where they already have that type.

    Raises:
        DataError: a wrong shape, unequal lengths, NaN or infinity; the message names the key.
    """

    observations: np.ndarray  # [T, o] float32
    next_observations: np.ndarray  # [T, o] float32
    actions: np.ndarray  # [T, a] float32
    rewards: np.ndarray  # [T] float32
    costs: np.ndarray  # [T] float32, >= 0
    terminals: np.ndarray  # [T] bool: the task ended, nothing follows
    timeouts: np.ndarray  # [T] bool: the clock ran out, the task would go on (bootstrap here)
    constraints: Mapping[str, np.ndarray] = field(default_factory=dict)  # name -> [T]; +inf: no such obstacle around
    subgoals: np.ndarray | None = None  # [T] int32, index of the current sub-goal
    plans: np.ndarray | None = None  # [T, P, a] actions of a relabelling expert; an action of NaN: no label
    metadata: Mapping[str, Any] = field(default_factory=dict)  # JSON values: env_id, seed, behaviour knobs, task ...

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 - the way into a frozen class
        for name, ndim in (("observations", 2), ("next_observations", 2), ("actions", 2), ("rewards", 1), ("costs", 1)):
            put(name, _numbers(name, getattr(self, name), ndim))
        length = len(self.observations)
        if length == 0:
            raise DataError("observations: expected at least one step, got an episode of length 0")
        for name in FLAG_KEYS:
            put(name, _flags(name, getattr(self, name)))
        for name in REQUIRED_KEYS:
            _same_length(name, getattr(self, name), length)
        if self.next_observations.shape != self.observations.shape:
            raise DataError(
                f"next_observations: expected shape {self.observations.shape} as observations, "
                f"got {self.next_observations.shape}"
            )
        if self.costs.min() < 0:
            raise DataError(f"costs: expected values >= 0, got {self.costs.min()} at step {int(self.costs.argmin())}")
        for name in FLAG_KEYS:
            if getattr(self, name)[:-1].any():
                step = int(np.flatnonzero(getattr(self, name))[0])
                raise DataError(f"{name}: expected True at the last step only, got True at step {step} of {length}")

        constraints = {}
        for name, value in self.constraints.items():
            constraints[name] = _numbers(f"constraints[{name!r}]", value, 1, allow_positive_infinity=True)
            _same_length(f"constraints[{name!r}]", constraints[name], length)
        put("constraints", constraints)
        if self.subgoals is not None:
            put("subgoals", _subgoals(self.subgoals, length))
        if self.plans is not None:
            put("plans", _plans(self.plans, length, self.actions.shape[1]))
        put("metadata", _json_mapping(self.metadata))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], *, where: str = "episode", **extras: Any) -> Episode:
        """Build from a mapping with DSRL's keys; a missing key or a bad array is reported together with `where`."""
        missing = [key for key in REQUIRED_KEYS if key not in arrays]
        if missing:
            raise DataError(f"{where}: missing keys {missing}; expected {list(REQUIRED_KEYS)}, got {sorted(arrays)}")
        try:
            return cls(**{key: arrays[key] for key in REQUIRED_KEYS}, **extras)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def total_return(self) -> float:
        return float(self.rewards.sum(dtype=np.float64))

    @property
    def total_cost(self) -> float:
        return float(self.costs.sum(dtype=np.float64))

    @property
    def is_open(self) -> bool:
        """Neither terminated nor timed out: the recording was cut off."""
        return not (self.terminals[-1] or self.timeouts[-1])

    def closed(self) -> Episode:
        """This episode, or where it is open a copy with a time-out at its last step."""
        if not self.is_open:
            return self
        timeouts = self.timeouts.copy()
        timeouts[-1] = True
        return replace(self, timeouts=timeouts)

    @property
    def seed(self) -> int | None:
        seed = self.metadata.get("seed")
        return None if seed is None else int(seed)


def fingerprint(episodes: Iterable[Episode]) -> str:
    """SHA-256 (hex) of the arrays, environment ids and seeds of a data set, in order; for model cards.

    The container does not matter (HDF5, Minari, memory), nor does metadata such as timings.
    """
    total = hashlib.sha256()
    for episode in episodes:
        total.update(json.dumps([episode.metadata.get("env_id"), episode.seed]).encode())
        arrays: dict[str, np.ndarray | None] = {key: getattr(episode, key) for key in REQUIRED_KEYS}
        arrays |= {f"constraints/{name}": value for name, value in sorted(episode.constraints.items())}
        arrays |= {"subgoals": episode.subgoals, "plans": episode.plans}
        for name, value in arrays.items():
            if value is None:
                continue
            # NaN has many bit patterns: labels are hashed with one of them.
            clean = np.where(np.isnan(value), np.float32(np.nan), value) if name == "plans" else value
            total.update(f"{name}{value.dtype.str}{value.shape}".encode())
            total.update(np.ascontiguousarray(clean).tobytes())
    return total.hexdigest()


def _numbers(name: str, value: Any, ndim: int, *, allow_positive_infinity: bool = False) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # an overflow becomes an infinity, which is reported below
            array = np.asarray(value).astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected numbers, got {type(value).__name__} ({error})") from None
    if ndim == 1 and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != ndim:
        raise DataError(f"{name}: expected {'[T, n]' if ndim == 2 else '[T]'}, got shape {array.shape}")
    bad = np.isnan(array) | (np.isneginf(array) if allow_positive_infinity else np.isinf(array))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(f"{name}: expected finite values, got {array[where]} at index {where} ({bad.sum()} in all)")
    return array


def _flags(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{name}: expected [T], got shape {array.shape}")
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise DataError(f"{name}: expected booleans or 0 / 1, got {array[~np.isin(array, (0, 1))][0]!r}")
    return array.astype(bool, copy=False)


def _subgoals(value: Any, length: int) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"subgoals: expected integers [T], got shape {array.shape} of {array.dtype}")
    _same_length("subgoals", array, length)
    if array.min() < 0:
        raise DataError(f"subgoals: expected indices >= 0, got {array.min()}")
    return array.astype(np.int32, copy=False)


def _plans(value: Any, length: int, action_dim: int) -> np.ndarray:
    array = np.asarray(value).astype(np.float32, copy=False)
    if array.ndim != 3 or array.shape[2] != action_dim or array.shape[1] == 0:
        raise DataError(f"plans: expected [T, P, {action_dim}] with P >= 1, got shape {array.shape}")
    _same_length("plans", array, length)
    if np.isinf(array).any():
        raise DataError("plans: expected finite actions (or NaN for none), got an infinity")
    missing = np.isnan(array)
    if (missing.any(-1) != missing.all(-1)).any():
        step, row = (int(i) for i in np.argwhere(missing.any(-1) != missing.all(-1))[0])
        raise DataError(f"plans: expected an action or all NaN, got a partly-NaN action at step {step}, row {row}")
    return array


def _same_length(name: str, array: np.ndarray, length: int) -> None:
    if len(array) != length:
        raise DataError(f"{name}: expected length {length} as observations, got {len(array)}")


def _json_mapping(value: Mapping[str, Any]) -> dict[str, Any]:
    """A plain copy of the metadata in JSON values; numpy scalars become numbers."""
    if not isinstance(value, Mapping):
        raise DataError(f"metadata: expected a mapping, got {type(value).__name__}")
    plain = lambda item: item.tolist() if isinstance(item, (np.generic, np.ndarray)) else _refuse(item)  # noqa: E731
    return dict(json.loads(json.dumps(dict(value), default=plain)))


def _refuse(item: Any) -> Any:
    raise DataError(f"metadata: expected JSON values, got {type(item).__name__}: {item!r}")
