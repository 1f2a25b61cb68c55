"""Data files to sequence planners: windows of states and actions, then diffusion model, critic, inverse dynamics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from diffdecide import noise
from diffdecide.app.training import ModelConfig
from diffdecide.data.episode import DataError, Episode, fingerprint
from diffdecide.data.normalize import Normalizer
from diffdecide.data.readers import read
from diffdecide.data.windows import WindowDataset, WindowStatistics
from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.nets.inverse_dynamics import InverseDynamics
from diffdecide.sequence_format import OBSERVATION_CLIP, SequenceFormat
from diffdecide.sequence_planner import SequencePlanner, SequencePlannerConfig
from diffdecide.train import FitResult, TrainConfig, fit
from diffdecide.value import TrajectoryValue
from safety import envs
from safety.layout import EnvSpec

# DSRL names its files after ids like SafetyPointGoal1Gymnasium-v0.
DSRL_NAME = re.compile(r"(Safety\w+?)Gymnasium-(v\d+)")
_LEVELS = 21  # costs at which the frontier of what was reached is kept


@dataclass(frozen=True)
class SequenceData:
    """Windows of one environment's episodes, with what a planner has to remember about them."""

    windows: WindowDataset
    format: SequenceFormat
    observation: Normalizer
    fingerprint: str
    episodes: int
    steps: int

    @property
    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Return-to-go and cost-to-go [N] of all steps, as the planner is conditioned on, in the units of the data."""
        data = self.windows
        if self.format.conditioning == "end":
            return data.return_to_end, data.cost_to_end
        return data.return_to_go, data.cost_to_go


def read_episodes(files: Sequence[str | Path], env: str | None = None) -> tuple[list[Episode], EnvSpec]:
    """Episodes of one environment from files of any format that `diffdecide.data.readers.read` knows.

    Args:
        env: environment id; None: what the episodes say, else what a DSRL file name says.

    Raises:
        DataError: no file, no or several environments, or episodes that follow instructions.
    """
    if not files:
        raise DataError("expected at least one data file, got none")
    episodes: list[Episode] = []
    ids: dict[str, None] = {}
    for file in files:
        part = read(file)
        episodes += part
        for episode in part:
            if episode.metadata.get("sub_goals"):
                raise DataError(
                    f"{file}: these episodes follow instructions, which a sequence planner does not take; "
                    "use `diffdecide train planner`"
                )
            ids[env or episode.metadata.get("env_id") or _named(Path(file))] = None
    if len(ids) != 1:
        raise DataError(f"a sequence planner is for one environment, the files hold {', '.join(ids)}")
    return episodes, envs.spec(next(iter(ids)))


def _named(file: Path) -> str:
    match = DSRL_NAME.search(file.name)
    if match is None:
        raise DataError(f"{file}: neither the episodes nor the file's name say which environment it is: give --env")
    return f"{match[1]}-{match[2]}"


def sequence_data(
    episodes: Sequence[Episode],
    form: SequenceFormat,
    *,
    start_every: int = 1,
    statistics: WindowStatistics | None = None,
    observation: Normalizer | None = None,
) -> SequenceData:
    """Windows of episodes, for training or (with the normalisers of a planner) for training a part of it again.

    Raises:
        DataError: episodes that do not have the widths of `form.spec`.
    """
    for number, episode in enumerate(episodes):
        widths = (episode.observations.shape[1], episode.actions.shape[1])
        if widths != (form.spec.observation_dim, form.spec.action_dim):
            raise DataError(
                f"episode {number}: {form.spec.id} has observations of {form.spec.observation_dim} and actions of "
                f"{form.spec.action_dim} values, got {widths[0]} and {widths[1]}"
            )
    if observation is None:
        seen = np.concatenate([episode.observations for episode in episodes])
        observation = Normalizer.fit(seen, clip=OBSERVATION_CLIP)
    windows = WindowDataset(
        [form.aligned(episode) for episode in episodes],
        form.windows(start_every=start_every),
        features=[form.features(episode, observation) for episode in episodes],
        statistics=statistics,
        layout=form.spec.layout,
        dt=form.spec.dt,
    )
    steps = sum(len(episode) for episode in episodes)
    return SequenceData(windows, form, observation, fingerprint(episodes), len(episodes), steps)


@dataclass(frozen=True, kw_only=True)
class SequenceTraining:
    """How much is trained of what, beside the diffusion model itself.

    Attributes:
        critic_steps, inverse_steps: optimizer steps; None: as many as the diffusion model.
        inverse_rows: rows that inverse dynamics reads at once.
        inverse_noise: noise on the wanted states, normalised units.
        target_quantile: the planner asks for this quantile of the returns in the data.
        budget_quantile: and for no more than this quantile of the costs, however large the budget is.
    """

    critic_steps: int | None = None
    inverse_steps: int | None = None
    inverse_rows: int = 4
    inverse_noise: float = 0.01
    target_quantile: float = 0.9
    budget_quantile: float = 0.5

    def __post_init__(self) -> None:
        for name in ("critic_steps", "inverse_steps", "inverse_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("target_quantile", "budget_quantile"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


def train_sequence(
    data: SequenceData,
    *,
    out: Path,
    train: TrainConfig,
    model: ModelConfig | None = None,
    options: SequenceTraining | None = None,
    resume: bool = False,
    **settings: Any,
) -> tuple[SequencePlanner, dict[str, FitResult]]:
    """Train all parts of a sequence planner and save it to `out` (checkpoints in `out/training`).

    Args:
        settings: further settings of `SequencePlannerConfig`.

    Returns:
        The planner, and what came of the training of "diffusion", "critic" and "inverse".
    """
    model, options, form = model or ModelConfig(), options or SequenceTraining(), data.format
    first = data.windows[0]
    with noise.seeded(train.seed):
        diffusion = TrajectoryDiffusion(
            horizon=form.rows.rows,
            dim=form.dim,
            ego_dim=first["ego"].shape[-1],
            token_dim=first["tokens"].shape[-1],
            goal_dim=first["goal"].shape[-1],
            context_dim=model.context_dim,
            denoiser=model.denoiser,
            denoiser_options=model.denoiser_options,
            tokens_options=model.tokens_options,
            schedule={"prediction": model.prediction},
            # The past is given: nothing is learned about it.
            row_weights=[0.0] * form.history + [1.0] * (form.rows.rows - form.history),
            target_weight=0.0,
            # With a single goal there is nothing to be guided away from.
            drop_goal=0.0,
        )
    results = {"diffusion": fit(diffusion, data.windows, train, output_dir=out / "training/diffusion", resume=resume)}
    critic, results["critic"] = train_critic(data, out=out, train=_steps(train, options.critic_steps), resume=resume)
    inverse, results["inverse"] = _train_inverse(data, out, _steps(train, options.inverse_steps), options, resume)
    returns, costs = data.targets
    statistics = data.windows.statistics
    wanted = statistics.return_to_go.normalize(np.array([np.quantile(returns, options.target_quantile)], np.float32))
    budget = statistics.cost_budget.normalize(np.array([np.quantile(costs, options.budget_quantile)], np.float32))
    settings = {"frontier": _frontier(statistics, returns, costs, options.target_quantile)} | settings
    config = SequencePlannerConfig(format=form, return_target=float(wanted[0]), budget=float(budget[0]), **settings)
    planner = SequencePlanner(diffusion, config, statistics, data.observation, critic=critic, inverse=inverse)
    if PartialState().is_main_process:
        planner.save_pretrained(out, card=_card(data, planner, results, train))
    return planner, results


def _frontier(
    statistics: WindowStatistics, returns: np.ndarray, costs: np.ndarray, quantile: float
) -> tuple[tuple[float, float], ...]:
    """What was reached within a cost: the `quantile` of the returns-to-go among all steps that cost no more."""
    levels = np.unique(np.quantile(costs, np.linspace(0, 1, _LEVELS), method="lower"))
    reached = np.maximum.accumulate([np.quantile(returns[costs <= level], quantile) for level in levels])
    pairs = (
        statistics.cost_budget.normalize(levels[:, None].astype(np.float32)),
        statistics.return_to_go.normalize(reached[:, None].astype(np.float32)),
    )
    return tuple((float(cost), float(value)) for cost, value in np.concatenate(pairs, axis=1))


def train_critic(
    data: SequenceData, *, out: Path, train: TrainConfig, resume: bool = False
) -> tuple[TrajectoryValue, FitResult]:
    """Train the critic that ranks plans (checkpoints in `out/training/critic`)."""
    first, form = data.windows[0], data.format
    with noise.seeded(train.seed, 1):
        critic = TrajectoryValue(
            form.rows.rows, form.dim, first["ego"].shape[-1], first["tokens"].shape[-1], first["goal"].shape[-1]
        )
    critic.set_normaliser(*(torch.from_numpy(values) for values in data.targets))
    return critic, fit(critic, data.windows, train, output_dir=out / "training/critic", resume=resume)


def _train_inverse(
    data: SequenceData, out: Path, train: TrainConfig, options: SequenceTraining, resume: bool
) -> tuple[InverseDynamics, FitResult]:
    first, form = data.windows[0], data.format
    with noise.seeded(train.seed, 2):
        inverse = InverseDynamics(
            first["ego"].shape[-1],
            first["tokens"].numel(),
            form.state_dim,
            form.spec.action_dim,
            rows=min(options.inverse_rows, form.dense),
            history=form.history,
            state_noise=options.inverse_noise,
        )
    some = data.windows.__getitems__(np.linspace(0, len(data.windows) - 1, min(len(data.windows), 5000)).astype(int))
    inverse.set_normaliser(some["trajectory"], some["mask"])
    return inverse, fit(inverse, data.windows, train, output_dir=out / "training/inverse", resume=resume)


def retrain_critic(files: Sequence[str | Path], folder: Path, train: TrainConfig, *, resume: bool = False) -> FitResult:
    """Train the critic of the planner in `folder` anew, on data that may differ from the planner's.

    Raises:
        ValueError: the folder holds no sequence planner.
        DataError: data of another environment.
    """
    planner = SequencePlanner.from_pretrained(folder)
    form = planner.config.format
    episodes, spec = read_episodes(files, form.spec.id)
    if spec != form.spec:
        raise DataError(f"{folder}: trained for another version of {form.spec.id}: its observation has changed")
    data = sequence_data(episodes, form, statistics=planner.statistics, observation=planner.observation)
    critic, result = train_critic(data, out=folder, train=train, resume=resume)
    if PartialState().is_main_process:
        critic.save_pretrained(folder / "critic")
    return result


def _steps(train: TrainConfig, steps: int | None) -> TrainConfig:
    return train if steps is None else replace(train, steps=steps)


def _card(data: SequenceData, planner: SequencePlanner, results: dict[str, FitResult], train: TrainConfig) -> str:
    form, returns = data.format, data.windows.statistics.return_to_go
    states = "poses of the ego-motion" if form.has_poses else "observations"
    lines = [
        f"# Sequence planner for {form.spec.id}",
        "",
        f"Plans of states ({states}) and actions: {form.history} past rows, {form.dense} rows of one control step, "
        f"{form.strided} of {form.stride}. It gives no safety guarantee by itself.",
        "",
        f"- data: {data.episodes} episodes, {data.steps} steps, fingerprint {data.fingerprint[:16]}",
        f"- asks for a return-to-go of {float(returns.offset + returns.scale * planner.config.return_target):.3g}",
        f"- seed {train.seed}, batch {train.batch_size}, learning rate {train.learning_rate:g}",
        "",
        "| part | steps | minutes | last loss |",
        "|---|---|---|---|",
    ]
    for name, result in results.items():
        loss = result.metrics.get("loss", float("nan"))
        lines.append(f"| {name} | {result.steps} | {result.seconds / 60:.1f} | {loss:.4f} |")
    return "\n".join(lines) + "\n"
