"""From a training run to an embedded model: settings, half precision, facts and card."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from diffdecide.app.facts import CRITIC_FILE as CRITIC_FACTS
from diffdecide.app.facts import FILE as FACTS
from diffdecide.app.facts import read_facts
from diffdecide.app.model_cards import load_results, model_card
from diffdecide.app.recipe import Model
from diffdecide.files import read_json, write_text

_BRIDGE_FILES = ("bridge.safetensors", "config.json", "figures.json", "README.md")
_CONFIGS = {"planner": "planner.json", "cloning": "cloning.json"}


def publish(model: Model, run: Path, target: Path, benchmarks: Path) -> None:
    """Put the model of the training run `run` into `target`, replacing what is there only once all is written.

    Raises:
        ValueError: `run` holds no such model, or a setting is unknown.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        if model.kind == "bridge":
            missing = [name for name in _BRIDGE_FILES if not (run / name).is_file()]
            if missing:
                raise ValueError(f"{run} holds no finished bridge: there is no {', '.join(missing)}")
            for name in _BRIDGE_FILES:
                shutil.copy(run / name, staging / name)
        else:
            _save(model, run, staging)
            if (run / FACTS).is_file():
                shutil.copy(run / FACTS, staging / FACTS)
            write_card(model, staging, benchmarks)
        staging.chmod(0o755)
        for path in staging.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors makes files that only the owner reads
        shutil.rmtree(target, ignore_errors=True)
        staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_card(model: Model, folder: Path, benchmarks: Path) -> None:
    """Write `folder/README.md` from the model's settings, its facts and the results in `benchmarks`."""
    config: dict[str, Any] = read_json(folder / _CONFIGS[model.kind])
    facts = read_facts(folder) if (folder / FACTS).is_file() else None
    critic = read_json(folder / CRITIC_FACTS) if (folder / CRITIC_FACTS).is_file() else None
    results = load_results(benchmarks, model.environments)
    write_text(folder / "README.md", model_card(model, config=config, facts=facts, results=results, critic=critic))


def _save(model: Model, run: Path, folder: Path) -> None:
    """Half precision: plans of both differ by less than the noise they are drawn from."""
    if model.kind == "cloning":
        from diffdecide.cloning import CloningPlanner

        cloned = CloningPlanner.from_pretrained(run)
        cloned.model.half()
        cloned.save_pretrained(folder)
        return
    from diffdecide.planner import Planner

    planner = Planner.from_pretrained(run, **model.settings)
    planner.model.half()
    if planner.critic is not None:
        planner.critic.half()
        shutil.copy(run / CRITIC_FACTS, folder / CRITIC_FACTS)
    planner.save_pretrained(folder)
