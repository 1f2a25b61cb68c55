"""Backups among things that move: brake, or drive on for a while and brake then, and be where nothing comes by.

Braking is no backup against something that comes along. Driving on is one if it ends where one may stay for good, by
the circles that things go in; what goes otherwise is only kept clear of while the backup lasts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from safety.backup import BackupSet
from safety.coming import Coming
from safety.dynamics import Dynamics

Floats = NDArray[np.float64]
HELD = np.array([(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)], dtype=np.float64)
LENGTHS = (24, 48, 72)  # control steps for which a command is held before the brake
_ANEW = 10.0  # metres deep in what one is in that weigh as much as a metre into something else
_WORSE = 10.0  # any violation on the way is worse than any place to stay


@dataclass(frozen=True)
class Verdicts:
    """What lies behind each of C commands with the best backup of each.

    Attributes:
        score: [C] 0 where all hard obstacles are kept from, now and for good; the lower, the worse.
        hard, soft: [C] m, least clearance on the way to hard and soft obstacles; infinite where there are none.
        held: [C] index of the motor command that the backup holds, -1 where it only brakes.
        steps: [C] for how many control steps.
    """

    score: Floats
    hard: Floats
    soft: Floats
    held: NDArray[np.int64]
    steps: NDArray[np.int64]

    @classmethod
    def none(cls) -> Verdicts:
        """On no command."""
        value, index = np.zeros(0), np.zeros(0, dtype=np.int64)
        return cls(value, value, value, index, index)

    def keeps_all(self, tolerance: float) -> NDArray[np.bool_]:
        """[C] whether neither hard nor soft obstacles are touched."""
        return (self.score >= 0) & (self.soft >= -tolerance)

    def lowest(self, index: int) -> float:
        """m, least clearance behind command `index`."""
        return float(min(self.hard[index], self.soft[index]))

    def joined(self, other: Verdicts) -> Verdicts:
        """The commands of `self`, then those of `other`."""
        names = [field.name for field in fields(self)]
        return Verdicts(**{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names})

    def rows(self, index: NDArray[np.integer]) -> Verdicts:
        """The commands `index` of these."""
        return Verdicts(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def improved(self, rows: NDArray[np.integer], other: Verdicts) -> None:
        """Take over what is better in `other`, whose commands are `rows` of these."""
        better = other.score > self.score[rows]
        for field in fields(self):
            getattr(self, field.name)[rows[better]] = getattr(other, field.name)[better]

    def way_out(self, index: int, dynamics: Dynamics) -> Floats | None:
        """Actions [T, 2] that the backup of command `index` begins with; None where it only brakes."""
        if self.held[index] < 0:
            return None
        command = np.asarray(dynamics.command(HELD[self.held[index]]))
        return np.broadcast_to(command, (int(self.steps[index]), 2))


class Judge:
    """Judges commands in one state. `level` [N] m is how deep one may be in each obstacle: no deeper than now.

    `inside` [N] are hard obstacles that the agent is in already: then it is judged by how deep and how long the way
    leads through them.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        brakes: BackupSet,
        coming: Coming,
        level: Floats,
        tolerance: float,
        *,
        inside: NDArray[np.bool_] | None = None,
    ) -> None:
        self.dynamics, self.coming = dynamics, coming
        self._brakes, self._level, self._tolerance, self._inside = brakes, level, tolerance, inside

    def commands(self, state: Floats, effective: Floats) -> Verdicts:
        """Motor commands [C, 2], each for one step with the best backup behind it."""
        after = self.dynamics.rollout(state, self.dynamics.command(effective)[:, None, :])[:, 0]
        found = self._verdicts(self._brakes.straight(after))
        bad = np.flatnonzero(found.score < 0)
        if self.dynamics.holonomic_momentum and len(bad):
            found.improved(bad, self._verdicts(self._brakes.aligned(after[bad])))
            bad = bad[found.score[bad] < 0]
        if len(bad):
            self._drive_on(found, bad, after[bad])
        return found

    def manoeuvre(self, state: Floats, actions: Floats) -> Verdicts:
        """The one verdict on `actions` [T, 2] with a brake behind them."""
        states = self.dynamics.rollout(state, actions)
        stride = self._brakes.stride
        on_the_way = states[: len(states) - 1 : stride]
        return self._braked(on_the_way[None, :, :2], states[-1:], np.arange(len(on_the_way)) * stride, len(states) - 1)

    def _drive_on(self, found: Verdicts, rows: NDArray[np.integer], after: Floats) -> None:
        """Hold each command, for longer and longer, and brake then; what is better goes into `found`."""
        stride, kinds = self._brakes.stride, len(HELD)
        starts = np.repeat(after, kinds, axis=0)
        actions = np.repeat(self.dynamics.command(HELD)[:, None, :], max(LENGTHS), axis=1)
        states = self.dynamics.rollout(starts, np.tile(actions, (len(rows), 1, 1)))
        path = np.concatenate([starts[:, None, :2], states[:, :, :2]], axis=1)
        first = np.arange(len(rows)) * kinds
        for length in LENGTHS:
            steps = np.arange(0, length, stride)
            every = self._braked(path[:, steps], states[:, length - 1], steps, length)
            held = every.score.reshape(len(rows), kinds).argmax(1)
            best = every.rows(first + held)
            best.held[:], best.steps[:] = held, length
            found.improved(rows, best)
            if (found.score[rows] >= 0).all():
                return

    def _braked(self, ways: Floats, ends: Floats, steps: NDArray[np.integer], length: int) -> Verdicts:
        """Positions [C, T, 2] that are passed after `steps` [T], then a brake from `ends` [C, 6] after `length`."""
        rest = self._brakes.straight(ends)
        later = length + self._brakes.stride * np.arange(rest.shape[1])
        return self._verdicts(np.concatenate([ways, rest], axis=1), times=np.concatenate([steps, later]))

    def _verdicts(self, paths: Floats, times: NDArray[np.integer] | None = None) -> Verdicts:
        """Of paths [C, T, 2] whose waypoints are passed `times` [T] steps after the command's; None: every stride."""
        if times is None:
            times = self._brakes.stride * np.arange(paths.shape[1])
        gaps = self.coming.gaps(paths, self.dynamics.dt * (1 + np.asarray(times, dtype=np.float64)))
        hard = self.coming.hard
        lowest = (gaps - self._level).min(1)
        through, soft = lowest[:, hard].min(1, initial=np.inf), lowest[:, ~hard].min(1, initial=np.inf)
        if self._inside is not None:
            # What is entered anew counts far more than how long it takes to get out of what one is in.
            anew = np.maximum(-lowest[:, hard & ~self._inside].min(1, initial=0.0) - self._tolerance, 0.0)
            score = -np.maximum(-gaps[:, :, self._inside], 0.0).sum(2).mean(1) - _ANEW * anew
        else:
            stay = self.coming.standing(paths[:, -1])[:, hard].min(1, initial=np.inf)
            for_good = np.where(stay < -self._tolerance, np.maximum(stay, -1.0), 0.0)
            score = np.where(through < -self._tolerance, through - _WORSE, for_good)
        none = np.zeros(len(paths), dtype=np.int64)
        return Verdicts(score, through, soft, none - 1, none.copy())
