"""The methods of constrained sampling by name, as benchmarks and command lines know them."""

from __future__ import annotations

import difflib

from diffdecide.constrained.barrier import Barrier
from diffdecide.constrained.gradients import CostGuidance, PrimalDual
from diffdecide.constrained.projected import Projected
from diffdecide.constrained.steering import Method, Unconstrained

_METHODS: tuple[Method, ...] = (
    Unconstrained(),
    CostGuidance(),
    Projected(place="iterates"),
    Projected(place="clean"),
    Projected(place="final"),
    Barrier(form="robust"),
    Barrier(form="relaxed"),
    Barrier(form="time-varying"),
    PrimalDual(),
)
METHODS: dict[str, Method] = {method.name: method for method in _METHODS}
DEFAULT = Projected().name


def method_named(name: str) -> Method:
    """The method called `name`, with its default settings.

    Raises:
        ValueError: no such method; the nearest name is suggested.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown method {name!r}{hint} (known: {', '.join(METHODS)})")
    return METHODS[name]
