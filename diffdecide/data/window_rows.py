"""The rows of a window: how steps become the rows that a planner denoises."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from diffdecide.plan import PlanRows


@dataclass(frozen=True, kw_only=True)
class WindowConfig(PlanRows):
    """What a window is: the rows of a plan, and where windows start and what they are conditioned on.

    Attributes:
        dense: rows that are one control step each
        strided: rows behind them that are `stride` control steps each
        stride: control steps per strided row
        mode: "actions", or "states+actions": the state reached at the end of a row in front of its action; poses in
            the frame of the first step where the observation has the sensors, else the observation
        start_every: a window starts at every n-th step of an episode
        labels: what expert plans (`Episode.plans`) do. "only": in an episode that holds any, windows start at labelled
            steps only, for what else was done there is the learner's own; "prefer": the label where there is one, the
            executed actions elsewhere; "ignore": the executed actions
        label_quantile: condition labelled windows on this quantile of the return-to-go of all steps (and on 1 - it of
            the cost) in place of what the learner that was relabelled went on to get; None: what was got
        conditioning: "horizon": discounted over `horizon`, continued behind time-outs; "end": undiscounted to the end
        discount: per control step
        horizon: control steps, None for no limit
    """

    dense: int = 8
    strided: int = 6
    stride: int = 4
    mode: Literal["actions", "states+actions"] = "actions"
    start_every: int = 1
    labels: Literal["only", "prefer", "ignore"] = "only"
    label_quantile: float | None = None
    conditioning: Literal["horizon", "end"] = "horizon"
    discount: float = 0.99
    horizon: int | None = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_every < 1:
            raise ValueError(f"start_every: expected >= 1, got {self.start_every}")
        choices = {
            "mode": ("actions", "states+actions"),
            "labels": ("only", "prefer", "ignore"),
            "conditioning": ("horizon", "end"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}")
        if self.label_quantile is not None and not 0 <= self.label_quantile <= 1:
            raise ValueError(f"label_quantile: expected in [0, 1] or None, got {self.label_quantile}")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount: expected in (0, 1], got {self.discount}")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon: expected >= 1 or None, got {self.horizon}")

    @property
    def row_ends(self) -> np.ndarray:
        """[H] offset in control steps of the last step of each row."""
        return np.concatenate(
            [np.arange(self.dense), self.dense + self.stride * np.arange(1, self.strided + 1) - 1]
        ).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def resample(actions: Tensor, valid: Tensor, config: WindowConfig) -> tuple[Tensor, Tensor]:
    """Per-step actions to rows.

    Args:
        actions: [B, span, a]; what is not valid may hold anything, NaN included
        valid: [B, span] bool

    Returns:
        rows [B, H, a], each the mean over its valid steps (0 without any), and mask [B, H], True where there is one
    """
    if actions.ndim != 3 or actions.shape[1] != config.span or valid.shape != actions.shape[:2]:
        raise ValueError(
            f"actions, valid: expected [B, {config.span}, a] and [B, {config.span}], "
            f"got {tuple(actions.shape)} and {tuple(valid.shape)}"
        )
    actions = actions.masked_fill(~valid[..., None], 0.0)
    dense, mask = actions[:, : config.dense], valid[:, : config.dense]
    if not config.strided:
        return dense, mask
    batch, _, width = actions.shape
    shape = (batch, config.strided, config.stride)
    counts = valid[:, config.dense :].reshape(shape).sum(-1)
    sums = actions[:, config.dense :].reshape(*shape, width).sum(2)
    means = sums / counts.clamp(min=1)[..., None]
    return torch.cat([dense, means], 1), torch.cat([mask, counts > 0], 1)
