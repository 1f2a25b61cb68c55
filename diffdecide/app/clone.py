"""Training a cloned policy on the windows that a planner is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from diffdecide import noise
from diffdecide.app.training import PlannerData
from diffdecide.cloning import BehaviourCloning, CloningConfig, CloningPlanner
from diffdecide.features import GEOMETRY, TOKEN_DIM, FeatureConfig
from diffdecide.plan import PlanRows
from diffdecide.train import FitResult, TrainConfig, fit

# The pointer is to find a kind of object, wherever it stands: it sees the one-hot kinds alone.
KIND_FEATURES = (len(GEOMETRY), TOKEN_DIM)


@dataclass(frozen=True, kw_only=True)
class CloneConfig:
    """The network of a cloned policy."""

    width: int = 384
    layers: int = 3
    context_dim: int = 128


def train_cloning(
    data: PlannerData,
    *,
    out: Path,
    rows: PlanRows,
    features: FeatureConfig,
    goal_space: str,
    model: CloneConfig,
    train: TrainConfig,
    resume: bool = False,
) -> tuple[CloningPlanner, FitResult]:
    """Train a cloned policy on `data` and save it to `out` (checkpoints in `out/training`)."""
    with noise.seeded(train.seed):
        network = BehaviourCloning(
            **data.sizes(),
            context_dim=model.context_dim,
            width=model.width,
            layers=model.layers,
            tokens_options={"pointer_features": KIND_FEATURES},
        )
    # A cloned policy is asked for no return and no budget: these layers take no part in the loss.
    network.conditioner.embed_return.requires_grad_(False)
    network.conditioner.embed_budget.requires_grad_(False)
    result = fit(network, data.windows, train, output_dir=out / "training", resume=resume)
    config = CloningConfig(
        agent=data.agent, environments=data.environments, goal_space=goal_space, rows=rows, features=features
    )
    planner = CloningPlanner(network, config)
    if PartialState().is_main_process:
        planner.save_pretrained(out)
    return planner, result
