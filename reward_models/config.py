"""What a reward model is made of and how it is told what is preferred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from safety.layout import EnvSpec

NETWORKS = ("linear", "mlp", "transformer", "lora")
TIES = ("soft", "rao_kupper", "davidson")
LENGTHS = ("sum", "mean")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Settings of a `RewardModel`.

    Attributes:
        observation_dim, action_dim: o, a.
        env_id: environment whose observations these are; None where it is not known.
        rings: [start, stop) of each lidar ring in the observation, see `networks.StepInputs`.
        ignored: [start, stop) of observations that the network does not see.
        velocity: where the body-frame velocity starts in the observation (two values, m/s); None: there is none.
        reach: what a closing speed of 1 m/s changes in a ring's closeness within a step: dt / range.
        network: "linear", "mlp" (per step), "transformer" (over the segment, with a weighted sum: Kim et al. 2023,
            "Preference Transformer"), "lora" (a pretrained transformer with adapters, Hu et al. 2021).
        hidden, depth: width and hidden layers (blocks of the transformer).
        heads: attention heads of the transformer.
        longest: steps that a transformer can take.
        members: networks in the ensemble.
        cost_head: predict each step's cost as well; needs cost_1 and cost_2.
        cost_weight: weight of the cost loss.
        prompt_dim: P, length of the embedding that a reward is conditioned on; 0 for none.
        prompt_encoder: the language model that makes this embedding from a text, see `prompts.PromptEncoder`; None
            where the caller brings embeddings.
        length: a segment's score is the "sum" or the "mean" of its steps.
        ties: what a label of 0.5 means: "soft" (cross-entropy of Bradley-Terry), "rao_kupper" (Rao and Kupper 1967)
            or "davidson" (Davidson 1970), both with a learned width of the tie.
        smoothing: labels are drawn to 1/2 by this share (Szegedy et al. 2016).
        sparsity: weight of the sum of absolute weights in the loss, for "linear" (Tibshirani 1996); 0 for none.
        noise_floor: share of answers taken for coin flips: p = (1 - floor) sigma + floor / 2 (as in B-Pref and PEBBLE).
        bootstrap: every member weighs the comparisons by its own Poisson(1) draws (Oza and Russell 2001).
        pessimism: k in mean - k std over the members.
        lora: options of `LoraSettings` and "backbone", for "lora".
    """

    observation_dim: int
    action_dim: int
    env_id: str | None = None
    rings: tuple[tuple[int, int], ...] = ()
    ignored: tuple[tuple[int, int], ...] = ()
    velocity: int | None = None
    reach: float = 0.0
    network: str = "mlp"
    hidden: int = 128
    depth: int = 2
    heads: int = 4
    longest: int = 256
    members: int = 3
    cost_head: bool = False
    cost_weight: float = 1.0
    prompt_dim: int = 0
    prompt_encoder: str | None = None
    length: str = "sum"
    ties: str = "soft"
    sparsity: float = 0.0
    smoothing: float = 0.0
    noise_floor: float = 0.0
    bootstrap: bool = True
    pessimism: float = 0.0
    lora: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("observation_dim", "action_dim", "hidden", "depth", "heads", "longest", "members"):
            if getattr(self, name) < 1:
                raise ValueError(f"RewardConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name, known in (("network", NETWORKS), ("ties", TIES), ("length", LENGTHS)):
            if getattr(self, name) not in known:
                raise ValueError(f"RewardConfig.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("smoothing", "noise_floor"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"RewardConfig.{name} must lie in [0, 1), got {getattr(self, name)}")
        for name in ("prompt_dim", "cost_weight", "pessimism", "sparsity"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"RewardConfig.{name} must not be negative, got {getattr(self, name)}")
        if self.prompt_dim and self.network == "linear":
            # Both segments of a comparison answer one prompt, and what is added to both decides nothing.
            raise ValueError("RewardConfig: a linear reward cannot depend on a prompt, take network='mlp'")
        if self.prompt_encoder is not None and not self.prompt_dim:
            raise ValueError(f"RewardConfig.prompt_encoder needs prompt_dim, got {self.prompt_dim=}")
        if self.network == "transformer" and self.hidden % self.heads:
            raise ValueError(f"RewardConfig.hidden must be a multiple of heads, got {self.hidden=} and {self.heads=}")
        for name in ("rings", "ignored"):
            spans = tuple((int(start), int(stop)) for start, stop in getattr(self, name))
            for start, stop in spans:
                if not 0 <= start < stop <= self.observation_dim:
                    raise ValueError(
                        f"RewardConfig.{name}: [{start}, {stop}) is no part of [0, {self.observation_dim})"
                    )
            object.__setattr__(self, name, spans)
        if self.velocity is not None and not 0 <= self.velocity <= self.observation_dim - 2:
            raise ValueError(f"RewardConfig.velocity is no place in the observation: {self.velocity=}")
        object.__setattr__(self, "lora", dict(self.lora))

    @classmethod
    def for_spec(cls, spec: EnvSpec, **options: Any) -> RewardConfig:
        """Settings for an environment: what its layout says about rings and velocimeter.

        Accelerometer and magnetometer are ignored: contact forces cannot be foreseen along a plan, and the absolute
        heading must not matter.
        """
        values: dict[str, Any] = {
            "observation_dim": spec.observation_dim,
            "action_dim": spec.action_dim,
            "env_id": spec.id,
        }
        layout = spec.layout
        if layout is not None and spec.lidar_max_dist is not None:
            values["rings"] = tuple(layout.entries[name] for name in layout.lidars)
            values["ignored"] = tuple(layout.entries[n] for n in ("accelerometer", "magnetometer") if n in layout)
            if "velocimeter" in layout:
                values |= {"velocity": layout["velocimeter"].start, "reach": spec.dt / spec.lidar_max_dist}
        return cls(**(values | options))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RewardConfig:
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"RewardConfig: unknown settings {unknown}")
        return cls(**values)

    def replaced(self, **changes: Any) -> RewardConfig:
        return replace(self, **changes)
