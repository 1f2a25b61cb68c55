"""The safe-RL benchmark: tasks x methods x training seeds x cost limits, cell by cell, resumable.

A cell is one file; what is finished is never done again, and the table is made from whatever is there, saying of every
other cell that it was not run and why. Scores follow DSRL (`safety.costs`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.app.bench.flat_cloning import FlatCloningPolicy, train_flat_cloning
from diffdecide.app.guarded import GuardedFactory
from diffdecide.files import read_json, write_json
from diffdecide.records import EvaluationResult, provenance

if TYPE_CHECKING:
    from diffdecide.policy import Policy

VERSION = 1
MARK = "safe_rl.json"


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One row.

    Attributes:
        title: in the table.
        base: "planner", "bc", or a name of `diffdecide.app.policies.BASELINES`.
        guarded: behind the geometric filter.
        settings: overrides of `PlannerConfig`.
        safe_only: cloning takes only episodes whose cost is within the limit.
        uses_limit: what it does depends on the cost limit; of other methods the limits share their episodes.
        trained: it is trained, and so run for every training seed.
    """

    title: str
    base: str
    guarded: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    safe_only: bool = False
    uses_limit: bool = False
    trained: bool = False


METHODS: dict[str, MethodSpec] = {
    "ours": MethodSpec(title="**planner + filter**", base="planner", guarded=True),
    "ours-no-filter": MethodSpec(title="planner, no filter", base="planner"),
    "ours-no-projection": MethodSpec(
        title="planner + filter, no cost guidance or projection", base="planner", guarded=True,
        settings={"project": False, "clearance_guidance": 0.0},
    ),
    "ours-no-ranking": MethodSpec(
        title="planner + filter, no ranking", base="planner", guarded=True,
        settings={"candidates": 1, "warm_share": 0.0},
    ),
    "ours-gaussian": MethodSpec(
        title="Gaussian candidates + filter", base="planner", guarded=True, settings={"proposal": "gaussian"}
    ),
    "bc": MethodSpec(title="BC", base="bc", trained=True),
    "bc-filter": MethodSpec(title="BC + filter", base="bc", guarded=True, trained=True),
    "bc-safe": MethodSpec(title="BC-Safe", base="bc", safe_only=True, uses_limit=True, trained=True),
    "bc-safe-filter": MethodSpec(
        title="BC-Safe + filter", base="bc", guarded=True, safe_only=True, uses_limit=True, trained=True
    ),
    "proportional": MethodSpec(title="proportional controller", base="proportional"),
    "proportional-filter": MethodSpec(title="proportional controller + filter", base="proportional", guarded=True),
    "random": MethodSpec(title="random", base="random"),
    "random-filter": MethodSpec(title="random + filter", base="random", guarded=True),
    "mpc": MethodSpec(title="MPC on ground truth (ceiling)", base="mpc"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SafeRLConfig:
    """What is run.

    Attributes:
        data: environment id -> data file; methods that learn from it are left out where there is none.
        limits: cost limits, run-time inputs of the methods that use one.
        training_seeds: of the methods that are trained.
        episodes: per cell; cell seeds are the same for all methods.
        seconds: wall-clock training time per model.
        margin: m, of the filter.
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
        for env, file in self.data.items():
            if not Path(file).exists():
                raise ValueError(f"no such data file for {env}: {file}")

    def shared(self) -> dict[str, Any]:
        """What all cells of one folder share."""
        names = ("seed", "seconds", "margin", "max_steps")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Cell:
    """One method in one environment, with one training seed and one limit (None: it makes no difference)."""

    env: str
    method: str
    training_seed: int | None
    limit: float | None

    @property
    def name(self) -> str:
        seed = "" if self.training_seed is None else f"_seed{self.training_seed}"
        limit = "" if self.limit is None else f"_limit{self.limit:g}"
        return f"{self.method}{seed}{limit}"

    def file(self, out: Path) -> Path:
        return out / self.env / f"{self.name}.json"


def cells(config: SafeRLConfig) -> list[Cell]:
    """All cells, in the order in which they are run: every method once before any is repeated."""
    result = []
    for seed_index, seed in enumerate(config.training_seeds):
        for env in config.envs:
            for name in config.methods:
                method = METHODS[name]
                if seed_index and not method.trained:
                    continue
                for limit in config.limits if method.uses_limit else (None,):
                    result.append(Cell(env, name, seed if method.trained else None, limit))
    return result


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
    """Run all cells that are not finished; which ones could not be run, and why.

    A cell that fails does not cost the others; its reason goes into the table. Interrupt and call again at will.
    """
    open_folder(config, out)
    todo, failed = cells(config), dict(_reasons(out))
    began, worked = time.monotonic(), 0
    for index, cell in enumerate(todo):
        file = cell.file(out)
        label = f"{cell.env}/{cell.name}"
        if _is_done(file, config.episodes):
            continue
        minutes = (time.monotonic() - began) / max(1, worked) * (len(todo) - index) / 60
        told(f"[{index + 1}/{len(todo)}{f', about {minutes:.0f} min left' if worked else ''}] {label}")
        try:
            run_cell(cell, config, out)
            failed.pop(label, None)
        except (ValueError, ImportError, RuntimeError) as error:
            failed[label] = str(error)
            told(f"  left out: {error}")
        worked += 1
        write_json(out / "not_run.json", failed)
    return failed


def _reasons(out: Path) -> Mapping[str, str]:
    file = out / "not_run.json"
    return read_json(file) if file.exists() else {}


def _is_done(file: Path, episodes: int) -> bool:
    return file.exists() and len(EvaluationResult.load(file).episodes) >= episodes


def run_cell(cell: Cell, config: SafeRLConfig, out: Path) -> EvaluationResult:
    """Train if need be, then evaluate into the cell's file.

    Raises:
        ValueError: the method cannot be run in this environment.
    """
    from diffdecide.evaluate import evaluate

    method = METHODS[cell.method]
    factory = _factory(cell, method, config, out)
    return evaluate(
        cell.env,
        factory,
        episodes=config.episodes,
        seed=config.seed,
        workers=config.workers,
        max_steps=config.max_steps,
        cost_limit=cell.limit or min(config.limits),
        out=cell.file(out),
        resume=True,
        settings={"method": cell.method, "training_seed": cell.training_seed, "limit": cell.limit},
    )


def _factory(cell: Cell, method: MethodSpec, config: SafeRLConfig, out: Path) -> Callable[[], Policy]:
    factory: Callable[[], Policy]
    if method.base == "planner":
        from diffdecide.app.agent import AgentConfig
        from diffdecide.app.agent_policy import PolicyConfig, agent_policy, find_planner

        # The agent's own filter, which its plans are made for; the guard is for everybody else.
        operator = AgentConfig(margin=config.margin, filtered=method.guarded)
        folder = str(find_planner("default", cell.env))
        return partial(agent_policy, PolicyConfig(planner=folder, agent=operator, settings=method.settings))
    if method.base == "bc":
        factory = partial(FlatCloningPolicy, str(_trained(cell, method, config, out)))
    else:
        from diffdecide.app.policies import baseline_factory

        factory = baseline_factory(method.base, filtered=False, margin=config.margin)
    factory = GuardedFactory(factory, config.margin) if method.guarded else factory
    from diffdecide.app.policies import check_policy
    from safety.envs import spec

    check_policy(factory, spec(cell.env))
    return factory


def _trained(cell: Cell, method: MethodSpec, config: SafeRLConfig, out: Path) -> Path:
    """The cloned policy of this cell; with and without filter it is the same one."""
    if cell.env not in config.data:
        raise ValueError(f"no data file for {cell.env}: name one with --data")
    kind = f"bc-safe{cell.limit:g}" if method.safe_only else "bc"
    folder = out / cell.env / "models" / f"{kind}_seed{cell.training_seed}"
    if not (folder / "training.json").exists():
        from diffdecide.data.readers import read

        facts = train_flat_cloning(
            list(read(config.data[cell.env])),
            folder,
            seed=int(cell.training_seed or 0),
            seconds=config.seconds,
            safe_below=cell.limit if method.safe_only else None,
        )
        write_json(folder / "training.json", facts)
    return folder
