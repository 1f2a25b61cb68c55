"""`diffdecide bench rewards`: how good learned rewards are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Part = Literal["headline", "baselines", "data", "noise", "processes", "heatmap", "imitation"]


@dataclass(frozen=True, kw_only=True)
class BenchRewards:
    """Learned rewards against their teacher's Bayes rate and against the true return.

    Each part is written to OUT as it finishes; parts that OUT already holds are kept unless --again.
    """

    data: Annotated[Path, tyro.conf.Positional]
    """Episode file with rewards, such as one of SafetyPointGoal1-v0."""
    out: Path = Path("benchmarks/rewards.json")
    test: Path | None = None
    """Episode file to test on; without it, a tenth of DATA."""
    parts: tuple[Part, ...] = ("headline", "baselines", "data", "noise", "processes", "heatmap")
    """What to measure; "imitation" (that library's reward trainer) only where it is installed."""
    pairs: int = 5000
    """Training comparisons."""
    test_pairs: int = 20_000
    segment: int = 20
    bayes_accuracy: float = 0.87
    """The teacher's beta is chosen so that the best possible accuracy is this."""
    network: Literal["linear", "mlp", "transformer"] = "linear"
    members: int = 3
    steps: int = 800
    """Training steps; the best held-out likelihood is taken."""
    curve: tuple[int, ...] = (50, 200, 1000, 5000)
    """Training comparisons of the data-efficiency curve."""
    flips: tuple[float, ...] = (0.0, 0.1, 0.3)
    """Shares of turned labels."""
    seed: int = 0
    again: bool = False

    def execute(self) -> int:
        from diffdecide.app.bench.rewards import RewardBench, RewardBenchConfig
        from diffdecide.files import require_writable_folder

        if not self.data.is_file():
            raise ValueError(f"no such data file: {self.data}")
        if self.test is not None and not self.test.is_file():
            raise ValueError(f"no such data file: {self.test}")
        require_writable_folder(self.out.parent)
        names = (
            "pairs",
            "test_pairs",
            "segment",
            "bayes_accuracy",
            "network",
            "members",
            "steps",
            "curve",
            "flips",
            "seed",
        )
        config = RewardBenchConfig(**{name: getattr(self, name) for name in names})
        bench = RewardBench(config, self.data, self.out, test=self.test, again=self.again)
        for part in self.parts:
            bench.run(part)
        print(f"written to {self.out}")
        return 0
