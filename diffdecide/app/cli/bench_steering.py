"""`diffdecide bench steering`: what learned rewards are worth to a planner that is steered by them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Part = Literal["unhurried", "goal", "curve", "relative", "dpo"]


@dataclass(frozen=True, kw_only=True)
class BenchSteering:
    """Planners steered by learned rewards, by the relative reward of two planners, and aligned with a teacher.

    Rollouts go to OUT episode by episode, with the curve as a picture beside it; run again, episodes with the same
    settings are kept. Models and collected data stay in WORK, and what is finished there is taken as it is.
    """

    data: Annotated[Path, tyro.conf.Positional]
    """Episodes that rewards and alignment learn from, such as those of SafetyPointGoal1-v0."""
    out: Path = Path("benchmarks/steering.json")
    work: Path = Path("out/steering")
    """Folder for models and collected episodes."""
    parts: tuple[Part, ...] = ("unhurried", "goal", "curve", "relative", "dpo")
    """What to measure."""
    env: str = "SafetyPointGoal1-v0"
    planner: str = "default"
    """"default" (the embedded planner of the environment) or a folder with one."""
    episodes: int = 20
    seed: int = 10_000
    """Of the first episode; 5000-9999 for selection, with another OUT."""
    max_steps: int | None = None
    """End episodes earlier than the environment does."""
    pairs: int = 4000
    """Comparisons that a reward is learned from."""
    reward_steps: int = 1000
    weight: float = 0.3
    """Strength of true and learned scores."""
    weights: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    """Strengths of the over-optimisation curve."""
    curve_episodes: int = 8
    cautious_margin: float = 0.25
    """Metres that the cautious behaviour policy keeps from hazards."""
    relabelled: int = 20
    """Episodes of the cautious planner's own driving, relabelled by that policy."""
    collected: int = 30
    """Episodes of the cautious and of the reckless behaviour policy."""
    tune_steps: int = 2000
    """Training steps of the cautious and the reckless planner, from the given one."""
    relative_steps: int = 8000
    relative_guidance: float = 2.5
    """1 moves the reckless planner's plans onto the cautious one's, more exaggerates."""
    relative_weight: float = 0.0
    """Of ranking by the relative reward beside guiding by it."""
    relative_candidates: int = 2
    dpo_pairs: int = 2000
    dpo_steps: int = 300
    dpo_beta: float = 200.0
    batch_size: int = 128
    """Of the trainings."""

    def execute(self) -> int:
        from diffdecide.app.bench.steering import SteeringBench
        from diffdecide.app.bench.steering_models import SteeringConfig
        from diffdecide.files import require_writable_folder

        if not self.data.is_file():
            raise ValueError(f"no such data file: {self.data}")
        config = SteeringConfig(**{name: getattr(self, name) for name in SteeringConfig.__dataclass_fields__})
        for folder in (self.out.parent, self.work):
            require_writable_folder(folder)
        bench = SteeringBench(config, self.data, self.out, self.work)
        for part in self.parts:
            bench.run(part)
        print(f"written to {self.out}")
        return 0
