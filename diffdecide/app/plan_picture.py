"""`plan.png`: the candidates of one plan, the one that was chosen, and the clearance along it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffdecide.app.palette import AGENT, CANDIDATE, INK, MUTED, PAPER, PLAN, UNSAFE, look
from diffdecide.app.recording import PlanSnapshot, RolloutRecorder
from diffdecide.files import write_atomic
from safety.scene import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_plan(recorder: RolloutRecorder, path: str | os.PathLike[str], *, plan: PlanSnapshot | None = None) -> Path:
    """Draw one plan (the most telling one where none is given), atomically.

    Raises:
        ValueError: no plan was recorded.
        OSError: the file cannot be written.
    """
    plan = recorder.telling_plan() if plan is None else plan
    # The object interface: nothing global is touched, no display is needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 5.2), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    _paths(left, plan, recorder.margin, recorder.forward_offset)
    _clearance(right, plan, recorder.margin)
    figure.suptitle(f"“{_short(recorder.instruction, 90)}”", fontsize=11, color=INK, fontweight="bold")
    return write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=130, format="png"))


def _paths(axes: Axes, plan: PlanSnapshot, margin: float, forward_offset: float) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    scene, here = plan.scene, plan.scene.state[:2]
    for index in range(len(scene.positions)):
        kind = KINDS[scene.kinds[index]]
        style, centre, radius = look(kind), scene.positions[index], float(scene.radii[index])
        fill = "none" if kind == "circle" else style.fill
        axes.add_patch(
            Circle(tuple(centre), radius, facecolor=fill, edgecolor=style.edge, lw=1.2, zorder=1 + style.order)
        )
        if kind in plan.obstacles:
            ring = Circle(
                tuple(centre), radius + margin, facecolor="none", edgecolor=style.edge, lw=0.9, ls=(0, (4, 3))
            )
            axes.add_patch(ring).set_zorder(4)
        if kind.endswith("_zone") or kind == "goal":
            axes.text(
                float(centre[0]),
                float(centre[1]),
                style.label,
                color=style.edge,
                ha="center",
                va="center",
                fontsize=9,
                zorder=4,
                clip_on=True,
            )
    start = np.broadcast_to(here, (len(plan.candidates), 1, 2))
    lines = np.concatenate([start, plan.candidates], axis=1)
    refused = plan.too_close(margin)
    for group, colour, label in ((~refused, CANDIDATE, "candidates"), (refused, UNSAFE, "nearer than the margin")):
        if group.any():
            count = f"{label} ({int(group.sum())})"
            axes.add_collection(
                LineCollection(list(lines[group]), colors=colour, lw=0.9, alpha=0.65, zorder=5, label=count)
            )
    chosen = np.vstack([here, plan.chosen])
    axes.plot(chosen[:, 0], chosen[:, 1], color=PLAN, lw=2.6, zorder=7, label="chosen", solid_capstyle="round")
    axes.plot(*chosen[-1], "o", color="white", mec=PLAN, mew=1.8, ms=6, zorder=8)
    yaw = float(scene.state[2]) + forward_offset
    axes.add_patch(Circle(tuple(here), 0.1, facecolor=AGENT, edgecolor="white", lw=1.2, zorder=9))
    axes.plot(
        [here[0], here[0] + 0.09 * np.cos(yaw)], [here[1], here[1] + 0.09 * np.sin(yaw)], color="white", lw=2, zorder=10
    )
    points = np.vstack([lines.reshape(-1, 2), chosen])
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    half = max(0.8, float(np.ptp(points, axis=0).max()) / 2 + 0.45)
    axes.set(xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half), aspect="equal")
    axes.set_facecolor(PAPER)
    axes.set_title(f"plan made at step {plan.step}", fontsize=10, color=INK, loc="left")
    axes.set_xlabel("x [m]", fontsize=9, color=MUTED)
    axes.set_ylabel("y [m]", fontsize=9, color=MUTED)
    axes.tick_params(labelsize=8, colors=MUTED)
    axes.legend(loc="lower right", fontsize=8, framealpha=0.92).set_zorder(12)
    for spine in axes.spines.values():
        spine.set_color("#d5d3cc")


def _clearance(axes: Axes, plan: PlanSnapshot, margin: float) -> None:
    clearance = plan.clearance_along()
    axes.set_title("clearance along the chosen plan", fontsize=10, color=INK, loc="left")
    axes.axhspan(-10, 0, color=UNSAFE, alpha=0.12, lw=0)
    if np.isfinite(clearance).any():
        axes.plot(plan.times, clearance, color=PLAN, lw=2.4)
        nearest = int(np.argmin(clearance))
        axes.plot(plan.times[nearest], clearance[nearest], "o", color="white", mec=PLAN, mew=1.8, ms=6)
        axes.annotate(
            f"{clearance[nearest]:.2f} m",
            (float(plan.times[nearest]), float(clearance[nearest])),
            xytext=(0, 10),
            textcoords="offset points",
            # At the ends of the plan the figure would cut a centred label.
            ha=("left", "center", "right")[1 + (nearest > 0.9 * len(clearance)) - (nearest < 0.1 * len(clearance))],
            fontsize=9,
            color=PLAN,
        )
        top = float(clearance[np.isfinite(clearance)].max())
        bottom = min(0.0, float(clearance[np.isfinite(clearance)].min()))
    else:
        axes.text(0.5, 0.5, "nothing in the way", transform=axes.transAxes, ha="center", color=MUTED)
        top, bottom = 1.0, 0.0
    axes.axhline(0, color=UNSAFE, lw=1.2)
    axes.axhline(margin, color=INK, lw=1.1, ls=(0, (4, 3)))
    axes.annotate(
        f"filter margin {margin:.2f} m", (1, margin), xycoords=("axes fraction", "data"), xytext=(-4, 3),
        textcoords="offset points", ha="right", fontsize=8, color=INK,
    )  # fmt: skip
    span = max(top - bottom, 0.1)
    axes.set_ylim(bottom - 0.08 * span, max(top, margin) + 0.18 * span)
    axes.set_xlim(float(plan.times[0]), float(plan.times[-1]) if len(plan.times) > 1 else float(plan.times[0]) + 1)
    axes.set_xlabel("time from now [s]", fontsize=9, color=MUTED)
    axes.set_ylabel("distance to the nearest obstacle [m]", fontsize=9, color=MUTED)
    axes.tick_params(labelsize=8, colors=MUTED)
    axes.set_facecolor(PAPER)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color("#d5d3cc")


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
