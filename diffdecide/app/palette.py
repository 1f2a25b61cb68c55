"""One look for all pictures: which colour and which order an object has."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "#fbfaf7"
GRID = "#eceae3"
INK = "#22262e"
MUTED = "#7a7f89"
AGENT = "#22262e"
TRAIL = "#9aa3b2"
PLAN = "#e8590c"
CANDIDATE = "#c3c7cf"
UNSAFE = "#d6336c"  # where the filter stepped in, and plans that come too close
SAFE = "#2b8a3e"


@dataclass(frozen=True)
class Look:
    """How a kind of object is drawn: `order` from the floor upwards."""

    fill: str
    edge: str
    label: str
    order: int


_UNKNOWN = Look("#dee2e6", "#868e96", "object", 2)
_LOOKS = {
    "goal": Look("#d3f2d9", "#2f9e44", "goal", 0),
    "hazards": Look("#4c4f69", "#31344a", "hazard", 2),
    "vases": Look("#c5e8ea", "#0c8599", "vase", 3),
    "pillars": Look("#868e96", "#495057", "pillar", 3),
    "gremlins": Look("#ae3ec9", "#862e9c", "gremlin", 3),
    "buttons": Look("#ffd8a8", "#e8590c", "button", 1),
    "push_box": Look("#ffe8a3", "#b08900", "box", 3),
    "circle": Look("#e7f0ff", "#4263eb", "circle", 0),
    "red_zone": Look("#ffdcdc", "#e03131", "red", 1),
    "green_zone": Look("#d8f3dc", "#2f9e44", "green", 1),
    "blue_zone": Look("#dbe8ff", "#1c6fe0", "blue", 1),
    "yellow_zone": Look("#fff1bf", "#d9a400", "yellow", 1),
}


def look(kind: str) -> Look:
    """The look of a kind of `safety.scene.KINDS`."""
    return _LOOKS.get(kind, _UNKNOWN)


def goal_colour(name: str) -> str:
    """Edge colour of a sub-goal's name ("green", "goal")."""
    return (_LOOKS.get(f"{name}_zone") or _LOOKS.get(name) or _UNKNOWN).edge
