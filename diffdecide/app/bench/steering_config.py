"""The settings of `diffdecide bench steering`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SteeringConfig:
    """What is learned, how strongly it steers, and on how many episodes that is measured."""

    env: str = "SafetyPointGoal1-v0"
    planner: str = "default"
    """"default" (the embedded planner of the environment) or a folder with one."""
    episodes: int = 20
    seed: int = 10_000
    """Of the first episode; 5000-9999 for selection, with another OUT."""
    max_steps: int | None = None
    """End episodes earlier than the environment does."""
    pairs: int = 4000
    """Comparisons that a reward is learned from."""
    reward_steps: int = 1000
    weight: float = 0.3
    """Strength of true and learned scores."""
    weights: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    """Strengths of the over-optimisation curve."""
    curve_episodes: int = 8
    cautious_margin: float = 0.25
    """Metres that the cautious behaviour policy keeps from hazards."""
    relabelled: int = 20
    """Episodes of the cautious planner's own driving, relabelled by that policy."""
    collected: int = 30
    """Episodes of the cautious and of the reckless behaviour policy."""
    tune_steps: int = 2000
    """Training steps of the cautious and the reckless planner, from the given one."""
    relative_steps: int = 8000
    relative_guidance: float = 3.0
    """1 moves the reckless planner's plans onto the cautious one's, more exaggerates."""
    relative_weight: float = 0.0
    """Of ranking by the relative reward beside guiding by it."""
    relative_candidates: int = 2
    dpo_pairs: int = 2000
    dpo_steps: int = 300
    dpo_beta: float = 200.0
    batch_size: int = 128
    """Of the trainings."""

    def __post_init__(self) -> None:
        counts = (
            "episodes",
            "pairs",
            "reward_steps",
            "curve_episodes",
            "collected",
            "relabelled",
            "tune_steps",
            "dpo_steps",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for value in (self.weight, *self.weights):
            if not 0 < value < float("inf"):
                raise ValueError(f"weights must be positive and finite, got {value}")
