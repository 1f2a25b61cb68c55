"""What a loop notes down so that a rollout can be drawn afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from safety.scene import KINDS, Scene

OBSTACLES = ("hazards", "pillars", "gremlins")


@dataclass(frozen=True)
class Frame:
    """One control step. Everything is in the frame of `scene` (see `to_frame_of`)."""

    step: int  # control steps since the reset
    scene: Scene  # ground truth
    plan: np.ndarray | None = None  # [T, 2] m, positions of the plan being followed, from now on
    intervened: bool = False  # the filter changed the action
    clearance: float | None = None  # m, to the nearest obstacle
    current: int = 0  # index of the sub-goal that is pursued; the number of sub-goals when all are done
    cost: float = 0.0  # sum so far


@dataclass(frozen=True)
class PlanSnapshot:
    """All that was considered when one plan was made, in the frame of `scene`."""

    step: int
    scene: Scene
    candidates: np.ndarray  # [C, T, 2] m
    chosen: np.ndarray  # [T, 2] m; the plan after its projection, so not always one of the candidates
    times: np.ndarray  # [T] s from now
    obstacles: tuple[str, ...] = OBSTACLES  # kinds to keep clear of, forbidden zones included
    clearance: np.ndarray | None = None  # [T] m along `chosen`; computed from the scene where None

    def __post_init__(self) -> None:
        if self.candidates.ndim != 3 or self.candidates.shape[-1] != 2:
            raise ValueError(f"PlanSnapshot.candidates must have shape [C, T, 2], got {self.candidates.shape}")
        if self.chosen.ndim != 2 or self.chosen.shape != (len(self.times), 2):
            raise ValueError(
                f"PlanSnapshot.chosen must have shape [{len(self.times)}, 2] like its times, got {self.chosen.shape}"
            )
        unknown = sorted(set(self.obstacles) - set(KINDS))
        if unknown:
            raise ValueError(f"PlanSnapshot.obstacles must be among {KINDS}, got {unknown}")

    def clearance_along(self) -> np.ndarray:
        """Clearance [T] of the chosen plan in metres, inf where nothing is in the way."""
        return self.clearance if self.clearance is not None else clearances(self.chosen, self.scene, self.obstacles)

    def too_close(self, margin: float) -> np.ndarray:
        """Which candidates [C] come nearer than `margin` metres to an obstacle."""
        return clearances(self.candidates, self.scene, self.obstacles).min(axis=-1) < margin


def clearances(points: np.ndarray, scene: Scene, kinds: tuple[str, ...] = OBSTACLES) -> np.ndarray:
    """Distance [...] in metres from points [..., 2] to the rim of the nearest object of `kinds`, negative inside.

    Objects are where `scene` has them; inf where it has none.
    """
    indices = scene.of_kind(*kinds)
    if not indices.size:
        return np.full(points.shape[:-1], np.inf)
    distances = np.linalg.norm(points[..., None, :] - scene.positions[indices], axis=-1) - scene.radii[indices]
    return np.asarray(distances.min(axis=-1))


def to_frame_of(points: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move points [..., 2] from one frame to another, given the same agent's state [6] in both.

    A plan lives in the agent's odometric frame, a picture in the simulator's; at the step in which the plan was made
    the agent's two poses fix the motion between them.
    """
    turn = target[2] - source[2]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (np.asarray(points, dtype=np.float64) - source[:2]) @ rotation.T + target[:2]


@dataclass
class RolloutRecorder:
    """Collects frames and plans of one rollout; `rendering` and `plan_picture` draw them.

    Args:
        instruction: the sentence, or what stands for it.
        goals: names of the sub-goals in order ("green", "red", or "goal").
        dt: seconds per control step.
        margin: metres that the filter keeps.
        forbidden: kinds never to be entered ("blue_zone").
        forward_offset: radians from the agent's yaw to where it drives (`safety.dynamics`: not zero for the Car).
    """

    instruction: str
    goals: tuple[str, ...]
    dt: float
    margin: float
    forbidden: tuple[str, ...] = ()
    forward_offset: float = 0.0
    outcome: str | None = None  # "succeeded", "failed: ...", shown in the last frame
    frames: list[Frame] = field(default_factory=list)
    plans: list[PlanSnapshot] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.dt > 0:
            raise ValueError(f"dt must be positive seconds, got {self.dt}")
        if not self.margin >= 0:
            raise ValueError(f"margin must be >= 0 metres, got {self.margin}")

    def add(self, frame: Frame) -> None:
        self.frames.append(frame)

    def add_plan(self, plan: PlanSnapshot) -> None:
        self.plans.append(plan)

    def telling_plan(self) -> PlanSnapshot:
        """The plan that shows most: candidates on both sides of the margin, and a chosen path that goes somewhere.

        Raises:
            ValueError: no plan was recorded.
        """
        if not self.plans:
            raise ValueError("no plan was recorded, so there is none to draw")

        def interest(plan: PlanSnapshot) -> tuple[float, float]:
            share = float(plan.too_close(self.margin).mean())
            # Half the candidates refused says most; ties go to the longer path.
            path = float(np.linalg.norm(np.diff(plan.chosen, axis=0), axis=-1).sum())
            return (round(share * (1 - share), 2), path)

        return max(self.plans, key=interest)
