"""What was there a moment ago and is not reported now: kept for a while, with growing uncertainty.

A tracker may drop an object when readings fail or are lost. To a filter a vanished obstacle is not a free place: it is
remembered until it was clearly somewhere else or has been missing for long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safety.motion import advance, turn_rates, turned
from safety.scene import KIND_ID, Scene


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Settings of `SceneMemory`.

    Attributes:
        patience: steps for which a vanished object is kept.
        gate: m, an object of the same kind this near is the same one.
        moving_gate: m, the same for kinds that move.
        growth: m of uncertainty per step of absence.
        settle: steps an object must have been reported before it is worth remembering: ghosts are not.
    """

    patience: int = 50
    gate: float = 0.12
    moving_gate: float = 0.3
    growth: float = 1e-3
    settle: int = 5

    def __post_init__(self) -> None:
        for name in ("patience", "settle"):
            if getattr(self, name) < 0:
                raise ValueError(f"MemoryConfig.{name} must be >= 0, got {getattr(self, name)}")
        for name in ("gate", "moving_gate", "growth"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"MemoryConfig.{name} must be >= 0, got {getattr(self, name)}")


class SceneMemory:
    """One per environment; `reset` per episode, `recall` every step."""

    def __init__(self, kinds: tuple[str, ...], dt: float, config: MemoryConfig | None = None) -> None:
        for kind in kinds:
            if kind not in KIND_ID:
                raise ValueError(f"SceneMemory.kinds must be among {', '.join(KIND_ID)}, got {kind!r}")
        self.config = config or MemoryConfig()
        self._dt = dt
        self._kinds = np.array([KIND_ID[kind] for kind in kinds], dtype=np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        # x, y, vx, vy, radius, sigma, kind, steps seen, steps absent
        self._rows = np.zeros((0, 9))

    @property
    def remembered(self) -> int:
        """Objects that the last answer holds although they were not reported."""
        return int(((self._rows[:, 8] > 0) & (self._rows[:, 7] >= self.config.settle)).sum())

    def recall(self, scene: Scene) -> Scene:
        """`scene` with the objects that vanished from it; where nothing is missing, the very scene."""
        config = self.config
        index = np.flatnonzero(np.isin(scene.kinds, self._kinds))
        old = self._rows
        rates = turn_rates(old[:, 6].astype(np.int64))
        old[:, :2] += advance(old[:, 2:4], rates, self._dt)
        old[:, 2:4] = turned(old[:, 2:4], rates, self._dt)
        seen = np.zeros((len(index), 9))
        seen[:, :2], seen[:, 2:4] = scene.positions[index], scene.velocities[index]
        seen[:, 4], seen[:, 5], seen[:, 6] = scene.radii[index], scene.sigma[index], scene.kinds[index]
        gates = np.where(np.hypot(seen[:, 2], seen[:, 3]) > 1e-3, config.moving_gate, config.gate)
        free = np.ones(len(old), dtype=bool)
        for row, gate in zip(seen, gates, strict=True):
            row[7] = 1
            near = np.hypot(old[:, 0] - row[0], old[:, 1] - row[1])
            near[~free | (old[:, 6] != row[6])] = np.inf
            if len(near) and near.min() <= gate:
                match = int(near.argmin())
                free[match] = False
                row[7] = old[match, 7] + 1
        missing = old[free]
        missing[:, 8] += 1
        missing[:, 5] += config.growth
        missing = missing[(missing[:, 8] <= config.patience) & (missing[:, 7] >= config.settle)]
        self._rows = np.concatenate([seen, missing])
        if not len(missing):
            return scene
        return Scene(
            state=scene.state,
            positions=np.concatenate([scene.positions, missing[:, :2]]),
            velocities=np.concatenate([scene.velocities, missing[:, 2:4]]),
            kinds=np.concatenate([scene.kinds, missing[:, 6].astype(np.int64)]),
            radii=np.concatenate([scene.radii, missing[:, 4]]),
            sigma=np.concatenate([scene.sigma, missing[:, 5]]),
        )
