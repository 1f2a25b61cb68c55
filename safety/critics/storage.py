"""Reading a saved critic."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from safety.critics.base import CONFIG, FORMAT, WEIGHTS, Critic, CriticConfig
from safety.critics.expected import ExpectedCostCritic
from safety.critics.feasibility import FeasibilityCritic
from safety.critics.quantile import QuantileCostCritic

CRITICS: dict[str, type[Critic]] = {
    critic.kind: critic for critic in (ExpectedCostCritic, QuantileCostCritic, FeasibilityCritic)
}


def critic_class(kind: str) -> type[Critic]:
    """The critic called `kind`; ValueError naming the known ones."""
    if kind not in CRITICS:
        raise ValueError(f"critic must be one of {', '.join(CRITICS)}, got {kind!r}")
    return CRITICS[kind]


def load_critic(folder: str | os.PathLike[str]) -> Critic:
    """The critic saved in `folder`, in evaluation mode.

    Raises:
        ValueError: the folder holds none, or a file of it is damaged; the message names it.
    """
    config_file, weights_file = Path(folder) / CONFIG, Path(folder) / WEIGHTS
    try:
        saved = json.loads(config_file.read_text(encoding="utf-8"))
        if saved.get("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {saved.get('format')!r}")
        critic = critic_class(saved["kind"])(CriticConfig(**saved["config"]))
    except FileNotFoundError:
        raise ValueError(f"{os.fspath(folder)} holds no critic: expected a {CONFIG} in it") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{config_file} does not describe a critic: {error}") from None
    try:
        critic.load_state_dict(load_file(weights_file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{weights_file} is missing, damaged or of another critic: {error}") from None
    return critic.eval()
