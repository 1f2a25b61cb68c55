"""The methods of constrained sampling against each other, everything else equal: `diffdecide bench constrained`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.app.results import markdown_table
from diffdecide.constrained.catalogue import DEFAULT, METHODS, method_named
from diffdecide.files import read_json, write_json, write_text
from diffdecide.intervals import Interval, bootstrap_mean
from diffdecide.records import provenance
from safety.caution import DEFAULT_MARGIN

if TYPE_CHECKING:
    from diffdecide.policy import Policy

VERSION = 1
FILE = "constrained.json"


@dataclass(frozen=True, kw_only=True)
class ConstrainedConfig:
    """What is compared, and on what.

    Attributes:
        env: environment id with hazards.
        planner: "default" or a folder with a planner.
        methods: names out of `diffdecide.constrained.catalogue.METHODS`; all where none is named.
        filtered: put the filter behind every method; without it (the default) the roll-outs show the plans' own safety.
        margin: m that the filter keeps; plans keep more, as the planner's settings say.
        episodes, seed, max_steps: episode i of every method has the seed `seed` + i.
        candidates: plans drawn at each decision; few, since quadratic programs are solved one by one.
    """

    env: str = "SafetyPointGoal1-v0"
    planner: str = "default"
    methods: tuple[str, ...] = ()
    filtered: bool = False
    margin: float = DEFAULT_MARGIN
    episodes: int = 10
    seed: int = 5000
    max_steps: int | None = None
    candidates: int = 8

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("candidates", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not np.isfinite(self.margin) or self.margin < 0:
            raise ValueError(f"margin must be a finite number of metres >= 0, got {self.margin}")
        for name in self.methods:
            method_named(name)

    def settings(self) -> dict[str, Any]:
        """What two runs must share to stand in one table."""
        return {name: value for name, value in vars(self).items() if name not in ("methods", "episodes")}


def run_method(name: str, config: ConstrainedConfig, out: Path) -> dict[str, Any]:
    """Episodes of one method into `out/<name>.json`; those that the file already holds are kept.

    Raises:
        ValueError: the folder holds results of other settings or of another version.
    """
    from diffdecide.rollout import rollout
    from safety.envs import make, spec

    file = out / f"{name}.json"
    content = _earlier(file, config) or {"version": VERSION, "settings": config.settings(), "episodes": []}
    done = {row["seed"] for row in content["episodes"]}
    seeds = [seed for seed in range(config.seed, config.seed + config.episodes) if seed not in done]
    if not seeds:
        return content
    env_spec, env = spec(config.env), make(config.env)
    policy = constrained_policy(name, config)
    try:
        for seed in seeds:
            clearances: list[float] = []
            watch = partial(_watch, clearances)
            record = rollout(env, policy, seed, spec=env_spec, max_steps=config.max_steps, on_step=watch)
            row = record.to_json() | _figures(policy)
            row["rollout_violation"] = float(max(0.0, -min(clearances, default=0.0)))
            content["episodes"].append(row)
            content["provenance"] = provenance()
            write_json(file, content)
    finally:
        env.close()
    return content


def constrained_policy(name: str, config: ConstrainedConfig) -> Policy:
    """The agent with the planner of `config` and the method `name`."""
    from diffdecide.app.agent import Agent, AgentConfig
    from diffdecide.app.agent_policy import find_planner
    from diffdecide.constrained.planner import ConstrainedPlanner

    planner = ConstrainedPlanner.with_method(
        find_planner(config.planner, config.env), method_named(name), candidates=config.candidates
    )
    operator = AgentConfig(margin=config.margin, filtered=config.filtered)
    return Agent(planner, None, operator)


def _watch(clearances: list[float], step: Any) -> None:
    values = [value for value in step.info["constraints"].values() if np.isfinite(value)]
    if values:
        clearances.append(min(values))


def _figures(policy: Any) -> dict[str, float]:
    from diffdecide.constrained.planner import mean_figures

    return {f"candidates_{name}": value for name, value in mean_figures(policy.planner.figures).items()}


def _earlier(file: Path, config: ConstrainedConfig) -> dict[str, Any] | None:
    if not file.exists():
        return None
    content = _read(file)
    wanted, settings = config.settings(), content.get("settings", {})
    differing = [key for key in wanted if settings.get(key) != wanted[key]]
    changed = [f"{key} {settings.get(key)!r} there, {wanted[key]!r} here" for key in differing]
    if changed:
        raise ValueError(f"{file} was made with other settings ({', '.join(changed)}): use another folder")
    return dict(content)


def _read(file: Path) -> Mapping[str, Any]:
    """What a file of this benchmark holds; ValueError where it is of another version."""
    content = read_json(file)
    if not isinstance(content, Mapping) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, Mapping) else None
        raise ValueError(f"{file} is of version {found!r} of this benchmark, expected {VERSION}: use another folder")
    return content


COLUMNS = {
    "candidates_violating": "candidates in violation",
    "candidates_violation": "their depth, m",
    "candidates_distance": "distance to the data",
    "candidates_milliseconds": "ms per plan",
    "return": "return",
    "cost": "cost",
    "rollout_violation": "deepest violation in the roll-out, m",
    "stuck": "stuck",
}


def write_results(config: ConstrainedConfig, out: Path) -> str:
    """`out/constrained.json` and `out/table.md` from the finished methods; the table."""
    results: dict[str, Any] = {}
    for name in METHODS:
        content = _earlier(out / f"{name}.json", config)
        if content is None:
            continue
        results[name] = {"episodes": len(content["episodes"])}
        for column in COLUMNS:
            values = [row[column] for row in content["episodes"] if row.get(column) is not None]
            results[name][column] = bootstrap_mean(values).to_dict() if values else None
    record = {"version": VERSION, "settings": config.settings(), "methods": results, **provenance()}
    write_json(out / FILE, record)
    return write_table(out)


def write_table(out: Path) -> str:
    """`out/table.md` from `out/constrained.json`; the table.

    Raises:
        ValueError: the file is of another version.
    """
    record = _read(out / FILE)
    rows: list[list[Any]] = []
    for name in METHODS:
        figures = record["methods"].get(name)
        label = f"**{name}** (default)" if name == DEFAULT else name
        if figures is None:
            rows.append([label, "not run", *[None] * len(COLUMNS)])
            continue
        means = [None if figures[column] is None else Interval.from_dict(figures[column]) for column in COLUMNS]
        rows.append([label, figures["episodes"], *means])
    table = markdown_table(["method", "episodes", *COLUMNS.values()], rows)
    write_text(out / "table.md", table)
    return table


def compare_methods(config: ConstrainedConfig, out: Path, *, told: Callable[[str], None] = print) -> str:
    """Run every method and write the table; finished episodes are kept."""
    for name in config.methods or tuple(METHODS):
        told(name)
        run_method(name, config, out)
    return write_results(config, out)
