"""`diffdecide train critic`: cost critics with their calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffdecide.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainCritic:
    """A cost critic, on data files; a share of the episodes is kept out to calibrate it.

    Writes the critic, calibration.json (predicted against realised cost, coverage of quantiles, conformal margins, the
    threshold of a learned filter) and calibration.png.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """HDF5 files with costs, such as `diffdecide collect` writes; DSRL's own files too."""
    out: Path
    kind: Literal["expected", "quantile", "feasibility"] = "quantile"
    gamma: float = 0.97
    """Discount per control step."""
    hidden: tuple[int, ...] = (128, 128)
    ensemble: int = 2
    cvar: float = 0.1
    """Worst share that the distributional critic's risk is averaged over."""
    held_out: float = 0.2
    """Share of the episodes kept out of training."""
    resume: bool = False
    """Go on from the last checkpoint in OUT."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainConfig(steps=5000, batch_size=512, learning_rate=1e-3, checkpoint_every=1000)
    )

    def execute(self) -> int:
        from diffdecide.app.critic_training import critic_data, train_critic
        from diffdecide.files import require_writable_folder
        from safety.critics.base import CriticConfig

        missing = [str(path) for path in self.data if not path.exists()]
        if missing or not self.data:
            raise ValueError(f"no such data file: {', '.join(missing) or 'none was named'}")
        require_writable_folder(self.out)
        data = critic_data(self.data, held_out=self.held_out, seed=self.train.seed)
        config = CriticConfig(
            observation_dim=data.train.observation.shape[1],
            action_dim=data.train.action.shape[1],
            hidden=self.hidden,
            ensemble=self.ensemble,
            gamma=self.gamma,
            cvar=self.cvar,
        )
        if self.kind == "feasibility" and not data.train.continuous:
            print("the data holds no clearances: feasibility is learned from the binary cost")
        _, result, report = train_critic(data, self.kind, config, self.train, self.out, resume=self.resume)
        figures = report.get("cost") or report["feasibility"]
        told = ", ".join(f"{name} {value:.3g}" for name, value in figures.items() if isinstance(value, float))
        print(f"{result.steps} steps in {result.seconds / 60:.1f} minutes; held out: {told}; written to {self.out}")
        return 0
