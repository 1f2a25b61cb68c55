"""What the agent would observe along a plan: so that a reward learned on observations can judge what is only planned.

The inverse of perception, differentiable in the states: ego sensors from the planned state, lidar rings from the known
objects (Safety-Gymnasium 1.0, `_obs_lidar_pseudo`; see `safety.lidar`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from safety.layout import EnvSpec
from safety.scene import Scene

GRAVITY = 9.81  # m/s², what an accelerometer at rest reads upwards
FIELD = 0.5  # MuJoCo's default magnetic field points to -y with this strength


class PlanObservations:
    """Observations at given states of a scene.

    Objects are where the scene has them, moving ones where their velocity carries them. What the agent would change by
    acting (a goal that reappears, a button that is pressed) is not foreseen. Sensors beyond velocimeter, gyro,
    magnetometer, accelerometer and lidars read 0.

    Args:
        spec: with a layout.
    """

    def __init__(self, spec: EnvSpec) -> None:
        if spec.layout is None or spec.lidar_max_dist is None:
            raise ValueError(f"{spec.id} has no lidar: what a plan would observe there is not known")
        self.spec, self.layout, self.reach = spec, spec.layout, float(spec.lidar_max_dist)

    def __call__(self, scene: Scene, states: Tensor) -> Tensor:
        """Observations [C, T, o] at states [C, T, 6] of the scene's frame.

        Step t of the plan is t control steps after the scene; gradients flow to the states.
        """
        if states.ndim != 3 or states.shape[2] != 6:
            raise ValueError(f"states must have shape [C, T, 6], got {tuple(states.shape)}")
        x, y, yaw, vx, vy, rate = states.unbind(-1)
        cos, sin = yaw.cos(), yaw.sin()
        zero = torch.zeros_like(x)
        sensors: dict[str, Tensor] = {
            "velocimeter": torch.stack([cos * vx + sin * vy, cos * vy - sin * vx, zero], -1),
            "gyro": torch.stack([zero, zero, rate], -1),
            "magnetometer": torch.stack([-FIELD * sin, -FIELD * cos, zero], -1),
        }
        if states.shape[1] > 1:
            ax, ay = (torch.diff(v, dim=1, append=v[:, -1:]) / self.spec.dt for v in (vx, vy))
        else:
            ax = ay = zero
        sensors["accelerometer"] = torch.stack([cos * ax + sin * ay, cos * ay - sin * ax, zero + GRAVITY], -1)
        parts = []
        for name in self.layout:
            width = self.layout[name].stop - self.layout[name].start
            if name in sensors and width == 3:
                parts.append(sensors[name])
            elif name in self.layout.lidars:
                parts.append(self._ring(scene, name.removesuffix("_lidar"), x, y, cos, sin, width))
            else:
                parts.append(states.new_zeros(*states.shape[:2], width))
        return torch.cat(parts, -1)

    def _ring(self, scene: Scene, kind: str, x: Tensor, y: Tensor, cos: Tensor, sin: Tensor, bins: int) -> Tensor:
        rows = scene.of_kind(kind)
        if len(rows) == 0:
            return x.new_zeros(*x.shape, bins)
        where = torch.as_tensor(np.asarray(scene.positions)[rows], dtype=x.dtype)
        speed = torch.as_tensor(np.asarray(scene.velocities)[rows], dtype=x.dtype)
        time = torch.arange(x.shape[1], dtype=x.dtype) * self.spec.dt
        place = where[None] + speed[None] * time[:, None, None]  # [T, N, 2]
        dx, dy = place[..., 0] - x[..., None], place[..., 1] - y[..., None]  # [C, T, N]
        ahead = cos[..., None] * dx + sin[..., None] * dy
        aside = cos[..., None] * dy - sin[..., None] * dx
        distance = (ahead.square() + aside.square() + 1e-12).sqrt()
        closeness = (1 - distance / self.reach).clamp_min(0)
        turn = torch.atan2(aside, ahead) / (2 * math.pi) * bins
        # Bin i holds the whole closeness for bearings in [i, i + 1) and falls off linearly over the bins beside it.
        offset = torch.remainder(turn[..., None] - torch.arange(bins, dtype=x.dtype) + bins / 2, bins) - bins / 2
        share = torch.minimum(1 + offset, 2 - offset).clamp(0, 1)
        return (closeness[..., None] * share).amax(-2)
