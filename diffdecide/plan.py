"""What a planner returns, and how its rows become control steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """An executable plan: actions for every control step and the states they lead to.

    `cost` is the judge's cost (lower is better), `candidates` what it was chosen from.
    """

    actions: np.ndarray  # [T, A] in the bounds of the environment
    states: np.ndarray  # [T, 6] as in safety.scene, in the scene's frame
    candidates: np.ndarray  # [C, T, 2] m, positions of all candidates
    costs: np.ndarray  # [C]
    chosen: int
    clearance: np.ndarray  # [T] m to the nearest hard obstacle's radius, without margins
    margin: float  # m that the plan was asked to keep
    target: np.ndarray  # [2] m, what the plan was aimed at
    target_confidence: float  # probability that the pointer gave to this target; 0 while it is out of view


@dataclass(frozen=True, kw_only=True)
class PlanRows:
    """How H rows cover the horizon: `dense` rows of one control step, then `strided` rows of `stride` steps each."""

    dense: int = 5
    strided: int = 11
    stride: int = 5

    def __post_init__(self) -> None:
        for name, low in (("dense", 1), ("strided", 0), ("stride", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{type(self).__name__}.{name} must be at least {low}, got {getattr(self, name)}")

    @property
    def rows(self) -> int:
        return self.dense + self.strided

    @property
    def span(self) -> int:
        """Control steps of the whole plan."""
        return self.dense + self.strided * self.stride

    def expand(self, rows: Any) -> Any:
        """Rows [..., H, A] to control steps [..., span, A]; numpy or torch."""
        if isinstance(rows, Tensor):
            behind = rows[..., self.dense :, :].repeat_interleave(self.stride, dim=-2)
            return torch.cat([rows[..., : self.dense, :], behind], dim=-2)
        behind = np.repeat(rows[..., self.dense :, :], self.stride, axis=-2)
        return np.concatenate([rows[..., : self.dense, :], behind], axis=-2)

    def contract(self, actions: Any) -> Any:
        """Control steps [..., span, A] to rows [..., H, A]: the inverse of `expand`, averaging within a row.

        numpy or torch, by the type of `actions`.
        """
        if actions.shape[-2] != self.span:
            raise ValueError(f"expected {self.span} control steps, got {actions.shape[-2]}")
        behind = actions[..., self.dense :, :]
        behind = behind.reshape(*behind.shape[:-2], self.strided, self.stride, behind.shape[-1]).mean(-2)
        if isinstance(actions, Tensor):
            return torch.cat([actions[..., : self.dense, :], behind], dim=-2)
        return np.concatenate([actions[..., : self.dense, :], behind], axis=-2)
