"""`diffdecide bench constrained` and `diffdecide bench safe-rl`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class BenchConstrained:
    """The methods of constrained sampling against each other: violations, return, distance to the data, ms per plan.

    Each method goes to OUT/<method>.json as its episodes finish; run again, finished episodes are kept.
    """

    out: Path
    """Folder of the results, such as benchmarks/constrained."""
    env: str = "SafetyPointGoal1-v0"
    planner: str = "default"
    """"default" (the embedded planner of the environment) or a folder with one."""
    methods: tuple[str, ...] = ()
    """Some of none, cost-guidance, projected-iterates, projected-clean, projected-final, barrier-robust,
    barrier-relaxed, barrier-time-varying, primal-dual; all where none is named."""
    filter: bool = False
    """Put the safety filter behind every method. Without it the roll-outs show how safe the plans are."""
    margin: float = 0.03
    episodes: int = 10
    seed: int = 5000
    """Selection, so not the final seeds."""
    max_steps: int | None = None
    candidates: int = 8
    """Plans drawn at each decision."""

    def execute(self) -> int:
        from diffdecide.app.bench.constrained import ConstrainedConfig, compare_methods
        from diffdecide.files import require_writable_folder

        config = ConstrainedConfig(
            env=self.env,
            planner=self.planner,
            methods=self.methods,
            filtered=self.filter,
            margin=self.margin,
            episodes=self.episodes,
            seed=self.seed,
            max_steps=self.max_steps,
            candidates=self.candidates,
        )
        require_writable_folder(self.out)
        print(compare_methods(config, self.out))
        print(f"written to {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class BenchSafeRL:
    """The safe-RL benchmark: methods, cost limits and training seeds on several tasks, with tails and intervals.

    Results accumulate in OUT, one file a cell; run again, finished cells are kept, and the table says of every other
    cell that it was not run and why.
    """

    out: Path
    """Folder of the results, such as benchmarks/safe_rl."""
    envs: tuple[str, ...] = ("SafetyPointGoal1-v0",)
    methods: tuple[str, ...] = ()
    """Some of the names in `diffdecide.app.bench.safe_rl_methods.METHODS`; all where none is named."""
    data: tuple[str, ...] = ()
    """Data files as ENV=FILE; DSRL's own files too."""
    limits: tuple[float, ...] = (10.0, 20.0, 40.0, 80.0)
    training_seeds: tuple[int, ...] = (0, 1, 2)
    episodes: int = 20
    seed: int = 10_000
    minutes: float = 10.0
    """Training time per method and seed in minutes of one core; a method with a model per limit divides them."""
    margin: float = 0.03
    """Metres that the filter keeps."""
    workers: int = 1
    max_steps: int | None = None
    quick: bool = False
    """One training seed, limit 10, 5 episodes of at most 500 steps, half a minute of training: minutes, not hours."""
    shard: str = "1/1"
    """"2/3" runs the second of three parts: one part a machine, all into one shared folder or into copies of it."""
    table_only: bool = False
    """Make the table from what is there."""

    def execute(self) -> int:
        from diffdecide.app.bench.safe_rl import SafeRLConfig, open_folder, run
        from diffdecide.app.bench.safe_rl_methods import METHODS
        from diffdecide.app.bench.safe_rl_report import write_report
        from diffdecide.files import require_writable_folder
        from safety.envs import spec

        pairs = [word.partition("=") for word in self.data]
        if not all(name and sign and file for name, sign, file in pairs):
            raise ValueError(f"--data expects ENV=FILE, got {' '.join(self.data)}")
        for env in self.envs:
            spec(env)
        config = SafeRLConfig(
            envs=self.envs,
            methods=self.methods or tuple(METHODS),
            data={name: file for name, _, file in pairs},
            limits=(10.0,) if self.quick else self.limits,
            training_seeds=self.training_seeds[:1] if self.quick else self.training_seeds,
            episodes=5 if self.quick else self.episodes,
            seed=self.seed,
            seconds=30.0 if self.quick else 60 * self.minutes,
            margin=self.margin,
            workers=self.workers,
            max_steps=500 if self.quick and self.max_steps is None else self.max_steps,
            shard=_shard(self.shard),
        )
        require_writable_folder(self.out)
        failed = {}
        if self.table_only:
            open_folder(config, self.out)
        else:
            failed = run(config, self.out)
        print(write_report(config, self.out))
        print(f"written to {self.out}" + (f"; {len(failed)} cells could not be run" if failed else ""))
        return 0


def _shard(text: str) -> tuple[int, int]:
    part, sign, parts = text.partition("/")
    if not (sign and part.isdecimal() and parts.isdecimal()):
        raise ValueError(f"--shard expects I/N, such as 2/3, got {text!r}")
    return int(part), int(parts)
