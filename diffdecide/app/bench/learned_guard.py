"""A filter for tasks where what costs has no place: a feasibility critic with a conformal threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.app.bench.timing import Stopwatch, steps_within
from diffdecide.app.guarded import GuardedPolicy
from diffdecide.files import read_json, write_json
from diffdecide.policy import Policy
from diffdecide.train import TrainConfig

if TYPE_CHECKING:
    from safety.guard import Guard
    from safety.layout import EnvSpec

MARK = "guard.json"
_TRAIN = TrainConfig(
    steps=1, batch_size=512, learning_rate=1e-3, checkpoint_every=0, tracker=None, progress=False, device="cpu"
)


def has_geometry(spec: EnvSpec) -> bool:
    """Whether `safety.guard.GeometricGuard` can guard this task."""
    from safety.guard import GeometricGuard

    try:
        GeometricGuard(spec)
    except ValueError:
        return False
    return True


def train_learned_guard(file: str, out: Path, *, seed: int, seconds: float) -> dict[str, Any]:
    """Train a feasibility critic for `seconds` and choose its threshold on episodes kept out of training.

    The threshold is what conformal risk control promises on the held-out episodes (`calibration_report`), but never
    above the critic's own boundary less its margin there: at 0 the critic sees a violation ahead, and a filter leads
    its policy to where the critic errs. What too few episodes cannot promise is None ("promised") or 0 ("margin").

    Raises:
        ValueError: (DataError) a file without costs, or fewer than two episodes.
    """
    from diffdecide.app.critic_training import critic_data, train_critic
    from safety.critics.base import CriticConfig

    data = critic_data([file], held_out=0.2, seed=seed)
    config = CriticConfig(
        observation_dim=data.train.observation.shape[1], action_dim=data.train.action.shape[1], hidden=(128, 128)
    )
    train = replace(_TRAIN, seed=seed)

    def run(steps: int, folder: Path) -> dict[str, Any]:
        return train_critic(data, "feasibility", config, replace(train, steps=steps, overwrite=True), folder)[2]

    steps = steps_within(seconds, run)
    watch = Stopwatch()
    report = run(steps, out)
    promised, margin = report["threshold"]["value"], report["feasibility"]["margin"] or 0.0
    facts = {
        "steps": steps,
        "seconds": watch.spent,
        "wall": watch.wall,
        "miss": report["threshold"]["miss"],
        "promised": promised,
        "margin": margin,
        "threshold": min(-margin, 0.0 if promised is None else float(promised)),
        "continuous": data.train.continuous,
    }
    write_json(out / MARK, facts)
    return facts


def load_learned_guard(folder: str | Path, spec: EnvSpec, *, seed: int = 0) -> Guard:
    """The guard in `folder` for the environment of `spec`.

    Raises:
        ValueError: no such guard, or one of another environment.
    """
    from safety.critics.storage import load_critic
    from safety.learned_filter import LearnedFilter

    try:
        threshold = float(read_json(Path(folder) / MARK)["threshold"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no learned filter that can be read: {error}") from None
    critic = load_critic(folder)
    widths = critic.config.observation_dim, critic.config.action_dim
    if widths != (spec.observation_dim, spec.action_dim):
        raise ValueError(f"the learned filter in {folder} is for {widths}, {spec.id} has other observations or actions")
    ones = np.ones(spec.action_dim)
    return LearnedFilter(critic, threshold, -ones, ones, generator=np.random.default_rng(seed))


class LearnedGuardedPolicy(GuardedPolicy):
    """`policy` proposes, a learned filter decides."""

    def __init__(self, policy: Policy, folder: str) -> None:
        super().__init__(policy)
        self.folder = folder

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        """Begin an episode; the filter's candidates follow from `seed`."""
        self._seed, self._for = seed, None
        super().reset(spec, seed=seed)

    def _make_guard(self, spec: EnvSpec) -> Guard:
        return load_learned_guard(self.folder, spec, seed=self._seed)


@dataclass(frozen=True)
class LearnedGuardedFactory:
    """A picklable factory of a policy behind the learned filter in `folder`."""

    inner: Callable[[], Policy]
    folder: str

    def __call__(self) -> Policy:
        return LearnedGuardedPolicy(self.inner(), self.folder)
