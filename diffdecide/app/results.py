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
from diffdecide.intervals import Interval

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


COLUMNS = ("return", "cost", "success", "stuck", "interventions", "plan_ms", "control_ms")


def results_table(results: Mapping[str, EvaluationResult], *, baseline: str | None = None) -> Table:
    """A rich table, one row a result: means with 95 % intervals, the cost's tail, and the difference to `baseline`.

    Args:
        results: name of the row -> result.
        baseline: name of the row that returns are compared with, episode by episode on the same seeds.
    """
    from rich.table import Table

    if baseline is not None and baseline not in results:
        raise ValueError(f"baseline must be one of {list(results)}, got {baseline!r}")
    table = Table(caption="mean [95 % bootstrap interval]")
    titles = ["", *COLUMNS[:2], "cost max", "cost CVaR 10 %", "within limit", *COLUMNS[2:]]
    if baseline is not None:
        titles.append(f"return − {baseline}")
    for title in titles:
        table.add_column(title, justify="left" if not title else "right")
    for name, result in results.items():
        aggregate = result.aggregate()
        cost = aggregate["cost"]
        row = [
            name,
            *(_cell(result.interval(column)) for column in COLUMNS[:2]),
            f"{cost['max']:g}",
            f"{cost['cvar_0.1']:.3g}",
            f"{cost['share_within_limit']:.0%}",
            *(_cell(result.interval(column)) for column in COLUMNS[2:]),
        ]
        if baseline is not None:
            row.append("" if name == baseline else _cell(result.compare(results[baseline])))
        table.add_row(*row)
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


def _cell(interval: Interval | None) -> str:
    return "–" if interval is None else str(interval)
