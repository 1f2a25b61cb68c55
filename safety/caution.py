"""What the words "careful", "normal" and "rush" mean in metres. Words only ever add to the operator's margin."""

from __future__ import annotations

from safety.tasks.spec import CAUTIONS

DEFAULT_MARGIN = 0.03  # m beyond a hazard's radius that the filter keeps unless the operator says otherwise
PLAN_EXTRA = 0.02  # m that plans keep beyond the filter's margin, so that the filter has nothing to do

_ADDED = {"rush": 0.0, "normal": 0.01, "careful": 0.04}


def margin_for(caution: str, operator_margin: float = DEFAULT_MARGIN) -> float:
    """The filter's margin in metres: the operator's, plus what the caution adds (never less)."""
    if caution not in _ADDED:
        raise ValueError(f"caution must be one of {', '.join(CAUTIONS)}, got {caution!r}")
    if not operator_margin >= 0:
        raise ValueError(f"the operator's margin must be >= 0 m, got {operator_margin}")
    return operator_margin + _ADDED[caution]
