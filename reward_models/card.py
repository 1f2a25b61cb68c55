"""Model cards of reward models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reward_models.config import RewardConfig
from reward_models.model import RewardModel


def model_card(model: RewardModel, figures: Mapping[str, float], *, seconds: float, extra: Mapping[str, Any]) -> str:
    """The README.md of a trained reward model."""
    config, meta = model.config, model.meta
    settings = meta["settings"]
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in figures.items())
    more = "".join(f"- {name}: {value}\n" for name, value in extra.items())
    return f"""# Reward model

Learned from comparisons of segments (Bradley-Terry, ties: {config.ties}). It says what is preferred, never what is
allowed: constraints, filter and cost limits stay in force beside it.

- environment: {config.env_id or "not recorded"}
- network: {config.network}, {config.members} member(s), hidden {config.hidden}, depth {config.depth}
- heads: reward{" and cost" if config.cost_head else ""}; prompt embedding: {_prompt(config)}
- data: {meta["comparisons"]} comparisons, {meta["held_out"]} held out; SHA-256 {meta["data"]}
- training: {settings["steps"]} steps of {settings["batch_size"]}, seed {settings["seed"]}, best at {meta["best_step"]}
- time: {seconds / 60:.1f} minutes
{more}
| held out | |
|---|---|
{rows}
"""


def _prompt(config: RewardConfig) -> str:
    if not config.prompt_dim:
        return "none"
    return f"{config.prompt_dim} numbers from {config.prompt_encoder or 'a model that is not recorded'}"
