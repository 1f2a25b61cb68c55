"""Planners and the rewards between them: go on training a planner on other data, fit the relative reward of two, align
one with a teacher's preferences. All on the common trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from diffdecide.app.training import Labels, PlannerData, planner_data
from diffdecide.data.episode import DataError
from diffdecide.planner import Planner
from diffdecide.preference import PlanScore
from diffdecide.train import FitResult, TrainConfig, fit
from lm_bridge.goals import GoalSpace
from reward_models.dpo import DiffusionDPO, DPOConfig, PlanPairs, pair_plans
from reward_models.guide import goal_seeking_plan, unhurried_plan
from reward_models.plan_pairs import plan_scorer
from reward_models.relative import RelativeConfig, RelativeReward
from reward_models.teachers import Teacher
from safety.dynamics import dynamics_for

if TYPE_CHECKING:
    from safety.layout import EnvSpec

Taste = Literal["unhurried", "goal-seeking"]


def taste_score(taste: Taste, spec: EnvSpec) -> PlanScore:
    """The true score of a taste on plans: what a perfectly learned reward would say."""
    if taste == "goal-seeking":
        return goal_seeking_plan
    return partial(unhurried_plan, scale=dynamics_for(spec.agent).saturation)


def data_for(
    planner: Planner, files: Sequence[str | Path], *, labels: Labels, start_every: int = 1, progress: bool
) -> PlannerData:
    """The windows of data files as `planner` takes them.

    Raises:
        DataError: data of another agent, or of an environment that the planner does not know.
    """
    config = planner.config
    data = planner_data(
        files,
        rows=config.rows,
        features=config.features,
        goals=GoalSpace(),
        labels=labels,
        start_every=start_every,
        progress=progress,
    )
    strange = [name for name in data.environments if name not in config.environments]
    if data.agent != config.agent or strange:
        raise DataError(
            f"the planner is for {config.agent} in {', '.join(config.environments)}, "
            f"the data are of {data.agent} in {', '.join(data.environments)}"
        )
    return data


def fine_tune(planner: Planner, data: PlannerData, *, out: Path, train: TrainConfig, resume: bool = False) -> FitResult:
    """Go on training `planner` (in place) on `data` and save it to `out`."""
    result = fit(planner.model, data.windows, train, output_dir=out / "training", resume=resume)
    planner.model.eval()
    if PartialState().is_main_process:
        planner.save_pretrained(out)
    return result


def fit_relative(
    base: Planner,
    expert: Planner,
    data: PlannerData,
    *,
    out: Path,
    train: TrainConfig,
    width: int = 256,
    depth: int = 3,
    resume: bool = False,
) -> tuple[RelativeReward, FitResult]:
    """Fit the relative reward of two planners on windows of both planners' data and save it to `out`.

    Raises:
        ValueError: planners that do not plan alike (agent, rows, features).
    """
    for name in ("agent", "rows", "features", "goal_space"):
        ours, theirs = getattr(base.config, name), getattr(expert.config, name)
        if ours != theirs:
            raise ValueError(f"base and expert planner differ in {name}: {ours} and {theirs}")
    model = base.model.config
    rows = base.config.rows
    config = RelativeConfig(
        horizon=model["horizon"],
        dim=model["dim"],
        ego_dim=model["ego_dim"],
        token_dim=model["token_dim"],
        goal_dim=model["goal_dim"],
        width=width,
        depth=depth,
        schedule=base.model.schedule.to_dict(),
        environments=tuple(name for name in base.config.environments if name in expert.config.environments),
        rows=(rows.dense, rows.strided, rows.stride),
        features=asdict(base.config.features),
        context_dim=expert.model.config["context_dim"],
        tokens_options=dict(expert.model.config["tokens_options"] or {}),
    )
    reward = RelativeReward(config, *(p.model.requires_grad_(False) for p in (base, expert)), seed=train.seed)
    result = fit(reward, data.windows, train, output_dir=out / "training", resume=resume)
    if PartialState().is_main_process:
        reward.save_pretrained(out)
    return reward.eval(), result


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How a planner is aligned.

    Attributes:
        pairs: situations in which the planner draws two plans each.
        accuracy: Bayes rate that the teacher's rationality is chosen for; 1 is always right.
        steps: denoising steps of the plans.
        temperature: of the plans; above 1 the two differ more.
    """

    pairs: int = 4000
    accuracy: float = 0.9
    steps: int = 5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.steps < 1:
            raise ValueError(f"AlignConfig: {self.pairs=} and {self.steps=} must be at least 1")
        if not 0.5 < self.accuracy <= 1:
            raise ValueError(f"AlignConfig.accuracy must lie in (0.5, 1], got {self.accuracy}")
        if not self.temperature > 0:
            raise ValueError(f"AlignConfig.temperature must be positive, got {self.temperature}")


def align_planner(
    planner: Planner,
    data: PlannerData,
    score: PlanScore,
    *,
    out: Path,
    train: TrainConfig,
    align: AlignConfig | None = None,
    dpo: DPOConfig | None = None,
    resume: bool = False,
) -> tuple[Planner, FitResult, float]:
    """Align `planner` (in place) with `score` and save it to `out`; with the teacher's Bayes rate on the pairs.

    The pairs follow from the seed of `train`, so a resumed run sees the same ones.
    """
    align = align or AlignConfig()
    rng = np.random.default_rng((train.seed, 3))
    rows = rng.choice(len(data.windows), size=min(align.pairs, len(data.windows)), replace=False)
    windows = data.windows.__getitems__(rows)
    situations = {name: windows[name] for name in ("ego", "tokens", "token_mask", "goal")}
    worth = plan_scorer(score, planner.config.rows, planner.dynamics)
    seen: list[np.ndarray] = []

    def remembered(plans: Tensor, given: Mapping[str, Tensor]) -> np.ndarray:
        seen.append(worth(plans, given))
        return seen[-1]

    options: dict[str, Any] = {"steps": align.steps, "temperature": align.temperature}
    pairs = pair_plans(
        planner.model,
        situations,
        remembered,
        Teacher(beta=math.inf),
        generator=torch.Generator().manual_seed(train.seed),
        rng=rng,
        **options,
    )
    if align.accuracy < 1:
        teacher = Teacher().for_accuracy(seen[0], seen[1], align.accuracy)
        answers = teacher.answer(seen[0], seen[1], rng)
        pairs = PlanPairs({**pairs.batch, "label": torch.from_numpy(answers.label)}, answers.bayes_accuracy)
    module = DiffusionDPO(planner.model, dpo)
    result = fit(module, pairs, train, output_dir=out / "training", resume=resume)
    planner.model.eval()
    if PartialState().is_main_process:
        planner.save_pretrained(out)
    return planner, result, pairs.bayes_accuracy
