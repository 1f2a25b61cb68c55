"""What a controller is asked to do right now: one target, how to be there, what to keep clear of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety.scene import Scene

# Kinds that cost something when entered or touched: kept clear of with the full margin.
HARD_KINDS = ("hazards", "gremlins", "buttons")
# Kinds that are free but push the agent off its course: kept clear of where it is cheap.
SOFT_KINDS = ("vases", "pillars", "push_box")
ZONE_KINDS = ("red_zone", "green_zone", "blue_zone", "yellow_zone")
SOFT_MARGIN = 0.1  # m kept beyond the radius of a soft obstacle


@dataclass(frozen=True, kw_only=True)
class SubGoal:
    """The current step of a task, in the words of `safety.scene.KINDS`."""

    target: str  # kind that has to be reached
    dwell: bool = False  # True: come to stay inside; False: touching it is enough
    avoid: tuple[str, ...] = ()  # kinds never to be entered besides the hazards


@dataclass(frozen=True)
class Objective:
    """A sub-goal in metres. Every array is in the scene's frame."""

    target: NDArray[np.float64]  # [2]; the middle of what is in view while the target itself is not
    radius: float  # m: inside means reached
    dwell: bool
    hard_centers: NDArray[np.float64]  # [N, 2]
    hard_radii: NDArray[np.float64]  # [N] m, without any margin
    soft_centers: NDArray[np.float64]  # [M, 2]
    soft_radii: NDArray[np.float64]  # [M]


def objective(scene: Scene, sub_goal: SubGoal) -> Objective:
    """The objective that `sub_goal` means in `scene`."""
    targets = scene.of_kind(sub_goal.target)
    hard = [i for i in scene.of_kind(*HARD_KINDS, *sub_goal.avoid) if i not in targets]
    if len(targets):
        distance = np.linalg.norm(scene.positions[targets] - scene.state[:2], axis=1)
        nearest = targets[int(np.argmin(distance))]
        target, radius, dwell = scene.positions[nearest], float(scene.radii[nearest]), sub_goal.dwell
    else:
        # Beyond the lidar's range: head for the middle of what is in view, which is where the arena is.
        target = scene.positions.mean(0) if len(scene.positions) else scene.state[:2]
        radius, dwell = 0.1, False
    return Objective(
        target=np.asarray(target, dtype=np.float64),
        radius=radius,
        dwell=dwell,
        hard_centers=scene.positions[hard],
        hard_radii=scene.radii[hard],
        **soft_obstacles(scene, sub_goal.target, sub_goal.avoid),
    )


def soft_obstacles(scene: Scene, target: str, avoid: tuple[str, ...] = ()) -> dict[str, NDArray[np.float64]]:
    """`soft_centers` and `soft_radii` of an objective: what is free to touch but better gone around.

    Zones that are not the target are among them: whoever crosses one slowly has visited it.
    """
    others = [kind for kind in ZONE_KINDS if kind != target and kind not in avoid]
    free = [kind for kind in SOFT_KINDS if kind not in avoid]  # Goal2 charges for its vases
    things, zones = scene.of_kind(*free), scene.of_kind(*others)
    return {
        "soft_centers": np.concatenate([scene.positions[things], scene.positions[zones]]),
        "soft_radii": np.concatenate([scene.radii[things], scene.radii[zones] - SOFT_MARGIN]),
    }
