"""Backup manoeuvres: what the agent would still do if the next action turned out to be its last free one.

An action is safe if one of these keeps clear after it. The Point keeps momentum sideways to its heading, where thrust
does not brake; so besides braking straight it can turn its heading into line with the motion first. The Car's wheels
carry no sideways momentum: braking straight is enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety.dynamics import Dynamics

Floats = NDArray[np.float64]


class BackupSet:
    """The backup paths of one agent over `steps` control steps."""

    def __init__(self, dynamics: Dynamics, *, steps: int = 40, stride: int = 2) -> None:
        self.dynamics = dynamics
        self.stride = stride
        index = np.arange(1, steps + 1)
        self._power = dynamics.decay**index
        self._thrust = dynamics.gain * (1 - self._power) / (1 - dynamics.decay)
        self._steps = steps

    def straight(self, states: Floats) -> Floats:
        """Positions [C, T, 2] while braking without turning, from states [C, 6], the start included, every `stride`."""
        model = self.dynamics
        angle = states[:, 2] + model.forward_offset
        cos, sin = np.cos(angle), np.sin(angle)
        velocity = model.mass_velocity(states)  # the turn has stopped, so all points move like the centre of mass
        forward = velocity[:, 0] * cos + velocity[:, 1] * sin
        speed = np.maximum(np.abs(forward)[:, None] * self._power - self._thrust, 0.0)
        along = np.sign(forward) * self._travel(np.abs(forward), speed).T
        path = np.empty((len(states), self._steps // self.stride + 1, 2))
        path[:, 0] = states[:, :2]
        along = along.T[:, self.stride - 1 :: self.stride]
        path[:, 1:, 0] = states[:, None, 0] + along * cos[:, None]
        path[:, 1:, 1] = states[:, None, 1] + along * sin[:, None]
        if model.holonomic_momentum:
            side = velocity[:, 1] * cos - velocity[:, 0] * sin
            across = self._travel(side, side[:, None] * self._power)[:, self.stride - 1 :: self.stride]
            path[:, 1:, 0] -= across * sin[:, None]
            path[:, 1:, 1] += across * cos[:, None]
        return path

    def _travel(self, first: Floats, speed: Floats) -> Floats:
        """Distance covered [C, T] with speeds [C, T] after each step and `first` [C] before."""
        old, new = self.dynamics.blend
        before = np.concatenate([first[:, None], speed[:, :-1]], axis=1)
        return self.dynamics.dt * np.cumsum(old * before + new * speed, axis=1)

    def aligned(self, states: Floats) -> Floats:
        """Positions [C, T, 2] while turning the heading into line with the motion and braking, from states [C, 6]."""
        model = self.dynamics
        offset = model.mass_offset
        yaw, rate = states[:, 2].copy(), states[:, 5].copy()
        vx, vy = model.mass_velocity(states).T
        x, y = states[:, 0] + offset * np.cos(yaw), states[:, 1] + offset * np.sin(yaw)  # of the centre of mass
        path = np.empty((len(states), self._steps // self.stride + 1, 2))
        path[:, 0] = states[:, :2]
        old, new = model.blend
        for step in range(1, self._steps + 1):
            cos, sin = np.cos(yaw), np.sin(yaw)
            forward, side = vx * cos + vy * sin, vy * cos - vx * sin
            # Turn so that heading and motion become parallel or opposite, whichever is nearer.
            error = np.arctan2(side * np.sign(forward + 1e-9), np.abs(forward) + 1e-9)
            turn = np.clip(6.0 * error, -1, 1)
            excess = np.maximum(np.abs(turn) - model.turn_deadband, 0)
            rate = model.turn_decay * rate + model.turn_gain * turn + model.turn_friction * np.sign(turn) * excess
            yaw = yaw + model.dt * rate
            cos, sin = np.cos(yaw), np.sin(yaw)
            forward = vx * cos + vy * sin
            thrust = model.gain * np.clip(-model.decay * forward / model.gain, -1, 1)
            new_vx, new_vy = model.decay * vx + thrust * cos, model.decay * vy + thrust * sin
            x = x + model.dt * (old * vx + new * new_vx)
            y = y + model.dt * (old * vy + new * new_vy)
            vx, vy = new_vx, new_vy
            if step % self.stride == 0:
                path[:, step // self.stride, 0] = x - offset * np.cos(yaw)
                path[:, step // self.stride, 1] = y - offset * np.sin(yaw)
        return path

    def brake_command(self, state: Floats, *, align: bool) -> Floats:
        """The motor commands [2] in [-1, 1] that begin the backup from `state` [6]."""
        model = self.dynamics
        vx, vy = model.mass_velocity(state)
        angle = state[2] + model.forward_offset
        forward, side = float(vx * np.cos(angle) + vy * np.sin(angle)), float(vy * np.cos(angle) - vx * np.sin(angle))
        thrust = float(np.clip(-model.decay * forward / model.gain, -1, 1))
        turn = 0.0
        if align and model.holonomic_momentum:
            turn = float(np.clip(6.0 * np.arctan2(side * np.sign(forward + 1e-9), abs(forward) + 1e-9), -1, 1))
        return np.asarray(model.motors(np.float64(thrust), np.float64(turn)))
