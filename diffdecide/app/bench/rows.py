"""The rows of the main table, as data: our planner, what it is made of left out piece by piece, and the yardsticks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdecide.app.results import markdown_table
from diffdecide.files import write_text
from diffdecide.policy import Policy
from diffdecide.records import EvaluationResult, portable_path
from safety.caution import DEFAULT_MARGIN

if TYPE_CHECKING:
    from safety.layout import EnvSpec


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row.

    Attributes:
        name: of its file.
        title: in the table.
        policy: "planner" for the planner that the table is about, else a name of `diffdecide.app.policies`.
        settings: overrides of `PlannerConfig`.
        zero_embedding: the planner is told nothing.
    """

    name: str
    title: str
    policy: str = "planner"
    filtered: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    zero_embedding: bool = False


CEILING = "mpc"
ROWS = (
    Row(name="planner", title="**planner + filter**"),
    Row(name="planner_unfiltered", title="planner, no filter", filtered=False),
    Row(name="mpc", title="MPC on ground truth (ceiling)", policy="mpc", filtered=False),
    Row(name="mpc_filtered", title="MPC on ground truth + filter from observations", policy="mpc"),
    Row(name="gaussian", title="Gaussian candidates + filter", settings={"proposal": "gaussian"}),
    Row(name="zeroed", title="goal embedding zeroed + filter", zero_embedding=True),
    Row(name="bc", title="behaviour cloning", policy="bc", filtered=False),
    Row(name="bc_filtered", title="behaviour cloning + filter", policy="bc"),
    Row(name="proportional", title="proportional controller", policy="proportional", filtered=False),
    Row(name="proportional_filtered", title="proportional controller + filter", policy="proportional"),
    Row(name="random", title="random actions", policy="random", filtered=False),
)
ROW_NAMES = tuple(row.name for row in ROWS)


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """What all rows share: the same seeds, the same margins."""

    env: str
    planner: str = "default"
    cloned: str = "bc"  # who stands for behaviour cloning: "bc" (embedded) or a folder
    episodes: int = 100
    seed: int = 10_000
    workers: int = 1
    margin: float = DEFAULT_MARGIN
    cost_limit: float = 25.0
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def select_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """The rows called `names`, all of them where none is named; ValueError for an unknown name."""
    unknown = [name for name in names if name not in ROW_NAMES]
    if unknown:
        raise ValueError(f"unknown rows {', '.join(unknown)}; expected some of {', '.join(ROW_NAMES)}")
    return tuple(row for row in ROWS if not names or row.name in names)


def row_factory(row: Row, config: RowsConfig, spec: EnvSpec) -> Callable[[], Policy]:
    """A picklable factory of the row's policy, checked against the environment; ValueError where it cannot act."""
    from diffdecide.app.policies import baseline_factory, check_policy, policy_factory

    if row.policy not in ("planner", "bc"):
        return baseline_factory(row.policy, filtered=row.filtered, margin=config.margin)
    if row.policy == "bc":
        return policy_factory(
            config.cloned, spec, filtered=row.filtered, margin=config.margin, cost_limit=config.cost_limit
        )
    from diffdecide.app.agent import AgentConfig
    from diffdecide.app.agent_policy import PolicyConfig, agent_policy, find_planner

    operator = AgentConfig(
        margin=config.margin,
        cost_limit=config.cost_limit,
        filtered=row.filtered,
        zero_embedding=row.zero_embedding,
    )
    factory = partial(
        agent_policy,
        PolicyConfig(planner=str(find_planner(config.planner, spec.id)), agent=operator, settings=row.settings),
    )
    check_policy(factory, spec)
    return factory


def run_row(row: Row, config: RowsConfig, out: Path, *, progress: bool = True) -> EvaluationResult:
    """Evaluate one row into `out/<name>.json`, going on where an earlier run stopped."""
    from diffdecide.app.zone_tasks import task_of_seed
    from diffdecide.evaluate import EpisodeTask, evaluate
    from safety.envs import spec

    env_spec = spec(config.env)
    zones = "red_zone_lidar" in (env_spec.layout or ())
    seeds = range(config.seed, config.seed + config.episodes)
    return evaluate(
        config.env,
        row_factory(row, config, env_spec),
        episodes=config.episodes,
        seed=config.seed,
        workers=config.workers,
        tasks=[EpisodeTask(task_of_seed(seed)) for seed in seeds] if zones else None,
        max_steps=config.max_steps,
        cost_limit=config.cost_limit,
        out=out / f"{row.name}.json",
        resume=True,
        settings={
            "row": row.name,
            "planner": portable_path({"planner": config.planner, "bc": config.cloned}.get(row.policy, row.policy)),
            "filter": row.filtered,
            "margin": config.margin,
            "settings": dict(row.settings),
            "zero_embedding": row.zero_embedding,
        },
        progress=progress,
    )


def load_rows(folder: Path) -> dict[str, EvaluationResult]:
    """The rows that `folder` holds, in the order of the table; ValueError where it holds none.

    In a folder without any row of the main table every JSON file is taken for a result of `diffdecide evaluate`.
    """
    found = {row.name: folder / f"{row.name}.json" for row in ROWS if (folder / f"{row.name}.json").is_file()}
    found = found or {path.stem: path for path in sorted(folder.glob("*.json"))}
    if not found:
        raise ValueError(f"{folder} holds no rows: expected files such as {ROWS[0].name}.json")
    return {name: EvaluationResult.load(path) for name, path in found.items()}


def table_of_rows(results: Mapping[str, EvaluationResult]) -> str:
    """The Markdown table of one environment, made from the results alone."""
    ceiling = results.get(CEILING)
    titles = ["", "episodes", "return", "of the ceiling", "minus the ceiling, paired", "cost", "worst", "CVaR 0.1"]
    titles += ["stuck", "interventions", "no safe action", "plan, ms", "step, ms"]
    success = any(result.meta.get("env", "").find("Zones") >= 0 for result in results.values())
    if success:
        titles.insert(2, "success")
    told = {row.name: row.title for row in ROWS if row.name in results}
    told |= {name: name.replace("_", " ") for name in results if name not in told}
    lines = []
    for name, title in told.items():
        result = results[name]
        if not result.episodes:
            continue
        cost = result.aggregate()["cost"]
        share = difference = None
        if ceiling is not None and name != CEILING:
            share = f"{100 * share_of(result, ceiling):.0f} %"
            difference = result.compare(ceiling)
        cells: list[Any] = [title, len(result.episodes), result.interval("return"), share, difference]
        cells += [result.interval("cost"), f"{cost['max']:g}", f"{cost['cvar_0.1']:.3g}", _percent(result, "stuck")]
        cells += [_mean(result, name) for name in ("interventions", "infeasible", "plan_ms", "control_ms")]
        if success:
            cells.insert(2, result.interval("success"))
        lines.append(cells)
    return markdown_table(titles, lines)


def share_of(result: EvaluationResult, ceiling: EvaluationResult) -> float:
    """Mean return divided by the ceiling's, over the seeds that both have; nan without any."""
    mine = {episode.seed: episode.return_ for episode in result.episodes}
    theirs = {episode.seed: episode.return_ for episode in ceiling.episodes}
    seeds = mine.keys() & theirs.keys()
    total = sum(theirs[seed] for seed in seeds)
    return sum(mine[seed] for seed in seeds) / total if total else float("nan")


def write_table(folder: Path) -> str:
    """Write `folder/table.md` from the rows in `folder`, and return it."""
    results = load_rows(folder)
    first = next(iter(results.values())).meta
    commits = sorted({commit[:9] for result in results.values() for commit in result.commits})
    seeds = first.get("seeds") or [None, None]
    head = (
        f"`{first.get('env')}`, seeds {seeds[0]} to {seeds[1]}. Mean [95 % bootstrap interval]. Commit "
        f"{', '.join(commits)}. {first.get('machine')}. Cost is what an episode of {_steps(results)} steps costs; "
        f"interventions and steps without a safe action are per episode.\n\n"
    )
    text = head + table_of_rows(results)
    write_text(folder / "table.md", text)
    return text


def _steps(results: Mapping[str, EvaluationResult]) -> int:
    return max(episode.length for result in results.values() for episode in result.episodes)


def _mean(result: EvaluationResult, column: str) -> str | None:
    interval = result.interval(column)
    return None if interval is None else f"{interval.mean:.3g}"


def _percent(result: EvaluationResult, column: str) -> str | None:
    interval = result.interval(column)
    return None if interval is None else f"{100 * interval.mean:.1f} %"
