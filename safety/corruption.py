"""Lidars that are off or fail: noise on every bin, and bins that read zero, put between an environment and whoever
looks at it. What an agent is told about its sensor goes with it, in the environment's spec.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np

from safety.layout import EnvSpec

_STREAM = 0x11DA  # apart from the layout's random numbers, which come from the same seed


@dataclass(frozen=True, kw_only=True)
class LidarCorruption:
    """What happens to every lidar bin in every step, independently.

    Attributes:
        noise: standard deviation of a Gaussian added to the reading, as a share of the range (0.02 of 3 m is 6 cm); the
            result is clipped to [0, 1].
        dropout: probability that the bin then reads zero.
    """

    noise: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("noise", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"LidarCorruption.{name} must be in [0, 1), got {getattr(self, name)}")

    def told(self, spec: EnvSpec) -> EnvSpec:
        """`spec` with what is known about the sensor.

        Raises:
            ValueError: the environment has no lidar.
        """
        if spec.layout is None or not spec.layout.lidars:
            raise ValueError(f"{spec.id} has no lidar to corrupt")
        return replace(spec, lidar_noise=self.noise, lidar_dropout=self.dropout)

    def __bool__(self) -> bool:
        """Whether anything is corrupted at all."""
        return self.noise > 0 or self.dropout > 0


class CorruptedLidar(gymnasium.ObservationWrapper):
    """An environment whose lidars are corrupted; the same seed gives the same errors."""

    def __init__(self, env: gymnasium.Env, spec: EnvSpec, corruption: LidarCorruption) -> None:
        super().__init__(env)
        self.corruption = corruption
        corruption.told(spec)  # refuses an environment without lidars
        assert spec.layout is not None
        self._bins = np.concatenate([np.r_[spec.layout[name]] for name in spec.layout.lidars])
        self._generator = np.random.default_rng(_STREAM)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; with a seed the errors begin anew too."""
        if seed is not None:
            self._generator = np.random.default_rng([seed, _STREAM])
        return super().reset(seed=seed, options=options)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The observation [O] with corrupted lidar bins."""
        corrupted = np.array(observation, copy=True)
        ring = corrupted[self._bins]
        if self.corruption.noise:
            ring = np.clip(ring + self.corruption.noise * self._generator.standard_normal(ring.shape), 0.0, 1.0)
        if self.corruption.dropout:
            ring = np.where(self._generator.uniform(size=ring.shape) < self.corruption.dropout, 0.0, ring)
        corrupted[self._bins] = ring
        return corrupted
