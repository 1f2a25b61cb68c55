"""The settings of the receding-horizon planner."""

from __future__ import annotations

from dataclasses import dataclass

from diffdecide.plan_format import PlanFormat
from safety.caution import PLAN_EXTRA


@dataclass(frozen=True, kw_only=True)
class PlannerConfig(PlanFormat):
    """How plans are made. What `PlanFormat` holds belongs to the trained model, the rest may be changed at will."""

    candidates: int = 24
    warm_share: float = 0.25  # share of the candidates that start from the previous plan
    warm_strength: float = 1 / 3  # how far up the schedule the previous plan is noised
    steps: int = 5
    scheduler: str = "ddim"
    temperature: float = 1.0
    guidance_scale: float = 1.0  # classifier-free guidance on goal, return and budget
    clearance_guidance: float = 0.0  # scale of the gradient guide away from obstacles
    return_target: float | None = 1.0  # normalised return asked for; None: unconditional
    budget: float | None = -0.5  # normalised cost budget asked for; None: unconditional
    project: bool = True
    projection_iterations: int = 2
    margin_extra: float = PLAN_EXTRA  # m beyond the filter's margin
    stopped_cost: float = 0.0  # added to plans inside the filter's margin: it would stop them, wherever they lead
    escapes: bool = False  # rank constant commands too: the way out of a corner that the data do not show
    value_weight: float = 0.0  # what the critic's favour is worth beside the plan cost, see `Preference.weight`
    cost_price: float = 1.0  # return that the critic gives up for one unit of expected cost
    task_weight: float = 1.0  # of the way to the target in the plan cost; 0 leaves the choice to the preferences
    clearance_weight: float = 1.0  # of coming too close; 0 only to measure what other parts of the planner do
    proposal: str = "diffusion"  # or "gaussian": the same ranking without a model, for comparison

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("candidates", 1), ("steps", 1), ("projection_iterations", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"PlannerConfig.{name} must be at least {low}, got {getattr(self, name)}")
        if not 0 <= self.warm_share <= 1:
            raise ValueError(f"PlannerConfig.warm_share must lie in [0, 1], got {self.warm_share}")
        for name in ("value_weight", "cost_price", "task_weight", "clearance_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"PlannerConfig.{name} must be finite and >= 0, got {getattr(self, name)}")
        if self.margin_extra < 0:
            raise ValueError(f"PlannerConfig.margin_extra must be >= 0 m, got {self.margin_extra}")
        if self.proposal not in ("diffusion", "gaussian"):
            raise ValueError(f"PlannerConfig.proposal must be 'diffusion' or 'gaussian', got {self.proposal!r}")
