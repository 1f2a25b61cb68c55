"""Training the critic that a planner ranks its candidates with, beside the plan cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate import PartialState

from diffdecide import noise
from diffdecide.app.training import planner_data
from diffdecide.data.episode import DataError
from diffdecide.planner import Planner
from diffdecide.train import FitResult, TrainConfig, fit
from diffdecide.value import TrajectoryValue
from lm_bridge.goals import GoalSpace

SAMPLE = 20_000  # windows that the normaliser of the targets is taken from


def train_plan_critic(
    files: Sequence[str | Path], folder: Path, train: TrainConfig, *, resume: bool = False
) -> FitResult:
    """Train the critic of the planner in `folder` on what was really done in `files`, and put it into `folder/critic`.

    It learns return and cost, discounted over about a plan's span, that follow an executed window of actions. The
    MPC's labels in the data are left out: nobody executed them.

    Raises:
        ValueError: `folder` holds no planner.
        DataError: data of another agent.
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
    with noise.seeded(train.seed, 1):
        critic = TrajectoryValue(**data.sizes())
    count = min(len(data.windows), SAMPLE)
    some = data.windows.__getitems__(np.linspace(0, len(data.windows) - 1, count).astype(int).tolist())
    critic.set_normaliser(some["value_target"], some["cost_target"])
    result = fit(critic, data.windows, train, output_dir=folder / "training/critic", resume=resume)
    if main:
        critic.save_pretrained(folder / "critic")
    return result
