"""`diffdecide plot`: figures from the JSON that other commands have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure of a JSON file: what a filter did, a critic's calibration, evaluations against each other.

    What a file holds is read from it: a `FilterLog`, a calibration.json, or results of `diffdecide evaluate`; several
    evaluations become one figure of return against cost and one of the costs' distribution.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path
    """The picture, its suffix naming the format (png, pdf, svg)."""
    limit: float | None = None
    """Evaluations: mark this cost limit."""

    def execute(self) -> int:
        from diffdecide.app.plots import plot_calibration, plot_filter_log
        from diffdecide.files import read_json, require_writable_folder

        if not self.files:
            raise ValueError("expected at least one JSON file")
        if self.limit is not None and not self.limit >= 0:
            raise ValueError(f"--limit must be a number >= 0, got {self.limit}")
        if self.out.suffix.lower() not in (".png", ".pdf", ".svg"):
            raise ValueError(f"--out must end in .png, .pdf or .svg, got {self.out}")
        contents: list[Any] = [read_json(file) for file in self.files]
        require_writable_folder(self.out.parent)
        if all(isinstance(content, Mapping) and {"episodes", "meta"} <= content.keys() for content in contents):
            self._evaluations()
        elif len(contents) == 1 and isinstance(contents[0], Mapping) and "intervened" in contents[0]:
            plot_filter_log(contents[0], self.out)
        elif (
            len(contents) == 1 and isinstance(contents[0], Mapping) and ("cost" in contents[0] or "bins" in contents[0])
        ):
            plot_calibration(contents[0].get("cost", contents[0]), self.out)
        else:
            names = ", ".join(map(str, self.files))
            raise ValueError(f"{names}: expected one filter log, one calibration.json, or evaluation results")
        print(f"written to {self.out}")
        return 0

    def _evaluations(self) -> None:
        from diffdecide.app.plots import plot_cost_distribution, plot_return_against_cost
        from diffdecide.records import EvaluationResult

        results = {file.stem: EvaluationResult.load(file) for file in self.files}
        points = []
        for name, result in results.items():
            table = result.aggregate()
            if not table["count"]:
                raise ValueError(f"{name} holds no episodes")
            points.append({"name": name, "return": table["return"], "cost": table["cost"]})
        plot_return_against_cost(points, self.out, limit=self.limit)
        costs = {name: result.column("cost").tolist() for name, result in results.items()}
        plot_cost_distribution(costs, self.out.with_stem(f"{self.out.stem}_costs"))


COMMAND = Plot
