"""What every constraint offers, and the types it speaks in."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeAlias

from safety.constraint_arrays import Array, minimum

Rank: TypeAlias = Literal["hard", "soft"]


class Linearisation(NamedTuple):
    """Half-spaces `A z <= b`. A [..., M, F]; b [..., M]."""

    A: Array
    b: Array


class Constraint(Protocol):
    """What planners, projections and filters expect of a constraint."""

    @property
    def rank(self) -> Rank: ...

    def value(self, x: Array, t: Array | float = 0.0) -> Array:
        """Signed clearance [...] at x [..., F] and time t [s] (broadcast over the batch); >= 0 is allowed."""
        ...

    def linearise(self, x: Array, t: Array | float = 0.0) -> Linearisation:
        """Half-spaces around x [..., F]."""
        ...

    def segment_value(self, x0: Array, x1: Array, t0: Array | float = 0.0, t1: Array | float = 0.0) -> Array:
        """The smallest value [...] on the straight segment from x0 (at t0) to x1 (at t1), both [..., F]."""
        ...


class Convex:
    """Constraints whose allowed set is convex: along a segment the value is concave, so an end is the worst point."""

    def value(self, x: Array, t: Array | float = 0.0) -> Array:
        raise NotImplementedError

    def segment_value(self, x0: Array, x1: Array, t0: Array | float = 0.0, t1: Array | float = 0.0) -> Array:
        """The smallest value [...] between x0 and x1 [..., F]: exact, at one of the ends."""
        return minimum(self.value(x0, t0), self.value(x1, t1))
