"""Fitted planar models of the Point and Car agents, in closed form.

Both agents are first-order lags on what the motors ask for, so a whole roll-out is two triangular matrix products
instead of a loop over time. The same code runs on numpy arrays and on torch tensors (then it is differentiable).

The motors saturate far below the action bound: MuJoCo's `forcerange` clips the Point's thrust at |action| = 0.05 and
the Car's wheels at 0.02. Beyond that, actions change nothing; `canonical` maps an action to the equivalent one inside
the range where it matters, and everything that optimises or learns actions works there.
The coefficients come from `python -m safety.dynamics_fit` (16 random episodes on open floor).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety.scene import STATE_DIM

Array = Any  # numpy array or torch tensor: the functions return what they were given


@lru_cache(maxsize=64)
def _lag_matrices(decay: float, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(`response` [T, T], `free` [T]) so that y = response @ u + free * y0 solves y_t = decay y_{t-1} + u_t."""
    index = np.arange(steps)
    lag = index[:, None] - index[None, :]
    response = np.where(lag >= 0, decay ** np.maximum(lag, 0), 0.0)
    return response, np.power(decay, index + 1.0, dtype=np.float64)


def _namespace(array: Array) -> tuple[Any, Any]:
    """The array library of `array` and a function that makes a constant of its dtype and device."""
    if isinstance(array, (np.ndarray, np.generic)):
        return np, lambda constant: constant.astype(array.dtype, copy=False)
    import torch

    return torch, lambda constant: torch.as_tensor(constant, dtype=array.dtype, device=array.device)


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """One agent's model. Speeds in m/s, angles in rad, one control step is `dt` seconds."""

    agent: str
    dt: float
    saturation: tuple[float, float]  # |action| beyond which the motor gives no more
    forward_offset: float  # angle of the driving direction against the body's x axis, rad
    decay: float  # share of the speed that is left after one step without thrust
    gain: float  # speed gained in one step at full thrust, m/s
    blend: tuple[float, float]  # weights of the old and the new velocity in one step's displacement
    turn_decay: float
    turn_gain: float
    turn_deadband: float  # effective command below which friction holds the heading
    turn_friction: float
    lateral: float  # sideways displacement per radian turned, m (the Car turns about its axle)
    mass_offset: float  # m from the reference point to the centre of mass along the heading (holonomic momentum only)
    holonomic_momentum: bool  # True: momentum keeps its world direction; False: wheels carry it along the heading

    def canonical(self, action: Array) -> Array:
        """The action of the same effect within the motors' saturation. action: [..., 2]"""
        xp, constant = _namespace(action)
        limit = constant(np.asarray(self.saturation))
        return xp.minimum(xp.maximum(action, -limit), limit)

    def effective(self, action: Array) -> Array:
        """Motor commands in [-1, 1] that `action` [..., 2] amounts to."""
        _, constant = _namespace(action)
        return self.canonical(action) / constant(np.asarray(self.saturation))

    def command(self, effective: Array) -> Array:
        """The action [..., 2] for motor commands `effective` [..., 2] in [-1, 1]."""
        _, constant = _namespace(effective)
        return effective * constant(np.asarray(self.saturation))

    def thrust_and_turn(self, effective: Array) -> tuple[Array, Array]:
        """Split motor commands [..., 2] into thrust and turn commands, each [...] in [-1, 1]."""
        if self.holonomic_momentum:
            return effective[..., 0], effective[..., 1]
        left, right = effective[..., 0], effective[..., 1]
        return (left + right) / 2, (left - right) / 2

    def motors(self, thrust: Array, turn: Array) -> Array:
        """Motor commands [..., 2] in [-1, 1] for thrust and turn commands, each [...]."""
        xp, _ = _namespace(thrust)
        if self.holonomic_momentum:
            both = xp.stack([thrust, turn], -1)
        else:
            both = xp.stack([thrust + turn, thrust - turn], -1)
        return xp.clip(both, -1.0, 1.0)

    def forward_speed(self, state: Array) -> Array:
        """Speed along the driving direction, m/s. state: [..., 6]"""
        xp, _ = _namespace(state)
        angle = state[..., 2] + self.forward_offset
        return state[..., 3] * xp.cos(angle) + state[..., 4] * xp.sin(angle)

    def mass_velocity(self, state: Array) -> Array:
        """Velocity [..., 2] of the centre of mass in m/s, from states [..., 6] of the reference point."""
        xp, _ = _namespace(state)
        swing = self.mass_offset * state[..., 5]
        vx = state[..., 3] - swing * xp.sin(state[..., 2])
        vy = state[..., 4] + swing * xp.cos(state[..., 2])
        return xp.stack([vx, vy], -1)

    def rollout(self, state: Array, actions: Array) -> Array:
        """States after each action: state [..., 6], actions [..., T, 2] -> [..., T, 6].

        The batch dimensions of both broadcast. numpy or torch, by the type of `actions`.
        """
        if state.shape[-1] != STATE_DIM or actions.shape[-1] != 2:
            raise ValueError(
                f"rollout needs state [..., 6] and actions [..., T, 2], got {state.shape}, {actions.shape}"
            )
        xp, constant = _namespace(actions)
        steps = actions.shape[-2]
        thrust, turn = self.thrust_and_turn(self.effective(actions))
        state = state[..., None, :]

        drive = self.turn_gain * turn
        if self.turn_friction:
            excess = xp.abs(turn) - self.turn_deadband
            drive = drive + self.turn_friction * xp.sign(turn) * xp.maximum(excess, xp.zeros_like(excess))
        response, free = _lag_matrices(self.turn_decay, steps)
        rate = drive @ constant(response.T) + constant(free) * state[..., 5]
        yaw = state[..., 2] + self.dt * xp.cumsum(rate, -1)
        # Thrust acts along the mean heading of the step.
        mid = yaw - 0.5 * self.dt * rate + self.forward_offset
        cos, sin = xp.cos(mid), xp.sin(mid)

        response, free = _lag_matrices(self.decay, steps)
        response_t, free = constant(response.T), constant(free)
        old, new = self.blend
        if self.holonomic_momentum:
            # Momentum belongs to the centre of mass: turning swings the reference point about it.
            start = self.mass_velocity(state)
            vx = (self.gain * thrust * cos) @ response_t + free * start[..., 0]
            vy = (self.gain * thrust * sin) @ response_t + free * start[..., 1]
            ahead_x, ahead_y = self.mass_offset * xp.cos(yaw), self.mass_offset * xp.sin(yaw)
            first_x, first_y = self.mass_offset * xp.cos(state[..., 2]), self.mass_offset * xp.sin(state[..., 2])
            x = state[..., 0] + first_x - ahead_x
            y = state[..., 1] + first_y - ahead_y
            x = x + self.dt * xp.cumsum(new * vx + old * _shift(xp, vx, start[..., 0]), -1)
            y = y + self.dt * xp.cumsum(new * vy + old * _shift(xp, vy, start[..., 1]), -1)
            vx, vy = vx + rate * ahead_y, vy - rate * ahead_x
        else:
            start = self.forward_speed(state)
            speed = (self.gain * thrust) @ response_t + free * start
            path = new * speed + old * _shift(xp, speed, start)
            vx, vy = speed * cos, speed * sin
            # The body's x axis is the driving direction turned by -forward_offset.
            side = self.lateral * rate
            x = state[..., 0] + self.dt * xp.cumsum(path * cos - side * sin, -1)
            y = state[..., 1] + self.dt * xp.cumsum(path * sin + side * cos, -1)
        x, y, yaw, vx, vy, rate = _broadcast(xp, x, y, yaw, vx, vy, rate)
        return xp.stack([x, y, yaw, vx, vy, rate], -1)

    def stopping_distance(self, speed: float) -> float:
        """Metres that the agent still covers while braking straight from `speed` along its heading."""
        distance, v = 0.0, abs(speed)
        while v > 1e-6:
            new = max(0.0, self.decay * v - self.gain)
            distance += self.dt * (self.blend[0] * v + self.blend[1] * new)
            v = new
        return distance

    @property
    def top_speed(self) -> float:
        """Speed at which full thrust and drag are in balance, m/s."""
        return self.gain / (1 - self.decay)


def _shift(xp: Any, series: Array, first: Array) -> Array:
    """`series` [..., T] one step later, beginning with `first` [..., 1]."""
    head = series[..., :1] * 0 + first
    return xp.concatenate([head, series[..., :-1]], -1) if xp is np else xp.cat([head, series[..., :-1]], -1)


def _broadcast(xp: Any, *arrays: Array) -> tuple[Array, ...]:
    return tuple(np.broadcast_arrays(*arrays)) if xp is np else tuple(xp.broadcast_tensors(*arrays))


POINT = Dynamics(
    agent="point",
    dt=0.02,
    saturation=(0.05, 1.0),
    forward_offset=0.0,
    decay=0.9620,
    gain=0.0567,
    blend=(0.447, 0.553),
    turn_decay=0.1987,
    turn_gain=0.856,
    turn_deadband=0.1,
    turn_friction=1.7139,
    lateral=0.0,
    mass_offset=0.0193,
    holonomic_momentum=True,
)

CAR = Dynamics(
    agent="car",
    dt=0.04,
    saturation=(0.02, 0.02),
    forward_offset=-np.pi / 2,
    decay=0.7376,
    gain=0.1726,
    blend=(0.404, 0.593),
    turn_decay=0.5417,
    turn_gain=0.6643,
    turn_deadband=0.0,
    turn_friction=0.0,
    lateral=0.038,
    mass_offset=0.0,
    holonomic_momentum=False,
)

_MODELS = {"point": POINT, "car": CAR}


def dynamics_for(agent: str) -> Dynamics:
    """The fitted model of `agent` ("point" or "car"); ValueError for agents that have none."""
    if agent not in _MODELS:
        raise ValueError(f"no fitted dynamics for agent {agent!r}; there are models for {sorted(_MODELS)}")
    return _MODELS[agent]
