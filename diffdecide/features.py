"""What the networks see: a scene as an ego vector and a set of object tokens, in the agent's body frame.

The ego vector depends on the agent alone, so one network serves every task of an agent; objects of any kind share one
token layout. Tasks without object sensors have one token, the normalised observation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safety.layout import EnvSpec
from safety.perception import LidarTracker, TrackerConfig
from safety.scene import KIND_ID, KINDS, STATE_DIM, Scene

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
EGO_STATE = 3  # body-frame vx, vy [m/s], yaw rate [rad/s]
GEOMETRY = ("x", "y", "distance", "cos", "sin", "clearance", "proximity", "vx", "vy", "radius")
TOKEN_DIM = len(GEOMETRY) + len(KINDS)
ALWAYS_KEPT = ("goal", "push_box", "circle", "red_zone", "green_zone", "blue_zone", "yellow_zone", "buttons")
_LATER = 1000.0  # m added to the sorting distance of kinds that may be left out
_ORDER = np.array([0.0 if kind in ALWAYS_KEPT else _LATER for kind in KINDS])
_ONE_HOT = np.eye(len(KINDS), dtype=np.float32)
_X, _Y, _DISTANCE, _COS, _SIN, _CLEARANCE, _PROXIMITY, _VX, _VY, _RADIUS = range(len(GEOMETRY))


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Sizes of what `SceneEncoder` makes.

    Attributes:
        max_objects: tokens per scene, K. Goals, zones, buttons and boxes come first, then the nearest others.
        history: control steps of ego readings in the ego vector, the newest first.
        proximity_offset: m, proximity is 1 / (distance + offset).
    """

    max_objects: int = 10
    history: int = 3
    proximity_offset: float = 0.1

    def __post_init__(self) -> None:
        for name in ("max_objects", "history"):
            if getattr(self, name) < 1:
                raise ValueError(f"FeatureConfig: expected {name} >= 1, got {getattr(self, name)}")
        if not self.proximity_offset > 0:
            raise ValueError(f"FeatureConfig: expected proximity_offset > 0 m, got {self.proximity_offset=}")


class SceneTokens(NamedTuple):
    """Features of one scene (or, with leading axes, of many); numpy float32 and bool, or torch alike."""

    ego: Floats  # [E]
    tokens: Floats  # [K, F]; rows behind the last object are zero
    mask: NDArray[np.bool_]  # [K] True = present


class EncodedEpisode(NamedTuple):
    """Features of every observation of an episode."""

    ego: Floats  # [T, E]
    tokens: Floats  # [T, K, F]
    mask: NDArray[np.bool_]  # [T, K]
    states: NDArray[np.float64]  # [T, 6] odometric, see `safety.scene.STATE_DIM`; zero without a layout


class SceneEncoder:
    """Scenes of one environment into tokens, step by step; holds the short history, so one encoder per episode.

    Attributes:
        ego_dim: E = history * (3 + action_dim); history * action_dim without a layout.
        token_dim: F = 22 (`GEOMETRY` and the one-hot kind); the observation's length without a layout.
        token_count: K = max_objects; 1 without a layout.
    """

    def __init__(
        self,
        spec: EnvSpec,
        config: FeatureConfig | None = None,
        *,
        observation_mean: Sequence[float] | np.ndarray | None = None,
        observation_std: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        """`observation_mean`, `observation_std` [o] normalise the one token of tasks without a layout."""
        self.spec = spec
        self.config = config or FeatureConfig()
        self.has_objects = spec.layout is not None
        size = spec.observation_dim
        self._mean = np.zeros(size) if observation_mean is None else np.asarray(observation_mean, dtype=np.float64)
        self._std = np.ones(size) if observation_std is None else np.asarray(observation_std, dtype=np.float64)
        for name, value in (("observation_mean", self._mean), ("observation_std", self._std)):
            if value.shape != (size,):
                raise ValueError(f"SceneEncoder: expected {name} of shape ({size},), got {value.shape}")
        if not (self._std > 0).all():
            raise ValueError("SceneEncoder: expected every observation_std > 0")
        self._width = (EGO_STATE if self.has_objects else 0) + spec.action_dim
        self.ego_dim = self.config.history * self._width
        self.token_dim = TOKEN_DIM if self.has_objects else size
        self.token_count = self.config.max_objects if self.has_objects else 1
        self._history = np.zeros(self.ego_dim, dtype=np.float32)
        self._fresh = True

    def reset(self) -> None:
        """Forget the history: the next reading fills all of it."""
        self._fresh = True

    def _push(self, row: Sequence[float]) -> Floats:
        width = self._width
        if self._fresh:
            self._history = np.tile(np.asarray(row, dtype=np.float32), self.config.history)
            self._fresh = False
        else:
            history = np.empty_like(self._history)
            history[width:] = self._history[:-width]
            history[:width] = row
            self._history = history
        return self._history.copy()

    def encode(
        self, scene: Scene | None, previous_action: np.ndarray | None = None, observation: np.ndarray | None = None
    ) -> SceneTokens:
        """Features of the current step; call once per control step.

        Args:
            scene: what is known; None only for tasks without a layout.
            previous_action: [A] executed in the step before, in [-1, 1]; None at the start (zeros).
            observation: [o], needed for tasks without a layout only.

        Raises:
            ValueError: a shape does not fit, or what the task needs is missing.
        """
        actions = self.spec.action_dim
        action = np.zeros(actions) if previous_action is None else np.asarray(previous_action)
        if action.shape != (actions,):
            raise ValueError(f"SceneEncoder: expected previous_action of shape ({actions},), got {action.shape}")
        if not self.has_objects:
            return self._encode_observation(action, observation)
        if scene is None:
            raise ValueError(f"SceneEncoder: {self.spec.id} has objects, expected a scene, got None")
        x, y, yaw, vx, vy, rate = scene.state.tolist()
        cos, sin = math.cos(yaw), math.sin(yaw)
        ego = self._push([cos * vx + sin * vy, cos * vy - sin * vx, rate, *action.tolist()])
        size = self.config.max_objects
        tokens = np.zeros((size, TOKEN_DIM), dtype=np.float32)
        mask = np.zeros(size, dtype=bool)
        if not len(scene.kinds):
            return SceneTokens(ego, tokens, mask)
        dx, dy = scene.positions[:, 0] - x, scene.positions[:, 1] - y
        distance = np.sqrt(dx * dx + dy * dy)
        order = (distance + _ORDER[scene.kinds]).argsort(kind="stable")[:size]
        count = len(order)
        dx, dy, distance, kinds = dx[order], dy[order], distance[order], scene.kinds[order]
        rows = tokens[:count]
        forward, left = cos * dx + sin * dy, cos * dy - sin * dx
        safe = np.maximum(distance, 1e-6)
        radius = scene.radii[order]
        rvx, rvy = scene.velocities[order, 0] - vx, scene.velocities[order, 1] - vy
        rows[:, _X], rows[:, _Y], rows[:, _DISTANCE] = forward, left, distance
        rows[:, _COS], rows[:, _SIN] = forward / safe, left / safe
        rows[:, _CLEARANCE], rows[:, _RADIUS] = distance - radius, radius
        rows[:, _PROXIMITY] = 1.0 / (distance + self.config.proximity_offset)
        rows[:, _VX], rows[:, _VY] = cos * rvx + sin * rvy, cos * rvy - sin * rvx
        rows[:, len(GEOMETRY) :] = _ONE_HOT[kinds]
        mask[:count] = True
        return SceneTokens(ego, tokens, mask)

    def _encode_observation(self, action: np.ndarray, observation: np.ndarray | None) -> SceneTokens:
        if observation is None:
            raise ValueError(f"SceneEncoder: {self.spec.id} has no objects, expected an observation, got None")
        values = np.asarray(observation, dtype=np.float64)
        if values.shape != (self.spec.observation_dim,):
            raise ValueError(
                f"SceneEncoder: expected an observation of shape ({self.spec.observation_dim},), got {values.shape}"
            )
        if not np.isfinite(values).all():
            where = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"SceneEncoder: expected a finite observation, got {values[where]} at index {where}")
        token = ((values - self._mean) / self._std).astype(np.float32)[None]
        return SceneTokens(self._push(action.tolist()), token, np.ones(1, dtype=bool))


def encode_many(
    spec: EnvSpec,
    observations: np.ndarray,
    actions: np.ndarray,
    config: FeatureConfig | None = None,
    *,
    tracker_config: TrackerConfig | None = None,
    observation_mean: np.ndarray | None = None,
    observation_std: np.ndarray | None = None,
) -> EncodedEpisode:
    """Features of a recorded episode, exactly as an agent would have seen them step by step.

    Args:
        spec: the environment the episode comes from.
        observations: [T, o].
        actions: [T, A], row t executed after observation t.
        config: sizes of the features.
        tracker_config: settings of the tracker.
        observation_mean: [o], see `SceneEncoder`.
        observation_std: [o], see `SceneEncoder`.

    Raises:
        ValueError: shapes do not fit, or an observation is not finite.
    """
    steps = len(observations)
    if observations.ndim != 2 or actions.ndim != 2 or len(actions) != steps or steps == 0:
        raise ValueError(
            f"encode_many: expected observations [T, o] and actions [T, A] with T >= 1, "
            f"got {observations.shape} and {actions.shape}"
        )
    encoder = SceneEncoder(spec, config, observation_mean=observation_mean, observation_std=observation_std)
    tracker = LidarTracker(spec, tracker_config) if encoder.has_objects else None
    ego = np.zeros((steps, encoder.ego_dim), dtype=np.float32)
    tokens = np.zeros((steps, encoder.token_count, encoder.token_dim), dtype=np.float32)
    mask = np.zeros((steps, encoder.token_count), dtype=bool)
    states = np.zeros((steps, STATE_DIM))
    for step, observation in enumerate(observations):
        previous = actions[step - 1] if step else None
        scene = None
        if tracker is not None:
            scene = tracker.update(observation)
            states[step] = scene.state
        ego[step], tokens[step], mask[step] = encoder.encode(scene, previous, observation)
    return EncodedEpisode(ego, tokens, mask, states)


class SceneArrays(NamedTuple):
    """Objects of one scene, or of one scene per pose, as torch tensors; B is 1 where all poses share a scene."""

    positions: torch.Tensor  # [B, N, 2] m
    velocities: torch.Tensor  # [B, N, 2] m/s
    kinds: torch.Tensor  # [B, N] int64
    radii: torch.Tensor  # [B, N] m
    mask: torch.Tensor  # [B, N] bool, True = present

    @classmethod
    def from_scene(cls, scene: Scene, device: str | torch.device = "cpu") -> SceneArrays:
        """The objects of `scene`, with a leading axis of one."""
        import torch

        def tensor(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
            return torch.as_tensor(values, device=device).to(dtype)[None]

        return cls(
            tensor(scene.positions, torch.float32),
            tensor(scene.velocities, torch.float32),
            tensor(scene.kinds, torch.int64),
            tensor(scene.radii, torch.float32),
            torch.ones(1, len(scene.kinds), dtype=torch.bool, device=device),
        )


def tokens_at(
    objects: SceneArrays,
    poses: torch.Tensor,
    previous_actions: torch.Tensor,
    config: FeatureConfig | None = None,
    *,
    elapsed: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The features that `SceneEncoder.encode` would give at other states of the agent, differentiable in `poses`.

    Args:
        objects: what stands where; B is 1 or that of `poses`.
        poses: [B, 6] states as in `safety.scene.STATE_DIM`, same frame as the objects.
        previous_actions: [B, A] the action that led there. The history is filled with this one state.
        config: sizes of the features, as in the encoder.
        elapsed: s, by which objects have moved on at constant velocity.

    Returns:
        ego [B, E], tokens [B, K, F], mask [B, K] (True = present).

    Raises:
        ValueError: shapes do not fit.
    """
    import torch

    config = config or FeatureConfig()
    if poses.ndim != 2 or poses.shape[1] != STATE_DIM:
        raise ValueError(f"tokens_at: expected poses [B, {STATE_DIM}], got {tuple(poses.shape)}")
    batch, count = poses.shape[0], objects.kinds.shape[1]
    if previous_actions.ndim != 2 or previous_actions.shape[0] != batch:
        raise ValueError(f"tokens_at: expected previous_actions [{batch}, A], got {tuple(previous_actions.shape)}")
    if objects.kinds.shape[0] not in (1, batch):
        raise ValueError(f"tokens_at: expected objects for 1 or {batch} poses, got {objects.kinds.shape[0]}")
    yaw, velocity = poses[:, 2:3], poses[:, None, 3:5]
    cos, sin = torch.cos(yaw), torch.sin(yaw)

    def to_body(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return cos * vectors[..., 0] + sin * vectors[..., 1], cos * vectors[..., 1] - sin * vectors[..., 0]

    ahead, aside = to_body(velocity)
    ego = torch.cat([ahead, aside, poses[:, 5:6], previous_actions], dim=1).repeat(1, config.history)
    size = config.max_objects
    if count == 0:
        return ego, poses.new_zeros(batch, size, TOKEN_DIM), objects.mask.new_zeros(batch, size)
    delta = objects.positions + elapsed * objects.velocities - poses[:, None, :2]
    distance = torch.sqrt((delta * delta).sum(-1) + 1e-18)
    later = torch.as_tensor(_ORDER, dtype=poses.dtype, device=poses.device)[objects.kinds]
    rank = (distance.detach() + later).masked_fill(~objects.mask, math.inf)
    order = rank.argsort(dim=1, stable=True)[:, :size]
    forward, left = to_body(delta)
    rvx, rvy = to_body(objects.velocities - velocity)
    radii = objects.radii.expand(batch, count)
    safe = distance.clamp_min(1e-6)
    geometry = torch.stack(
        [
            forward,
            left,
            distance,
            forward / safe,
            left / safe,
            distance - radii,
            1.0 / (distance + config.proximity_offset),
            rvx,
            rvy,
            radii,
        ],
        dim=-1,
    )
    kinds = torch.nn.functional.one_hot(objects.kinds, len(KINDS)).to(poses.dtype).expand(batch, count, len(KINDS))
    rows = torch.cat([geometry, kinds], dim=-1)
    present = objects.mask.expand(batch, count).gather(1, order)
    tokens = rows.gather(1, order[..., None].expand(-1, -1, TOKEN_DIM)) * present[..., None]
    missing = size - order.shape[1]
    if missing > 0:
        tokens = torch.nn.functional.pad(tokens, (0, 0, 0, missing))
        present = torch.nn.functional.pad(present, (0, missing))
    return ego, tokens, present


def target_token(features: SceneTokens, kind: str) -> int:
    """Index of the token that is the (nearest) object of `kind`, -1 if none is among the tokens.

    Raises:
        ValueError: `kind` is not one of `safety.scene.KINDS`.
    """
    if kind not in KIND_ID:
        raise ValueError(f"target_token: expected one of {', '.join(KINDS)}, got {kind!r}")
    wanted = features.mask & (features.tokens[:, len(GEOMETRY) + KIND_ID[kind]] > 0.5)
    if not wanted.any():
        return -1
    return int(np.where(wanted, features.tokens[:, _DISTANCE], np.inf).argmin())


def token_kind(features: SceneTokens, index: int) -> str:
    """The kind (of `safety.scene.KINDS`) of token `index`; empty if there is no such object."""
    if not features.mask[index]:
        return ""
    return KINDS[int(features.tokens[index, len(GEOMETRY) :].argmax())]
