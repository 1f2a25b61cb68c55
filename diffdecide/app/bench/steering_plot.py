"""The over-optimisation curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffdecide.files import write_atomic

TITLES = {"weight": "ranking", "guidance": "gradient guide"}


def plot_curve(points: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """True return and true score against the strength of the reward, one column for ranking and one for the guide.

    Args:
        points: `kind` ("weight" or "guidance"), `strength`, and the intervals `return`, `unhurried`, `cost`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = [kind for kind in TITLES if any(point["kind"] == kind for point in points)]
    figure = Figure(figsize=(4.2 * len(kinds), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(kinds), squeeze=False, sharex="col", sharey="row")
    for place, kind in enumerate(kinds):
        part = sorted((point for point in points if point["kind"] == kind), key=lambda point: float(point["strength"]))
        least = min((point["strength"] for point in part if point["strength"]), default=1.0)
        for axis, name, label in zip(
            axes[:, place], ("return", "unhurried"), ("true return", "true score per step"), strict=True
        ):
            x = [point["strength"] or least / 3 for point in part]  # 0 has no place on a logarithmic axis
            mean = [point[name]["mean"] for point in part]
            low, high = ([point[name][end] for point in part] for end in ("low", "high"))
            axis.fill_between(x, low, high, color="#30507a", alpha=0.2, linewidth=0)
            axis.plot(x, mean, color="#30507a", marker="o", markersize=4)
            axis.set_xscale("log")
            axis.grid(alpha=0.3)
            if place == 0:
                axis.set_ylabel(label)
        axes[0, place].set_title(TITLES[kind])
        axes[1, place].set_xlabel(f"{kind} (leftmost: none)")
    return write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=130))
