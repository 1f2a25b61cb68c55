"""The scene: what stands where around the agent, whoever found it out.

Perception decodes a scene from observations, `safety.truth` reads it from the simulator; filters, controllers and
planners only ever see this type.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# The index of a name is its kind id. Models are trained on these ids: append, never reorder.
KINDS = (
    "goal",
    "hazards",
    "vases",
    "pillars",
    "gremlins",
    "buttons",
    "push_box",
    "circle",
    "red_zone",
    "green_zone",
    "blue_zone",
    "yellow_zone",
)
KIND_ID = {name: index for index, name in enumerate(KINDS)}
STATE_DIM = 6  # x, y [m], yaw [rad], vx, vy [m/s, same frame as x and y], yaw rate [rad/s]


def _empty(*shape: int) -> np.ndarray:
    return np.zeros(shape)


@dataclass(frozen=True)
class Scene:
    """Agent state and the objects around it, in one planar frame (metres, radians, seconds).

    The frame is the simulator's world frame for ground truth and odometric (the agent's pose at reset is the origin)
    for a decoded scene; no consumer may rely on which.
    """

    state: np.ndarray  # [6] see STATE_DIM
    positions: np.ndarray = field(default_factory=lambda: _empty(0, 2))  # [N, 2] m
    velocities: np.ndarray = field(default_factory=lambda: _empty(0, 2))  # [N, 2] m/s
    kinds: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # [N] index into KINDS
    radii: np.ndarray = field(default_factory=lambda: _empty(0))  # [N] m, the radius that matters for the task
    sigma: np.ndarray = field(default_factory=lambda: _empty(0))  # [N] m, standard deviation of the position

    def __post_init__(self) -> None:
        if self.state.shape != (STATE_DIM,):
            raise ValueError(f"Scene.state must have shape ({STATE_DIM},), got {self.state.shape}")
        count = len(self.positions)
        for name in ("velocities", "kinds", "radii", "sigma"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"Scene.{name} has {len(getattr(self, name))} entries for {count} positions")

    def of_kind(self, *names: str) -> np.ndarray:
        """Indices [M] of the objects whose kind is one of `names`."""
        wanted = np.zeros(len(KINDS), dtype=bool)
        for name in names:
            wanted[KIND_ID[name]] = True
        return np.flatnonzero(wanted[self.kinds])


def zones_around(scene: Scene) -> set[str]:
    """Colours of the zones that the agent stands in, by the scene."""
    near = np.linalg.norm(scene.positions - scene.state[:2], axis=1) <= scene.radii
    return {KINDS[kind].removesuffix("_zone") for kind in scene.kinds[near] if KINDS[kind].endswith("_zone")}
