"""`diffdecide bench`: the figures of the documentation, as JSON and as tables made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffdecide.app.cli.bench_rewards import BenchRewards
from diffdecide.app.cli.bench_sac_data import BenchSACData
from diffdecide.app.cli.bench_safety import BenchConstrained, BenchSafeRL
from diffdecide.app.cli.bench_steering import BenchSteering
from safety.caution import DEFAULT_MARGIN


@dataclass(frozen=True, kw_only=True)
class BenchRows:
    """All rows of one environment's table: the planner, its ablations, the ceiling and the baselines.

    Each row goes to OUT/<row>.json as its episodes finish; run again, finished episodes are kept.
    """

    env: str
    """Environment id, such as SafetyPointGoal1-v0."""
    out: Path
    """Folder of the results, such as benchmarks/SafetyPointGoal1-v0."""
    planner: str = "default"
    """"default" (the embedded planner of the environment) or a folder with one."""
    cloned: str = "bc"
    """"bc" (the embedded cloned policy) or a folder with one."""
    only: tuple[str, ...] = ()
    """Rows to run; all where none is named."""
    episodes: int = 100
    seed: int = 10_000
    """Of the first episode; the same in every row."""
    workers: int = 1
    margin: float = DEFAULT_MARGIN
    cost_limit: float = 25.0
    max_steps: int | None = None
    """End episodes earlier than the environment does."""

    def execute(self) -> int:
        import sys

        from rich.console import Console

        from diffdecide.app.bench.rows import RowsConfig, run_row, select_rows, write_table
        from diffdecide.files import require_writable_folder
        from safety.envs import spec

        config = RowsConfig(
            **{
                name: getattr(self, name) for name in RowsConfig.__dataclass_fields__
            }  # the fields have one name in both
        )
        rows = select_rows(self.only)
        spec(self.env)
        require_writable_folder(self.out)
        missing = []
        for row in rows:
            print(f"{row.name}: {row.title.strip('*')}", file=sys.stderr)
            try:
                run_row(row, config, self.out)
            except ValueError as error:
                if self.only:
                    raise
                # One row that cannot be run shall not cost the others, which may take hours.
                missing.append(row.name)
                print(f"error: row {row.name} is left out: {error}", file=sys.stderr)
        if len(missing) == len(rows):
            raise ValueError(f"no row could be run for {self.env}")
        Console().print(write_table(self.out), markup=False, soft_wrap=True)
        print(f"written to {self.out}")
        return 1 if missing else 0


@dataclass(frozen=True, kw_only=True)
class BenchTable:
    """Make the tables of result folders again, from their JSON."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders that another `bench` has written; the file of `bench rewards`."""
    into: tuple[Path, ...] = ()
    """Documents in which the tables go between the marks `results:NAME`, NAME being that of the folder (of the file,
    without its suffix)."""

    def execute(self) -> int:
        from diffdecide.app.bench.tables import fill_markers, make_tables

        if not self.folders:
            raise ValueError("expected at least one folder of results")
        tables = {name: table for path in self.folders for name, table in make_tables(path).items()}
        for table in tables.values():
            print(table)
        for document in self.into:
            print(f"{document}: {', '.join(fill_markers(document, tables)) or 'no marks for these folders'}")
        return 0


@dataclass(frozen=True, kw_only=True)
class BenchInstructions:
    """Success on prompts: the language bridge, the task itself, embedding zeroed, key words, a blind tour.

    Each row goes to OUT/<row>.json as its episodes finish; run again, finished episodes are kept. OUT/results.json
    holds the bridge's episodes, each with its prompt and what was understood, and the figures of all rows.
    """

    prompts: Path
    """JSONL of {"prompt": ..., "task": {"kind", "targets", "avoid", "caution"}}."""
    out: Path
    env: str = "SafetyPointZones1-v0"
    planner: str = "default"
    """"default" (the embedded planner of the environment) or a folder with one."""
    bridge: str = "default"
    """"default" (the embedded language bridge) or a folder with one."""
    only: tuple[str, ...] = ()
    """Rows to run (bridge, canonical, zeroed, regex, tour); all where none is named."""
    episodes: int = 1
    """Per prompt."""
    seed: int = 10_000
    """Prompt i has seed SEED + i, in every row."""
    workers: int = 1
    margin: float = DEFAULT_MARGIN
    cost_limit: float = 0.0
    max_steps: int | None = None
    limit: int | None = None
    """Take only the first prompts."""

    def execute(self) -> int:
        import sys

        from rich.console import Console

        from diffdecide.app.bench.instructions import (
            ROWS,
            InstructionsConfig,
            read_prompts,
            run_instructions,
            write_results,
        )
        from diffdecide.files import require_writable_folder

        config = InstructionsConfig(**{name: getattr(self, name) for name in InstructionsConfig.__dataclass_fields__})
        unknown = [name for name in self.only if name not in ROWS]
        if unknown:
            raise ValueError(f"unknown rows {', '.join(unknown)}; expected some of {', '.join(ROWS)}")
        prompts = read_prompts(self.prompts)[: self.limit]
        require_writable_folder(self.out)
        results = {}
        for row in ROWS:
            if not self.only or row in self.only:
                print(f"{row}: {ROWS[row]}", file=sys.stderr)
                results[row] = run_instructions(row, config, prompts, self.out)
        from diffdecide.app.bench.tables import finished_instructions

        # Rows of earlier runs belong into the same table.
        table = write_results(finished_instructions(self.out) | results, self.out)
        Console().print(table, markup=False, soft_wrap=True)
        print(f"written to {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class BenchLatency:
    """Time of a plan, of the filter, and of a control step, on one thread, split by part.

    The configuration is the embedded one, as in the evaluations, unless a folder is given.
    """

    env: str = "SafetyPointGoal1-v0"
    planner: str = "default"
    episodes: int = 2
    seed: int = 5000
    max_steps: int | None = None
    out: Path | None = None
    """JSON file."""

    def execute(self) -> int:
        from diffdecide.app.bench.latency import LatencyConfig, latency_table, measure_latency
        from diffdecide.files import require_writable_folder, write_json

        config = LatencyConfig(
            env=self.env, planner=self.planner, episodes=self.episodes, seed=self.seed, max_steps=self.max_steps
        )
        if self.out is not None:
            require_writable_folder(self.out.parent)
        result = measure_latency(config)
        print(latency_table(result))
        if self.out is not None:
            write_json(self.out, result)
            print(f"written to {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class BenchDenoisers:
    """Return and latency of planners that differ in their network, each given as NAME=FOLDER."""

    planners: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Such as mlp=runs/mlp dit=runs/dit unet=runs/unet."""
    out: Path
    env: str = "SafetyPointGoal1-v0"
    episodes: int = 10
    seed: int = 5000
    """Selection, so not the final seeds."""
    workers: int = 1
    max_steps: int | None = None

    def execute(self) -> int:
        from diffdecide.app.bench.denoisers import DenoisersConfig, compare_denoisers
        from diffdecide.files import require_writable_folder

        names = {name: folder for name, _, folder in (word.partition("=") for word in self.planners)}
        if not names or not all(names) or not all(names.values()):
            raise ValueError(f"expected planners as NAME=FOLDER, got {' '.join(self.planners) or 'none'}")
        config = DenoisersConfig(
            env=self.env,
            planners=names,
            episodes=self.episodes,
            seed=self.seed,
            workers=self.workers,
            max_steps=self.max_steps,
        )
        require_writable_folder(self.out)
        print(compare_denoisers(config, self.out))
        print(f"written to {self.out}")
        return 0


COMMANDS = {
    "rows": BenchRows,
    "instructions": BenchInstructions,
    "latency": BenchLatency,
    "denoisers": BenchDenoisers,
    "rewards": BenchRewards,
    "steering": BenchSteering,
    "constrained": BenchConstrained,
    "safe-rl": BenchSafeRL,
    "sac-data": BenchSACData,
    "table": BenchTable,
}
