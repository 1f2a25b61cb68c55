"""What a command leaves in its output folder, all of it or nothing, and how results look in a terminal."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdecide.files import require_writable_folder

if TYPE_CHECKING:
    from rich.table import Table

    from diffdecide.records import EvaluationResult


@contextmanager
def staged_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `path` when the block ends well, and vanish otherwise.

    `path` is tried on entry, so that an unwritable folder is told before the work. A folder that was created for
    nothing is removed again.

    Raises:
        ValueError: `path` cannot be created or written.
    """
    target = Path(path)
    created = [folder for folder in (target, *target.parents) if not folder.exists()]
    require_writable_folder(target)
    staging = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target))
    try:
        yield staging
        for item in sorted(staging.rglob("*")):
            if item.is_file():
                place = target / item.relative_to(staging)
                place.parent.mkdir(parents=True, exist_ok=True)
                item.replace(place)
        created = []
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in created:
            try:
                folder.rmdir()
            except OSError:  # somebody else has put something there
                break


ROWS = {
    "return": "return",
    "cost": "cost",
    "success": "success",
    "stuck": "stuck, share of steps",
    "interventions": "filter interventions",
    "infeasible": "steps without a safe action",
    "plan_ms": "per plan, ms",
    "filter_ms": "per filtered step, ms",
    "control_ms": "per control step, ms",
}


def results_table(results: Mapping[str, EvaluationResult], *, baseline: str | None = None) -> Table:
    """A rich table, one column a result: means with 95 % intervals, the cost's tail, the difference to `baseline`.

    Args:
        results: name of the column -> result, each with at least one episode.
        baseline: name of the column that returns are compared with, episode by episode on the same seeds.

    Raises:
        ValueError: no such baseline.
    """
    from rich.markup import escape
    from rich.table import Table

    if baseline is not None and baseline not in results:
        raise ValueError(f"baseline must be one of {list(results)}, got {baseline!r}")
    table = Table(caption="mean [95 % bootstrap interval]")
    table.add_column("")
    for name, result in results.items():
        table.add_column(escape(f"{name} ({len(result.episodes)})"), justify="right")
    costs = [result.aggregate()["cost"] for result in results.values()]
    for column, title in ROWS.items():
        intervals = [result.interval(column) for result in results.values()]
        if any(interval is not None for interval in intervals):
            table.add_row(title, *("–" if interval is None else str(interval) for interval in intervals))
        if column == "return" and baseline is not None:
            base = results[baseline]
            differences = ["" if name == baseline else str(item.compare(base)) for name, item in results.items()]
            table.add_row(escape(f"  minus {baseline}'s"), *differences)
        if column == "cost":
            table.add_row("  worst episode", *(f"{cost['max']:g}" for cost in costs))
            table.add_row("  mean of the worst 10 %", *(f"{cost['cvar_0.1']:.3g}" for cost in costs))
            table.add_row("  episodes within the limit", *(f"{cost['share_within_limit']:.0%}" for cost in costs))
    return table


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; cells are printed with `str`, intervals as mean [low, high], None as a dash."""
    for row in rows:
        if len(row) != len(titles):
            raise ValueError(f"every row needs {len(titles)} cells, got {len(row)}")
    lines = [_line(titles), _line(["---"] * len(titles))]
    lines += [_line(["–" if cell is None else str(cell) for cell in row]) for row in rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
