"""What an environment looks like from outside: `EnvSpec` and the map of its flat observation, without a simulator.

Both survive a round trip through plain dictionaries, so that a saved model can carry the layout it was trained on and
refuse another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LIDAR_SUFFIX = "_lidar"


@dataclass(frozen=True)
class ObservationLayout:
    """Named slices of a flat observation vector, in the order in which the sensors appear.

    `entries` maps a sensor's name ("accelerometer", "velocimeter", "hazards_lidar", …) to `(start, stop)`; the entries
    must follow one another without gaps.
    """

    entries: Mapping[str, tuple[int, int]]

    def __post_init__(self) -> None:
        position = 0
        for name, (start, stop) in self.entries.items():
            if start != position or stop <= start:
                raise ValueError(
                    f"ObservationLayout entry {name!r} covers [{start}, {stop}), expected it to start at {position} "
                    f"and to hold at least one value"
                )
            position = stop

    @property
    def size(self) -> int:
        """Length of the whole observation."""
        return max((stop for _, stop in self.entries.values()), default=0)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.entries)

    @property
    def lidars(self) -> tuple[str, ...]:
        """Names of the lidar sensors, suffix included ("hazards_lidar", …)."""
        return tuple(name for name in self.entries if name.endswith(LIDAR_SUFFIX))

    @property
    def lidar_kinds(self) -> tuple[str, ...]:
        """What the lidars see, as names of `safety.scene.KINDS` ("hazards", "red_zone", …)."""
        return tuple(name[: -len(LIDAR_SUFFIX)] for name in self.lidars)

    def __getitem__(self, name: str) -> slice:
        try:
            return slice(*self.entries[name])
        except KeyError:
            raise ValueError(f"the observation has no sensor {name!r}; it has {', '.join(self.entries)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, observation: np.ndarray, name: str) -> np.ndarray:
        """Values [..., n] of the sensor `name` in observations [..., size]."""
        if observation.shape[-1:] != (self.size,):
            raise ValueError(f"expected observations of length {self.size}, got shape {observation.shape}")
        return observation[..., self[name]]

    def to_dict(self) -> dict[str, list[int]]:
        return {name: [start, stop] for name, (start, stop) in self.entries.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ObservationLayout:
        return cls({name: (int(start), int(stop)) for name, (start, stop) in data.items()})


@dataclass(frozen=True)
class EnvSpec:
    """What a policy may know about an environment before it has seen an observation.

    Attributes:
        id: registered name, "SafetyPointGoal1-v0".
        agent: "point", "car", "racecar", "doggo", "ant"; for velocity tasks the robot's name ("half_cheetah", …).
        dt: seconds per control step.
        max_steps: steps until the episode is truncated.
        action_dim: length of an action.
        observation_dim: length of an observation.
        layout: map of the observation; None where the task has no lidar.
        lidar_max_dist: metres at which a lidar reads zero; None without lidar.
        radii: metres, radius that matters per kind of object (see `safety.truth.scene`); empty without objects.
        costly: names of what the task charges for ("hazards", "gremlins", "sigwalls" for a boundary, …); other objects,
            such as Goal1's vase, are free to touch.
        lidar_noise: standard deviation of every lidar reading, as a share of the range; 0 for the simulator's own.
        lidar_dropout: probability that a lidar bin reads zero although something is there.
    """

    id: str
    agent: str
    dt: float
    max_steps: int
    action_dim: int
    observation_dim: int
    layout: ObservationLayout | None = None
    lidar_max_dist: float | None = None
    radii: Mapping[str, float] = field(default_factory=dict)
    costly: tuple[str, ...] = ()
    lidar_noise: float = 0.0
    lidar_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.dt > 0:
            raise ValueError(f"EnvSpec dt must be positive, got {self.dt=}")
        for name in ("max_steps", "action_dim", "observation_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"EnvSpec {name} must be at least 1, got {getattr(self, name)}")
        for name in ("lidar_noise", "lidar_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"EnvSpec {name} must be in [0, 1), got {getattr(self, name)}")
        if self.layout is not None and self.layout.size != self.observation_dim:
            raise ValueError(f"EnvSpec layout covers {self.layout.size} values, {self.observation_dim=}")

    @property
    def charges_for_hazards_only(self) -> bool:
        """Whether `safety.filters.SafetyFilter` knows all that costs; else a task needs a `safety.guard`."""
        return set(self.costly) <= {"hazards"}

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "agent": self.agent,
            "dt": self.dt,
            "max_steps": self.max_steps,
            "action_dim": self.action_dim,
            "observation_dim": self.observation_dim,
            "layout": None if self.layout is None else self.layout.to_dict(),
            "lidar_max_dist": self.lidar_max_dist,
            "radii": dict(self.radii),
            "costly": list(self.costly),
            "lidar_noise": self.lidar_noise,
            "lidar_dropout": self.lidar_dropout,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EnvSpec:
        values = dict(data)
        if values.get("layout") is not None:
            values["layout"] = ObservationLayout.from_dict(values["layout"])
        values["costly"] = tuple(values.get("costly", ()))
        return cls(**values)
