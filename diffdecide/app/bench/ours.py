"""Ours in the safe-RL benchmark: the embedded planner where a task has one, else a sequence planner of its data file.

The sequence planner is trained within the same budget as every other method, and has the geometric guard
behind it where what costs has a place, a learned filter where not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffdecide.app.bench.timing import Stopwatch, steps_within
from diffdecide.app.sequence_policy import SequencePolicy, SequencePolicyConfig
from diffdecide.files import read_json, write_json
from diffdecide.sequence_planner import SequencePlanner
from diffdecide.train import TrainConfig

if TYPE_CHECKING:
    from safety.layout import EnvSpec

VARIANTS = ("full", "no-guidance", "no-ranking", "gaussian")
_TRAIN = TrainConfig(
    steps=1, batch_size=256, learning_rate=6e-4, checkpoint_every=0, tracker=None, progress=False, device="cpu"
)
# What each part taken away means for the planner with geometry.
AGENT_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "no-guidance": {"project": False, "clearance_guidance": 0.0},
    "no-ranking": {"candidates": 1, "warm_share": 0.0, "escapes": False},
    "gaussian": {"proposal": "gaussian"},
}


def is_embedded(env_id: str) -> bool:
    """Whether "ours" is the embedded planner in this environment."""
    from diffdecide.app.embedded import FOLDERS

    return env_id in FOLDERS


def embedded_heeds_limit(env_id: str) -> bool:
    """Whether the embedded planner of the environment is conditioned on a cost budget at all."""
    from diffdecide.app.embedded import planner_folder

    return read_json(planner_folder("default", env_id) / "planner.json").get("budget") is not None


def train_sequence_within(file: str, env_id: str, out: Path, *, seed: int, seconds: float) -> dict[str, Any]:
    """Train a sequence planner on a data file for about `seconds`: half for the denoiser, half for its critic.

    Raises:
        ValueError: (DataError) a file without costs, or of another environment.
    """
    from diffdecide.app.sequence_training import SequenceTraining, read_episodes, sequence_data, train_sequence
    from diffdecide.sequence_format import SequenceFormat

    episodes, spec = read_episodes([file], env_id)
    data = sequence_data(episodes, SequenceFormat(spec=spec))

    def run(steps: int, folder: Path, critic_steps: int) -> None:
        parts = SequenceTraining(critic_steps=critic_steps, inverse_steps=1)  # it acts as planned
        train = replace(_TRAIN, steps=steps, seed=seed, overwrite=True)
        train_sequence(data, out=folder, train=train, options=parts)

    steps = steps_within(seconds / 2, lambda count, folder: run(count, folder, 1))
    critic_steps = steps_within(seconds / 2, lambda count, folder: run(1, folder, count))
    watch = Stopwatch()
    run(steps, out, critic_steps)
    return {
        "steps": steps,
        "critic_steps": critic_steps,
        "seconds": watch.spent,
        "wall": watch.wall,
        "episodes": data.episodes,
        "fingerprint": data.fingerprint,
    }


def train_agent_within(file: str, env_id: str, out: Path, *, seed: int, seconds: float) -> dict[str, Any]:
    """Train the planner with geometry on a data file for about `seconds`, as the embedded one is trained for longer.

    Raises:
        ValueError: (DataError) a file without plans as labels, or of another environment.
    """
    from diffdecide.app.training import ModelConfig, planner_data, train_planner
    from diffdecide.features import FeatureConfig
    from diffdecide.plan import PlanRows
    from lm_bridge.goals import GoalSpace

    rows, features, goals = PlanRows(), FeatureConfig(max_objects=14), GoalSpace()
    data = planner_data([file], rows=rows, features=features, goals=goals, progress=False)
    if env_id not in data.environments:
        raise ValueError(f"{file} holds episodes of {', '.join(data.environments)}, not of {env_id}")
    train = replace(_TRAIN, batch_size=512, seed=seed, overwrite=True)

    def run(steps: int, folder: Path) -> None:
        train_planner(
            data, out=folder, rows=rows, features=features, goals=goals, model=ModelConfig(),
            train=replace(train, steps=steps),
        )  # fmt: skip

    steps = steps_within(seconds, run)
    watch = Stopwatch()
    run(steps, out)
    # How it plans is not trained: the embedded planner's settings, which are the default.
    from diffdecide.app.embedded import planner_folder

    wanted, own = read_json(planner_folder("default", env_id) / "planner.json"), read_json(out / "planner.json")
    kept = ("agent", "environments", "goal_space", "rows", "features")
    write_json(out / "planner.json", wanted | {name: own[name] for name in kept})
    return {
        "steps": steps,
        "seconds": watch.spent,
        "wall": watch.wall,
        "episodes": data.episodes,
        "fingerprint": data.fingerprint,
    }


class GaussianSequencePlanner(SequencePlanner):
    """The same ranking without a model: half of the candidates are noise, half are noise around the previous plan."""

    def _propose(self, batch: dict[str, Tensor], known: Tensor, allowed: float | None, elapsed: int) -> Tensor:
        config, form = self.config, self.config.format
        plans = torch.randn((config.candidates, *self.model.plan_shape), generator=self._generator)
        if self._previous is not None:
            moved = torch.from_numpy(form.shifted(self._previous, elapsed))
            previous = self.statistics.trajectory.normalize(moved).clamp(-1, 1)
            warm = int(config.candidates * config.warm_share)
            plans[:warm] = previous + config.warm_strength * plans[:warm]
            plans = torch.cat([plans, previous[None]])
        plans = plans.clamp(-1, 1)
        plans[:, : form.history] = known
        return plans


@dataclass(frozen=True, kw_only=True)
class OursConfig:
    """The sequence planner as a row of the table; picklable.

    Attributes:
        planner: its folder.
        variant: one of `VARIANTS`.
        limit: cost per episode that it may spend.
        margin: m of the geometric guard; None for none.
        learned: folder of a learned filter instead; None for none.
    """

    planner: str
    variant: str = "full"
    limit: float = 10.0
    margin: float | None = None
    learned: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {self.variant!r}")
        if self.margin is not None and self.learned is not None:
            raise ValueError("a policy has one guard: expected margin or learned, got both")
        if not 0 <= self.limit < float("inf"):
            raise ValueError(f"the cost limit must be finite and >= 0, got {self.limit}")


class OursPolicy(SequencePolicy):
    """The sequence planner with parts taken away, behind either kind of guard."""

    def __init__(self, config: OursConfig) -> None:
        unguided = config.variant == "no-guidance"
        settings: dict[str, Any] = {"budget": None, "cost_penalty": 0.0} if unguided else {}
        if config.variant == "no-ranking":
            settings = {"candidates": 1, "warm_share": 0.0}
        super().__init__(
            SequencePolicyConfig(
                planner=config.planner,
                filtered=False,
                cost_limit=None if unguided else config.limit,
                settings=settings | dict(config.settings),
            )
        )
        self.row = config
        planner = self.planner
        if config.variant == "no-ranking":
            planner.critic = None
        if config.variant == "gaussian":
            self.planner = GaussianSequencePlanner(
                planner.model, planner.config, planner.statistics, planner.observation, critic=planner.critic
            )

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        """Begin an episode.

        Raises:
            ValueError: the planner or the learned filter is of another environment, or the task has no geometry.
        """
        super().reset(spec, seed=seed)
        if self.row.learned is not None:
            from diffdecide.app.bench.learned_guard import load_learned_guard

            self._guard = load_learned_guard(self.row.learned, spec, seed=seed)  # type: ignore[assignment]
        elif self.row.margin is not None:
            from safety.guard import GeometricGuard

            self._guard = GeometricGuard(spec, margin=self.row.margin)
        if self._guard is not None:
            self._guard.reset()
