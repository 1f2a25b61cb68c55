"""The Bradley-Terry family: probabilities and losses of comparisons, as functions of the difference of scores.

`delta` is score 1 minus score 2, `label` the probability that the first is preferred. All functions are elementwise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def probability(delta: Tensor, *, noise_floor: float = 0.0) -> Tensor:
    """P(first preferred) = (1 - floor) sigma(delta) + floor / 2 (Bradley and Terry 1952)."""
    return (1 - noise_floor) * torch.sigmoid(delta) + 0.5 * noise_floor


def smoothed(label: Tensor, smoothing: float) -> Tensor:
    """Labels drawn towards 1/2 by a share."""
    return label * (1 - smoothing) + 0.5 * smoothing


def bradley_terry_loss(
    delta: Tensor,
    label: Tensor,
    *,
    margin: Tensor | None = None,
    smoothing: float = 0.0,
    noise_floor: float = 0.0,
) -> Tensor:
    """Cross-entropy of soft labels: -l log P(delta - m) - (1 - l) log P(-delta - m), [...].

    Args:
        margin: how much better the preferred one has to be, >= 0 (Llama 2, eq. 2).
    """
    label = smoothed(label, smoothing)
    ahead, behind = (delta, -delta) if margin is None else (delta - margin, -delta - margin)
    return -label * _log(ahead, noise_floor) - (1 - label) * _log(behind, noise_floor)


def rao_kupper(delta: Tensor, width: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of (first, tie, second); `width` >= 0 is log theta (Rao and Kupper 1967).

    P(first) = sigma(delta - width), P(second) = sigma(-delta - width), the rest is a tie; width 0 knows no ties.
    """
    first, second = F.logsigmoid(delta - width), F.logsigmoid(-delta - width)
    # (theta^2 - 1) times the product of both, from the definition: no difference of near-equal numbers.
    width = torch.as_tensor(width, dtype=delta.dtype, device=delta.device)
    return first, torch.log(torch.expm1(2 * width).clamp_min(1e-12)) + first + second, second


def davidson(delta: Tensor, width: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of (first, tie, second); `width` is log nu (Davidson 1970).

    P(first) : P(tie) : P(second) = exp(delta / 2) : nu : exp(-delta / 2).
    """
    middle = torch.zeros_like(delta) + torch.as_tensor(width, dtype=delta.dtype, device=delta.device)
    logs = torch.log_softmax(torch.stack([0.5 * delta, middle, -0.5 * delta]), 0)
    return logs[0], logs[1], logs[2]


def tie_loss(logs: tuple[Tensor, Tensor, Tensor], label: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood [...] under three outcomes.

    A label in [0, 1] spreads over them by 0 -> second, 1/2 -> tie, 1 -> first, linearly between; smoothing moves that
    share to equal thirds.
    """
    first, second = (2 * label - 1).clamp_min(0), (1 - 2 * label).clamp_min(0)
    weights = torch.stack([first, 1 - first - second, second])
    weights = weights * (1 - smoothing) + smoothing / 3
    return -(weights * torch.stack(list(logs))).sum(0)


def _log(logit: Tensor, noise_floor: float) -> Tensor:
    if noise_floor == 0:
        return F.logsigmoid(logit)
    return torch.log(probability(logit, noise_floor=noise_floor))
