"""Every task that has geometry, told as one that a driver knows: a goal to drive to, things to keep clear of.

A controller or planner that can drive to a goal among hazards needs to know nothing else of a task. What is told here:

- Goal: the goal; what the task charges for is a hazard, all else that stands about is merely in the way;
- Button: the lit button is the goal, the others are hazards; a gremlin is one where it is and one where it will be;
- Push: a place behind the box, seen from where the box has to go; once there, the box's way ahead;
- Circle: a point on the circle ahead of the agent, within the walls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safety.buttons import without_goal_button
from safety.constraints import HalfSpace
from safety.layout import EnvSpec
from safety.motion import advance, turn_rates
from safety.scene import KIND_ID, Scene

Floats = NDArray[np.float64]
_GOAL, _HAZARD, _FREE = KIND_ID["goal"], KIND_ID["hazards"], KIND_ID["vases"]


@dataclass(frozen=True, kw_only=True)
class DrivingConfig:
    """How tasks are told.

    Attributes:
        slowest: m/s below which something counts as standing.
        foresight: s ahead of now at which something that moves is a hazard once more.
        goal_radius: m, of a goal that is only a place on the way.
        behind: m from the box's middle to the place that pushing begins at.
        ahead: m beyond the box's middle that is driven at while pushing.
        box_radius: m, what is kept clear of while going round the box.
        cone: rad off the pushing direction within which pushing begins, and beyond which it ends.
        near: m from the box's middle within which pushing begins.
        berth: m by which the box's own way keeps clear of hazards, so that whoever pushes it does too.
        lead: rad on the circle between the agent and the point that it drives at.
        wall_gap: m between that point and a wall.
    """

    slowest: float = 0.02
    foresight: float = 0.5
    goal_radius: float = 0.1
    behind: float = 0.5
    ahead: float = 0.5
    box_radius: float = 0.36
    cone: tuple[float, float] = (0.35, 0.7)
    near: float = 0.62
    berth: float = 0.15
    lead: float = 0.9
    wall_gap: float = 0.12

    def __post_init__(self) -> None:
        for name in ("goal_radius", "behind", "ahead", "box_radius", "near", "lead"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"DrivingConfig.{name} must be a finite number > 0, got {getattr(self, name)}")
        for name in ("slowest", "foresight", "berth", "wall_gap"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"DrivingConfig.{name} must be a finite number >= 0, got {getattr(self, name)}")
        if not 0 < self.cone[0] <= self.cone[1]:
            raise ValueError(f"DrivingConfig.cone must be (begin, end) with 0 < begin <= end, got {self.cone}")


class DrivingView:
    """One per environment; `reset` per episode, `see` every step."""

    def __init__(self, spec: EnvSpec, config: DrivingConfig | None = None) -> None:
        """
        Raises:
            ValueError: the task cannot be told as driving to a goal.
        """
        kinds = () if spec.layout is None else spec.layout.lidar_kinds
        if "goal" not in kinds and "circle" not in kinds:
            raise ValueError(f"{spec.id} has neither a goal nor a circle to drive to")
        self.spec, self.config = spec, config or DrivingConfig()
        self._circle, self._push = "circle" in kinds, "push_box" in kinds
        # Whether the scene needs no telling: planners are trained in such tasks.
        self.as_is = set(kinds) <= {"goal", "hazards", "vases"} and spec.charges_for_hazards_only
        self._costly = tuple(kind for kind in spec.costly if kind in KIND_ID)
        self._free = tuple(kind for kind in ("vases", "pillars") if kind not in spec.costly)
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._pushing = False

    def see(self, scene: Scene, walls: Sequence[HalfSpace] = ()) -> Scene:
        """`scene` with "goal" and "hazards" (and "vases", which are free) in the place of all else.

        Without a goal in view there is none in what comes back either, but for a box whose goal is out of view: it is
        driven at until its goal comes in sight. `walls` are in the scene's frame.
        """
        if self.as_is:
            return scene  # as it is, the task is one of driving
        hazards = self._hazards(scene)
        free = _pick(scene, scene.of_kind(*self._free), _FREE)
        if self._circle:
            return _joined(scene, self._round(scene, walls), hazards, free)
        if self._push:
            return _joined(scene, *self._behind_box(scene, hazards), free)
        return _joined(scene, _pick(scene, scene.of_kind("goal")[:1], _GOAL), hazards, free)

    def _hazards(self, scene: Scene) -> Scene:
        """What costs, as hazards: where it is, and where it will be if it moves."""
        costly = without_goal_button(scene, scene.of_kind(*self._costly))
        now = _pick(scene, costly, _HAZARD)
        fast = np.hypot(now.velocities[:, 0], now.velocities[:, 1]) > self.config.slowest
        later = _pick(now, np.flatnonzero(fast), _HAZARD)
        way = advance(later.velocities, turn_rates(scene.kinds[costly[fast]]), self.config.foresight)
        return _joined(scene, now, replace(later, positions=later.positions + way))

    def _round(self, scene: Scene, walls: Sequence[HalfSpace]) -> Scene:
        """A point ahead on the circle, anticlockwise, which is what is paid for; moved in front of walls."""
        circle = scene.of_kind("circle")
        if not len(circle):
            return _pick(scene, circle, _GOAL)
        centre, radius = scene.positions[circle[0]], float(scene.radii[circle[0]])
        offset = scene.state[:2] - centre
        angle = math.atan2(offset[1], offset[0]) + self.config.lead
        point = centre + radius * np.array([math.cos(angle), math.sin(angle)])
        for wall in walls:
            normal, limit = np.asarray(wall.normal), float(wall.offset) - float(wall.margin) - self.config.wall_gap
            point = point - max(0.0, float(normal @ point) - limit) * normal
        return _place(scene, point, self.config.goal_radius)

    def _behind_box(self, scene: Scene, hazards: Scene) -> tuple[Scene, Scene]:
        """Where to drive for the box's sake, and the hazards, to which the box belongs unless it is being pushed."""
        config = self.config
        box, goal = scene.of_kind("push_box"), scene.of_kind("goal")
        if not len(box) or not len(goal):
            self._pushing = False
            return _pick(scene, box[:1], _GOAL), hazards
        middle = scene.positions[box[0]]
        towards = self._push_direction(middle, scene.positions[goal[0]], hazards)
        offset = middle - scene.state[:2]
        distance = float(np.hypot(*offset))
        off = math.acos(float(np.clip(offset @ towards / max(distance, 1e-6), -1, 1)))
        self._pushing = off < config.cone[1 if self._pushing else 0] and distance < config.near
        if self._pushing:
            return _place(scene, middle + config.ahead * towards, config.goal_radius), hazards
        around = replace(_pick(scene, box[:1], _HAZARD), radii=np.array([config.box_radius]))
        target = _place(scene, middle - config.behind * towards, config.goal_radius)
        return target, _joined(scene, hazards, around)

    def _push_direction(self, middle: Floats, goal: Floats, hazards: Scene) -> Floats:
        """Unit vector [2] along which the box should go: at the goal, or past the hazard that is in its way."""
        way = goal - middle
        length = float(np.hypot(*way))
        straight = way / max(length, 1e-6)
        radii = hazards.radii + self.config.berth
        offsets = hazards.positions - middle
        along = offsets @ straight
        aside = straight[0] * offsets[:, 1] - straight[1] * offsets[:, 0]
        blocking = np.flatnonzero((along > 0) & (along < length) & (np.abs(aside) < radii))
        if not len(blocking):
            return straight
        first = int(blocking[np.argmin(along[blocking])])
        distance = float(np.hypot(*offsets[first]))
        # The tangent at the disc, on the side where the straight way passes its middle.
        angle = math.asin(min(1.0, float(radii[first]) / max(distance, 1e-6)))
        bearing = math.atan2(offsets[first, 1], offsets[first, 0]) + (-angle if aside[first] > 0 else angle)
        return np.array([math.cos(bearing), math.sin(bearing)])


def _pick(scene: Scene, index: NDArray[np.integer], kind: int) -> Scene:
    """The objects `index` of `scene`, all of kind `kind`."""
    return Scene(
        state=scene.state,
        positions=scene.positions[index],
        velocities=scene.velocities[index],
        kinds=np.full(len(index), kind, dtype=np.int64),
        radii=scene.radii[index],
        sigma=scene.sigma[index],
    )


def _place(scene: Scene, point: Floats, radius: float) -> Scene:
    """A goal where nothing stands."""
    return Scene(
        state=scene.state,
        positions=point[None],
        velocities=np.zeros((1, 2)),
        kinds=np.array([_GOAL]),
        radii=np.array([radius]),
        sigma=np.zeros(1),
    )


def _joined(scene: Scene, *parts: Scene) -> Scene:
    names = ("positions", "velocities", "kinds", "radii", "sigma")
    return Scene(state=scene.state, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
