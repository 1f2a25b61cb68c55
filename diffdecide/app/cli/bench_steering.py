"""`diffdecide bench steering`: what learned rewards are worth to a planner that is steered by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffdecide.app.bench.steering_config import SteeringConfig

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
    config: Annotated[SteeringConfig, tyro.conf.arg(name="")] = field(default_factory=SteeringConfig)

    def execute(self) -> int:
        from diffdecide.app.bench.steering import SteeringBench
        from diffdecide.files import require_writable_folder

        if not self.data.is_file():
            raise ValueError(f"no such data file: {self.data}")
        for folder in (self.out.parent, self.work):
            require_writable_folder(folder)
        bench = SteeringBench(self.config, self.data, self.out, self.work)
        for part in self.parts:
            bench.run(part)
        print(f"written to {self.out}")
        return 0
