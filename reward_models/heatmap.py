"""Learned rewards over the arena, to look at."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from diffdecide.files import write_atomic
from reward_models.guide import LearnedPlanScore
from safety.dynamics import Dynamics
from safety.scene import KINDS, Scene


@dataclass(frozen=True, eq=False)
class RewardMap:
    """Rewards on a grid.

    Attributes:
        x, y: [W], [H] metres.
        mean: [H, W] mean over the headings of driving on for `steps` steps.
        best: [H, W] the best heading's.
        heading: [H, W] rad, that heading.
    """

    x: np.ndarray
    y: np.ndarray
    mean: np.ndarray
    best: np.ndarray
    heading: np.ndarray


def reward_map(
    score: LearnedPlanScore,
    scene: Scene,
    dynamics: Dynamics,
    *,
    size: float = 2.0,
    cells: int = 40,
    headings: int = 8,
    speed: float = 0.8,
    steps: int = 5,
) -> RewardMap:
    """What driving `steps` steps at `speed` m/s is worth at each place of [-size, size]² m and in each heading."""
    if cells < 2 or headings < 1 or steps < 1:
        raise ValueError(f"reward_map needs cells >= 2, headings >= 1, steps >= 1: {cells=}, {headings=}, {steps=}")
    axis = np.linspace(-size, size, cells)
    gx, gy = np.meshgrid(axis, axis)
    values = []
    angles = np.arange(headings) * (2 * np.pi / headings)
    thrust = min(1.0, speed / dynamics.top_speed)
    command = dynamics.motors(np.full(steps, thrust), np.zeros(steps))
    for angle in angles:
        drive = angle + dynamics.forward_offset
        state = np.zeros((cells * cells, 6), dtype=np.float32)
        state[:, 0], state[:, 1], state[:, 2] = gx.reshape(-1), gy.reshape(-1), angle
        state[:, 3], state[:, 4] = speed * np.cos(drive), speed * np.sin(drive)
        actions = np.broadcast_to(np.asarray(dynamics.command(command), np.float32), (len(state), steps, 2)).copy()
        states = np.asarray(dynamics.rollout(state, actions), np.float32)
        before = torch.from_numpy(np.concatenate([state[:, None], states[:, :-1]], 1))
        with torch.no_grad():
            frozen = replace(scene, velocities=np.zeros_like(scene.velocities))
            observed = score.observe(frozen, before)
            values.append(score.model.predict(observed, torch.from_numpy(actions)).reward.mean(1).numpy())
    table = np.stack(values).reshape(headings, cells, cells)
    return RewardMap(axis, axis, table.mean(0), table.max(0), angles[table.argmax(0)])


def draw(picture: RewardMap, scene: Scene, path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Save the map as an image: mean reward left; best heading's reward, with the headings, right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    colours = {"goal": "lime", "hazards": "deepskyblue", "vases": "cyan"}
    extent = (picture.x[0], picture.x[-1], picture.y[0], picture.y[-1])
    for axes, values, name in zip(
        figure.subplots(1, 2), (picture.mean, picture.best), ("mean over headings", "best heading"), strict=True
    ):
        image = axes.imshow(values, origin="lower", extent=extent, cmap="magma")
        figure.colorbar(image, ax=axes, label="learned reward per step")
        for place, kind, radius in zip(scene.positions, scene.kinds, scene.radii, strict=True):
            axes.add_patch(Circle(place, radius, fill=False, color=colours.get(KINDS[kind], "white"), linewidth=1.5))
        axes.set(title=name, xlabel="x [m]", ylabel="y [m]", xlim=extent[:2], ylim=extent[2:])
    every = max(1, len(picture.x) // 14)
    x, y = np.meshgrid(picture.x[::every], picture.y[::every])
    angle = picture.heading[::every, ::every]
    figure.axes[1].quiver(x, y, np.cos(angle), np.sin(angle), color="white", scale=30, width=0.003)
    figure.suptitle(title)
    return write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=110))
