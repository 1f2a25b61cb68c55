"""Windows over episodes: what a planner is trained on.

A window that starts at step t is H = dense + strided rows of actions: first every control step, then rows that stand
for `stride` steps each and hold their mean ("jump-step" plans). Everything per step is laid out flat once; a batch is
a few gathers, so that one core feeds the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from diffdecide.data.ego_motion import Layout, has_ego_motion, poses, relative
from diffdecide.data.episode import DataError, Episode
from diffdecide.data.normalize import Normalizer
from diffdecide.data.returns import to_go
from diffdecide.data.step_features import FEATURES, Features, flat_features
from diffdecide.data.window_rows import WindowConfig, resample

__all__ = ["FEATURES", "POSE_DIM", "WindowConfig", "WindowDataset", "WindowStatistics", "resample"]

POSE_DIM = 4  # x, y [m], cos yaw, sin yaw in the frame of the window's first step
STATISTICS_WINDOWS = 20_000


class WindowStatistics(nn.Module):
    """The normalisers of a data set of windows; saved with the model, as buffers or by `to_dict`.

    Attributes:
        trajectory: rows [..., D] to [-1, 1] by the range in the data
        return_to_go, cost_budget: [..., 1], standardised, clipped at 5
    """

    NAMES = ("trajectory", "return_to_go", "cost_budget")

    def __init__(self, trajectory_dim: int) -> None:
        super().__init__()
        self.trajectory = Normalizer(trajectory_dim)
        self.return_to_go = Normalizer(1, clip=5.0)
        self.cost_budget = Normalizer(1, clip=5.0)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).to_dict() for name in self.NAMES}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> WindowStatistics:
        missing = [name for name in cls.NAMES if name not in value]
        if missing:
            raise ValueError(f"window statistics: missing keys {missing}, got {sorted(value)}")
        parts = {name: Normalizer.from_dict(value[name]) for name in cls.NAMES}
        result = cls(parts["trajectory"].dim)
        for name, part in parts.items():
            setattr(result, name, part)
        return result


class WindowDataset(Dataset[dict[str, Tensor]]):
    """Windows of a list of episodes as the batches of docs/architecture.md.

    `dataset[i]` is one window, `dataset.__getitems__(indices)` a whole batch at once, which `DataLoader` uses by
    itself when it is given `collate_fn=WindowDataset.collate`.

    A batch holds `trajectory [B, H, D]` (normalised; 0 where `mask [B, H]` is False), the features of the first step
    (`ego [B, E]`, `tokens [B, K, F]`, `token_mask [B, K]`, `goal [B, G]`, `target_index [B]`, and whatever else the
    features hold), `return_to_go [B]` and `cost_budget [B]` (normalised).

    Args:
        episodes: at least one
        config: see `WindowConfig`
        features: per episode the arrays of `FEATURES`, each [T, ...]; a callable, or one mapping per episode. Floats
            keep their type in memory (float16 halves it) and are float32 in batches
        statistics: normalisers of a model to go on with; None: fitted on these windows
        layout: map of the observation and `dt` in seconds, for poses in "states+actions"

    Raises:
        DataError: episodes or features that do not fit together, or no window at all
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        config: WindowConfig,
        *,
        features: Callable[[Episode], Features] | Sequence[Features],
        statistics: WindowStatistics | None = None,
        layout: Layout | None = None,
        dt: float | None = None,
    ) -> None:
        if not episodes:
            raise DataError("episodes: expected at least one, got none")
        self.config = config
        lengths = np.array([len(episode) for episode in episodes])
        ends = np.cumsum(lengths)
        self.steps = int(ends[-1])
        self._ends = ends
        self._end = torch.from_numpy(np.repeat(ends, lengths))  # [N] where the episode of a step ends
        for key in ("observations", "actions"):
            widths = {getattr(episode, key).shape[1] for episode in episodes}
            if len(widths) != 1:
                raise DataError(f"{key}: expected the same width in all episodes, got {sorted(widths)}")
        self._actions = torch.from_numpy(np.concatenate([episode.actions for episode in episodes]))
        self._features = flat_features(episodes, features)

        sums = [to_go(episode, discount=config.discount, horizon=config.horizon) for episode in episodes]
        self.return_to_end, self.cost_to_end, self.return_to_go, self.cost_to_go = (
            np.concatenate([getattr(part, name) for part in sums])
            for name in ("return_to_end", "cost_to_end", "return_to_go", "cost_to_go")
        )  # [N] each, in reward and cost units
        self._set_labels(episodes, ends - lengths)
        self._set_states(episodes, layout, dt)
        self._row_ends = torch.from_numpy(config.row_ends)
        self._offsets = torch.arange(config.span)

        returns, costs = (
            (self.return_to_go, self.cost_to_go)
            if config.conditioning == "horizon"
            else (self.return_to_end, self.cost_to_end)
        )
        if config.label_quantile is not None:
            labelled = (self._label_of >= 0).numpy()
            # The spread is that of ordinary behaviour; of everything only where nothing else is there.
            rest = ~labelled if not labelled.all() else labelled
            returns = np.where(labelled, np.quantile(returns[rest], config.label_quantile), returns)
            costs = np.where(labelled, np.quantile(costs[rest], 1 - config.label_quantile), costs)
        raw = np.stack([returns, costs], 1).astype(np.float32)
        self.statistics = statistics if statistics is not None else self._fit(raw)
        if self.statistics.trajectory.dim != self.trajectory_dim:
            raise DataError(
                f"statistics: expected trajectories of {self.trajectory_dim} dimensions, "
                f"got {self.statistics.trajectory.dim}"
            )
        with torch.no_grad():
            self._return_to_go = self.statistics.return_to_go.normalize(torch.from_numpy(raw[:, :1]))[:, 0]
            self._cost_budget = self.statistics.cost_budget.normalize(torch.from_numpy(raw[:, 1:]))[:, 0]

    def _set_labels(self, episodes: Sequence[Episode], first: np.ndarray) -> None:
        """Labels [L, span, a] of labelled steps, the row of each step in them [N] (-1: none), starts of windows."""
        config, span = self.config, self.config.span
        label_of = np.full(self.steps, -1, dtype=np.int64)
        labels, starts, count = [], [], 0
        for episode, offset in zip(episodes, first, strict=True):
            steps = np.arange(0, len(episode), config.start_every)
            if episode.plans is not None and config.labels != "ignore":
                # A label whose first action is missing has nothing to say about now.
                labelled = np.flatnonzero(~np.isnan(episode.plans[:, 0, 0]))
                part = np.full((len(labelled), span, episode.actions.shape[1]), np.nan, np.float32)
                taken = episode.plans[labelled, :span]
                part[:, : taken.shape[1]] = taken
                labels.append(part)
                label_of[offset + labelled] = count + np.arange(len(labelled))
                count += len(labelled)
                if config.labels == "only" and len(labelled):
                    steps = labelled
            starts.append(offset + steps)
        if count and config.mode == "states+actions":
            raise DataError(
                "plans: expert labels are actions without states and cannot be used in mode 'states+actions'; "
                "use labels='ignore' or mode='actions'"
            )
        empty = np.zeros((0, span, self._actions.shape[1]), np.float32)
        self._labels = torch.from_numpy(np.concatenate([empty, *labels]))
        self._label_of = torch.from_numpy(label_of)
        self._starts = torch.from_numpy(np.concatenate(starts).astype(np.int64))

    def _set_states(self, episodes: Sequence[Episode], layout: Layout | None, dt: float | None) -> None:
        self._before = self._after = None  # [N, s] poses or observations before and after each step
        self.has_poses = self.config.mode == "states+actions" and has_ego_motion(layout)
        self.state_dim = 0
        if self.config.mode == "actions":
            return
        if self.has_poses:
            if layout is None or dt is None:
                raise ValueError("dt: expected seconds per control step beside a layout, got None")
            tracks = [poses(episode, layout, dt) for episode in episodes]
            self._before = np.concatenate([track[:-1] for track in tracks])
            self._after = np.concatenate([track[1:] for track in tracks])
            self.state_dim = POSE_DIM
        else:
            self._after = np.concatenate([episode.next_observations for episode in episodes])
            self.state_dim = self._after.shape[1]

    @property
    def action_dim(self) -> int:
        return int(self._actions.shape[1])

    @property
    def trajectory_dim(self) -> int:
        """D, state dimensions (if any) in front of the action's."""
        return self.state_dim + self.action_dim

    def of_last_episodes(self, share: float) -> Tensor:
        """Which windows [len(self)] (bool) are of the last episodes: `share` of them, at least one, never all.

        Raises:
            DataError: a single episode cannot be divided.
        """
        if len(self._ends) < 2:
            raise DataError("expected at least two episodes to hold some out, got one")
        count = min(max(1, round(share * len(self._ends))), len(self._ends) - 1)
        return self._starts >= int(self._ends[-count - 1])

    @property
    def labelled(self) -> int:
        """Windows that show an expert's plan in place of what was done."""
        return int((self._label_of[self._starts] >= 0).sum())

    def __len__(self) -> int:
        return len(self._starts)

    def raw_trajectories(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Windows [B] before normalisation: trajectory [B, H, D] in the units of the data, mask [B, H]."""
        starts = self._starts[indices]
        last = self._end[starts] - 1
        steps = starts[:, None] + self._offsets
        valid = steps <= last[:, None]
        actions = self._actions[torch.minimum(steps, last[:, None])]
        if len(self._labels):
            rows = self._label_of[starts]
            has_label = rows >= 0
            plans = self._labels[rows[has_label]]
            actions[has_label] = plans
            valid[has_label] = ~plans[..., 0].isnan()
        rows, mask = resample(actions, valid, self.config)
        if self._after is None:
            return rows, mask
        reached = torch.minimum(starts[:, None] + self._row_ends, last[:, None]).numpy()
        states = self._after[reached]
        if self._before is not None:
            states = relative(states, self._before[starts.numpy()][:, None])
        return torch.cat([torch.from_numpy(states), rows], -1), mask

    def _fit(self, conditioning: np.ndarray) -> WindowStatistics:
        """Over evenly spread windows: a sample is enough for ranges, and the same one every time."""
        count = min(len(self), STATISTICS_WINDOWS)
        trajectory, mask = self.raw_trajectories(torch.from_numpy(np.linspace(0, len(self) - 1, count).astype(int)))
        result = WindowStatistics(self.trajectory_dim)
        values = conditioning[self._starts.numpy()]
        result.trajectory = Normalizer.fit(trajectory[mask].numpy(), mode="minmax")
        result.return_to_go = Normalizer.fit(values[:, :1], clip=5.0)
        result.cost_budget = Normalizer.fit(values[:, 1:], clip=5.0)
        return result

    @torch.no_grad()
    def __getitems__(self, indices: Iterable[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(indices if isinstance(indices, Tensor | np.ndarray) else list(indices))
        trajectory, mask = self.raw_trajectories(chosen)
        starts = self._starts[chosen]
        batch = {
            "trajectory": self.statistics.trajectory.normalize(trajectory).masked_fill(~mask[..., None], 0.0),
            "mask": mask,
            "return_to_go": self._return_to_go[starts],
            "cost_budget": self._cost_budget[starts],
        }
        for name, values in self._features.items():
            part = values[starts]
            batch[name] = part.float() if part.is_floating_point() else part
        return batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window: expected an index below {len(self)}, got {index}")
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    @staticmethod
    def collate(items: Any) -> dict[str, Tensor]:
        """For `DataLoader(collate_fn=...)`: a batch passes through, single windows are stacked."""
        if isinstance(items, Mapping):
            return dict(items)
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}
