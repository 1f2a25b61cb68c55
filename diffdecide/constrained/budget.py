"""Classifier-free guidance on the cost budget, which may change from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from diffdecide.constrained.steering import Moment


@dataclass(frozen=True)
class BudgetGuidance:
    """Plans for a given cost budget: clean = uncond + scale (cond(budget) - uncond) (J. Ho, T. Salimans, 2022).

    The budget is an argument of the run, what is left of the episode's limit at this control step; a function of the
    `Moment` lets it change within one sampling run as well.

    Attributes:
        context_for: budget in cost units -> context [1 or B, C]; normalise inside.
        unconditional: [1 or B, C] the context without a budget.
        budget: cost units >= 0, or a function of the moment.
        scale: w; 1 is plain conditional sampling.
    """

    context_for: Callable[[float], Tensor]
    unconditional: Tensor
    budget: float | Callable[[Moment], float]
    scale: float = 1.5

    def __post_init__(self) -> None:
        if not callable(self.context_for):
            raise ValueError(f"context_for must be callable, got {type(self.context_for).__name__}")
        if not math.isfinite(self.scale):
            raise ValueError(f"scale must be finite, got {self.scale=}")
        if not callable(self.budget):
            _check(self.budget)

    def context(self, moment: Moment) -> Tensor:
        """The conditional context of this moment.

        Raises:
            ValueError: the budget is negative or not finite.
        """
        budget = self.budget(moment) if callable(self.budget) else self.budget
        return self.context_for(_check(budget))


def _check(budget: float) -> float:
    if not math.isfinite(budget) or budget < 0:
        raise ValueError(f"the cost budget must be a finite number >= 0, got {budget}")
    return float(budget)
