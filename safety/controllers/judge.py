"""How good a plan is: time to the target along the shortest way, and clearance. Shared by the MPC and the planners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety.controllers.geodesic import GeodesicField, geodesic_field
from safety.controllers.objective import SOFT_MARGIN, Objective

Floats = NDArray[np.float32]
HARD_WEIGHT, SOFT_WEIGHT = 30.0, 1.0  # price of coming closer than the margin to hard and to soft obstacles


class FieldCache:
    """Keeps the last geodesic field: obstacles stand still, so it is worth building once per target."""

    def __init__(self, *, step: float = 0.02) -> None:
        self._step = step  # m: changes below this do not call for a new field
        self._key: NDArray[np.float64] | None = None
        self._field: GeodesicField | None = None

    def get(
        self, target: NDArray[np.float64], centers: NDArray[np.float64], radii: NDArray[np.float64]
    ) -> GeodesicField:
        order = np.lexsort(centers.T) if len(centers) else slice(None)
        key = np.concatenate([target, centers[order].ravel(), radii[order]])
        old = self._key
        if self._field is None or old is None or len(old) != len(key) or np.abs(old - key).max() > self._step:
            self._field = geodesic_field(target, centers, radii)
            self._key = key
        return self._field


class PlanJudge:
    """Judges many roll-outs against one objective.

    The field's discs are a little larger than the margin, so that the shortest way is one that can be driven.
    """

    def __init__(
        self,
        objective: Objective,
        fields: FieldCache,
        *,
        margin: float,
        soft_weight: float = SOFT_WEIGHT,
        hard_weight: float = HARD_WEIGHT,
        soft_margin: float = SOFT_MARGIN,
        task_weight: float = 1.0,
    ) -> None:
        self.objective = objective
        self.task_weight = task_weight  # of the way to the target; 0: clearance alone
        self.margin = margin
        self.hard_weight, self.soft_weight, self.soft_margin = hard_weight, soft_weight, soft_margin
        centers = np.vstack([objective.hard_centers, objective.soft_centers])
        radii = np.concatenate([objective.hard_radii + margin + 0.02, objective.soft_radii + soft_margin])
        self.field = fields.get(objective.target, centers, radii)

    def cost(self, states: NDArray[np.floating]) -> Floats:
        """Cost [C] of state sequences [C, T, 6]; lower is better, about metres times a weight near one."""
        goal = self.objective
        path = states[..., :2]
        cost = self._way(states) * np.float32(self.task_weight) if self.task_weight else np.zeros(len(path))
        cost = cost + _proximity(path, goal.hard_centers, goal.hard_radii, self.margin, self.hard_weight)
        cost = cost + _proximity(path, goal.soft_centers, goal.soft_radii, self.soft_margin, self.soft_weight)
        return np.asarray(cost, dtype=np.float32)

    def _way(self, states: NDArray[np.floating]) -> Floats:
        """Mean and last length [C] of the shortest way to the target, in metres."""
        goal, path = self.objective, states[..., :2]
        inside = 0.25 * goal.radius if goal.dwell else goal.radius - 0.03
        away = np.maximum(self.field(path) - np.float32(inside), 0)
        if goal.dwell:
            speed = np.hypot(states[..., 3], states[..., 4])
            dwelling = 0.1 * (speed * (away <= 0)).mean(1)
        else:
            away = np.where(np.logical_or.accumulate(away <= 0, axis=1), 0, away)  # what comes after does not matter
            dwelling = 0.0
        return away.mean(1) + away[:, -1] + dwelling

    def clearance(self, states: NDArray[np.floating]) -> Floats:
        """Distance [C, T] in metres to the nearest hard obstacle's radius (no margin); inf without any."""
        offset = states[..., None, :2] - self.objective.hard_centers.astype(states.dtype)
        distance = np.sqrt((offset**2).sum(-1)) - self.objective.hard_radii.astype(states.dtype)
        return distance.min(-1, initial=np.inf)


def _proximity(
    path: NDArray[np.floating],
    centers: NDArray[np.float64],
    radii: NDArray[np.float64],
    margin: float,
    weight: float,
) -> Floats:
    """Penalty [C] for steps of `path` [C, T, 2] closer than `margin` to discs: depth plus a fixed price per step."""
    total = np.zeros(path.shape[0], dtype=np.float32)
    for center, radius in zip(centers.astype(path.dtype), radii, strict=True):
        limit = np.float32(radius + margin)
        offset = path - center
        squared = offset[..., 0] ** 2 + offset[..., 1] ** 2
        hit = squared < limit * limit
        if hit.any():
            depth = np.where(hit, 0.02 + limit - np.sqrt(squared), 0)
            total += np.float32(weight) * depth.mean(1)
    return total
