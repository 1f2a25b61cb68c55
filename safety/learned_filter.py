"""A filter for tasks without geometry: velocity limits, pushing, contact.

A critic says how risky an action is; the filter passes what lies at or below a threshold (chosen by
`safety.calibration.risk_threshold`) and otherwise takes the nearest action found that does. It has the interface of
`safety.guard.Guard`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from safety.critics.base import Critic
from safety.filters import FilterReport

Floats = NDArray[np.float64]
Backup = Callable[[NDArray[np.floating]], NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True)
class LearnedFilterConfig:
    """How the filter searches.

    Attributes:
        candidates: random actions tried per step, half around the wanted one, half all over the box.
        gradient_steps: steps down the risk's gradient from the wanted action and from the best candidate (Polyak's
            step length, so that it stops at the threshold).
        halvings: bisections between the wanted action and the safe one found, towards the wanted one.
        spread: standard deviation of the candidates around the wanted action, as a share of the action box.
    """

    candidates: int = 64
    gradient_steps: int = 8
    halvings: int = 6
    spread: float = 0.25

    def __post_init__(self) -> None:
        for name in ("candidates", "gradient_steps", "halvings"):
            if getattr(self, name) < 0:
                raise ValueError(f"LearnedFilterConfig.{name} must be >= 0, got {getattr(self, name)}")
        if not 0 < self.spread < float("inf"):
            raise ValueError(f"LearnedFilterConfig.spread must be positive, got {self.spread}")


class LearnedFilter:
    """Keeps the predicted risk of every executed action at or below `threshold`, where any action does.

    Args:
        critic: of `safety.critics`.
        threshold: in the unit of the critic's risk; 0 is the natural one of the feasibility critic.
        low, high: [a] bounds of the actions.
        backup: observation -> action taken where nothing is below the threshold; without one, the least risky found.
        generator: source of the candidates.
    """

    def __init__(
        self,
        critic: Critic,
        threshold: float,
        low: NDArray[np.floating],
        high: NDArray[np.floating],
        *,
        generator: np.random.Generator,
        backup: Backup | None = None,
        config: LearnedFilterConfig | None = None,
    ) -> None:
        if np.isnan(threshold):
            raise ValueError("the threshold must be a number, got NaN")
        self.low, self.high = (np.asarray(bound, dtype=np.float64) for bound in (low, high))
        size = critic.config.action_dim
        for name, bound in (("low", self.low), ("high", self.high)):
            if bound.shape != (size,) or not np.isfinite(bound).all():
                raise ValueError(f"{name} must be {size} finite numbers, got {bound}")
        if (self.low >= self.high).any():
            raise ValueError(f"low must be below high everywhere, got {self.low} and {self.high}")
        self.critic = critic.eval()
        self.threshold = float(threshold)
        self.config = config or LearnedFilterConfig()
        self._backup = backup
        self._generator = generator

    def reset(self) -> None:
        """Begin an episode; there is nothing to forget."""

    def guard(self, observation: NDArray[np.floating], action: NDArray[np.floating]) -> FilterReport:
        """The nearest action found whose risk is at or below the threshold.

        The report's `clearance` is threshold - risk of the executed action; `method` is "pass", "candidate",
        "gradient", "backup" or "fallback". An observation that is not finite cannot be judged: the backup acts.

        Raises:
            ValueError: the action or the observation has the wrong shape, or the action is not finite.
        """
        seen = np.asarray(observation, dtype=np.float64)
        wanted: Floats = np.asarray(action, dtype=np.float64)
        config = self.critic.config
        if wanted.shape != (config.action_dim,) or not np.isfinite(wanted).all():
            raise ValueError(f"the filter needs a finite action of shape ({config.action_dim},), got {wanted}")
        if seen.shape != (config.observation_dim,):
            raise ValueError(f"the filter needs an observation of shape ({config.observation_dim},), got {seen.shape}")
        if not np.isfinite(seen).all():
            return self._give_up(seen, wanted, (self.low + self.high) / 2, float("inf"), "blind")
        wanted_risk = float(self._risk(seen, wanted[None])[0])
        if wanted_risk <= self.threshold:
            return FilterReport(wanted, False, False, 0.0, self.threshold - wanted_risk, 0.0, "pass")
        tried = self._candidates(wanted)
        risks = self._risk(seen, tried)
        descended = self._descend(seen, np.vstack([wanted, tried[int(risks.argmin())]]))
        tried, risks = np.vstack([tried, descended]), np.append(risks, self._risk(seen, descended))
        allowed = risks <= self.threshold
        if not allowed.any():
            least = int(risks.argmin())
            return self._give_up(seen, wanted, tried[least], float(risks[least]), "fallback")
        distance = self._distance(tried, wanted)
        chosen = int(np.argmin(np.where(allowed, distance, np.inf)))
        method = "gradient" if chosen >= len(tried) - len(descended) else "candidate"
        best, risk = self._approach(seen, wanted, tried[chosen], float(risks[chosen]))
        delta = float(self._distance(best[None], wanted)[0])
        return FilterReport(best, True, False, delta, self.threshold - risk, 0.0, method)

    def _distance(self, actions: Floats, wanted: Floats) -> Floats:
        """‖change‖ [C] with every action component scaled to [-1, 1]."""
        return np.asarray(np.linalg.norm((actions - wanted) / ((self.high - self.low) / 2), axis=1))

    def _risk(self, observation: Floats, actions: Floats) -> Floats:
        with torch.no_grad():
            given = torch.as_tensor(actions, dtype=torch.float32)
            state = torch.as_tensor(observation, dtype=torch.float32).expand(len(given), -1)
            return np.asarray(self.critic.risk(state, given).double().numpy())

    def _candidates(self, wanted: Floats) -> Floats:
        half = (self.config.candidates + 1) // 2
        size = len(wanted)
        near = wanted + self.config.spread * (self.high - self.low) / 2 * self._generator.standard_normal((half, size))
        far = self._generator.uniform(self.low, self.high, (self.config.candidates - half, size))
        return np.clip(np.vstack([near, far, (self.low + self.high) / 2]), self.low, self.high)

    def _descend(self, observation: Floats, starts: Floats) -> Floats:
        """Actions after steps down the risk's gradient, each no longer than it takes to the linearised threshold."""
        low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (self.low, self.high))
        actions = torch.as_tensor(starts, dtype=torch.float32)
        state = torch.as_tensor(observation, dtype=torch.float32).expand(len(actions), -1)
        half = (high - low) / 2
        for _ in range(self.config.gradient_steps):
            with torch.enable_grad():
                leaf = actions.detach().requires_grad_(True)
                risk = self.critic.risk(state, leaf)
                (gradient,) = torch.autograd.grad(risk.sum(), leaf)
            scaled = gradient * half
            # A little past the threshold, or rounding leaves the answer on its wrong side.
            excess = (risk.detach() - self.threshold).clamp_min(0) * 1.05
            length = excess / scaled.square().sum(1).clamp_min(1e-12)
            step = length[:, None] * scaled
            step = step / (step.norm(dim=1, keepdim=True) / 0.5).clamp_min(1.0)
            actions = torch.minimum(torch.maximum(actions - step * half, low), high).detach()
        return np.asarray(actions.double().numpy())

    def _approach(self, observation: Floats, wanted: Floats, safe: Floats, risk: float) -> tuple[Floats, float]:
        """The safe action moved towards the wanted one as far as it stays safe."""
        near, far = safe, wanted
        for _ in range(self.config.halvings):
            middle = np.clip((near + far) / 2, self.low, self.high)
            value = float(self._risk(observation, middle[None])[0])
            if value <= self.threshold:
                near, risk = middle, value
            else:
                far = middle
        return near, risk

    def _give_up(self, observation: Floats, wanted: Floats, least: Floats, risk: float, method: str) -> FilterReport:
        action = least
        if self._backup is not None:
            action = np.clip(np.asarray(self._backup(observation), dtype=np.float64), self.low, self.high)
            method = "backup" if method == "fallback" else method
            if np.isfinite(observation).all():
                risk = float(self._risk(observation, action[None])[0])
        delta = float(self._distance(action[None], wanted)[0])
        return FilterReport(action, True, True, delta, self.threshold - risk, 0.0, method)
