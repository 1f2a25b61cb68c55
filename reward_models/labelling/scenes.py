"""What a segment looked like, from its observations alone: the path driven and the objects around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from diffdecide.data.ego_motion import has_ego_motion, poses
from diffdecide.data.episode import Episode
from safety.layout import EnvSpec
from safety.lidar import exact_detections


def cut_episode(episode: Episode, start: int, length: int) -> Episode:
    """A piece of an episode as an episode of its own."""
    rows = slice(start, start + length)
    arrays = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")
    return replace(
        episode,
        **{name: getattr(episode, name)[rows] for name in arrays},
        constraints={},
        subgoals=None,
        plans=None,
    )


def picture(episode: Episode, start: int, length: int, spec: EnvSpec) -> dict[str, Any]:
    """JSON values for the page: `path` [[x, y, yaw]], `objects` per step [[kind, x, y, radius]], `dt`, `actions`.

    In metres, in the frame of the segment's first pose. Objects come from the lidar rings of each step, so what is
    hidden is not drawn. Without the sensors for a path, only the actions are given.
    """
    piece = cut_episode(episode, start, length)
    result: dict[str, Any] = {"dt": spec.dt, "actions": np.round(piece.actions, 4).tolist()}
    layout = spec.layout
    if layout is None or not has_ego_motion(layout):
        return result
    track = poses(piece, layout, spec.dt)[:-1]
    result["path"] = np.round(track, 4).tolist()
    frames = []
    for (x, y, yaw), observation in zip(track, piece.observations, strict=True):
        seen = []
        for name, kind in zip(layout.lidars, layout.lidar_kinds, strict=True):
            for ahead, aside, _ in exact_detections(observation[layout[name]].tolist(), spec.lidar_max_dist or 3.0):
                place = (
                    x + np.cos(yaw) * ahead - np.sin(yaw) * aside,
                    y + np.sin(yaw) * ahead + np.cos(yaw) * aside,
                )
                seen.append([kind, round(float(place[0]), 3), round(float(place[1]), 3), spec.radii.get(kind, 0.1)])
        frames.append(seen)
    result["objects"] = frames
    return result
