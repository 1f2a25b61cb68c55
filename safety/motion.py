"""How things that move of their own accord go on.

Gremlins go round in circles at a constant rate, whatever their speed and their circle: a velocity is all that must be
seen of one to know where it will be. Told as going straight, one is 4 cm off after half a second and 17 cm after one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety.scene import KINDS

Floats = NDArray[np.float64]
TURN_RATES = {"gremlins": -1.0}  # rad/s, anticlockwise; safety-gymnasium drives gremlins by (sin t, cos t)
SPEEDS = {"gremlins": 0.36}  # m/s of what never stands: 0.35 m x 1 rad/s, rounded up
_BY_KIND = np.array([TURN_RATES.get(kind, 0.0) for kind in KINDS])
_SPEED_BY_KIND = np.array([SPEEDS.get(kind, 0.0) for kind in KINDS])


def turn_rates(kinds: NDArray[np.integer]) -> Floats:
    """Rates [N] in rad/s at which the velocities of objects of these kinds [N] turn; 0 for all that goes straight."""
    return _BY_KIND[kinds]


def unknown_speeds(kinds: NDArray[np.integer], velocities: Floats) -> Floats:
    """m/s [N] at which what never stands may come along while its velocity [N, 2] is not known (zero)."""
    return np.where((velocities == 0).all(-1), _SPEED_BY_KIND[kinds], 0.0)


def advance(velocities: Floats, rates: Floats, seconds: Floats | float) -> Floats:
    """Displacements [..., N, 2] m after `seconds` [..., N] of arcs with velocities [N, 2] and turn rates [N]."""
    angle = rates * seconds
    bent = np.where(rates == 0, 1.0, rates)  # where nothing turns the sines are 0, whatever they are divided by
    along = np.where(rates == 0, seconds, np.sin(angle) / bent)
    aside = (1.0 - np.cos(angle)) / bent
    vx, vy = velocities[..., 0], velocities[..., 1]
    return np.stack([along * vx - aside * vy, along * vy + aside * vx], axis=-1)


def turned(velocities: Floats, rates: Floats, seconds: float) -> Floats:
    """Velocities [N, 2] after `seconds`."""
    cos, sin = np.cos(rates * seconds), np.sin(rates * seconds)
    vx, vy = velocities[..., 0], velocities[..., 1]
    return np.stack([cos * vx - sin * vy, cos * vy + sin * vx], axis=-1)


class StepOfArc:
    """One control step of something that turns, for those who go through objects one by one."""

    __slots__ = ("_along", "_aside", "_cos", "_sin")

    def __init__(self, rate: float, dt: float) -> None:
        """`rate` in rad/s, 0 for what goes straight; `dt` in s."""
        ahead, rates = np.array([[1.0, 0.0]]), np.array([rate])
        self._along, self._aside = advance(ahead, rates, dt)[0].tolist()
        self._cos, self._sin = turned(ahead, rates, dt)[0].tolist()

    def __call__(self, vx: float, vy: float) -> tuple[float, float, float, float]:
        """Displacement (m, m) and the velocity after it (m/s, m/s)."""
        dx, dy = self._along * vx - self._aside * vy, self._along * vy + self._aside * vx
        return dx, dy, self._cos * vx - self._sin * vy, self._cos * vy + self._sin * vx
