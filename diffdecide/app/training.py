"""Data files to data sets to trained planners: where goals, features and windows come together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate import PartialState
from tqdm import tqdm

from diffdecide import noise
from diffdecide.data.episode import DataError, Episode, fingerprint
from diffdecide.data.mixed import MixedWindows
from diffdecide.data.normalize import Normalizer
from diffdecide.data.readers import read_hdf5
from diffdecide.data.returns import to_go
from diffdecide.data.windows import WindowConfig, WindowDataset, WindowStatistics
from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.features import FeatureConfig, SceneTokens, encode_many, target_token
from diffdecide.plan import PlanRows
from diffdecide.planner import Planner
from diffdecide.planner_config import PlannerConfig
from diffdecide.train import FitResult, TrainConfig, fit
from lm_bridge.goals import GoalSpace
from safety import envs
from safety.dynamics import dynamics_for
from safety.tasks.driving import DrivingView
from safety.tasks.spec import TaskSpec

Labels = Literal["only", "prefer", "ignore"]
VALUE_DISCOUNT = 0.98  # per control step: about the span of a plan


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network behind a planner."""

    denoiser: str = "mlp"  # "mlp", "dit" or "unet"
    denoiser_options: dict[str, Any] = field(default_factory=dict)
    tokens_options: dict[str, Any] = field(default_factory=dict)
    context_dim: int = 128
    prediction: str = "sample"
    target_weight: float = 0.1


@dataclass(frozen=True)
class PlannerData:
    """Windows of one or more files, with what a planner has to remember about them."""

    windows: MixedWindows
    statistics: WindowStatistics
    agent: str
    environments: tuple[str, ...]
    fingerprint: str
    episodes: int
    steps: int

    def sizes(self) -> dict[str, int]:
        """Sizes of the windows, as the networks' keyword arguments."""
        first = self.windows[0]
        horizon, dim = first["trajectory"].shape
        return {
            "horizon": horizon,
            "dim": dim,
            "ego_dim": first["ego"].shape[-1],
            "token_dim": first["tokens"].shape[-1],
            "goal_dim": first["goal"].shape[-1],
        }


def planner_data(
    files: Sequence[str | Path],
    *,
    rows: PlanRows,
    features: FeatureConfig,
    goals: GoalSpace,
    labels: Labels = "only",
    start_every: int = 1,
    progress: bool = True,
) -> PlannerData:
    """Read data files of one agent into windows of motor commands.

    Raises:
        DataError: files of different agents, of a task that planners are told as driving, or an episode that does not
            say which environment it is from.
    """
    if not files:
        raise DataError("expected at least one data file, got none")
    config = WindowConfig(
        dense=rows.dense, strided=rows.strided, stride=rows.stride, labels=labels, start_every=start_every
    )
    statistics: WindowStatistics | None = None
    parts, agents, ids, prints, count, steps = [], set(), [], [], 0, 0
    for file in files:
        episodes = [_in_motor_commands(episode, str(file)) for episode in read_hdf5(file)]
        prints.append(fingerprint(episodes))
        env_id = episodes[0].metadata["env_id"]
        spec = envs.spec(env_id)
        if "Zones" not in env_id and not DrivingView(spec).as_is:
            raise DataError(
                f"{file}: planners are trained in Goal1 and zone tasks; {env_id} is told to them as driving, and needs "
                "no training (docs/planner.md), or a sequence planner (`train sequence`)"
            )
        agents.add(spec.agent)
        ids.append(env_id)
        table = [
            _features(episode, features, goals)
            for episode in tqdm(episodes, desc=f"features of {Path(file).name}", disable=not progress)
        ]
        part = WindowDataset(episodes, config, features=table, statistics=statistics)
        if statistics is None:
            statistics = part.statistics
            # Motor commands fill [-1, 1] by definition: nothing to normalise.
            statistics.trajectory = Normalizer(part.trajectory_dim)
        parts.append(part)
        count += len(episodes)
        steps += sum(len(episode) for episode in episodes)
    if len(agents) != 1:
        raise DataError(f"a planner is for one agent, the files hold {', '.join(sorted(agents))}")
    assert statistics is not None
    return PlannerData(
        windows=MixedWindows(parts),
        statistics=statistics,
        agent=agents.pop(),
        environments=tuple(dict.fromkeys(ids)),
        fingerprint="+".join(print_[:12] for print_ in prints),
        episodes=count,
        steps=steps,
    )


def _in_motor_commands(episode: Episode, where: str) -> Episode:
    env_id = episode.metadata.get("env_id")
    if env_id is None:
        raise DataError(f"{where}: an episode's metadata lacks env_id: collect it with `diffdecide collect`")
    dynamics = dynamics_for(envs.spec(env_id).agent)
    plans = None if episode.plans is None else dynamics.effective(episode.plans)
    return replace(episode, actions=dynamics.effective(episode.actions), plans=plans)


def _features(episode: Episode, config: FeatureConfig, goals: GoalSpace) -> Mapping[str, np.ndarray]:
    """Per-step conditioning, and what lies ahead, of an episode whose actions are motor commands."""
    spec = envs.spec(episode.metadata["env_id"])
    encoded = encode_many(spec, episode.observations, episode.actions, config)
    rows, kinds = sub_goal_rows(episode, goals)
    ahead = to_go(episode, discount=VALUE_DISCOUNT, horizon=None)
    subgoals = np.zeros(len(episode), dtype=int) if episode.subgoals is None else episode.subgoals
    target = [
        target_token(SceneTokens(ego, tokens, mask), kinds[index])
        for ego, tokens, mask, index in zip(encoded.ego, encoded.tokens, encoded.mask, subgoals, strict=True)
    ]
    return {
        "ego": encoded.ego,
        "tokens": encoded.tokens.astype(np.float16),
        "token_mask": encoded.mask,
        "goal": rows[subgoals],
        "target_index": np.array(target),
        "value_target": ahead.return_to_go,
        "cost_target": ahead.cost_to_go,
    }


def sub_goal_rows(episode: Episode, goals: GoalSpace) -> tuple[np.ndarray, list[str]]:
    """Embedding [M, G] and target kind of each sub-goal that an episode's `subgoals` index."""
    history = episode.metadata.get("sub_goals")
    if not history:
        return goals.encode_goal().astype(np.float32), ["goal"]
    rows, kinds = [], []
    for entry in history:
        task = TaskSpec.from_dict(entry["task"])
        rows.append(goals.encode(task)[entry["index"]])
        kinds.append(f"{task.targets[entry['index']]}_zone")
    return np.stack(rows).astype(np.float32), kinds


def train_planner(
    data: PlannerData,
    *,
    out: Path,
    rows: PlanRows,
    features: FeatureConfig,
    goals: GoalSpace,
    model: ModelConfig,
    train: TrainConfig,
    resume: bool = False,
) -> tuple[Planner, FitResult]:
    """Train a planner on `data` and save it to `out` (checkpoints in `out/training`)."""
    with noise.seeded(train.seed):
        network = TrajectoryDiffusion(
            **data.sizes(),
            context_dim=model.context_dim,
            denoiser=model.denoiser,
            denoiser_options=model.denoiser_options,
            tokens_options=model.tokens_options,
            schedule={"prediction": model.prediction},
            target_weight=model.target_weight,
        )
    result = fit(network, data.windows, train, output_dir=out / "training", resume=resume)
    planner = Planner(
        network,
        PlannerConfig(
            agent=data.agent,
            environments=data.environments,
            goal_space=goals.fingerprint,
            rows=rows,
            features=features,
            return_target=None,
            budget=None,
        ),
        data.statistics,
    )
    if PartialState().is_main_process:
        planner.save_pretrained(out)
    return planner, result
