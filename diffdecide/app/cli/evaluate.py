"""`diffdecide evaluate`: a policy over many episodes, with intervals, as a table and as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffdecide.app.rewards import RewardChoice
    from safety.corruption import LidarCorruption


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
    calibrated: Path | None = None
    """Take the margin from this file of `diffdecide calibrate` instead."""
    lidar_noise: float = 0.0
    """Standard deviation of an error on every lidar bin, as a share of the range (0.02 of 3 m is 6 cm)."""
    lidar_dropout: float = 0.0
    """Probability that a lidar bin reads zero in a step."""
    reward: Path | None = None
    """A folder with a learned reward that chooses among the planner's candidates; filter and limits stay."""
    reward_weight: float = 0.1
    """What a candidate gains that is one standard deviation better than the mean one, in about metres of way."""
    reward_guidance: float = 0.0
    """Scale of the reward's gradient in the sampler; 0 ranks only."""
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
        for name in ("lidar_noise", "lidar_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be in [0, 1), got {getattr(self, name)}")
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
        from diffdecide.records import portable_path
        from safety.corruption import LidarCorruption
        from safety.envs import spec

        env_spec = spec(self.env)
        corruption = LidarCorruption(noise=self.lidar_noise, dropout=self.lidar_dropout)
        margin = self._margin(corruption)
        zones = "red_zone_lidar" in (env_spec.layout or ())
        if self.task is not None and not zones:
            raise ValueError(f"--task is for the zone tasks; {self.env} has a goal of its own")
        earlier = None if self.against is None else EvaluationResult.load(self.against)
        if earlier is not None and earlier.meta.get("env") != self.env:
            raise ValueError(f"--against {self.against} was made in {earlier.meta.get('env')}, not in {self.env}")
        reward = self._reward()
        factory = policy_factory(
            self.planner,
            env_spec,
            filtered=self.filter,
            margin=margin,
            cost_limit=self.cost_limit,
            reward=reward,
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
            corruption=corruption if corruption else None,
            settings={
                "planner": portable_path(self.planner),
                "filter": self.filter,
                "margin": margin,
                "task": self.task,
                "reward": None if reward is None else asdict(reward),
            },
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

    def _reward(self) -> RewardChoice | None:
        if self.reward is None:
            return None
        from diffdecide.app.rewards import RewardChoice

        return RewardChoice(folder=str(self.reward), weight=self.reward_weight, guidance=self.reward_guidance)

    def _margin(self, corruption: LidarCorruption) -> float:
        if self.calibrated is None:
            return self.margin
        from safety.margin import MarginReport

        report = MarginReport.load(self.calibrated)
        report.require(self.env, corruption)
        return report.margin

    def _tasks(self) -> list:
        from diffdecide.app.zone_tasks import task_of_seed
        from safety.tasks.spec import TaskSpec

        if self.task is not None:
            return [TaskSpec.from_json(self.task)] * self.episodes
        return [task_of_seed(self.seed + index) for index in range(self.episodes)]


COMMAND = Evaluate
