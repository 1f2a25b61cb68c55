"""Figures of safety: what a filter did, how well a critic is calibrated, return against cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffdecide.files import write_atomic


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: str | os.PathLike[str]) -> Path:
    return write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=130))


def plot_filter_log(log: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Clearance, correction and slack over the steps of a `safety.wrappers.FilterLog`, as `to_dict()` gives it.

    Raises:
        ValueError: the log lacks a column or holds no step.
    """
    names = ("delta", "clearance", "slack", "intervened", "infeasible", "cost")
    missing = [name for name in names if name not in log]
    if missing:
        raise ValueError(f"a filter log needs {', '.join(names)}; it lacks {', '.join(missing)}")
    count = len(log["cost"])
    if count == 0:
        raise ValueError("the filter log holds no step")
    figure, axes = _figure(3, 1, (9, 6.5))
    steps = np.arange(count)
    columns = {
        name: np.array([np.nan if v is None else v for v in log[name]], dtype=float) for name in names
    }  # fmt: skip
    clearance = np.where(np.isfinite(columns["clearance"]), columns["clearance"], np.nan)
    for axis, values, label in (
        (axes[0, 0], clearance, "clearance of the\nbackup, m"),
        (axes[1, 0], columns["delta"], "correction\n(motor commands)"),
        (axes[2, 0], columns["slack"], "slack of soft\nconstraints, m"),
    ):
        axis.plot(steps, values, linewidth=0.8, color="#30507a")
        axis.set_ylabel(label)
        axis.set_xlim(0, max(1, count - 1))
        for end in log.get("episode_ends", [])[:-1]:
            axis.axvline(end, color="#999999", linewidth=0.6, linestyle=":")
    axes[0, 0].axhline(0, color="black", linewidth=0.6)
    for name, colour, label in (
        ("intervened", "#d08b2c", "intervened"),
        ("infeasible", "#b3261e", "no safe action"),
        ("cost", "#000000", "cost"),
    ):
        where = steps[columns[name] > 0]
        axes[1, 0].plot(
            where, np.zeros(len(where)), "|", color=colour, markersize=9, label=f"{label}: {len(where)} steps"
        )
    axes[1, 0].legend(loc="upper right", fontsize=8)
    axes[2, 0].set_xlabel("control step")
    return _save(figure, path)


def plot_calibration(report: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Predicted against realised cost-to-go, and coverage of the quantiles, of a `safety.calibration.Calibration`.

    Raises:
        ValueError: not such a report.
    """
    if "bins" not in report:
        raise ValueError(f"a calibration report needs 'bins', got {sorted(report)}")
    coverage = bool(report.get("levels"))
    figure, axes = _figure(1, 2 if coverage else 1, (9 if coverage else 4.8, 4.2))
    axis = axes[0, 0]
    predicted, realised = ([row[name] for row in report["bins"]] for name in ("predicted", "realised"))
    top = max([*predicted, *realised, 1e-6])
    axis.plot([0, top], [0, top], color="#999999", linewidth=0.8)
    axis.plot(predicted, realised, "o-", color="#30507a", label="bins of equal size")
    margin = report.get("step_margin")
    if margin is not None:
        axis.plot(
            [0, top], [margin, top + margin], "--", color="#b3261e", linewidth=0.8,
            label=f"conformal bound, miss {report['miss']:g}",
        )  # fmt: skip
    axis.set_xlabel("predicted cost-to-go")
    axis.set_ylabel("realised cost-to-go")
    axis.legend(fontsize=8)
    if coverage:
        axes[0, 1].plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        axes[0, 1].plot(report["levels"], report["coverage"], "o-", color="#30507a")
        axes[0, 1].set_xlabel("quantile level")
        axes[0, 1].set_ylabel("share of realised costs below")
    return _save(figure, path)


def plot_return_against_cost(
    points: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], *, limit: float | None = None
) -> Path:
    """Points with intervals: each has "name", "return" and "cost", both with "mean", "low", "high".

    Raises:
        ValueError: no points.
    """
    if not points:
        raise ValueError("expected at least one result, got none")
    figure, axes = _figure(1, 1, (7.5, 5))
    axis = axes[0, 0]
    for index, point in enumerate(points):
        x, y = point["cost"], point["return"]
        axis.errorbar(
            x["mean"], y["mean"], xerr=_error(x), yerr=_error(y), fmt="osD^v"[index % 5], capsize=2, markersize=5,
            color=f"C{index % 10}", label=point["name"],
        )  # fmt: skip
    if limit is not None:
        axis.axvline(limit, color="#b3261e", linewidth=0.8, linestyle="--", label=f"limit {limit:g}")
    axis.set_xlabel("cost per episode")
    axis.set_ylabel("return per episode")
    axis.legend(fontsize=7)
    return _save(figure, path)


def plot_cost_distribution(costs: Mapping[str, Sequence[float]], path: str | os.PathLike[str]) -> Path:
    """Share of episodes whose cost exceeds x, one line per method: the tail, not only its mean.

    Raises:
        ValueError: no methods, or one without episodes.
    """
    if not costs or not all(len(values) for values in costs.values()):
        raise ValueError("expected the costs of at least one episode for every method")
    figure, axes = _figure(1, 1, (7.5, 5))
    axis = axes[0, 0]
    for name, values in costs.items():
        ordered = np.sort(np.asarray(values, dtype=float))
        share = 1 - np.arange(1, len(ordered) + 1) / len(ordered)
        axis.step([0, *ordered], [float((ordered > 0).mean()), *share], where="post", label=name)
    axis.set_xlabel("cost x")
    axis.set_ylabel("share of episodes with cost > x")
    axis.legend(fontsize=7)
    return _save(figure, path)


def _error(interval: Mapping[str, Any]) -> list[list[float]] | None:
    low, high, mean = interval.get("low"), interval.get("high"), interval["mean"]
    if low is None or high is None or not np.isfinite([low, high]).all():
        return None
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]]
