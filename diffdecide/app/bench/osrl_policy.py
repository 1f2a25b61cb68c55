"""COptiDICE and CDT of OSRL as policies that `evaluate` can run, at a cost limit given when they act."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from diffdecide.app.bench.osrl import REWARD_SCALE, SEQUENCE, OSRLModel
from diffdecide.policy import Action, Policy

if TYPE_CHECKING:
    from safety.layout import EnvSpec


def osrl_policy(folder: str, limit: float) -> Policy:
    """The policy in `folder` at cost limit `limit`; a function of the module, so that `partial` of it can be pickled.

    Raises:
        ImportError: OSRL is not installed.
        ValueError: no such model, a limit that is negative or not finite, or COptiDICE trained for another one.
    """
    if not 0 <= limit < float("inf"):
        raise ValueError(f"the cost limit must be finite and >= 0, got {limit}")
    model = OSRLModel.from_pretrained(folder)
    if model.config.algorithm == "cdt":
        return CDTPolicy(model, limit)
    if model.config.cost_limit != limit:
        raise ValueError(f"{folder}: COptiDICE was trained for cost limit {model.config.cost_limit}, not for {limit}")
    return COptiDICEPolicy(model)


def _check(model: OSRLModel, spec: EnvSpec) -> None:
    config = model.config
    if (config.observation_dim, config.action_dim) != (spec.observation_dim, spec.action_dim):
        raise ValueError(
            f"this model of OSRL takes {config.observation_dim} values and gives {config.action_dim}; "
            f"{spec.id} has {spec.observation_dim} and {spec.action_dim}"
        )
    if spec.max_steps > config.episode_len:
        raise ValueError(f"this model of OSRL knows {config.episode_len} steps, {spec.id} has {spec.max_steps}")


class COptiDICEPolicy:
    """The mean action of COptiDICE's actor, as in OSRL's own evaluation."""

    def __init__(self, model: OSRLModel) -> None:
        self.model = model

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        """Check that the model fits the environment; ValueError where it does not."""
        _check(self.model, spec)

    @torch.no_grad()
    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        value, _ = self.model.network.act(np.asarray(observation, dtype=np.float32), True, True)  # type: ignore[operator]
        return Action(np.asarray(value, dtype=np.float64) * self.model.reach, {})


class CDTPolicy:
    """CDT under a target return and a target cost, which fall by what is earned and spent, as in OSRL's evaluation.

    It is the one method here that is told rewards: it is defined that way. The target return is the best of the data
    within the limit (`OSRLModel.target_return`).
    """

    def __init__(self, model: OSRLModel, limit: float) -> None:
        self.model, self.limit = model, limit
        self._width = model.config.action_dim

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        """Begin an episode; ValueError where the model does not fit the environment."""
        _check(self.model, spec)
        self._return, self._cost = self.model.target_return(self.limit), float(self.limit)
        self._step = 0
        self._seen: list[np.ndarray] = []
        self._done: list[np.ndarray] = []
        self._wanted: list[tuple[float, float]] = []

    @torch.no_grad()
    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        self._seen = [*self._seen, np.asarray(observation, dtype=np.float32)][-SEQUENCE:]
        self._wanted = [*self._wanted, (self._return * REWARD_SCALE, self._cost)][-SEQUENCE:]
        # The action of now is not known; the network does not look at it.
        done = [*self._done, np.zeros(self._width, np.float32)][-SEQUENCE:]
        wanted = torch.tensor(self._wanted, dtype=torch.float32)
        times = torch.arange(self._step + 1 - len(self._seen), self._step + 1)
        predicted, _, _ = self.model.network(
            torch.from_numpy(np.stack(self._seen))[None],
            torch.from_numpy(np.stack(done))[None],
            wanted[None, :, 0],
            wanted[None, :, 1],
            times[None],
            None,
            torch.tensor([self.limit], dtype=torch.float32),
        )
        self._step += 1
        value = predicted.mean[0, -1].clamp(-1, 1).numpy().astype(np.float64) * self.model.reach
        return Action(value, {"target_return": self._return, "target_cost": self._cost})

    def outcome(self, action: np.ndarray, reward: float, cost: float) -> None:
        """Take what the step came to off the targets, and remember what was executed."""
        self._return -= reward
        self._cost -= cost
        executed = (np.asarray(action, dtype=np.float32) / self.model.reach).clip(-1, 1)
        self._done = [*self._done, executed.astype(np.float32)][-SEQUENCE:]
