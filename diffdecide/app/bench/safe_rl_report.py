"""Table, figures and data statistics of the safe-RL benchmark, made from the finished cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffdecide.app.bench.ours import is_embedded
from diffdecide.app.bench.safe_rl import SafeRLConfig, cells, why_not
from diffdecide.app.bench.safe_rl_methods import METHODS, Cell
from diffdecide.app.embedded import PLANNERS
from diffdecide.app.plots import plot_cost_distribution, plot_return_against_cost
from diffdecide.app.results import markdown_table
from diffdecide.files import read_json, write_json, write_text
from diffdecide.intervals import bootstrap_mean
from diffdecide.records import EvaluationResult, provenance
from safety.costs import COST_LIMITS, SCORE_RANGES, cvar, normalised_score, score_range

# Normalised return and cost at limit 10 as published in FISOR (Zheng et al., 2024), for orientation: other data sets,
# other physics, means over their seeds.
PUBLISHED: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "SafetyCarGoal1-v0": {
        "BC": (0.35, 1.54), "CDT": (0.60, 3.15), "TREBI": (0.41, 1.16), "FISOR": (0.49, 0.83),
    },
    "SafetyCarButton1-v0": {"FISOR": (-0.02, 0.26)},
    "SafetyCarPush1-v0": {"FISOR": (0.28, 0.28)},
}  # fmt: skip

# Raw return and cost of online learning in OmniSafe's table (J. Ji et al., 2023), 1e7 environment steps, no data set.
ONLINE: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "SafetyPointGoal1-v0": {"PPO": (25.4, 55.7), "TRPO-PID": (19.2, 21.4), "PPO-Lag": (13.0, 25.8)},
}


def bootstrap_tail(costs: np.ndarray, *, share: float = 0.1, resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """CVaR of the costs [N] with a 95 % percentile interval."""
    generator = np.random.default_rng(seed)
    draws = costs[generator.integers(len(costs), size=(resamples, len(costs)))]
    low, high = np.quantile(cvar(draws, share), [0.025, 0.975])
    return {"mean": float(cvar(costs, share)), "low": float(low), "high": float(high)}


def summarise(config: SafeRLConfig, out: Path) -> dict[str, Any]:
    """Figures of every environment, method and limit, pooled over training seeds; None for what was not run."""
    pooled: dict[str, dict[str, dict[str, Any]]] = {}
    by_key: dict[tuple[str, str, float | None], list[Cell]] = {}
    for cell in cells(config):
        by_key.setdefault((cell.env, cell.method, cell.limit), []).append(cell)
    for (env, name, limit), group in by_key.items():
        rows, seeds = [], []
        commits: set[str] = set()
        for cell in group:
            if cell.file(out).exists():
                result = EvaluationResult.load(cell.file(out))
                rows += list(result.episodes)
                seeds.append(cell.training_seed)
                commits.update(commit[:9] for commit in result.commits)
        for wanted in config.limits if limit is None else (limit,):
            entry = pooled.setdefault(env, {}).setdefault(name, {})
            why = [reason for cell in group if (reason := why_not(cell, out)) is not None]
            if not rows:
                entry[f"{wanted:g}"] = {"not_run": (why or [""])[0]}
                continue
            missing = config.episodes * len(group) - len(rows)
            figures = _figures(env, rows, wanted, seeds) | {"commits": sorted(commits)}
            figures["incomplete"] = (
                f"{missing} episodes missing" + (f": {why[0]}" if why else "") if missing > 0 else ""
            )
            entry[f"{wanted:g}"] = figures
    return pooled


def _figures(env: str, rows: Sequence[Any], limit: float, seeds: Sequence[int | None]) -> dict[str, Any]:
    costs = np.array([row.cost for row in rows])
    returns = np.array([row.return_ for row in rows])
    tail = bootstrap_tail(costs)
    figures = {
        "episodes": len(rows),
        "training_seeds": [seed for seed in seeds if seed is not None],
        "return": bootstrap_mean(returns).to_dict(),
        "cost": bootstrap_mean(costs).to_dict(),
        "cvar_0.1": tail,
        "max_cost": float(costs.max()),
        "within_limit": bootstrap_mean((costs <= limit).astype(float)).to_dict(),
        "normalised_cost": float(costs.mean() / limit),
        "normalised_cvar": tail["mean"] / limit,
        "safe": bool(costs.mean() <= limit),
        "normalised_return": None,
    }
    try:
        score_range(env)
        figures["normalised_return"] = float(np.mean(normalised_score(env, returns)))
    except ValueError:
        pass  # no published range: the raw return stands alone
    return figures


def write_report(config: SafeRLConfig, out: Path) -> str:
    """`ENV/results.json`, `ENV/table.md` and the figures of every environment of `config`, and `table.md` of all that
    were ever reported in `out`; the latter."""
    for env, methods in summarise(config, out).items():
        facts = {"settings": config.shared(), "limits": list(config.limits), "provenance": provenance()}
        write_json(out / env / "results.json", facts | {"results": methods})
        parts = [f"### {env}, cost limit {limit:g}\n\n{_table(env, methods, f'{limit:g}')}" for limit in config.limits]
        parts += [_average(env, methods, config), _training(env, config, out), _published(env)]
        if env in config.data:
            parts.append(f"Data of {env}:\n\n" + data_table({env: config.data[env]}))
        write_text(out / env / "table.md", "\n".join(part for part in parts if part))
        _draw(env, methods, config, out)
    head = (
        f"Training {config.seconds / 60:g} minutes per method and seed on one core; a method with a model per limit "
        "divides them. Scores as in DSRL; CVaR is the mean of the worst 10 % of the episodes; brackets are 95 % "
        "bootstrap intervals.\n\n"
    )
    text = head + "\n".join(file.read_text(encoding="utf-8") for file in sorted(out.glob("*/table.md")))
    write_text(out / "table.md", text)
    return text


def _table(env: str, methods: Mapping[str, Any], limit: str) -> str:
    titles = ["method", "episodes", "R̂", "return", "Ĉ", "cost", "CVaR₀.₁", "max", "P(cost ≤ limit)"]
    rows: list[list[Any]] = []
    for name, limits in methods.items():
        figures = limits.get(limit)
        if figures is None or "not_run" in figures:
            reason = "" if figures is None else figures["not_run"]
            rows.append(
                [METHODS[name].title, f"not run: {reason}" if reason else "not run", *[None] * (len(titles) - 2)]
            )
            continue
        score = figures["normalised_return"]
        rows.append(
            [
                METHODS[name].title,
                told_episodes(figures),
                None if score is None else f"{score:.2f}",
                _interval(figures["return"]),
                f"{figures['normalised_cost']:.2f}",
                _interval(figures["cost"]),
                _interval(figures["cvar_0.1"]),
                f"{figures['max_cost']:g}",
                _interval(figures["within_limit"]),
            ]
        )
    return markdown_table(titles, rows)


def told_episodes(figures: Mapping[str, Any]) -> str:
    """How many episodes figures rest on, and what is missing."""
    missing = figures.get("incomplete")
    return f"{figures['episodes']} ({missing})" if missing else str(figures["episodes"])


def _interval(value: Mapping[str, Any]) -> str:
    low, high = value.get("low"), value.get("high")
    if low is None or high is None or not np.isfinite([low, high]).all():
        return f"{value['mean']:.3g}"
    return f"{value['mean']:.3g} [{low:.3g}, {high:.3g}]"


def _average(env: str, methods: Mapping[str, Any], config: SafeRLConfig) -> str:
    """DSRL's own figure: normalised return and cost averaged over its three limits; empty where one was not asked."""
    if not set(COST_LIMITS) <= set(config.limits):
        return ""
    rows: list[list[Any]] = []
    for name, limits in methods.items():
        found = [limits.get(f"{limit:g}", {"not_run": ""}) for limit in COST_LIMITS]
        if any("not_run" in figures for figures in found):
            continue
        scores = [figures["normalised_return"] for figures in found]
        score = None if None in scores else f"{np.mean(scores):.2f}"
        rows.append([METHODS[name].title, score, f"{np.mean([f['normalised_cost'] for f in found]):.2f}"])
    if not rows:
        return ""
    limits_told = ", ".join(f"{limit:g}" for limit in COST_LIMITS)
    return f"{env}, mean over the limits {limits_told}:\n\n" + markdown_table(["method", "R̂", "Ĉ"], rows)


def _training(env: str, config: SafeRLConfig, out: Path) -> str:
    """What was trained, for how long and how many steps."""
    files = {cell.model: out / env / "models" / cell.model / "training.json" for cell in cells(config) if cell.model}
    files |= {file.parent.name: file for file in sorted((out / env / "models").glob("filter_*/training.json"))}
    rows: list[list[Any]] = []
    for name, file in files.items():
        if file.exists() and file.parent.parent.parent.name == env:
            facts = read_json(file)
            rows.append([name, facts["steps"], f"{facts['seconds']:.0f}", facts.get("episodes")])
    told = ""
    if is_embedded(env) and any(METHODS[name].base == "ours" for name in config.methods):
        told = (
            "`ours` and its ablations are an embedded planner, trained beforehand and longer than the budget (its "
            "model card says how). "
        )
        told += (
            "`ours-budget` is the same planner trained like the others.\n\n"
            if env in PLANNERS
            else "It was not trained for this task: it is told the task as one of driving. `ours-budget` is a sequence "
            "planner, trained like the others.\n\n"
        )
    if not rows:
        return told
    return told + f"Training in {env}:\n\n" + markdown_table(["model", "steps", "seconds", "episodes"], rows)


def _published(env: str) -> str:
    parts = []
    for title, table, names in (
        ("Published at limit 10 (FISOR), other data", PUBLISHED, ["method", "R̂", "Ĉ"]),
        ("Published, learned online in 1e7 steps (OmniSafe)", ONLINE, ["method", "return", "cost"]),
    ):
        rows = [[name, f"{first:g}", f"{second:g}"] for name, (first, second) in table.get(env, {}).items()]
        if rows:
            parts.append(f"{title}:\n\n" + markdown_table(names, rows))
    return "\n".join(parts)


def _draw(env: str, methods: Mapping[str, Any], config: SafeRLConfig, out: Path) -> None:
    limit = f"{min(config.limits):g}"
    done = {
        name: limits[limit] for name, limits in methods.items() if limit in limits and "not_run" not in limits[limit]
    }
    if not done:
        return
    points = [{"name": name, "return": f["return"], "cost": f["cost"]} for name, f in done.items()]
    plot_return_against_cost(points, out / env / "return_cost.png", limit=float(limit))
    costs: dict[str, list[float]] = {}
    for cell in cells(config):
        if cell.env == env and cell.method in done and cell.limit in (None, float(limit)) and cell.file(out).exists():
            costs.setdefault(cell.method, []).extend(EvaluationResult.load(cell.file(out)).column("cost").tolist())
    plot_cost_distribution(costs, out / env / "cost_distribution.png")


def data_table(files: Mapping[str, str]) -> str:
    """Quantiles of return and cost of data files, as a Markdown table.

    Raises:
        ValueError: (DataError) a file that cannot be read, or has no costs.
    """
    from diffdecide.data.readers import read

    levels = (0.0, 0.1, 0.5, 0.9, 1.0)
    rows: list[list[Any]] = []
    for env, file in files.items():
        episodes = list(read(file))
        row: list[Any] = [env, len(episodes)]
        for values in ([e.total_return for e in episodes], [e.total_cost for e in episodes]):
            row.append(" / ".join(f"{value:.3g}" for value in np.quantile(values, levels)))
        row.append("yes" if any(task in env for task in SCORE_RANGES) else "no")
        rows.append(row)
    names = "min / 10 % / median / 90 % / max"
    return markdown_table(["data", "episodes", f"return: {names}", f"cost: {names}", "published score range"], rows)
