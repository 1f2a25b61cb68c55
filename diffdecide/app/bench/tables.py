"""Tables made again from the JSON in a folder, whichever benchmark wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffdecide.files import read_json, write_text
from diffdecide.records import EvaluationResult


def finished_instructions(folder: Path) -> dict[str, EvaluationResult]:
    """Rows of `bench instructions` that `folder` holds."""
    from diffdecide.app.bench.instructions import ROWS

    return {
        name: EvaluationResult.load(folder / f"{name}.json") for name in ROWS if (folder / f"{name}.json").is_file()
    }


def make_tables(path: Path) -> dict[str, str]:
    """Tables of a folder or file by the name of their marks, which is its own; of the safe-RL benchmark a summary too.

    Raises:
        ValueError: it holds no results of a benchmark.
    """
    from diffdecide.app.bench.safe_rl_table import is_safe_rl, safe_rl_summary

    name = path.stem if path.is_file() else path.name
    tables = {name: make_table(path)}
    if is_safe_rl(path):
        tables[f"{name}-summary"] = safe_rl_summary(path)
    return tables


def make_table(folder: Path) -> str:
    """Write `folder/table.md` again and return it; ValueError where the folder holds no results of a benchmark.

    The JSON files of `bench rewards`, `bench steering` and the filter check are taken as well; their tables are only
    returned.
    """
    from diffdecide.app.bench import constrained, denoisers, instructions, latency, rows
    from diffdecide.app.bench.safe_rl_table import is_safe_rl, safe_rl_table

    if folder.is_file():
        return file_table(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of results")
    if is_safe_rl(folder):
        return safe_rl_table(folder)
    if (folder / constrained.FILE).is_file():
        return constrained.write_table(folder)
    if (folder / "denoisers.json").is_file():
        return denoisers.write_table(folder)
    if (folder / "latency.json").is_file():
        text = latency.latency_table(read_json(folder / "latency.json"))
        write_text(folder / "table.md", text)
        return text
    found = finished_instructions(folder)
    if found and any("prompt" in record.details for result in found.values() for record in result.episodes):
        return instructions.write_results(found, folder)
    return rows.write_table(folder)


def file_table(path: Path) -> str:
    """The table of a file of `bench rewards`, `bench steering` or the filter check; ValueError for anything else."""
    from diffdecide.app.bench.filter_table import filter_table, is_filter_check
    from diffdecide.app.bench.reward_table import is_rewards, rewards_table
    from diffdecide.app.bench.steering_table import is_steering, steering_table

    record = read_json(path)
    for is_its, table in (
        (is_steering, steering_table),
        (is_filter_check, filter_table),
        (is_rewards, rewards_table),
    ):
        if is_its(record):
            return table(record)
    raise ValueError(f"{path} is no file of `bench rewards`, `bench steering` or `python -m safety.filter_check`")


def fill_markers(document: Path, tables: Mapping[str, str]) -> list[str]:
    """Put tables between `<!-- results:NAME -->` and `<!-- /results:NAME -->` in `document`; the names that it has.

    Raises:
        ValueError: the document cannot be read.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{document} cannot be read: {error}") from None
    found = []
    for name, table in tables.items():
        begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
        before, mark, rest = text.partition(begin)
        _, closing, after = rest.partition(end)
        if mark and closing:
            text = f"{before}{begin}\n{table.strip()}\n{end}{after}"
            found.append(name)
    write_text(document, text)
    return found
