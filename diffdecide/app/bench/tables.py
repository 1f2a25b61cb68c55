"""Tables made again from the JSON in a folder, whichever benchmark wrote it."""

from __future__ import annotations

from pathlib import Path

from diffdecide.records import EvaluationResult


def finished_instructions(folder: Path) -> dict[str, EvaluationResult]:
    """Rows of `bench instructions` that `folder` holds."""
    from diffdecide.app.bench.instructions import ROWS

    return {
        name: EvaluationResult.load(folder / f"{name}.json") for name in ROWS if (folder / f"{name}.json").is_file()
    }


def make_table(folder: Path) -> str:
    """Write `folder/table.md` again and return it; ValueError where the folder holds no results of a benchmark."""
    from diffdecide.app.bench import denoisers, instructions, rows

    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of results")
    if (folder / "denoisers.json").is_file():
        return denoisers.write_table(folder)
    found = finished_instructions(folder)
    if found and any("prompt" in record.details for result in found.values() for record in result.episodes):
        return instructions.write_results(found, folder)
    return rows.write_table(folder)
