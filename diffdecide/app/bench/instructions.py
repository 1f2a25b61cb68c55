"""From sentences to done tasks: the bridge against the task itself, no embedding, key words, and a blind tour."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdecide.app.results import markdown_table
from diffdecide.files import write_json, write_text
from diffdecide.policy import Policy
from diffdecide.records import EpisodeRecord, EvaluationResult, portable_path
from diffdecide.rollout import EpisodeTask
from safety.caution import DEFAULT_MARGIN
from safety.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from safety.layout import EnvSpec

ROWS = {
    "bridge": "language bridge",
    "canonical": "the task itself, `GoalSpace.encode(TaskSpec)`",
    "zeroed": "embedding zeroed",
    "regex": "key words and patterns",
    "tour": "tour of all zones",
}
MAIN, CEILING = "bridge", "canonical"
SLOTS = ("kind", "targets", "avoid", "caution")


@dataclass(frozen=True, kw_only=True)
class InstructionsConfig:
    """What all rows share. Prompt i of repetition r has the seed `seed + i + r · prompts`, in every row."""

    env: str = "SafetyPointZones1-v0"
    planner: str = "default"
    bridge: str = "default"
    episodes: int = 1  # per prompt
    seed: int = 10_000
    workers: int = 1
    margin: float = DEFAULT_MARGIN
    cost_limit: float = 0.0
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def read_prompts(path: Path) -> list[EpisodeTask]:
    """Read JSONL lines of {"prompt": …, "task": TaskSpec}.

    Raises:
        ValueError: no such file, or a line that is something else; the message names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str) or "task" not in entry:
                raise ValueError('expected an object with "prompt" (a string) and "task"')
            found.append(EpisodeTask(TaskSpec.from_dict(entry["task"]), entry["prompt"]))
        except ValueError as error:  # JSONDecodeError is one
            raise ValueError(f"{path}:{number}: {error}") from None
    if not found:
        raise ValueError(f"{path} holds no prompts")
    return found


def instruction_factory(row: str, config: InstructionsConfig, spec: EnvSpec) -> Callable[[], Policy]:
    """A picklable factory of the row's policy, checked against the environment."""
    from diffdecide.app.agent import AgentConfig
    from diffdecide.app.agent_policy import PolicyConfig, agent_policy, find_planner
    from diffdecide.app.policies import baseline_factory, check_policy

    if row not in ROWS:
        raise ValueError(f"unknown row {row!r}; expected one of {', '.join(ROWS)}")
    if row == "tour":
        return baseline_factory("tour", filtered=True, margin=config.margin)
    policy = PolicyConfig(
        planner=str(find_planner(config.planner, spec.id)),
        language={"bridge": "bridge", "regex": "regex"}.get(row, "none"),
        bridge=config.bridge,
        agent=AgentConfig(margin=config.margin, cost_limit=config.cost_limit, zero_embedding=row == "zeroed"),
    )
    factory = partial(agent_policy, policy)
    check_policy(factory, spec)
    return factory


def run_instructions(
    row: str, config: InstructionsConfig, prompts: Sequence[EpisodeTask], out: Path, *, progress: bool = True
) -> EvaluationResult:
    """Evaluate one row into `out/<row>.json`, going on where an earlier run stopped."""
    from diffdecide.evaluate import evaluate
    from safety.envs import spec

    env_spec = spec(config.env)
    if "red_zone_lidar" not in (env_spec.layout or ()):
        raise ValueError(f"instructions are for the zone tasks, {config.env} has no zones")
    return evaluate(
        config.env,
        instruction_factory(row, config, env_spec),
        episodes=len(prompts) * config.episodes,
        seed=config.seed,
        workers=config.workers,
        tasks=list(prompts) * config.episodes,
        max_steps=config.max_steps,
        cost_limit=config.cost_limit,
        out=out / f"{row}.json",
        resume=True,
        settings={
            "row": row,
            "planner": portable_path(config.planner),
            "bridge": portable_path(config.bridge) if row == "bridge" else None,
            "margin": config.margin,
            "prompts": len(prompts),
        },
        progress=progress,
    )


def failure_reason(record: EpisodeRecord) -> str | None:
    """Why an episode is no success, in the order in which things go wrong; None for a success."""
    if record.success:
        return None
    understood = record.details.get("understood")
    if isinstance(understood, Mapping):
        if understood.get("refused"):
            return f"declined ({understood.get('code') or 'unknown'})"
        if _task(understood.get("spec")) != _task(record.details.get("task")):
            return "understood as another task"
    return str(record.details.get("reason") or "not done when the time was up")


def slot_accuracy(result: EvaluationResult) -> dict[str, float] | None:
    """Share of prompts whose slots were read right; "task" is kind, targets and avoid together, "full" all four.

    Declined prompts count as read wrong. None for rows that read nothing.
    """
    rows = [(r.details["understood"], r.details["task"]) for r in result.episodes if "understood" in r.details]
    if not rows:
        return None
    hits: Counter[str] = Counter()
    for understood, task in rows:
        spec = understood.get("spec") if isinstance(understood, Mapping) else None
        right = {slot: spec is not None and _slot(spec, slot) == _slot(task, slot) for slot in SLOTS}
        hits.update({slot: int(value) for slot, value in right.items()})
        hits["task"] += all(right[slot] for slot in SLOTS[:3])
        hits["full"] += all(right.values())
        hits["declined"] += bool(isinstance(understood, Mapping) and understood.get("refused"))
    return {name: hits[name] / len(rows) for name in (*SLOTS, "task", "full", "declined")}


def write_results(results: Mapping[str, EvaluationResult], out: Path) -> str:
    """Write `results.json` (the bridge's episodes, and every row's figures) and `table.md`; return the table."""
    main = results.get(MAIN) or next(iter(results.values()))
    rows: dict[str, Any] = {}
    for name, result in results.items():
        failures: Counter[str] = Counter()
        failed: list[dict[str, Any]] = []
        for record in result.episodes:
            reason = failure_reason(record)
            if reason is not None:
                failures[reason] += 1
                failed.append({"seed": record.seed, "prompt": record.details.get("prompt"), "reason": reason})
        rows[name] = {
            "aggregate": result.aggregate(),
            "slots": slot_accuracy(result),
            "failures": dict(failures.most_common()),
            "failed": failed,
            "success_minus_canonical": None
            if name == CEILING or CEILING not in results
            else result.compare(results[CEILING], "success").to_dict(),
        }
    write_json(out / "results.json", main.to_json() | {"rows": rows})
    text = _table(results, rows)
    write_text(out / "table.md", text)
    return text


def _table(results: Mapping[str, EvaluationResult], rows: Mapping[str, Any]) -> str:
    titles = [
        "",
        "episodes",
        "success",
        "minus the task itself, paired",
        "cost",
        "worst",
        "task read right",
        "failures",
    ]
    lines = []
    for name, title in ROWS.items():
        if name not in results:
            continue
        result, row = results[name], rows[name]
        paired = None if row["success_minus_canonical"] is None else result.compare(results[CEILING], "success")
        slots = None if row["slots"] is None else f"{100 * row['slots']['task']:.1f} %"
        failures = ", ".join(f"{reason} {count}" for reason, count in list(row["failures"].items())[:4]) or "none"
        cells = [title, len(result.episodes), result.interval("success"), paired, result.interval("cost")]
        lines.append([*cells, f"{row['aggregate']['cost']['max']:g}", slots, failures])
    meta = next(iter(results.values())).meta
    seeds = meta.get("seeds") or [None, None]
    head = (
        f"`{meta.get('env')}`, {meta.get('prompts')} prompts, seeds {seeds[0]} to {seeds[1]}, the same for every row. "
        f"Mean [95 % bootstrap interval]. Commit {str(meta.get('commit'))[:9]}. {meta.get('machine')}.\n\n"
    )
    return head + markdown_table(titles, lines)


def _task(value: Any) -> tuple[Any, ...] | None:
    return None if value is None else tuple(_slot(value, slot) for slot in SLOTS[:3])


def _slot(task: Mapping[str, Any], name: str) -> Any:
    value = task.get(name, ())
    if name == "avoid":
        return frozenset(value)
    return tuple(value) if isinstance(value, (list, tuple)) else value
