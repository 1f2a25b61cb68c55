"""Model cards, generated from recorded facts and results; nobody types a figure into one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffdecide.app.bench.rows import CEILING, share_of
from diffdecide.app.recipe import Model, step_named
from diffdecide.app.results import markdown_table
from diffdecide.records import EvaluationResult

_PLACES = {"data": "data", "runs": "runs/pretrained", "workers": "2"}
_TITLES = {"planner": "Diffusion planner", "cloning": "Behaviour cloning"}
_ABOUT = {
    "planner": "Plans the {agent}'s actions from object tokens and a goal embedding; many plans are drawn, ranked by "
    "the fitted dynamics, and the best is followed until the next one.",
    "cloning": "One pass from object tokens and a goal embedding to the {agent}'s next actions. The row `bc` of the "
    "tables: what the data are worth without diffusion, ranking and projection.",
}


def model_card(
    model: Model,
    *,
    config: Mapping[str, Any],
    facts: Mapping[str, Any] | None,
    results: Mapping[str, Mapping[str, EvaluationResult]],
    critic: Mapping[str, Any] | None = None,
) -> str:
    """Markdown: what it is, how it was made, how well it does, what it does not do.

    Args:
        config: the model's own settings (`planner.json` or `cloning.json`).
        facts: what its training recorded, see `diffdecide.app.facts`; None: only the recipe is known.
        results: environment to rows of its table, by name.
        critic: what the training of its critic recorded; None: it has none.
    """
    parts = [
        f"# {_TITLES[model.kind]}: {config['agent'].capitalize()}",
        _ABOUT[model.kind].format(agent=config["agent"].capitalize()),
        f"For {' and '.join(config['environments'])}. Goal space `{config['goal_space']}`.",
        _training(model, facts),
        _critic(critic, config),
        _settings(model, config),
        _figures(model, results),
        "## Limits\nOnly for the environments above and their observations. Hazards that stand still; nothing is known "
        "about other agents or moving obstacles. Without the safety filter behind it, it promises nothing.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def load_results(folder: Path, environments: Sequence[str]) -> dict[str, dict[str, EvaluationResult]]:
    """Rows of the main tables that `folder` (benchmarks) holds for `environments`."""
    from diffdecide.app.bench.rows import load_rows

    found = {}
    for env_id in environments:
        if (folder / env_id).is_dir():
            try:
                found[env_id] = load_rows(folder / env_id)
            except ValueError:  # another benchmark's folder
                continue
    return found


def _training(model: Model, facts: Mapping[str, Any] | None) -> str:
    lines = ["## Training"]
    if facts is not None:
        lines.append(
            f"- Data: {facts['episodes']} episodes, {facts['control_steps']} control steps, {facts['windows']} windows "
            f"({', '.join(facts['data'])}; fingerprint `{facts['data_fingerprint']}`)."
        )
        since = "" if facts.get("resumed_from") is None else f" (since step {facts['resumed_from']})"
        lines.append(
            f"- {facts['train']['steps']} steps of {facts['train']['batch_size']} windows, seed {facts['seed']}, "
            f"{facts['minutes']:.0f} minutes{since} on {facts['machine']}. "
            f"{facts['parameters'] / 1e6:.2f} M parameters."
        )
    lines.append("- Commands, each with its minutes on 2 cores; `make pretrained` runs them all:\n")
    lines.append("```bash")
    for name in model.steps:
        step = step_named(name)
        minutes = "" if step.minutes is None else f"  # {step.minutes:g} min"
        lines.append(f"diffdecide {shlex.join(step.command(_PLACES))}{minutes}")
    lines.append("```")
    return "\n".join(lines)


def _critic(facts: Mapping[str, Any] | None, config: Mapping[str, Any]) -> str:
    if facts is None:
        return ""
    shares = [f"{100 * value:.0f} % of the {name}'s" for name, value in facts["explained_variance"].items() if value]
    weight = config.get("value_weight")
    used = f"with weight {weight:g}" if weight else "only where `value_weight` is set"
    return (
        "## Critic\nForesees the discounted return and cost that follow a plan; it ranks candidates beside the plan "
        f"cost, {used}. {facts['train']['steps']} steps of {facts['train']['batch_size']} windows of executed actions, "
        f"seed {facts['seed']}, {facts['minutes']:.0f} minutes, {facts['parameters'] / 1e6:.2f} M parameters. On "
        f"{facts['held_out_windows']} windows of held-out episodes it explains {' and '.join(shares)} variance."
    )


def _settings(model: Model, config: Mapping[str, Any]) -> str:
    if model.kind != "planner":
        return f"It looks again every {config['replan']} control steps."
    hidden = ("agent", "environments", "goal_space", "features", "rows")
    chosen = ", ".join(f"{name} {json.dumps(value)}" for name, value in config.items() if name not in hidden)
    return f"Planning, chosen on seeds 5000 to 9999: {chosen}."


def _figures(model: Model, results: Mapping[str, Mapping[str, EvaluationResult]]) -> str:
    names = {"planner": ("planner", "planner_unfiltered"), "cloning": ("bc_filtered", "bc")}[model.kind]
    rows = []
    for env_id, table in results.items():
        for name in names:
            result = table.get(name)
            if result is None or not result.episodes:
                continue
            ceiling = table.get(CEILING)
            share = None if ceiling is None else f"{100 * share_of(result, ceiling):.0f} %"
            filtered = "yes" if result.meta.get("filter") else "no"
            cost = result.interval("cost")
            rows.append([env_id, filtered, len(result.episodes), result.interval("return"), share, cost])
    if not rows:
        return ""
    titles = ["environment", "filter", "episodes", "return", "of the MPC's", "cost"]
    return (
        "## Figures\nFrom observations only, mean [95 % bootstrap interval]; more in `benchmarks/`.\n\n"
        + markdown_table(titles, rows)
    )
