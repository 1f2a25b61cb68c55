"""The safe-RL benchmark: tasks x methods x training seeds x cost limits, cell by cell, resumable.

A cell is one file; what is finished is never done again, and the table is made from whatever is there, saying of every
other cell that it was not run and why. Scores follow DSRL (`safety.costs`). Several machines share a folder and the
work by `shard`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffdecide.app.bench.safe_rl_methods import METHODS, Cell, Means, build
from diffdecide.files import read_json, write_json
from diffdecide.records import EvaluationResult, provenance

VERSION = 3
MARK = "safe_rl.json"
# What one cell may fail by without costing the others.
FAILURES = (ValueError, ImportError, RuntimeError, FloatingPointError, OSError)


@dataclass(frozen=True, kw_only=True)
class SafeRLConfig:
    """What is run.

    Attributes:
        data: environment id -> data file; methods that learn from it are left out where there is none.
        limits: cost limits, run-time inputs of the methods that use one.
        training_seeds: of the methods that are trained.
        episodes: per cell; cell seeds are the same for all methods.
        seconds: training time per method and training seed, of one core; a method that takes a model per limit
            divides it among them.
        margin: m, of the filter.
        shard: (i, n): run the i-th of n parts (1 is the first); cells that share a model are in one part.
    """

    envs: tuple[str, ...] = ("SafetyPointGoal1-v0",)
    methods: tuple[str, ...] = tuple(METHODS)
    data: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[float, ...] = (10.0, 20.0, 40.0, 80.0)
    training_seeds: tuple[int, ...] = (0, 1, 2)
    episodes: int = 20
    seed: int = 10_000
    seconds: float = 600.0
    margin: float = 0.03
    workers: int = 1
    max_steps: int | None = None
    shard: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise ValueError(f"unknown methods {', '.join(unknown)}; known: {', '.join(METHODS)}")
        for name in ("envs", "methods", "limits", "training_seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        if not all(np.isfinite(limit) and limit > 0 for limit in self.limits):
            raise ValueError(f"limits must be finite positive numbers, got {self.limits}")
        for name in ("episodes", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (np.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"seconds must be a positive number, got {self.seconds}")
        if not (np.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin must be a finite number of metres >= 0, got {self.margin}")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise ValueError(f"shard must be (i, n) with 1 <= i <= n, got {self.shard}")
        for env, file in self.data.items():
            if not Path(file).exists():
                raise ValueError(f"no such data file for {env}: {file}")

    def shared(self) -> dict[str, Any]:
        """What all cells of one folder share."""
        names = ("seed", "seconds", "margin", "max_steps")
        return {name: getattr(self, name) for name in names}


def cells(config: SafeRLConfig) -> list[Cell]:
    """All cells, in the order in which they are run: every method once before any is repeated."""
    result = []
    for seed_index, seed in enumerate(config.training_seeds):
        for env in config.envs:
            for name in config.methods:
                method = METHODS[name]
                trained = method.is_trained(env)
                if seed_index and not trained:
                    continue
                for limit in config.limits if method.heeds_limit(env) else (None,):
                    result.append(Cell(env, name, seed if trained else None, limit))
    return result


def own_cells(config: SafeRLConfig) -> list[Cell]:
    """The cells of this config's shard: the same for every call, so that machines need not talk to each other.

    Where the guard is learned, all cells of a training seed share it, and stay together.
    """
    from diffdecide.app.bench.learned_guard import has_geometry
    from safety.envs import spec

    part, parts = config.shard
    groups: dict[tuple[str, str], int] = {}
    learned = {env for env in config.envs if not has_geometry(spec(env))}
    chosen = []
    for cell in cells(config):
        shared = f"seed{cell.training_seed or 0}" if cell.env in learned else cell.model or cell.name
        group = groups.setdefault((cell.env, shared), len(groups))
        if group % parts == part - 1:
            chosen.append(cell)
    return chosen


def check_data(config: SafeRLConfig) -> None:
    """Refuse data files that do not fit before any work is spent.

    Raises:
        ValueError: (DataError) a file that cannot be read, has no costs, or is of another environment.
    """
    from diffdecide.data.readers import HDF5Source
    from safety.envs import spec

    for env, file in config.data.items():
        if Path(file).suffix not in (".hdf5", ".h5"):
            continue  # Minari and OmniSafe: told when they are read
        with HDF5Source(file) as source:
            named, first = source.metadata(0).get("env_id", env), source[0]
        known = spec(env)
        got = first.observations.shape[1], first.actions.shape[1]
        if named != env:
            raise ValueError(f"{file} holds episodes of {named}, it was named for {env}")
        if got != (known.observation_dim, known.action_dim):
            raise ValueError(
                f"{file}: {env} has observations of {known.observation_dim} and actions of {known.action_dim} values, "
                f"got {got[0]} and {got[1]}"
            )


def open_folder(config: SafeRLConfig, out: Path) -> None:
    """Take `out` for this benchmark.

    Raises:
        ValueError: it holds results of another version or of other settings.
    """
    file = out / MARK
    if file.exists():
        found = read_json(file)
        if found.get("version") != VERSION:
            raise ValueError(
                f"{out} holds results of version {found.get('version')!r} of this benchmark, this is {VERSION}: "
                "use another folder"
            )
        if found.get("settings") != config.shared():
            raise ValueError(f"{out} was made with {found.get('settings')}, not {config.shared()}: use another folder")
        return
    write_json(file, {"version": VERSION, "settings": config.shared(), "provenance": provenance()})


def run(config: SafeRLConfig, out: Path, *, told: Callable[[str], None] = print) -> dict[str, str]:
    """Run all cells of this shard that are not finished; which ones could not be run, and why.

    A cell that fails does not cost the others; its reason goes into the table. Interrupt and call again at will.

    Raises:
        ValueError: a data file that does not fit, or a folder of another version or with other settings.
    """
    check_data(config)
    open_folder(config, out)
    failed: dict[str, str] = {}
    todo = [cell for cell in own_cells(config) if not _is_done(cell.file(out), config.episodes)]
    began = time.monotonic()
    for index, cell in enumerate(todo):
        minutes = (time.monotonic() - began) / max(1, index) * (len(todo) - index) / 60
        told(f"[{index + 1}/{len(todo)}{f', about {minutes:.0f} min left' if index else ''}] {cell.label}")
        try:
            run_cell(cell, config, out)
            cell.reason_file(out).unlink(missing_ok=True)
        except FAILURES as error:
            failed[cell.label] = reason = " ".join(str(error).split()) or type(error).__name__
            told(f"  left out: {reason}")
            write_json(cell.reason_file(out), {"reason": reason})
    return failed


def why_not(cell: Cell, out: Path) -> str | None:
    """Why a cell could not be run; None where it was, or was never tried."""
    file = cell.reason_file(out)
    return str(read_json(file)["reason"]) if file.exists() else None


def _is_done(file: Path, episodes: int) -> bool:
    return file.exists() and len(EvaluationResult.load(file).episodes) >= episodes


def run_cell(cell: Cell, config: SafeRLConfig, out: Path) -> EvaluationResult:
    """Train if need be, then evaluate into the cell's file.

    Raises:
        ImportError: the method needs a package that is missing.
        ValueError: the method cannot be run in this environment.
        EvaluationError: (RuntimeError) an episode failed or a worker died; finished episodes are kept.
    """
    from diffdecide.app.policies import check_policy
    from diffdecide.evaluate import evaluate
    from safety.envs import spec

    limit = min(config.limits) if cell.limit is None else cell.limit
    means = Means(
        file=config.data.get(cell.env),
        models=out / cell.env / "models",
        seconds=config.seconds,
        limits=len(config.limits),
        margin=config.margin,
        default_limit=min(config.limits),
    )
    factory = build(cell, means)
    check_policy(factory, spec(cell.env))
    return evaluate(
        cell.env,
        factory,
        episodes=config.episodes,
        seed=config.seed,
        workers=config.workers,
        max_steps=config.max_steps,
        cost_limit=limit,
        out=cell.file(out),
        resume=True,
        settings={"method": cell.method, "training_seed": cell.training_seed, "limit": cell.limit},
    )
