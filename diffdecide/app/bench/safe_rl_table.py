"""The safe-RL benchmark in one table: every environment and limit, what is safe and what it earns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffdecide.app.bench.safe_rl_methods import METHODS
from diffdecide.app.bench.safe_rl_report import told_episodes
from diffdecide.app.results import markdown_table
from diffdecide.files import read_json

_NO_PEERS = ("ours", "ours-budget", "mpc")


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
    for env, limit, methods in _reported(folder):
        for name, figures in methods.items():
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


def _reported(folder: Path) -> Iterator[tuple[str, str, dict[str, Mapping[str, Any]]]]:
    """Environment, limit and the figures of every method there, or why it was not run."""
    for file in sorted(folder.glob("*/results.json")):
        record = read_json(file)
        for limit in (f"{value:g}" for value in record["limits"]):
            at_limit = {name: limits.get(limit, {"not_run": ""}) for name, limits in record["results"].items()}
            yield file.parent.name, limit, at_limit


def safe_rl_summary(folder: Path) -> str:
    """One row per environment and limit: ours, the peer that earns most among those with a mean cost within the limit,
    and the ceiling. Peers are the methods that are neither ours nor the ceiling, with the filter and without.
    """
    rows: list[list[Any]] = []
    for env, limit, methods in _reported(folder):
        run = {name: figures for name, figures in methods.items() if "not_run" not in figures}
        if "ours" not in run:
            continue
        ours, ceiling = run["ours"], run.get("mpc")
        peers = [name for name in run if METHODS[name].base not in _NO_PEERS and run[name]["safe"]]
        best = max(peers, key=lambda name: run[name]["return"]["mean"], default=None)
        rows.append(
            [
                env,
                limit,
                _score(ours),
                f"{ours['normalised_cost']:.2f}",
                f"{ours['normalised_cvar']:.2f}",
                "none is safe" if best is None else f"{_score(run[best])} ({METHODS[best].title})",
                None if ceiling is None else _score(ceiling),
                _verdict(ours, None if best is None else run[best]),
            ]
        )
    titles = ["task", "limit", "ours: R̂", "Ĉ", "CVaR₀.₁ / limit", "best safe peer: R̂", "ceiling: R̂", "mark"]
    return markdown_table(titles, rows)


def _verdict(ours: Mapping[str, Any], best: Mapping[str, Any] | None) -> str:
    missed = [
        name
        for name, short in (
            ("mean cost", ours["normalised_cost"] > 1),
            ("tail", ours["normalised_cvar"] > 1),
            ("return", best is not None and ours["return"]["mean"] < best["return"]["mean"]),
        )
        if short
    ]
    return f"missed: {', '.join(missed)}" if missed else "met"


def _score(figures: Mapping[str, Any]) -> str:
    score = figures["normalised_return"]
    return f"return {figures['return']['mean']:.3g}" if score is None else f"{score:.2f}"


def _cells(figures: Mapping[str, Any]) -> list[Any]:
    cost, limit_share = figures["cost"], figures["normalised_cost"]
    scale = limit_share / cost["mean"] if cost["mean"] else 0.0
    return [
        _score(figures),
        f"{limit_share:.2f} [{scale * (cost['low'] or 0):.2f}, {scale * (cost['high'] or 0):.2f}]",
        f"{figures['normalised_cvar']:.2f}",
        f"{figures['max_cost']:g}",
        f"{100 * figures['within_limit']['mean']:.0f} %",
        told_episodes(figures),
    ]
