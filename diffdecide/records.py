"""What an evaluation leaves behind: one record per episode, aggregates with intervals, and where they come from."""

from __future__ import annotations

import datetime
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from diffdecide.files import read_json, write_json
from diffdecide.intervals import Interval, bootstrap_mean, paired_difference
from safety.costs import cvar

_TIMES = ("plan_ms", "filter_ms", "control_ms")


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode. Records compare equal when everything but the clock agrees."""

    seed: int
    return_: float  # "return" in files
    cost: float  # sum of the binary costs
    length: int  # control steps
    success: bool | None  # None where the task has no notion of it (Circle, Run, velocity)
    interventions: int  # steps in which the filter changed the action
    infeasible: int  # steps in which no action was safe
    stuck: float | None  # share of steps slower than 0.05 m/s outside the target's radius; None without a scene
    plan_ms: float | None = field(default=None, compare=False)  # mean per plan; None where nothing was planned
    filter_ms: float | None = field(default=None, compare=False)  # mean per filtered step
    control_ms: float | None = field(default=None, compare=False)  # mean per control step, everything included
    details: Mapping[str, Any] = field(default_factory=dict)  # further columns: the prompt, what was understood

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "seed": self.seed,
            "return": self.return_,
            "cost": self.cost,
            "length": self.length,
            "success": self.success,
            "interventions": self.interventions,
            "infeasible": self.infeasible,
            "stuck": self.stuck,
            **{name: getattr(self, name) for name in _TIMES},
        }
        clash = row.keys() & self.details.keys()
        if clash:
            raise ValueError(f"details must not use the names of record fields, got {sorted(clash)}")
        return row | dict(self.details)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EpisodeRecord:
        """Rebuild a record; unknown columns become `details`.

        Raises:
            ValueError: a column is missing.
        """
        rest = dict(row)
        names = ("seed", "return", "cost", "length", "success", "interventions", "infeasible", "stuck")
        missing = [name for name in names if name not in rest]
        if missing:
            raise ValueError(f"episode record lacks {missing}, it has {sorted(rest)}")
        known = {("return_" if name == "return" else name): rest.pop(name) for name in names}
        times = {name: rest.pop(name, None) for name in _TIMES}
        return cls(**known, **times, details=rest)


@dataclass(frozen=True)
class EvaluationResult:
    """Episodes in the order of their seeds, and the provenance of the run."""

    episodes: tuple[EpisodeRecord, ...]
    cost_limit: float = 25.0  # cost per episode that counts as within the budget
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.cost_limit) or self.cost_limit < 0:
            raise ValueError(f"cost_limit must be finite and >= 0, got {self.cost_limit}")

    @property
    def commits(self) -> list[str]:
        """Commits that the episodes were made with, sorted: several where a run went on after a change."""
        made = [self.meta.get("commit"), *self.meta.get("earlier_commits", ())]
        return sorted({"unknown" if commit is None else str(commit) for commit in made})

    def column(self, name: str) -> np.ndarray:
        """One column [N] as float64, nan where an episode has no value."""
        rows = [episode.to_json() for episode in self.episodes]
        values = [row.get(name) for row in rows]
        return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)

    def interval(self, name: str) -> Interval | None:
        """Mean and 95 % bootstrap interval of a column over the episodes that have a value; None where none has."""
        values = self.column(name)
        values = values[np.isfinite(values)]
        return bootstrap_mean(values) if values.size else None

    def aggregate(self) -> dict[str, Any]:
        """Means with 95 % bootstrap intervals; for the cost also its maximum, CVaR at 10 % and the share within limit.

        The figures are over the episodes that have a value; `count` says how many those are.
        """
        if not self.episodes:
            return {"count": 0}
        table: dict[str, Any] = {"count": len(self.episodes)}
        for name in ("return", "cost", "length", "success", "interventions", "infeasible", "stuck", *_TIMES):
            interval = self.interval(name)
            table[name] = None if interval is None else interval.to_dict()
        cost = self.column("cost")
        table["cost"] |= {
            "max": float(cost.max()),
            "cvar_0.1": float(cvar(cost, 0.1)),
            "limit": self.cost_limit,
            "share_within_limit": float(np.mean(cost <= self.cost_limit)),
        }
        return table

    def compare(self, other: EvaluationResult, name: str = "return") -> Interval:
        """Interval of the mean difference `self - other` in a column, over the seeds that both have.

        Raises:
            ValueError: no seed in common.
        """
        mine = dict(zip((episode.seed for episode in self.episodes), self.column(name), strict=True))
        theirs = dict(zip((episode.seed for episode in other.episodes), other.column(name), strict=True))
        seeds = sorted(mine.keys() & theirs.keys())
        seeds = [seed for seed in seeds if math.isfinite(mine[seed]) and math.isfinite(theirs[seed])]
        if not seeds:
            raise ValueError(f"the two results have no seed with a value of {name!r} in common")
        return paired_difference([mine[seed] for seed in seeds], [theirs[seed] for seed in seeds])

    def to_json(self) -> dict[str, Any]:
        rows = [episode.to_json() for episode in self.episodes]
        return {"episodes": rows, "aggregate": self.aggregate(), "meta": dict(self.meta)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result as JSON, atomically."""
        return write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EvaluationResult:
        """Read a saved result.

        Raises:
            ValueError: no such file, no JSON, or JSON of another layout.
        """
        content = read_json(path)
        if not isinstance(content, dict) or not {"episodes", "meta"} <= content.keys():
            raise ValueError(f"{os.fspath(path)} is not an evaluation result: it needs 'episodes' and 'meta'")
        meta = content["meta"]
        episodes = tuple(EpisodeRecord.from_json(row) for row in content["episodes"])
        return cls(episodes, cost_limit=float(meta.get("cost_limit", 25.0)), meta=meta)


def provenance(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Commit, machine, versions, command and date: what a reader needs to make a figure again.

    No host name, user name or absolute path is recorded. `commit` is None outside a checkout.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "command": _portable_command(sys.argv if argv is None else argv),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "python": platform.python_version(),
        "versions": {
            name: version for name in ("torch", "mujoco", "diffusers", "numpy") if (version := _version(name))
        },
    }


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():  # an installed copy inside somebody else's checkout is not that checkout
        return None
    try:
        result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def portable_path(word: str) -> str:
    """A path as others may read it: relative where it lies below the working directory, else its last name."""
    path = Path(word)
    if not path.is_absolute():
        return word
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path.name


def _portable_command(argv: Sequence[str]) -> str:
    def portable(word: str) -> str:
        name, equals, value = word.partition("=")  # NAME=PATH, --option=PATH
        return f"{name}={portable_path(value)}" if equals else portable_path(word)

    return shlex.join([Path(argv[0]).name, *(portable(word) for word in argv[1:])]) if argv else ""
