"""`diffdecide calibrate`: the filter's margin for a sensor with errors, by split conformal prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """How much nearer obstacles are than the tracker says, measured; the margin follows from a miss probability.

    Episodes are driven on calibration seeds with the lidar as it is, and compared with the simulator's positions.
    `diffdecide evaluate --calibrated FILE` uses the result.
    """

    env: str
    """Environment id, such as SafetyPointGoal1-v0."""
    out: Path
    """JSON file for the margin and what it rests on."""
    lidar_noise: float = 0.0
    """Standard deviation of every lidar bin, as a share of the range."""
    lidar_dropout: float = 0.0
    """Probability that a lidar bin reads zero."""
    episodes: int = 20
    seed: int = 3000
    """Of the first episode; calibration seeds lie below 10000."""
    miss: float = 0.1
    """Probability with which a further episode may overstate a clearance by more than the margin."""
    margin: float = 0.03
    """Metres that the operator asks for; the calibrated margin is never less."""
    max_steps: int | None = None
    """End episodes earlier than the environment does."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.margin) or self.margin < 0:
            raise ValueError(f"--margin must be a finite number >= 0, got {self.margin}")
        for name in ("lidar_noise", "lidar_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be in [0, 1), got {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"--max-steps must be at least 1, got {self.max_steps}")

    def execute(self) -> int:
        from tqdm import tqdm

        from diffdecide.files import require_writable_folder
        from safety.corruption import LidarCorruption
        from safety.envs import spec
        from safety.margin import calibrate_margin

        corruption = LidarCorruption(noise=self.lidar_noise, dropout=self.lidar_dropout)
        require_writable_folder(self.out.parent)
        with tqdm(total=self.episodes, desc=self.env, unit="episode") as bar:

            def tell(seed: int, score: float) -> None:
                bar.update()
                bar.set_postfix_str(f"seed {seed}: {100 * score:.1f} cm")

            report = calibrate_margin(
                spec(self.env),
                corruption,
                episodes=self.episodes,
                seed=self.seed,
                miss=self.miss,
                operator_margin=self.margin,
                max_steps=self.max_steps,
                on_episode=tell,
            )
        report.save(self.out)
        print(
            f"margin {100 * report.margin:.1f} cm (conformal quantile {100 * report.quantile:.1f} cm at a miss of "
            f"{report.miss} over {self.episodes} episodes; 95 % of single steps within {100 * report.p95_error:.1f} cm)"
        )
        print(f"written to {self.out}")
        return 0


COMMAND = Calibrate
