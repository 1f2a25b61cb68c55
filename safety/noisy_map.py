"""Objects of one kind from rings that are noisy or lose bins, where no reading can be inverted exactly.

Every object is a cloud of weighted particles in the odometric frame. A ring re-weighs each cloud by how well its
particles, together with what the other objects are expected to show, explain the readings (a particle filter per
object, coupled by mean fields; Bar-Shalom, "Tracking and data association", 1988, for existence by likelihood ratio).
Standing objects are thereby averaged over time, and a lost reading is no reading: zeros say nothing, but for a goal,
which may have jumped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safety.motion import advance, turned
from safety.tracks import MapConfig

Floats = NDArray[np.float64]
TWO_PI = 2.0 * math.pi
PARTICLES, BORN = 64, 192  # per object; tried when one is born
LEAST_NOISE = 0.004  # of a reading: particles are not denser than this resolves
OUTLIER = 6.0  # nats that a single reading can say at most, against an object or for it
CERTAIN, KNOWN, GONE = 25.0, 3.0, -3.0  # nats of evidence for an object: at most; reported; given up
TRIAL = 12  # steps within which a new object must have become known
MAX_OBJECTS, MAX_BIRTHS = 16, 2  # per ring; per step
STANDING, MOVING = 1.5e-3, 6e-3  # m, spread added when a cloud is drawn anew; per step, for what moves
VELOCITY_GAIN = 0.05  # share of an innovation's speed taken over per step
SHRINK = 0.98  # Liu and West, 2001: a cloud drawn anew keeps its covariance


class NoisyMap:
    """The map of one kind, with the interface of `safety.object_map.ObjectMap`.

    Args:
        config: what the kind is like; `moves`, `single` and `separation` matter here.
        max_dist: range of the lidar, m.
        dt: s per step.
        noise: standard deviation of a reading, as a share of the range.
        dropout: probability that a bin reads zero although something is there.
    """

    def __init__(self, config: MapConfig, max_dist: float, dt: float, *, noise: float, dropout: float = 0.0) -> None:
        for name, value in (("noise", noise), ("dropout", dropout)):
            if not 0 <= value < 1:
                raise ValueError(f"NoisyMap: expected {name} in [0, 1), got {value}")
        # What a zero says against an object that should show there: no more than how rare a lost reading is. Only for
        # what there is one of (a goal that jumps): a hazard must not vanish because a sensor fails.
        self._absence = min(-math.log(dropout), OUTLIER) if dropout > 0 and config.single else 0.0
        self.config, self.max_dist, self.dt = config, max_dist, dt
        self.noise = max(noise, LEAST_NOISE)
        self.reset()

    def reset(self) -> None:
        """Forget all objects; the same rings then give the same map."""
        self._generator = np.random.default_rng(0)
        self._points = np.zeros((0, PARTICLES, 2))
        self._weights = np.zeros((0, PARTICLES))
        self._velocity = np.zeros((0, 2))
        self._score, self._age = np.zeros(0), np.zeros(0)
        self._ring: Floats = np.zeros(0)

    def begin(
        self, values: Sequence[float], pose: tuple[float, float, float, float]
    ) -> list[tuple[float, float, float]]:
        """Take the ring [bins] and predict; nothing is exact enough to correct the pose by."""
        self._ring = np.asarray(values, dtype=np.float64)
        if self.config.moves == "always" and len(self._points):
            rates = np.full(len(self._velocity), self.config.turn_rate)
            self._points += advance(self._velocity, rates, self.dt)[:, None]
            self._velocity = turned(self._velocity, rates, self.dt)
            self._points += MOVING * self._generator.standard_normal(self._points.shape)
        return []

    def finish(self, pose: tuple[float, float, float, float], slack: float, dropped: bool = False) -> None:
        """Weigh, give up and find objects, at the corrected pose."""
        seen = self._ring > 0
        if not seen.any() and not self._absence:
            return
        before = self._centres()
        shown = self._readings(self._points, pose)  # [J, M, bins]
        mean = np.einsum("jm,jmb->jb", self._weights, shown)
        spread = np.einsum("jm,jmb->jb", self._weights, shown**2) - mean**2
        if len(mean):
            others, doubt = _without_each(mean, spread)
            sd2 = self.noise**2 + np.where(others >= mean, doubt, 0.0)
            log = -self._misfit(np.maximum(shown, others[:, None]), sd2[:, None], seen)
            alone = -self._misfit(others, sd2, seen)
            top = log.max(1, keepdims=True)
            likely = self._weights * np.exp(log - top)
            total = likely.sum(1)
            evidence = np.log(np.maximum(total, 1e-300)) + top[:, 0] - alone
            self._score = np.minimum(self._score + np.clip(evidence, -OUTLIER, OUTLIER), CERTAIN)
            self._age += 1
            self._weights = likely / np.maximum(total, 1e-300)[:, None]
            self._draw_anew()
            if self.config.moves == "always":
                self._velocity += VELOCITY_GAIN * (self._centres() - before) / self.dt
            self._give_up()
        self._find(pose, seen)

    def _readings(self, points: Floats, pose: tuple[float, float, float, float]) -> Floats:
        """What each particle alone would show, [..., bins], for `points` [..., 2] in the odometric frame."""
        x, y, cos, sin = pose
        bins = len(self._ring)
        dx, dy = points[..., 0] - x, points[..., 1] - y
        closeness = np.maximum(1.0 - np.hypot(dx, dy) / self.max_dist, 0.0)
        turn = (np.arctan2(cos * dy - sin * dx, cos * dx + sin * dy) * (bins / TWO_PI)) % bins
        index = turn.astype(np.int64) % bins
        alias = turn - np.floor(turn)
        shown = np.zeros((*points.shape[:-1], bins))
        np.put_along_axis(shown, index[..., None], closeness[..., None], -1)
        np.put_along_axis(shown, ((index + 1) % bins)[..., None], (alias * closeness)[..., None], -1)
        np.put_along_axis(shown, ((index - 1) % bins)[..., None], ((1.0 - alias) * closeness)[..., None], -1)
        return shown

    def _misfit(self, expected: Floats, variance: Floats, seen: NDArray[np.bool_]) -> Floats:
        """Nats [...] against `expected` [..., bins], each reading's share bounded."""
        error = np.minimum((self._ring - expected) ** 2 / (2.0 * variance), np.where(seen, OUTLIER, self._absence))
        return np.asarray(error.sum(-1))

    def _centres(self) -> Floats:
        return np.einsum("jm,jmd->jd", self._weights, self._points)

    def _sigma(self) -> Floats:
        """Root mean square distance [J] of each cloud from its centre, m."""
        away = self._points - self._centres()[:, None]
        return np.sqrt(np.einsum("jm,jmd->j", self._weights, away**2))

    def _draw_anew(self) -> None:
        """Clouds in which few particles carry the weight are drawn anew around those."""
        poor = np.flatnonzero(1.0 / (self._weights**2).sum(1) < 0.5 * PARTICLES)
        for row in poor:
            self._points[row] = self._drawn(self._points[row], self._weights[row], PARTICLES)
            self._weights[row] = 1.0 / PARTICLES

    def _drawn(self, points: Floats, weights: Floats, count: int) -> Floats:
        """`count` particles from weighted ones (systematic resampling), smoothed without growing the cloud."""
        places = (np.arange(count) + self._generator.uniform()) / count
        chosen = points[np.minimum(np.searchsorted(np.cumsum(weights), places), len(points) - 1)]
        centre = chosen.mean(0)
        away = chosen - centre
        # A draw with the chosen ones' own covariance: random combinations of their offsets.
        kernel = self._generator.standard_normal((count, count)) @ away / math.sqrt(count)
        smooth = centre + SHRINK * away + math.sqrt(1.0 - SHRINK**2) * kernel
        return np.asarray(smooth + STANDING * self._generator.standard_normal((count, 2)))

    def _give_up(self) -> None:
        """Objects that the readings speak against, and the lesser of two that are one."""
        keep = (self._score > GONE) & ((self._age < TRIAL) | (self._score > KNOWN))
        centres, order = self._centres(), np.argsort(-self._score, kind="stable")
        for place, row in enumerate(order):
            rivals = order[:place]
            rivals = rivals[keep[rivals]]
            if len(rivals) and np.hypot(*(centres[rivals] - centres[row]).T).min() < self.config.separation:
                keep[row] = False
        if not keep.all():
            self._take(np.flatnonzero(keep))

    def _take(self, rows: NDArray[np.integer]) -> None:
        self._points, self._weights, self._velocity = self._points[rows], self._weights[rows], self._velocity[rows]
        self._score, self._age = self._score[rows], self._age[rows]

    def _find(self, pose: tuple[float, float, float, float], seen: NDArray[np.bool_]) -> None:
        """New objects for readings that the known ones fall short of, the nearest first."""
        limit = 1 if self.config.single else MAX_OBJECTS
        for _ in range(MAX_BIRTHS):
            if len(self._points) >= limit:
                return
            shown = self._readings(self._points, pose)
            mean = np.einsum("jm,jmb->jb", self._weights, shown)
            spread = np.einsum("jm,jmb->jb", self._weights, shown**2) - mean**2
            known, doubt = _largest(mean, spread)
            short = self._ring - known > 3.0 * np.sqrt(self.noise**2 + doubt) + 0.02
            if not (short & seen).any():
                return
            index = int(np.argmax(np.where(short & seen, self._ring, 0.0)))
            body = self._explaining(index, seen)
            x, y, cos, sin = pose
            points = np.stack([x + cos * body[:, 0] - sin * body[:, 1], y + sin * body[:, 0] + cos * body[:, 1]], 1)
            log = -self._misfit(np.maximum(self._readings(points, pose), known), self.noise**2 + doubt, seen)
            weights = np.exp(log - log.max())
            cloud = self._drawn(points, weights / weights.sum(), PARTICLES)
            self._points = np.concatenate([self._points, cloud[None]])
            self._weights = np.concatenate([self._weights, np.full((1, PARTICLES), 1.0 / PARTICLES)])
            self._velocity = np.concatenate([self._velocity, np.zeros((1, 2))])
            self._score, self._age = np.append(self._score, 0.0), np.append(self._age, 0.0)

    def _explaining(self, index: int, seen: NDArray[np.bool_]) -> Floats:
        """Places [BORN, 2] in the body frame, m, of an object that explains a bin: in it, or beside it as a shadow."""
        bins, generator = len(self._ring), self._generator
        value = np.maximum(self._ring[index] + self.noise * generator.standard_normal(BORN), 1e-3)
        share = generator.uniform(size=BORN)
        base, closeness = np.full(BORN, index), value.copy()
        for part, side in ((slice(0, BORN // 4), -1), (slice(BORN // 4, BORN // 2), 1)):
            neighbour = (index + side) % bins
            most = min(1.0, self._ring[neighbour] + 3.0 * self.noise) if seen[neighbour] else 1.0
            if most <= self._ring[index]:
                continue
            cast = np.minimum(value[part] / most, 1.0)
            cast = cast + (1.0 - cast) * generator.uniform(size=BORN // 4)
            base[part], closeness[part] = index + side, value[part] / np.maximum(cast, 1e-3)
            share[part] = cast if side < 0 else 1.0 - cast
        bearing = (base + share) * TWO_PI / bins
        distance = self.max_dist * np.clip(1.0 - closeness, 0.0, 1.0)
        return np.stack([distance * np.cos(bearing), distance * np.sin(bearing)], 1)

    def arrays(self) -> list[tuple[float, float, float, float, float]]:
        """Rows (x, y, vx, vy, sigma) of the objects that are known, in the odometric frame."""
        table = np.column_stack([self._centres(), self._velocity, self._sigma()])
        return [tuple(row) for row in table[self._score > KNOWN].tolist()]


def _largest(mean: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """The largest expected reading [bins] over objects [J, bins], and its variance."""
    if not len(mean):
        return np.zeros(mean.shape[1]), np.zeros(mean.shape[1])
    row = mean.argmax(0)[None]
    return np.take_along_axis(mean, row, 0)[0], np.maximum(np.take_along_axis(spread, row, 0)[0], 0.0)


def _without_each(mean: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """For each object what the others are expected to show, [J, bins], and the variance of that."""
    first = mean.argmax(0)
    largest, doubt = _largest(mean, spread)
    rest = mean.copy()
    np.put_along_axis(rest, first[None], 0.0, 0)
    row = rest.argmax(0)[None]
    second = np.take_along_axis(rest, row, 0)[0]
    second_doubt = np.where(second > 0, np.maximum(np.take_along_axis(spread, row, 0)[0], 0.0), 0.0)
    own = np.arange(len(mean))[:, None] == first
    return np.where(own, second, largest), np.where(own, second_doubt, doubt)
