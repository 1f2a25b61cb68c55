"""What is asked of an agent in the zone tasks, and whether it was done. Pure: no simulator, no networks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ZONES = ("red", "green", "blue", "yellow")
TASK_KINDS = ("reach", "sequence", "avoid", "stay")
CAUTIONS = ("careful", "normal", "rush")
VISIT_STEPS = 25  # consecutive steps inside that make a visit: passing through is none
STAY_STEPS = 100  # consecutive steps inside that make a stay

_TARGETS = {"reach": (1, 1), "sequence": (2, 3), "avoid": (1, 3), "stay": (1, 1)}  # least and most targets by kind


def _zones(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"TaskSpec {name} must be a list of zones, got {value!r}")
    zones = tuple(value)
    for zone in zones:
        if zone not in ZONES:
            raise ValueError(f"TaskSpec {name}: unknown zone {zone!r}, expected one of {', '.join(ZONES)}")
    return zones


@dataclass(frozen=True)
class TaskSpec:
    """One instruction, understood.

    Attributes:
        kind: "reach" (one target), "sequence" (two or three in order), "avoid" (one to three targets in order, and
            zones never to be entered) or "stay" (one target, `STAY_STEPS` consecutive steps).
        targets: zones to visit, in order.
        avoid: zones never to be entered, not even for a step; at least one for "avoid", allowed for every kind.
        caution: "careful", "normal" or "rush"; widens the safety margins and does not change what is asked.

    Raises:
        ValueError: for unknown names, a wrong number of targets, one target twice in a row, a zone twice in `avoid`,
            or a zone that is to be visited and avoided at once.
    """

    kind: str
    targets: tuple[str, ...]
    avoid: tuple[str, ...] = ()
    caution: str = "normal"

    def __post_init__(self) -> None:
        if self.kind not in TASK_KINDS:
            raise ValueError(f"TaskSpec kind must be one of {', '.join(TASK_KINDS)}, got {self.kind!r}")
        if self.caution not in CAUTIONS:
            raise ValueError(f"TaskSpec caution must be one of {', '.join(CAUTIONS)}, got {self.caution!r}")
        object.__setattr__(self, "targets", _zones("targets", self.targets))
        object.__setattr__(self, "avoid", _zones("avoid", self.avoid))
        least, most = _TARGETS[self.kind]
        if not least <= len(self.targets) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise ValueError(f"TaskSpec {self.kind!r} takes {wanted} targets, got {list(self.targets)}")
        for before, after in zip(self.targets, self.targets[1:], strict=False):
            if before == after:
                raise ValueError(f"TaskSpec targets {list(self.targets)} name {before!r} twice in a row")
        if len(set(self.avoid)) != len(self.avoid):
            raise ValueError(f"TaskSpec avoid names a zone twice: {list(self.avoid)}")
        both = [zone for zone in self.avoid if zone in self.targets]
        if both:
            raise ValueError(f"TaskSpec contradicts itself: {', '.join(both)} is to be visited and never to be entered")
        if self.kind == "avoid" and not self.avoid:
            raise ValueError("TaskSpec 'avoid' needs at least one zone in avoid")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, as in `{"kind": …, "targets": […], "avoid": […], "caution": …}`."""
        return {"kind": self.kind, "targets": list(self.targets), "avoid": list(self.avoid), "caution": self.caution}

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskSpec:
        """Inverse of `to_dict`; "avoid" and "caution" may be left out.

        Raises:
            ValueError: for missing or unknown keys, and like the class itself.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"TaskSpec must be a JSON object, got {type(data).__name__}: {data!r}")
        missing = [key for key in ("kind", "targets") if key not in data]
        unknown = [str(key) for key in data if key not in ("kind", "targets", "avoid", "caution")]
        if missing or unknown:
            faults = [f"lacks {', '.join(missing)}"] * bool(missing)
            faults += [f"has unknown keys {', '.join(unknown)}"] * bool(unknown)
            raise ValueError(f"TaskSpec {dict(data)!r} {' and '.join(faults)}")
        return cls(**data)

    @classmethod
    def from_json(cls, text: str | Mapping[str, Any]) -> TaskSpec:
        """Inverse of `to_json`; takes a parsed object as well. Raises ValueError for what is not a valid task."""
        if isinstance(text, Mapping):
            return cls.from_dict(text)
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"TaskSpec is not valid JSON ({error}): {text!r}") from error
        return cls.from_dict(data)


@dataclass(frozen=True)
class Verdict:
    """How an episode stands.

    Attributes:
        visited: zones visited so far, in order.
        current: index into `targets` of what is to be done next (the last one, once done).
        succeeded, failed: final once true; never both.
        reason: why it failed or that it succeeded; empty before.
    """

    visited: tuple[str, ...] = ()
    current: int = 0
    succeeded: bool = False
    failed: bool = False
    reason: str = ""


@dataclass
class TaskJudge:
    """Follows one episode and judges it by the zones the agent is inside of, step by step.

    A zone is visited once the agent was inside for `visit_steps` consecutive steps; one continuous presence is one
    visit. The task succeeds when the list of visits equals the targets, exactly and in order, and fails with the first
    visit that does not belong there and with the first step inside a forbidden zone. A "stay" succeeds after
    `stay_steps` consecutive steps inside its target; leaving it early and coming back is no failure.
    """

    spec: TaskSpec
    visit_steps: int = VISIT_STEPS
    stay_steps: int = STAY_STEPS
    verdict: Verdict = field(default_factory=Verdict, init=False)
    _inside_for: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("visit_steps", "stay_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"TaskJudge {name} must be at least 1, got {getattr(self, name)}")

    def reset(self) -> None:
        """Forget the episode."""
        self.verdict = Verdict()
        self._inside_for = {}

    def update(self, inside: Iterable[str]) -> Verdict:
        """Judge one more step.

        Args:
            inside: the zones the agent is inside of after the step (normally none or one).

        Raises:
            ValueError: for a name that is no zone.
        """
        now = {inside} if isinstance(inside, str) else set(inside)
        unknown = sorted(now.difference(ZONES))
        if unknown:
            raise ValueError(f"TaskJudge.update: unknown zones {unknown}, expected some of {', '.join(ZONES)}")
        if self.verdict.succeeded or self.verdict.failed:
            return self.verdict
        self._inside_for = {zone: self._inside_for.get(zone, 0) + 1 for zone in ZONES if zone in now}
        forbidden = [zone for zone in self.spec.avoid if zone in now]
        if forbidden:
            self.verdict = self._end(failed=True, reason=f"entered the forbidden {forbidden[0]} zone")
        elif self.spec.kind == "stay":
            self.verdict = self._stay()
        else:
            self.verdict = self._visit()
        return self.verdict

    def _end(self, *, succeeded: bool = False, failed: bool = False, reason: str) -> Verdict:
        return Verdict(self.verdict.visited, self.verdict.current, succeeded, failed, reason)

    def _completed(self) -> list[str]:
        return [zone for zone, steps in self._inside_for.items() if steps == self.visit_steps]

    def _stay(self) -> Verdict:
        target = self.spec.targets[0]
        for zone in self._completed():
            if zone != target:
                return self._end(failed=True, reason=f"visited the {zone} zone, asked to stay in the {target} zone")
            if target not in self.verdict.visited:
                self.verdict = Verdict(visited=(target,))
        if self._inside_for.get(target, 0) < self.stay_steps:
            return self.verdict
        self.verdict = Verdict(visited=(target,))
        return self._end(succeeded=True, reason=f"stayed in the {target} zone for {self.stay_steps} steps")

    def _visit(self) -> Verdict:
        targets = self.spec.targets
        for zone in self._completed():
            visited = (*self.verdict.visited, zone)
            wanted = targets[len(visited) - 1]
            self.verdict = Verdict(visited, min(len(visited), len(targets) - 1) if zone == wanted else len(visited) - 1)
            if zone != wanted:
                return self._end(failed=True, reason=f"visited the {zone} zone where the {wanted} zone was asked for")
            if visited == targets:
                return self._end(succeeded=True, reason=f"visited {', then '.join(targets)}")
        return self.verdict
