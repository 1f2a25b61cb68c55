"""Planners against each other: the return they reach and the time they take, everything but their folders equal.

Networks are compared so, and settings: copies of one planner whose planner.json differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffdecide.app.facts import FILE as FACTS
from diffdecide.app.facts import read_facts
from diffdecide.app.results import markdown_table
from diffdecide.files import read_json, write_json, write_text
from diffdecide.intervals import Interval
from diffdecide.records import provenance

FILE = "denoisers.json"


@dataclass(frozen=True, kw_only=True)
class DenoisersConfig:
    """Which planners (name to folder), and on what they are compared."""

    planners: Mapping[str, str]
    env: str = "SafetyPointGoal1-v0"
    episodes: int = 10
    seed: int = 5000
    workers: int = 1
    max_steps: int | None = None

    def __post_init__(self) -> None:
        if not self.planners:
            raise ValueError("expected at least one planner, got none")
        for name, least in (("episodes", 1), ("seed", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def compare_denoisers(config: DenoisersConfig, out: Path) -> str:
    """Evaluate every planner into `out/<name>.json`, time it, and write `denoisers.json` and `table.md`."""
    from diffdecide.app.agent_policy import load_planner
    from diffdecide.app.bench.latency import LatencyConfig, measure_latency
    from diffdecide.app.bench.rows import Row, RowsConfig, run_row
    from diffdecide.planner import Planner

    rows: dict[str, Any] = {}
    for name, folder in config.planners.items():
        planner = load_planner(folder)
        if not isinstance(planner, Planner):
            raise ValueError(f"{name}={folder} is a cloned policy: it has no denoiser")
        shared = RowsConfig(
            env=config.env,
            planner=folder,
            episodes=config.episodes,
            seed=config.seed,
            workers=config.workers,
            max_steps=config.max_steps,
        )
        result = run_row(Row(name=name, title=name), shared, out)
        timing = LatencyConfig(env=config.env, planner=folder, episodes=1, seed=config.seed, max_steps=200)
        latency = measure_latency(timing)
        rows[name] = {
            "denoiser": planner.model.config["denoiser"],
            "parameters": sum(p.numel() for p in planner.model.parameters()),
            "denoiser_parameters": sum(p.numel() for p in planner.model.network.parameters()),
            "return": _dict(result.interval("return")),
            "cost": _dict(result.interval("cost")),
            "stuck": _dict(result.interval("stuck")),
            "plan_ms": latency["plan_ms"],
            "network_ms": latency["parts"]["network calls"]["ms_per_plan"],
            "episodes": len(result.episodes),
            "training_steps": _training_steps(Path(folder)),
        }
        write_json(out / FILE, {"rows": rows, "env": config.env, "seed": config.seed, "meta": provenance()})
    return write_table(out)


def write_table(folder: Path) -> str:
    """Write `folder/table.md` from `folder/denoisers.json`, and return it."""
    content = read_json(folder / FILE)
    titles = [
        "",
        "parameters",
        "training steps",
        "return",
        "cost",
        "stuck",
        "plan, ms (median)",
        "p95",
        "network calls, ms a plan",
    ]
    lines = []
    for name, row in content["rows"].items():
        cells = [name, f"{row['parameters'] / 1e6:.2f} M", row.get("training_steps")]
        cells += [None if row[k] is None else str(_interval(row[k])) for k in ("return", "cost", "stuck")]
        cells += [f"{row['plan_ms']['median']:.1f}", f"{row['plan_ms']['p95']:.1f}", f"{row['network_ms']:.1f}"]
        lines.append(cells)
    text = f"`{content['env']}`, seeds from {content['seed']}, one thread.\n\n" + markdown_table(titles, lines)
    write_text(folder / "table.md", text)
    return text


def _training_steps(folder: Path) -> int | None:
    """What the model's facts say; None where they are missing."""
    return int(read_facts(folder)["train"]["steps"]) if (folder / FACTS).is_file() else None


def _dict(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else interval.to_dict()


def _interval(value: Mapping[str, Any]) -> Interval:
    low, high = (float("nan") if value[name] is None else float(value[name]) for name in ("low", "high"))
    return Interval(value["mean"], low, high, value["count"])
