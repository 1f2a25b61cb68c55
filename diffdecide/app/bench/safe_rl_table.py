"""The safe-RL benchmark in one table: every environment and limit, what is safe and what it earns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffdecide.app.bench.safe_rl_methods import METHODS
from diffdecide.app.bench.safe_rl_report import told_episodes
from diffdecide.app.results import markdown_table
from diffdecide.files import read_json


def is_safe_rl(folder: Path) -> bool:
    """Whether `folder` was written by `diffdecide bench safe-rl`."""
    return (folder / "safe_rl.json").is_file()


def safe_rl_table(folder: Path) -> str:
    """One row per environment, limit and method that was run; what was not is named below.

    Raises:
        ValueError: nothing has been reported in the folder yet.
    """
    rows: list[list[Any]] = []
    missing: dict[str, list[str]] = {}
    commits: set[str] = set()
    for file in sorted(folder.glob("*/results.json")):
        record, env = read_json(file), file.parent.name
        for limit in (f"{value:g}" for value in record["limits"]):
            for name, limits in record["results"].items():
                figures = limits.get(limit, {"not_run": ""})
                if "not_run" in figures:
                    reason = f" ({figures['not_run']})" if figures["not_run"] else ""
                    missing.setdefault(f"{env}, limit {limit}", []).append(METHODS[name].title.strip("*") + reason)
                else:
                    commits.update(figures.get("commits", ()))
                    rows.append([env, limit, METHODS[name].title, *_cells(figures)])
    if not rows:
        raise ValueError(f"{folder}: no results of the safe-RL benchmark yet")
    titles = ["task", "limit", "method", "R̂", "Ĉ", "CVaR₀.₁ / limit", "max cost", "P(cost ≤ limit)", "episodes"]
    text = markdown_table(titles, rows)
    if missing:
        text += "\nNot run:\n" + "".join(f"- {place}: {', '.join(names)}\n" for place, names in missing.items())
    return text + f"\nBrackets: 95 % bootstrap. Commit {', '.join(sorted(commits))}.\n"


def _cells(figures: Mapping[str, Any]) -> list[Any]:
    score, cost, limit_share = figures["normalised_return"], figures["cost"], figures["normalised_cost"]
    scale = limit_share / cost["mean"] if cost["mean"] else 0.0
    return [
        f"return {figures['return']['mean']:.3g}" if score is None else f"{score:.2f}",
        f"{limit_share:.2f} [{scale * (cost['low'] or 0):.2f}, {scale * (cost['high'] or 0):.2f}]",
        f"{figures['normalised_cvar']:.2f}",
        f"{figures['max_cost']:g}",
        f"{100 * figures['within_limit']['mean']:.0f} %",
        told_episodes(figures),
    ]
