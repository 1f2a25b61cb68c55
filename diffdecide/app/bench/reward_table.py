"""The table of `diffdecide bench rewards`, from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEAD = "| reward | accuracy [95 %] | lost | ECE raw / scaled | Brier raw / scaled | Spearman | Pearson |"


def is_rewards(record: Mapping[str, Any]) -> bool:
    """Whether a JSON file is one of this benchmark."""
    return "bayes_accuracy" in record.get("config", {}) and "parts" in record


def rewards_table(record: Mapping[str, Any]) -> str:
    """Markdown tables of the parts that `record` holds."""
    config, parts = record["config"], record["parts"]
    sections = [_about(record)]
    rows = _judged(parts, config)
    if rows:
        sections.append("\n".join([_HEAD, "|" + "---|" * 7, *rows]))
    if "data" in parts:
        sections.append(_curve("comparisons", [(str(row["trained_on"]), row) for row in parts["data"]]))
    if "noise" in parts:
        sections.append(_curve("labels turned", [(f"{row['flipped']:.0%}", row) for row in parts["noise"]]))
    if "headline" in parts:
        sections.append(_headline(parts["headline"]))
    if "processes" in parts:
        found = parts["processes"]
        sections.append(
            f"One process against {max(found['processes'])}: the losses of {found['steps']} steps differ by at most "
            f"{found['largest_difference']:.1e}."
        )
    return "\n\n".join(sections) + "\n"


def _about(record: Mapping[str, Any]) -> str:
    config, test = record["config"], record.get("test")
    headline = record["parts"].get("headline")
    bayes = "" if headline is None else f", Bayes rate on the test side {headline['bayes_accuracy']:.1%}"
    where = "a tenth of the episodes" if test is None else f"{test['episodes']} other episodes"
    return (
        f"{record['env']}, segments of {config['segment']} steps: {config['pairs']:,} comparisons to train on, "
        f'{config["test_pairs"]:,} to test on from {where}{bayes}. "Lost" is the accuracy lost against the best '
        'possible predictor, in points, by the teacher\'s own probabilities. "Scaled": after temperature scaling.'
    )


def _judged(parts: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    named: list[tuple[str, Mapping[str, Any]]] = []
    if "headline" in parts:
        named.append((f"**ours** ({config['network']}, {config['members']} network(s))", parts["headline"]))
    named += list(parts.get("baselines", {}).items())
    if "imitation" in parts:
        named.append((f"`imitation` {parts['imitation']['version']}, its reward trainer", parts["imitation"]))
    return [
        f"| {name} | {_accuracy(row)} | {100 * row['regret']:.1f} | {row['ece_raw']:.3f} / {row['ece_scaled']:.3f} | "
        f"{row['brier_raw']:.3f} / {row['brier_scaled']:.3f} | {row['segments']['spearman']:.3f} | "
        f"{row['segments']['pearson']:.3f} |"
        for name, row in named
    ]


def _curve(name: str, rows: list[tuple[str, Mapping[str, Any]]]) -> str:
    lines = [f"| {name} | accuracy [95 %] | lost | Spearman |", "|---|---|---|---|"]
    lines += [
        f"| {label} | {_accuracy(row)} | {100 * row['regret']:.1f} | {row['segments']['spearman']:.3f} |"
        for label, row in rows
    ]
    return "\n".join(lines)


def _headline(figures: Mapping[str, Any]) -> str:
    episodes = figures["episodes"]
    lines = [
        f"Whole episodes ({episodes['count']}): Spearman {episodes['spearman']:.3f}, Pearson {episodes['pearson']:.3f} "
        "with the true return.",
        "EPIC distance (0 the same, 1 the opposite): "
        + ", ".join(f"{name} {value:.3f}" for name, value in figures["epic"].items())
        + ".",
        "",
        "| best of n segments by the learned reward | true return | by the true return itself |",
        "|---|---|---|",
    ]
    lines += [f"| {row['n']} | {row['true']:.3f} | {row['ideal']:.3f} |" for row in figures["best_of"]]
    return "\n".join(lines)


def _accuracy(row: Mapping[str, Any]) -> str:
    found = row["accuracy"]
    return f"{found['mean']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"
