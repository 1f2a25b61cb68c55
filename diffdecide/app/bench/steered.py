"""Rollouts of a planner that is steered by a reward, judged by what the teacher thinks of what was really done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from diffdecide.app.agent import AgentConfig
from diffdecide.app.agent_policy import AgentPolicy, PolicyConfig
from diffdecide.app.alignment import Taste, taste_score
from diffdecide.app.rewards import RewardChoice
from diffdecide.intervals import bootstrap_mean, paired_difference
from diffdecide.preference import Preference
from diffdecide.rollout import Step, rollout
from safety import envs
from safety.dynamics import Dynamics, dynamics_for

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A planner and what it is steered by.

    Attributes:
        planner: folder.
        settings: overrides of `PlannerConfig`.
        filtered: whether the safety filter stands behind it.
        zero_embedding: the network is told no goal.
        reward: a learned reward.
        true: the teacher's own score in place of a learned one, at `weight` and `guidance`.
    """

    planner: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    filtered: bool = True
    zero_embedding: bool = False
    reward: RewardChoice | None = None
    true: Taste | None = None
    weight: float = 0.0
    guidance: float = 0.0

    def policy(self, env_id: str) -> AgentPolicy:
        rewards = () if self.reward is None else (self.reward,)
        operator = AgentConfig(filtered=self.filtered, zero_embedding=self.zero_embedding)
        policy = AgentPolicy(
            PolicyConfig(planner=self.planner, agent=operator, settings=self.settings, rewards=rewards)
        )
        if self.true is not None:
            score = taste_score(self.true, envs.spec(env_id))
            wish = Preference(score=score, weight=self.weight, guidance=self.guidance)
            policy.agent.planner.preferences = (wish,)
        return policy

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def unhurried_steps(actions: np.ndarray, dynamics: Dynamics) -> np.ndarray:
    """The teacher `unhurried` on executed actions [T, 2], per step [T]; in shares of the motors' range."""
    shares = np.asarray(dynamics.effective(np.asarray(actions, dtype=np.float64)))
    change = np.diff(shares, axis=0, prepend=shares[:1])
    return np.asarray(-np.square(shares).sum(1) - 0.5 * np.square(change).sum(1))


def play(
    variant: Variant,
    env_id: str,
    seeds: Sequence[int],
    *,
    max_steps: int | None,
    rows: Rows,
    save: Callable[[], None] = lambda: None,
) -> Rows:
    """Play the seeds that `rows` lacks and append them: seed, return, cost, unhurried (mean per step), interventions.

    Args:
        save: called after every episode.
    """
    known = {row["seed"] for row in rows}
    missing = [seed for seed in seeds if seed not in known]
    if missing:
        import torch

        torch.set_num_threads(1)
        spec, env, policy = envs.spec(env_id), envs.make(env_id), variant.policy(env_id)
        dynamics = dynamics_for(spec.agent)
        for seed in missing:
            actions: list[np.ndarray] = []

            def note(step: Step, actions: list[np.ndarray] = actions) -> None:
                actions.append(np.asarray(step.action.value))

            record = rollout(env, policy, seed, spec=spec, max_steps=max_steps, on_step=note)
            rows.append(
                {
                    "seed": seed,
                    "return": record.return_,
                    "cost": record.cost,
                    "unhurried": float(unhurried_steps(np.array(actions), dynamics).mean()),
                    "interventions": record.interventions,
                }
            )
            save()
        env.close()
    wanted = set(seeds)
    return [row for row in sorted(rows, key=lambda row: int(row["seed"])) if row["seed"] in wanted]


def column(rows: Rows, name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=np.float64)


def summary(rows: Rows) -> dict[str, Any]:
    """Means with intervals."""
    names = ("return", "cost", "unhurried", "interventions")
    return {name: bootstrap_mean(column(rows, name)).to_dict() for name in names}


def improvement(base: Rows, true: Rows, learned: Rows, name: str) -> dict[str, Any]:
    """What the true and the learned score improve column `name` by, paired by seed, and the share of the two means."""
    gains = [paired_difference(column(rows, name), column(base, name)) for rows in (true, learned)]
    return {
        "column": name,
        "true": gains[0].to_dict(),
        "learned": gains[1].to_dict(),
        "share": gains[1].mean / gains[0].mean if gains[0].mean > 0 else None,
        "cost": [float(column(rows, "cost").mean()) for rows in (base, true, learned)],
    }
