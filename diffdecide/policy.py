"""What evaluation asks of a policy: protocols, so that any control loop can be judged without inheriting from ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import gymnasium

    from safety.layout import EnvSpec
    from safety.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Action:
    """What a policy does and what it reports.

    `report` may hold `plan_ms` (milliseconds, only in steps in which a plan was made), `filter_ms`, `intervened`
    (bool: the filter changed the action), `infeasible` (bool: no action was safe), and whatever a recorder wants.
    """

    value: np.ndarray  # [A] in the bounds of the environment
    report: Mapping[str, Any] = field(default_factory=dict)


class Policy(Protocol):
    """Anything that acts. `reset` must forget all that went before: episodes are judged one by one."""

    def reset(self, spec: EnvSpec, *, seed: int) -> None: ...

    def act(self, observation: np.ndarray, cost: float | None = None) -> Action: ...


@runtime_checkable
class PrivilegedPolicy(Protocol):
    """A policy that reads the simulator: called once per episode, after the environment's reset."""

    def bind(self, env: gymnasium.Env) -> None: ...


@runtime_checkable
class OutcomePolicy(Protocol):
    """A policy that is told what every step came to, its reward included.

    For methods that are defined that way (a decision transformer is asked for the return that is still missing). Ours
    see observations only.
    """

    def outcome(self, action: np.ndarray, reward: float, cost: float) -> None:
        """The action [A] that was executed, which a filter may have changed, and what it earned and cost."""
        ...


@runtime_checkable
class TaskPolicy(Protocol):
    """A policy that is given the task itself (`GoalSpace.encode(task)`, the ceiling of the language bridge)."""

    def assign(self, task: TaskSpec) -> None: ...


@runtime_checkable
class InstructedPolicy(Protocol):
    """A policy that is told what to do in words. What it returns is kept in the record as `understood`."""

    def instruct(self, text: str) -> Any: ...
