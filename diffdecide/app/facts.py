"""What is known about a trained model: recorded by its training, read by its model card."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdecide.files import read_json, write_json
from diffdecide.records import provenance

if TYPE_CHECKING:
    from diffdecide.app.training import PlannerData
    from diffdecide.train import FitResult, TrainConfig

FILE = "facts.json"
CRITIC_FILE = "critic.json"


def training_facts(
    kind: str,
    *,
    data: PlannerData,
    files: Sequence[Path],
    train: TrainConfig,
    result: FitResult,
    parameters: int,
    model: Mapping[str, Any],
) -> dict[str, Any]:
    """The facts of one training run, as plain values for JSON; file names without their folders."""
    record = provenance()
    return {
        "kind": kind,
        "agent": data.agent,
        "environments": list(data.environments),
        "data": [path.name for path in files],
        "data_fingerprint": data.fingerprint,
        "episodes": data.episodes,
        "control_steps": data.steps,
        "windows": len(data.windows),
        "parameters": parameters,
        "model": dict(model),
        "train": train.stream() | {"batch_size": train.batch_size},
        "seed": train.seed,
        "minutes": result.seconds / 60,
        "resumed_from": result.resumed_from,  # the minutes are those since then
        "metrics": dict(result.metrics),
        "command": shlex.join(["diffdecide", *map(_short, sys.argv[1:])]),
        "commit": record["commit"],
        "machine": record["machine"],
        "versions": record["versions"],
    }


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `folder/facts.json`."""
    write_json(folder / FILE, dict(facts))


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts beside a model; ValueError where there are none."""
    facts = read_json(folder / FILE)
    if not isinstance(facts, dict) or "kind" not in facts:
        raise ValueError(f"{folder / FILE} holds no facts of a model")
    return facts


def _short(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() else word
