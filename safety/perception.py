"""Lidar rings and ego sensors in, a `Scene` out: object positions decoded, tracked and remembered.

The frame is odometric: the agent's pose at the first observation is the origin. Heading is absolute (magnetometer),
position is integrated and then corrected by static objects whose position the lidar gives away exactly, so that what
is hidden behind something nearer stays where it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from safety.layout import EnvSpec
from safety.motion import TURN_RATES
from safety.noisy_map import NoisyMap
from safety.object_map import ObjectMap
from safety.odometry import Odometry
from safety.scene import KIND_ID, STATE_DIM, Scene
from safety.tracks import MapConfig

DEFAULT_RADII = {
    "goal": 0.3,
    "hazards": 0.2,
    "vases": 0.1,
    "pillars": 0.2,
    "gremlins": 0.1,
    "buttons": 0.1,
    "push_box": 0.2,
    "circle": 1.5,
    "red_zone": 0.3,
    "green_zone": 0.3,
    "blue_zone": 0.3,
    "yellow_zone": 0.3,
}
SINGLE = ("goal", "circle", "push_box", "red_zone", "green_zone", "blue_zone", "yellow_zone")
MOVES = {"vases": "pushed", "push_box": "pushed", "gremlins": "always"}


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of `LidarTracker`.

    Attributes:
        static: how objects are mapped; `moves`, `turn_rate` and `single` are set per kind.
        moving_gate: m, gate for objects that move.
        pose_slack: m, uncertainty of the pose after landmarks have corrected it.
        drift_per_metre: m of pose uncertainty gained per metre driven while no landmark is seen.
        max_residual: m, a landmark that disagrees by more does not correct the pose.
    """

    static: MapConfig = field(default_factory=MapConfig)
    moving_gate: float = 0.12
    pose_slack: float = 1e-3
    drift_per_metre: float = 5e-3
    max_residual: float = 0.03

    def __post_init__(self) -> None:
        for name in ("moving_gate", "pose_slack", "drift_per_metre", "max_residual"):
            if not getattr(self, name) > 0:
                raise ValueError(f"TrackerConfig: expected {name} > 0, got {getattr(self, name)}")

    def for_kind(self, kind: str) -> MapConfig:
        """The map configuration of one kind of object."""
        moves = MOVES.get(kind, "no")
        gate = self.static.gate if moves == "no" else self.moving_gate
        rate = TURN_RATES.get(kind, 0.0)
        return replace(self.static, moves=moves, single=kind in SINGLE, gate=gate, turn_rate=rate)


class LidarTracker:
    """Observations of one environment, step by step, into scenes. One tracker per environment; `reset` per episode."""

    def __init__(self, spec: EnvSpec, config: TrackerConfig | None = None) -> None:
        """`spec.layout` must name a velocimeter, a gyro or magnetometer, and the lidars. Raises ValueError if not."""
        self.spec = spec
        self.config = config or TrackerConfig()
        layout = spec.layout
        if layout is None or spec.lidar_max_dist is None:
            raise ValueError(f"LidarTracker: {spec.id} has no lidar to track objects with (layout is None)")
        for sensor in ("velocimeter", "gyro"):
            if sensor not in layout:
                raise ValueError(f"LidarTracker: {spec.id} has no {sensor}; it has {', '.join(layout.names)}")
        self._velocity = layout["velocimeter"].start
        self._gyro = layout["gyro"].stop - 1
        self._field = layout["magnetometer"].start if "magnetometer" in layout else None
        self._odometry = Odometry(spec.dt)
        # Readings that may be off or missing cannot be inverted exactly; they are weighed.
        noisy = spec.lidar_noise > 0 or spec.lidar_dropout > 0
        self._maps: list[tuple[slice, ObjectMap | NoisyMap]] = []
        self._kinds: list[int] = []
        self._radii: list[float] = []
        for name, kind in zip(layout.lidars, layout.lidar_kinds, strict=True):
            if kind not in KIND_ID:
                raise ValueError(f"LidarTracker: {spec.id} has sensor {name!r}, expected one of {', '.join(KIND_ID)}")
            behaviour, reach = self.config.for_kind(kind), spec.lidar_max_dist
            objects = (
                NoisyMap(behaviour, reach, spec.dt, noise=spec.lidar_noise, dropout=spec.lidar_dropout)
                if noisy
                else ObjectMap(behaviour, reach, spec.dt)
            )
            self._maps.append((layout[name], objects))
            self._kinds.append(KIND_ID[kind])
            self._radii.append(float(spec.radii.get(kind, DEFAULT_RADII[kind])))
        self._slack = self.config.pose_slack

    def reset(self) -> None:
        """Start a new episode: forget the pose and all objects."""
        self._odometry.reset()
        for _, objects in self._maps:
            objects.reset()
        self._slack = self.config.pose_slack

    def _check(self, observation: np.ndarray) -> list[float]:
        if observation.shape != (self.spec.observation_dim,):
            raise ValueError(
                f"LidarTracker: expected an observation of shape ({self.spec.observation_dim},) for {self.spec.id}, "
                f"got {observation.shape}"
            )
        values: list[float] = observation.tolist()
        if not math.isfinite(sum(values)):
            for index, value in enumerate(values):
                if not math.isfinite(value):
                    raise ValueError(
                        f"LidarTracker: expected finite readings, got {value} at index {index} "
                        f"(sensor {self._sensor_at(index)})"
                    )
        return values

    def _sensor_at(self, index: int) -> str:
        layout = self.spec.layout
        if layout is not None:
            for name in layout:
                if layout[name].start <= index < layout[name].stop:
                    return name
        return "unknown"

    def update(self, observation: np.ndarray) -> Scene:
        """Take one observation [o] and return what is known after it.

        Raises:
            ValueError: wrong shape, or a reading that is not finite (named with its sensor). The state of the
                tracker is then unchanged.
        """
        values = self._check(np.asarray(observation))
        odometry = self._odometry
        start, at = self._velocity, self._field
        dx, dy = odometry.update(
            (values[start], values[start + 1]),
            values[self._gyro],
            None if at is None else (values[at], values[at + 1]),
        )
        pose = (odometry.x, odometry.y, odometry.cos, odometry.sin)
        residuals: list[tuple[float, float, float]] = []
        for where, objects in self._maps:
            residuals += objects.begin(values[where], pose)
        self._correct(residuals, math.hypot(dx, dy))
        pose = (odometry.x, odometry.y, odometry.cos, odometry.sin)
        dropped = not any(any(values[where]) for where, _ in self._maps)
        for _, objects in self._maps:
            objects.finish(pose, self._slack, dropped)
        return self._scene()

    def _correct(self, residuals: list[tuple[float, float, float]], moved: float) -> None:
        """Shift the pose to where static objects say it is."""
        config = self.config
        if residuals:
            best = min(residuals, key=lambda r: r[2])
            mx, my = best[0], best[1]
            if len(residuals) > 2:
                middle = len(residuals) // 2
                mx = sorted(r[0] for r in residuals)[middle]
                my = sorted(r[1] for r in residuals)[middle]
            if max(abs(mx), abs(my)) < config.max_residual:
                total = shift_x = shift_y = 0.0
                for rx, ry, var in residuals:
                    if abs(rx - mx) < 0.01 and abs(ry - my) < 0.01:
                        total += 1.0 / var
                        shift_x += rx / var
                        shift_y += ry / var
                if total > 0.0:
                    self._odometry.shift(-shift_x / total, -shift_y / total)
                    self._slack = config.pose_slack
                    return
        self._slack += config.drift_per_metre * moved

    def _scene(self) -> Scene:
        odometry = self._odometry
        state = np.empty(STATE_DIM)
        state[:] = (odometry.x, odometry.y, odometry.yaw, odometry.vx, odometry.vy, odometry.yaw_rate)
        rows: list[tuple[float, float, float, float, float]] = []
        kinds: list[int] = []
        radii: list[float] = []
        for (_, objects), kind, radius in zip(self._maps, self._kinds, self._radii, strict=True):
            found = objects.arrays()
            rows += found
            kinds += [kind] * len(found)
            radii += [radius] * len(found)
        table = np.array(rows, dtype=np.float64).reshape(-1, 5)
        return Scene(
            state=state,
            positions=table[:, :2],
            velocities=table[:, 2:4],
            kinds=np.array(kinds, dtype=np.int64),
            radii=np.array(radii, dtype=np.float64),
            sigma=table[:, 4],
        )
