"""Learned rewards for the agent: a folder becomes a preference of its planner, or an error that says why not.

A reward says what is preferred among plans. Constraints, filter and limits do not ask it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffdecide.preference import Preference

if TYPE_CHECKING:
    from diffdecide.planner import Planner
    from reward_models.model import RewardModel
    from reward_models.relative import RelativeReward
    from safety.layout import EnvSpec


@dataclass(frozen=True, kw_only=True)
class RewardChoice:
    """Which learned reward a planner prefers by, and how strongly; picklable.

    Attributes:
        folder: of a `RewardModel` or a `RelativeReward`.
        weight, guidance: see `diffdecide.preference.Preference`.
    """

    folder: str
    weight: float = 0.1
    guidance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("weight", "guidance"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"the reward's {name} must be finite and >= 0, got {value}")
        if self.weight == self.guidance == 0:
            raise ValueError("a reward with weight 0 and guidance 0 changes nothing: leave it out")

    def load(self) -> LoadedReward:
        """Read it.

        Raises:
            ValueError: the folder holds no reward, or a damaged one.
        """
        return LoadedReward(self, load_reward(self.folder))


@dataclass(frozen=True)
class LoadedReward:
    """A reward that is not yet tied to an environment."""

    choice: RewardChoice
    reward: RewardModel | RelativeReward

    def preference(self, spec: EnvSpec, planner: Planner) -> Preference:
        """The reward as a preference of `planner` in the environment `spec`.

        Raises:
            ValueError: the reward was learned for another environment, or for plans of another kind.
        """
        from reward_models.guide import LearnedPlanScore, RelativePlanScore
        from reward_models.model import RewardModel

        strength = {"weight": self.choice.weight, "guidance": self.choice.guidance}
        try:
            if isinstance(self.reward, RewardModel):
                if self.reward.config.prompt_dim:
                    raise ValueError("this reward model wants a prompt; only the Python interface can give it one")
                return Preference(score=LearnedPlanScore(self.reward, spec), **strength)
            score = RelativePlanScore(self.reward, spec, planner.dynamics)
            if score.rows != planner.config.rows:
                raise ValueError(f"this relative reward judges {score.rows}, the planner makes {planner.config.rows}")
        except ValueError as error:
            raise ValueError(f"{self.choice.folder}: {error}") from None
        return Preference(score=score, **strength)


def load_reward(folder: str | Path) -> RewardModel | RelativeReward:
    """The reward model or relative reward in `folder`.

    Raises:
        ValueError: neither, or a damaged one.
    """
    from reward_models.model import RewardModel
    from reward_models.relative import RelativeReward

    if (Path(folder) / "relative.json").is_file():
        return RelativeReward.from_pretrained(folder)
    return RewardModel.from_pretrained(folder)
