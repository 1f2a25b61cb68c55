"""The filter's margin from measurement: how much nearer obstacles are than a tracker says, by split conformal.

On calibration episodes a guarded policy drives with the sensor as it is. Per episode the score is the largest
overstatement of the clearance in any step near an obstacle: decoded clearance (the tracker's own sigma taken off, as
the filter does) minus true clearance. Episodes are exchangeable, steps are not. The conformal quantile of the scores is
exceeded by a further episode's with at most the stated probability (Vovk et al., 2005); that is the margin, and never
less than the operator's, which is there for the dynamics model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safety._report import write_whole
from safety.calibration import conformal_quantile
from safety.caution import DEFAULT_MARGIN
from safety.controllers.objective import SubGoal
from safety.controllers.proportional import ProportionalController
from safety.corruption import CorruptedLidar, LidarCorruption
from safety.filters import FilterConfig
from safety.guard import GeometricGuard
from safety.layout import EnvSpec
from safety.scene import Scene

NEAR = 0.3  # m: nearer obstacles than this count; one that was not seen at all counts as being this far away
FORMAT = "diffdecide-margin-1"


@dataclass(frozen=True, kw_only=True)
class MarginReport:
    """A calibrated margin and what it rests on.

    Attributes:
        env: environment it was measured in.
        noise, dropout: of the lidar, as in `LidarCorruption`.
        miss: probability with which a further episode may overstate a clearance by more than `quantile`.
        quantile: m, the conformal quantile of `scores`.
        margin: m, what the filter should keep: the larger of `quantile` and `operator_margin`.
        operator_margin: m, kept by the filter while measuring, and the least that is ever kept.
        seeds: first and last calibration seed.
        scores: m, one per episode.
        mean_absolute_error, p95_error: m, of single steps near an obstacle.
    """

    env: str
    noise: float
    dropout: float
    miss: float
    quantile: float
    margin: float
    operator_margin: float
    seeds: tuple[int, int]
    scores: tuple[float, ...]
    mean_absolute_error: float
    p95_error: float

    def save(self, path: Path) -> None:
        """Write JSON, in one piece or not at all."""
        write_whole(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> MarginReport:
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or not such a file.
        """
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            if data.pop("format", None) != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            report = cls(**{**data, "seeds": tuple(data["seeds"]), "scores": tuple(data["scores"])})
            if not (math.isfinite(report.margin) and report.margin >= 0):
                raise ValueError(f"its margin is {report.margin}")
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} holds no calibrated margin: {error}") from error
        return report

    def require(self, env_id: str, corruption: LidarCorruption) -> None:
        """Refuse a margin that was calibrated for something else.

        Raises:
            ValueError: another environment, or a sensor worse than the one it was calibrated with.
        """
        if env_id != self.env:
            raise ValueError(f"the margin was calibrated in {self.env}, not in {env_id}")
        if corruption.noise > self.noise or corruption.dropout > self.dropout:
            raise ValueError(
                f"the margin was calibrated for noise {self.noise} and dropout {self.dropout}, "
                f"the sensor has noise {corruption.noise} and dropout {corruption.dropout}"
            )


def overstatement(decoded: Scene, true: Scene, kinds: Sequence[str], config: FilterConfig) -> float | None:
    """By how many metres the decoded clearance exceeds the true one; None with no obstacle of `kinds` near.

    Negative where the tracker errs on the safe side.
    """
    index = true.of_kind(*kinds)
    if not len(index):
        return None
    actual = float((np.linalg.norm(true.positions[index] - true.state[:2], axis=1) - true.radii[index]).min())
    if actual >= NEAR:
        return None
    index = decoded.of_kind(*kinds)
    away = np.linalg.norm(decoded.positions[index] - decoded.state[:2], axis=1) - decoded.radii[index]
    away = away - config.grown(decoded.sigma[index])
    return min(float(away.min(initial=np.inf)), NEAR) - actual


def episode_errors(
    spec: EnvSpec,
    corruption: LidarCorruption,
    seed: int,
    *,
    margin: float = DEFAULT_MARGIN,
    max_steps: int | None = None,
) -> list[float]:
    """Overstatements [m] of one episode: a proportional controller drives to the goal behind the guard.

    Raises:
        ValueError: no lidar, or nothing with a place that costs.
    """
    from safety import envs, truth

    guard = GeometricGuard(corruption.told(spec) if corruption else spec, margin=margin)
    world = envs.make(spec.id, seed=seed)
    env = CorruptedLidar(world, spec, corruption)
    kinds = guard.filter.hard_kinds
    controller = ProportionalController(guard.filter.dynamics)
    errors = []
    try:
        observation, _ = env.reset(seed=seed)
        guard.reset()
        for _ in range(max_steps or spec.max_steps):
            true = truth.scene(env)
            wanted = np.asarray(controller.act(true, SubGoal(target="goal")), dtype=np.float64)
            report = guard.guard(observation, wanted)
            assert guard.scene is not None
            error = overstatement(guard.scene, true, kinds, guard.filter.config)
            if error is not None:
                errors.append(error)
            observation, _, terminated, truncated, _ = env.step(report.action)
            if terminated or truncated:
                break
    finally:
        world.close()
    return errors


def calibrate_margin(
    spec: EnvSpec,
    corruption: LidarCorruption,
    *,
    episodes: int = 20,
    seed: int = 3000,
    miss: float = 0.1,
    operator_margin: float = DEFAULT_MARGIN,
    max_steps: int | None = None,
    on_episode: Callable[[int, float], None] | None = None,
) -> MarginReport:
    """Measure `episodes` episodes with the seeds `seed`, `seed + 1`, … and choose the margin.

    An episode that never comes near an obstacle scores 0.

    Raises:
        ValueError: too few episodes for `miss` (it takes 1 / miss - 1), final seeds, or as `episode_errors`.
    """
    if not 0 < miss < 1:
        raise ValueError(f"miss must lie in (0, 1), got {miss}")
    if episodes < math.ceil(1 / miss - 1 - 1e-9):
        raise ValueError(
            f"a miss probability of {miss} takes at least {math.ceil(1 / miss - 1 - 1e-9)} episodes, got {episodes}"
        )
    if seed + episodes > 10_000:
        raise ValueError(f"calibration seeds must lie below 10000 (final figures), got {seed} to {seed + episodes - 1}")
    scores, errors = [], []
    for index in range(episodes):
        found = episode_errors(spec, corruption, seed + index, margin=operator_margin, max_steps=max_steps)
        errors += found
        scores.append(max([0.0, *found]))
        if on_episode is not None:
            on_episode(seed + index, scores[-1])
    quantile = conformal_quantile(scores, miss)
    absolute = np.abs(errors) if errors else np.zeros(1)
    return MarginReport(
        env=spec.id,
        noise=corruption.noise,
        dropout=corruption.dropout,
        miss=miss,
        quantile=quantile,
        margin=max(quantile, operator_margin),
        operator_margin=operator_margin,
        seeds=(seed, seed + episodes - 1),
        scores=tuple(scores),
        mean_absolute_error=float(absolute.mean()),
        p95_error=float(np.quantile(errors, 0.95)) if errors else 0.0,
    )
