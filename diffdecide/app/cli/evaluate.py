"""`diffdecide evaluate`: a policy over many episodes, with intervals, as a table and as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Return, cost and its tail, stuck share and latency of a policy over many episodes.

    Episode i uses the seed SEED + i. The figures are the same for any number of workers, except the times.
    """

    env: str
    """Environment id, such as SafetyPointGoal1-v0."""
    planner: str = "default"
    """"default" (the embedded model of the environment), a folder with a model, or a baseline: mpc (ground truth, the
    ceiling), mpc-lidar, proportional, tour, random."""
    episodes: int = 20
    seed: int = 10000
    """Of the first episode. 0-4999 are for training, 5000-9999 for selection, 10000 upwards for final figures."""
    workers: int = 1
    """Processes, one thread each. Times are honest only while there are free cores for all of them."""
    filter: bool = True
    """Put the safety filter behind the policy."""
    margin: float = 0.03
    """Metres that the filter keeps from every obstacle."""
    cost_limit: float = 25.0
    """Cost per episode that counts as within the budget."""
    observe_cost: bool = False
    """Tell the policy the cost of its last step."""
    task: str | None = None
    """Zone tasks: one task for all episodes, as JSON. Without it each episode draws one from its seed."""
    max_steps: int | None = None
    """End episodes earlier than the environment does."""
    out: Path | None = None
    """JSON file, saved after every episode."""
    resume: bool = False
    """Keep the episodes that --out already holds."""
    against: Path | None = None
    """An earlier result: differences to it are reported, paired by seed."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("cost_limit", "margin"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"--{name.replace('_', '-')} must be a finite number >= 0, got {value}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"--max-steps must be at least 1, got {self.max_steps}")
        if self.resume and self.out is None:
            raise ValueError("--resume needs --out, the file to go on from")

    def execute(self) -> int:
        from rich.console import Console

        from diffdecide.app.policies import policy_factory
        from diffdecide.app.results import results_table
        from diffdecide.evaluate import EpisodeTask, EvaluationResult, evaluate
        from diffdecide.files import require_writable_folder
        from safety.envs import spec

        env_spec = spec(self.env)
        zones = "red_zone_lidar" in (env_spec.layout or ())
        if self.task is not None and not zones:
            raise ValueError(f"--task is for the zone tasks; {self.env} has a goal of its own")
        earlier = None if self.against is None else EvaluationResult.load(self.against)
        if earlier is not None and earlier.meta.get("env") != self.env:
            raise ValueError(f"--against {self.against} was made in {earlier.meta.get('env')}, not in {self.env}")
        factory = policy_factory(
            self.planner, env_spec, filtered=self.filter, margin=self.margin, cost_limit=self.cost_limit
        )
        if self.out is not None:
            require_writable_folder(self.out.parent)
        result = evaluate(
            self.env,
            factory,
            episodes=self.episodes,
            seed=self.seed,
            workers=self.workers,
            tasks=[EpisodeTask(task) for task in self._tasks()] if zones else None,
            observe_cost=self.observe_cost,
            max_steps=self.max_steps,
            cost_limit=self.cost_limit,
            out=self.out,
            resume=self.resume,
            settings={"planner": self.planner, "filter": self.filter, "margin": self.margin, "task": self.task},
        )
        console = Console()
        title = f"{self.planner}{'' if self.filter else ', no filter'}"
        console.print(results_table({title: result}))
        if earlier is not None:
            for column in ("return", "cost", "stuck"):
                difference = result.compare(earlier, column)
                console.print(f"{column} minus that of {self.against}: {difference} over {difference.count} seeds")
        if self.out is not None:
            console.print(f"written to {self.out}")
        return 0

    def _tasks(self) -> list:
        from diffdecide.app.zone_tasks import task_of_seed
        from safety.tasks.spec import TaskSpec

        if self.task is not None:
            return [TaskSpec.from_json(self.task)] * self.episodes
        return [task_of_seed(self.seed + index) for index in range(self.episodes)]


COMMAND = Evaluate
