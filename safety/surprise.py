"""How far the motion model has been off lately: a filter trusts its model as far as it has been right.

The Car's wheels spin at many times the body's speed. Commands that reverse at random in every step make them slip and
bounce, and now and then a bounce throws the body forward by half a metre per second, which no model of the body
foresees. Whoever drives steadily hardly sees this; so the room that is kept for it follows from what was observed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from safety.dynamics import Dynamics

ORDINARY = 0.15  # m/s: errors below this are what steady driving has; they are in the margin already
MEMORY = 0.995  # share of a surprise that is left after one step
TIME = 0.12  # s for which a body goes on that was thrown, brakes included


class Surprise:
    """One per episode and agent: tell it what is `expected`, show it what is `seen`, keep `room`."""

    def __init__(self, dynamics: Dynamics) -> None:
        self._dynamics = dynamics
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._expected: NDArray[np.floating] | None = None
        self._error = 0.0

    def seen(self, state: NDArray[np.floating]) -> None:
        """The state [6] that came of the last action."""
        self._error *= MEMORY
        if self._expected is not None:
            off = self._expected[3:5] - state[3:5]
            self._error = max(self._error, math.hypot(float(off[0]), float(off[1])))
        self._expected = None

    def expect(self, state: NDArray[np.floating], action: NDArray[np.floating]) -> None:
        """`action` [2] is executed in `state` [6]."""
        self._expected = np.asarray(self._dynamics.rollout(state, np.asarray(action)[None]))[0]

    @property
    def room(self) -> float:
        """Metres to keep beyond the margin."""
        return TIME * self._error if self._error > ORDINARY else 0.0
