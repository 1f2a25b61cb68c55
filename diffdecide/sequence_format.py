"""How a plan of states and actions is laid out: past rows that are known, future rows that are planned.

One layout serves training and planning. A window begins `history` control steps before now: its first rows hold the
states reached and the actions taken since then, the last of them the state of now. They are known when a plan is made
and are kept by inpainting (Janner et al. 2022). States are poses of the ego-motion where the observation has the
sensors for it, else observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from diffdecide.data.ego_motion import has_ego_motion, poses, relative
from diffdecide.data.episode import Episode
from diffdecide.data.normalize import Normalizer
from diffdecide.data.returns import to_go
from diffdecide.data.windows import POSE_DIM, WindowConfig
from diffdecide.plan import PlanRows
from safety.layout import EnvSpec

OBSERVATION_CLIP = 5.0  # standard deviations


@dataclass(frozen=True, kw_only=True)
class SequenceFormat:
    """The layout of plans for one environment.

    Attributes:
        spec: the environment; its layout and `dt` decide about poses.
        history: control steps of the past in a plan, >= 1.
        dense, strided, stride: rows of the future, see `WindowConfig`.
        conditioning, discount, horizon: what return and cost budget mean, see `WindowConfig`.
    """

    spec: EnvSpec
    history: int = 2
    dense: int = 8
    strided: int = 6
    stride: int = 4
    conditioning: str = "horizon"
    discount: float = 0.99
    horizon: int | None = 200

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ValueError(f"SequenceFormat.history must be at least 1, got {self.history}")
        if self.dense < 1:
            raise ValueError(f"SequenceFormat.dense must be at least 1, got {self.dense}")
        self.windows()  # refuses the rest

    def windows(self, *, start_every: int = 1) -> WindowConfig:
        """The same as a window over `aligned` episodes."""
        return WindowConfig(
            dense=self.history + self.dense,
            strided=self.strided,
            stride=self.stride,
            mode="states+actions",
            start_every=start_every,
            labels="ignore",
            conditioning=self.conditioning,  # type: ignore[arg-type]
            discount=self.discount,
            horizon=self.horizon,
        )

    @property
    def rows(self) -> PlanRows:
        """All rows, the past among them."""
        return PlanRows(dense=self.history + self.dense, strided=self.strided, stride=self.stride)

    @property
    def has_poses(self) -> bool:
        return has_ego_motion(self.spec.layout)

    @property
    def state_dim(self) -> int:
        return POSE_DIM if self.has_poses else self.spec.observation_dim

    @property
    def dim(self) -> int:
        """D = state_dim + action_dim."""
        return self.state_dim + self.spec.action_dim

    @property
    def counted_steps(self) -> float:
        """How many steps the discounted sums of "horizon" are worth; infinite for sums to the end."""
        if self.conditioning == "end":
            return float("inf")
        if self.discount == 1:
            return float("inf") if self.horizon is None else float(self.horizon)
        left = 0.0 if self.horizon is None else self.discount**self.horizon
        return (1 - left) / (1 - self.discount)

    def to_dict(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self)} | {"spec": self.spec.to_dict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SequenceFormat:
        return cls(**{**value, "spec": EnvSpec.from_dict(value["spec"])})

    def aligned(self, episode: Episode) -> Episode:
        """The episode with `history` steps of rest before its start, rewards and costs left in their place.

        So the window that starts at step t shows what was seen and done from t - history on, and its return-to-go
        and cost-to-go are those of step t, the current one. Behind a time-out the mean per step goes on.
        """
        count = self.history

        def before(values: np.ndarray, first: np.ndarray) -> np.ndarray:
            return np.concatenate([np.repeat(first[None], count, axis=0), values])

        def behind(values: np.ndarray) -> np.ndarray:
            ends = bool(episode.terminals[-1]) or self.conditioning == "end"
            return np.concatenate([values, np.full(count, 0.0 if ends else values.mean(), values.dtype)])

        still = np.zeros(count, dtype=bool)
        return Episode(
            observations=before(episode.observations, episode.observations[0]),
            next_observations=before(episode.next_observations, episode.observations[0]),
            actions=before(episode.actions, np.zeros_like(episode.actions[0])),
            rewards=behind(episode.rewards),
            costs=behind(episode.costs),
            terminals=np.concatenate([still, episode.terminals]),
            timeouts=np.concatenate([still, episode.timeouts]),
        )

    def features(self, episode: Episode, observation: Normalizer) -> dict[str, np.ndarray]:
        """Per window start of `aligned(episode)`: the conditions of `WindowDataset`, and targets for the critic.

        `weight` is 0 for windows whose current step lies behind the end of the episode.
        """
        aligned = self.aligned(episode)
        steps = np.minimum(np.arange(len(aligned)), len(episode) - 1)
        # In the aligned episode step t stands at t + history, so its past begins at t.
        seen = aligned.observations[steps[:, None] + np.arange(self.history + 1)]
        done = aligned.actions[steps[:, None] + np.arange(self.history)]
        sums = to_go(aligned, discount=self.discount, horizon=self.horizon)
        end = self.conditioning == "end"
        return {
            **self.conditions(seen, done, observation),
            "target_index": np.full(len(aligned), -1),
            "value_target": sums.return_to_end if end else sums.return_to_go,
            "cost_target": sums.cost_to_end if end else sums.cost_to_go,
            "weight": (np.arange(len(aligned)) < len(episode)).astype(np.float32),
        }

    def conditions(self, seen: np.ndarray, done: np.ndarray, observation: Normalizer) -> dict[str, np.ndarray]:
        """What the networks are told: the actions of the past as ego, the normalised observations as the one token.

        Args:
            seen: [B, history + 1, o] observations, the current one last.
            done: [B, history, a] actions between them.
            observation: normaliser of observations [..., o].

        Returns:
            ego [B, history a], tokens [B, 1, (history + 1) o], token_mask [B, 1], goal [B, 1] (zero: the data's own).
        """
        count = len(seen)
        token = np.asarray(observation.normalize(seen), dtype=np.float32).reshape(count, 1, -1)
        return {
            "ego": np.asarray(done, dtype=np.float32).reshape(count, -1),
            "tokens": token,
            "token_mask": np.ones((count, 1), dtype=bool),
            "goal": np.zeros((count, 1), dtype=np.float32),
        }

    def past(self, observations: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The last `history` + 1 observations [history + 1, o] and the actions between them [history, a].

        A shorter past (the beginning of an episode) is filled with rest: the first observation, no action.

        Raises:
            ValueError: wrong widths, numbers of rows that do not fit, or values that are not finite.
        """
        seen, done = np.asarray(observations, dtype=np.float32), np.asarray(actions, dtype=np.float32)
        widths = (self.spec.observation_dim, self.spec.action_dim)
        if seen.ndim != 2 or len(seen) < 1 or seen.shape[1] != widths[0]:
            raise ValueError(
                f"observations: this planner was trained for {self.spec.id} and expects [L, {widths[0]}] with L >= 1, "
                f"got shape {seen.shape}"
            )
        if done.shape != (len(seen) - 1, widths[1]):
            raise ValueError(f"actions: expected shape ({len(seen) - 1}, {widths[1]}), got {done.shape}")
        for name, value in (("observations", seen), ("actions", done)):
            if not np.isfinite(value).all():
                row, column = (int(i) for i in np.argwhere(~np.isfinite(value))[0])
                raise ValueError(f"{name}: expected finite values, got {value[row, column]} at row {row}, {column}")
        seen, done = seen[-self.history - 1 :], done[-self.history :]
        short = self.history - len(done)
        seen = np.concatenate([np.repeat(seen[:1], short, axis=0), seen])
        return seen, np.concatenate([np.zeros((short, widths[1]), np.float32), done])

    def known_rows(self, seen: np.ndarray, done: np.ndarray) -> np.ndarray:
        """The rows of the past [history, D] in the units of the data, from what `past` returns."""
        if not self.has_poses:
            return np.concatenate([seen[1:], done], -1)
        rest = np.zeros(len(done), dtype=np.float32)
        flags = np.zeros(len(done), dtype=bool)
        track = Episode(seen[:-1], seen[1:], done, rest, rest, flags, flags)
        path = poses(track, self.spec.layout, self.spec.dt)  # type: ignore[arg-type]
        return np.concatenate([relative(path[1:], path[0]), done], -1).astype(np.float32)

    def shifted(self, rows: np.ndarray, elapsed: int) -> np.ndarray:
        """A plan [H, D] (units of the data) as seen `elapsed` control steps later, its end held.

        Poses are given in the frame of the new first step, by the plan's own account of where that is.
        """
        width, span = self.state_dim, self.rows.span
        elapsed = min(elapsed, span)
        ends = self.windows().row_ends
        steps = np.arange(span)
        states = np.stack([np.interp(steps, ends, rows[:, column]) for column in range(width)], -1)
        actions = self.rows.expand(rows[:, width:])
        later = np.minimum(steps + elapsed, span - 1)
        moved = states[later][ends]
        if self.has_poses and elapsed:
            moved = relative(_pose(moved), _pose(states[elapsed - 1]))
        return np.concatenate([moved, self.rows.contract(actions[later])], -1).astype(np.float32)


def _pose(states: np.ndarray) -> np.ndarray:
    """x, y, cos, sin [..., 4] to x, y, yaw [..., 3]."""
    return np.concatenate([states[..., :2], np.arctan2(states[..., 3:4], states[..., 2:3])], -1)
