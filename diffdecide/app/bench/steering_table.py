"""The tables of `bench steering`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffdecide.intervals import Interval

TITLES = {
    "unhurried": "steered by “unhurried”",
    "goal": "steered by “goal-seeking”, told no goal otherwise",
    "relative": "relative reward, no filter, no other ranking",
    "dpo": "aligned with “unhurried”",
}


def is_steering(record: Mapping[str, Any]) -> bool:
    """Whether a JSON record is one of `bench steering`."""
    return "rollouts" in record and bool(set(record.get("parts", {})) & {*TITLES, "curve"})


def steering_table(record: Mapping[str, Any]) -> str:
    """What was asked and what came, then the rollouts behind it, in Markdown."""
    parts = record["parts"]
    lines = ["|  | mark | measured |", "| --- | --- | --- |"]
    for name in ("unhurried", "goal"):
        if name in parts:
            lines.append(_improvement(name, parts[name]))
    if "relative" in parts:
        part = parts["relative"]
        auc = part["auc"]
        told = f"{auc['centred']:.3f} ({auc['raw']:.3f} without one zero for all situations)"
        lines.append(f"| relative reward: AUC, held-out cautious and reckless segments | ≥ 0.95 | {told} |")
        removed = "–" if part["cost_removed"] is None else f"{part['cost_removed']:.0%}"
        lines.append(f"| cost that it removes from the reckless planner | ≥ 80 % | {removed} |")
        lines.append(f"| return that it keeps | ≥ 90 % | {part['return_kept']:.0%} |")
    if "dpo" in parts:
        part = parts["dpo"]
        lines.append(
            f"| rollouts in which the aligned planner is preferred | ≥ 80 % | {part['preferred']['mean']:.0%} |"
        )
        lines.append(f"| return that it keeps | ≥ 90 % | {part['return_kept']:.0%} |")
    lines += ["", "| rollouts | planner | episodes | return | cost | true “unhurried” per step |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, title in TITLES.items():
        for label, row in parts.get(name, {}).get("rows", {}).items():
            cells = " | ".join(_interval(row[column]) for column in ("return", "cost", "unhurried"))
            lines.append(f"| {title} | {label} | {row['return']['count']} | {cells} |")
    config = next(iter(parts.values()))["config"]
    steps = "whole episodes" if config["max_steps"] is None else f"the first {config['max_steps']} steps of an episode"
    first = f"`{record['env']}`, seeds from {config['seed']}, {steps}. Mean [95 % bootstrap interval]. "
    return "\n".join([f"{first}Commit {record['commit'][:9]}. {record['machine']}.", "", *lines, ""])


def _improvement(name: str, part: Mapping[str, Any]) -> str:
    found = part["improvement"]
    what = "true score" if found["column"] == "unhurried" else "return"
    share = "–" if found["share"] is None else f"{found['share']:.0%}"
    told = f"{share}: {found['learned']['mean']:+.3g} of {found['true']['mean']:+.3g}, cost "
    told += f"{found['cost'][2]:.3g} against {found['cost'][1]:.3g}"
    return f"| {TITLES[name]}: improvement in {what}, of that by the true reward | ≥ 95 % | {told} |"


def _interval(value: Mapping[str, Any]) -> str:
    low = float("nan") if value["low"] is None else value["low"]
    high = float("nan") if value["high"] is None else value["high"]
    return str(Interval(value["mean"], low, high, value["count"]))
