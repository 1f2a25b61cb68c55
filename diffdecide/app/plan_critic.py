"""Training the critic that a planner ranks its candidates with, beside the plan cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import Subset

from diffdecide import noise
from diffdecide.app.facts import CRITIC_FILE
from diffdecide.app.training import planner_data
from diffdecide.data.episode import DataError
from diffdecide.files import write_json
from diffdecide.planner import Planner
from diffdecide.train import FitResult, TrainConfig, fit
from diffdecide.value import TrajectoryValue
from lm_bridge.goals import GoalSpace

HELD_OUT = 0.1  # of the episodes of each file
SAMPLE = 20_000  # windows that the normaliser of the targets, and the figures, are taken from


def train_plan_critic(
    files: Sequence[str | Path], folder: Path, train: TrainConfig, *, resume: bool = False
) -> FitResult:
    """Train the critic of the planner in `folder` on what was really done in `files`, and put it into `folder/critic`.

    It learns return and cost, discounted over about a plan's span, that follow an executed window of actions. The
    MPC's labels in the data are left out: nobody executed them. `folder/critic.json` says how well the critic foresees
    both on the last tenth of the episodes, which it is not trained on.

    Raises:
        ValueError: `folder` holds no planner.
        DataError: data of another agent, or a file with a single episode.
    """
    planner = Planner.from_pretrained(folder)
    config, main = planner.config, PartialState().is_main_process
    data = planner_data(
        files,
        rows=config.rows,
        features=config.features,
        goals=GoalSpace(),
        labels="ignore",
        progress=train.progress and main,
    )
    if data.agent != config.agent:
        raise DataError(f"the planner in {folder} is for the {config.agent}, the data are of the {data.agent}")
    kept, held_out = data.windows.split(HELD_OUT)
    with noise.seeded(train.seed, 1):
        critic = TrajectoryValue(**data.sizes())
    some = _some(kept)
    critic.set_normaliser(some["value_target"], some["cost_target"])
    result = fit(critic, kept, train, output_dir=folder / "training/critic", resume=resume)
    if main:
        critic.save_pretrained(folder / "critic")
        facts = {
            "explained_variance": explained_variance(critic, _some(held_out)),
            "data": [Path(file).name for file in files],
            "data_fingerprint": data.fingerprint,
            "windows": len(kept),
            "held_out_windows": len(held_out),
            "train": train.stream() | {"batch_size": train.batch_size},
            "seed": train.seed,
            "minutes": result.seconds / 60,
            "parameters": sum(parameter.numel() for parameter in critic.parameters()),
        }
        write_json(folder / CRITIC_FILE, facts)
    return result


@torch.no_grad()
def explained_variance(critic: TrajectoryValue, batch: Mapping[str, Tensor]) -> dict[str, float | None]:
    """1 - Var(error) / Var(target) of return and cost on a batch of windows; None for a target without variance."""
    critic = critic.cpu().eval()
    found = critic.predict(*(batch[name] for name in ("trajectory", "ego", "tokens", "token_mask", "goal")))
    figures: dict[str, float | None] = {}
    for name, predicted in (("value", found.value), ("cost", found.cost)):
        target = batch[f"{name}_target"]
        spread = float(target.var())
        figures[name] = 1 - float((target - predicted).var()) / spread if spread > 0 else None
    return figures


def _some(windows: Subset[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Evenly spread windows as one batch."""
    count = min(len(windows), SAMPLE)
    chosen = np.linspace(0, len(windows) - 1, count).astype(int).tolist()
    batch: dict[str, Tensor] = windows.__getitems__(chosen)  # type: ignore[assignment]  # a batch, see MixedWindows
    return batch
