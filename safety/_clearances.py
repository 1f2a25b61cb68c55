"""Signed clearances of a navigation task: how far, in metres, the agent is from costing something."""

from __future__ import annotations

from typing import Any

import numpy as np

from safety.truth import object_bodies

# Solid objects farther away than this read this value: an exact distance matters only near them.
FAR = 2.0


class Clearances:
    """Computes `info["constraints"]` of one task; built after its world exists.

    Keys, in a fixed order: one per hazard ("hazard0", …) and, where the task charges for them, one per vase, gremlin
    and pillar; "buttons" is the nearest wrong button, "walls" the nearest fixed wall and "boundary" the nearest edge of
    the allowed strip or square. Positive is free. Hazards and the boundary are judged at the agent's centre and solid
    objects by the distance between their surface and the agent's, as the costs are; solid objects read at most `FAR`.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        model = task.model
        charged = {o.name: o for o in task._obstacles if getattr(o, "is_constrained", False)}
        bodies = object_bodies(task)
        self._agent_body = int(model.body("agent").id)
        hazards = [body for kind, body in bodies if kind == "hazards" and kind in charged]
        self._hazards = np.array(hazards, dtype=np.int64)
        self._hazard_size = float(charged["hazards"].size) if hazards else 0.0
        self._hazard_names = tuple(f"hazard{i}" for i in range(len(hazards)))
        agent_names = set(task.agent.body_info.geom_names) - {""}
        self._agent_geoms = [int(model.geom(name).id) for name in agent_names]
        self._solids: list[tuple[str, int]] = []
        for kind in ("vases", "gremlins", "pillars"):
            if kind in charged:
                geoms = [int(model.body_geomadr[body]) for name, body in bodies if name == kind]
                self._solids += [(f"{kind[:-1]}{i}", geom) for i, geom in enumerate(geoms)]
        self._buttons: list[int] = []
        if "buttons" in charged:
            self._buttons = [int(model.body_geomadr[body]) for name, body in bodies if name == "buttons"]
        self._walls: list[int] = []
        if task._is_load_static_geoms and task.static_geoms_contact_cost:
            self._walls = [int(model.geom(name).id) for name in sorted(task.static_geoms_names)]
        self._boundary = charged.get("sigwalls")

    def _distance(self, geom: int) -> float:
        """Least distance in metres between the agent's solid parts and a geom, at most `FAR`."""
        import mujoco

        model, data = self._task.model, self._task.data
        nearest = FAR
        for own in self._agent_geoms:
            # bounding spheres first: the exact distance is the expensive part
            gap = float(np.linalg.norm(data.geom_xpos[own] - data.geom_xpos[geom]))
            if gap - model.geom_rbound[own] - model.geom_rbound[geom] < nearest:
                nearest = min(nearest, mujoco.mj_geomDistance(model, data, own, geom, nearest, None))
        return float(nearest)

    def __call__(self) -> dict[str, float]:
        task = self._task
        values: dict[str, float] = {}
        position = task.data.xpos[self._agent_body]
        if self._hazard_names:
            offsets = task.data.xpos[self._hazards, :2] - position[:2]
            gaps = np.sqrt(np.einsum("ij,ij->i", offsets, offsets)) - self._hazard_size
            values.update(zip(self._hazard_names, gaps.tolist(), strict=True))
        for name, geom in self._solids:
            values[name] = self._distance(geom)
        if self._buttons:
            goal = task.buttons.goal_button
            values["buttons"] = min(self._distance(geom) for i, geom in enumerate(self._buttons) if i != goal)
        if self._walls:
            values["walls"] = min(self._distance(geom) for geom in self._walls)
        if self._boundary is not None:
            outermost = abs(position[0]) if self._boundary.num == 2 else max(abs(position[0]), abs(position[1]))
            values["boundary"] = float(self._boundary.locate_factor - outermost)
        return values
