"""What a planner and a cloned policy remember of their training, whatever network is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from diffdecide.features import FeatureConfig
from diffdecide.plan import PlanRows


@dataclass(frozen=True, kw_only=True)
class PlanFormat:
    """What goes into a plan and what comes out; the part of a config that belongs to the trained model.

    Attributes:
        agent: "point" or "car".
        environments: ids that the model was trained on.
        goal_space: fingerprint of the goal embeddings.
        rows: how a plan's rows cover its horizon.
        features: how scenes become tokens.
        replan: control steps between plans.
    """

    agent: str
    environments: tuple[str, ...]
    goal_space: str
    rows: PlanRows = field(default_factory=PlanRows)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    replan: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.replan <= self.rows.span:
            raise ValueError(
                f"{type(self).__name__}.replan must lie within the plan's {self.rows.span} steps: {self.replan=}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The config that `to_dict` wrote; KeyError or TypeError for what is missing or unknown."""
        value = dict(value)
        value["rows"] = PlanRows(**value["rows"])
        value["features"] = FeatureConfig(**value["features"])
        value["environments"] = tuple(value["environments"])
        return cls(**value)
