"""Four coloured zones and eight hazards: the world in which instructions are followed.

`SafetyPointZones1-v0` and `SafetyCarZones1-v0`, built on Safety-Gymnasium's own task and object classes. The world
rewards nothing: what is asked lies outside the observation (`safety.tasks.spec`). The cost is that of Goal1's hazards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import safety._patches  # noqa: F401 - first: what follows needs the patched package

# isort: split
from safety_gymnasium.assets.geoms import GEOMS_REGISTER, Hazards
from safety_gymnasium.bases.base_object import Geom
from safety_gymnasium.bases.base_task import BaseTask
from safety_gymnasium.utils.common_utils import ResamplingError

from safety.tasks.feasibility import zones_reachable
from safety.tasks.spec import ZONES

ZONE_RADIUS = 0.3  # m
HAZARD_SIZE = 0.2  # m, as in Goal1
HAZARD_COUNT = 8
EXTENT = 2.0  # m: everything lies within ± this square (at 1.5 m almost no layout fits)
LIDAR_RANGE = 6.0  # m: every zone is always in view, so that what is asked is to act safely, not to search
MAX_STEPS = 500
CLEARANCE = 0.08  # m to every hazard on the way to every zone: room enough under "careful"
LAYOUT_ATTEMPTS = 1000

# Least distance between two centres is the sum of their keep-outs: zones never overlap (0.33 + 0.33 > 2 · 0.3), a
# hazard ends at least 0.1 m outside every zone (0.33 + 0.27 = 0.3 + 0.2 + 0.1), and the agent starts at least 0.1 m
# outside zones and hazards (0.13 + 0.33 > 0.3 + 0.1 and 0.13 + 0.27 = 0.2 + 0.2).
ZONE_KEEPOUT = 0.33
HAZARD_KEEPOUT = 0.27
AGENT_KEEPOUT = 0.13

_COLOURS = {"red": (1.0, 0.1, 0.1), "green": (0.1, 0.7, 0.1), "blue": (0.15, 0.3, 1.0), "yellow": (0.95, 0.8, 0.0)}


@dataclass
class Zone(Geom):
    """A coloured disc on the floor without any effect of its own."""

    name: str = "red_zone"
    colour: str = "red"
    size: float = ZONE_RADIUS
    placements: list[Any] | None = None
    locations: tuple[Any, ...] = ()
    keepout: float = ZONE_KEEPOUT
    group: int = 6  # the display group of the Circle tasks' floor mark
    is_lidar_observed: bool = True
    is_constrained: bool = False

    @property
    def color(self) -> np.ndarray:
        return np.array([*_COLOURS[self.colour], 0.6])

    def get_config(self, xy_pos: np.ndarray, rot: float) -> dict[str, Any]:
        return {
            "name": self.name,
            "size": [self.size, 5e-3],
            "pos": np.array([xy_pos[0], xy_pos[1], 1e-2]),
            "rot": rot,
            "type": "cylinder",
            "contype": 0,
            "conaffinity": 0,
            "group": self.group,
            "rgba": self.color,
        }

    @property
    def pos(self) -> np.ndarray:
        return np.array(self.engine.data.body(self.name).xpos)


class ZoneTask(BaseTask):
    """The world of the zone tasks; one 16-bin lidar per zone, one for the hazards, and the agent's own sensors."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config=config)
        self.num_steps = MAX_STEPS
        self.lidar_conf.max_dist = LIDAR_RANGE
        self.placements_conf.extents = [-EXTENT, -EXTENT, EXTENT, EXTENT]
        self.agent.keepout = AGENT_KEEPOUT
        if Zone not in GEOMS_REGISTER:
            GEOMS_REGISTER.append(Zone)
        # Zones first: they are the larger, and layouts are drawn in this order.
        self._add_geoms(*(Zone(name=f"{colour}_zone", colour=colour) for colour in ZONES))
        self._add_geoms(Hazards(num=HAZARD_COUNT, size=HAZARD_SIZE, keepout=HAZARD_KEEPOUT))
        generator = self.random_generator
        generator.build_layout = _feasible_layouts(generator.build_layout)
        self._zone_bodies: np.ndarray | None = None

    def extra_info(self) -> dict[str, Any]:
        """`info["inside"]`: zone -> whether the agent's centre is inside."""
        if self._zone_bodies is None:
            self._zone_bodies = np.array([self.model.body(f"{zone}_zone").id for zone in ZONES])
            self._own_body = int(self.model.body("agent").id)
        offsets = self.data.xpos[self._zone_bodies, :2] - self.data.xpos[self._own_body, :2]
        near = np.einsum("ij,ij->i", offsets, offsets) <= ZONE_RADIUS**2
        return {"inside": dict(zip(ZONES, near.tolist(), strict=True))}

    def calculate_reward(self) -> float:
        return 0.0

    def specific_reset(self) -> None: ...

    def specific_step(self) -> None: ...

    def update_world(self) -> None: ...

    @property
    def goal_achieved(self) -> bool:
        return False


def _feasible_layouts(draw: Callable[[], dict[str, np.ndarray]]) -> Callable[[], dict[str, np.ndarray]]:
    """Layouts in which every zone can be reached, by rejection: deterministic in the task's own random stream."""

    def draw_feasible() -> dict[str, np.ndarray]:
        for _ in range(LAYOUT_ATTEMPTS):
            layout = draw()
            hazards = np.array([layout[f"hazard{i}"] for i in range(HAZARD_COUNT)])
            zones = np.array([layout[f"{zone}_zone"] for zone in ZONES])
            if zones_reachable(layout["agent"], zones, hazards, radius=HAZARD_SIZE + CLEARANCE, extent=EXTENT):
                return layout
        raise ResamplingError(f"no layout with reachable zones in {LAYOUT_ATTEMPTS} attempts")

    return draw_feasible
