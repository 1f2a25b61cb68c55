"""Objects of one kind, kept from one lidar ring to the next in the odometric frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from safety.hypotheses import HypothesisSet, Origin, candidate_cells
from safety.lidar import exact_detections
from safety.motion import StepOfArc
from safety.tracks import EXACT_SIGMA, MapConfig, Track

TWO_PI = 2.0 * math.pi
LANDMARK_VAR = 0.02**2  # m^2, objects known worse than this say nothing about the pose
CERTAIN_VAR = 0.004**2  # m^2, below this and after so many readings that fit, a supposed object is one
CERTAIN_READINGS = 8
LOST_NEAR, LOST_FAR = 2, 25  # silent steps after which a single object within 0.5 m, within range, has jumped away
GLITCH_AGE, GLITCH_READINGS = 15, 3  # steps and readings: what was supported this rarely was a slip of the pose
MAX_SETS = 8  # a ring of 16 bins cannot tell more unknown objects apart
MAX_BIRTHS = 3  # hypothesis sets begun per step and ring: bounds the time of a step
MIN_READING = 1e-3  # readings below are left unexplained: they are beyond 99.9 % of the range


def _uncertainty(track: Track) -> float:
    return track.var


def _spread(cells: HypothesisSet) -> float:
    return cells.sigma


class ObjectMap:
    """The map of one kind. The tracker calls `begin` on every map, corrects the pose, then calls `finish`."""

    def __init__(self, config: MapConfig, max_dist: float, dt: float) -> None:
        self.config, self.max_dist, self.dt = config, max_dist, dt
        self._arc = StepOfArc(config.turn_rate, dt)
        self.reset()

    def reset(self) -> None:
        """Forget all objects."""
        self.tracks: list[Track] = []
        self.sets: list[HypothesisSet] = []
        self._values: Sequence[float] = ()
        self._detections: list[tuple[float, float, int]] = []
        self._matches: list[Track | None] = []
        self._silent = 0
        self._seen_now = False

    def begin(
        self, values: Sequence[float], pose: tuple[float, float, float, float]
    ) -> list[tuple[float, float, float]]:
        """Predict, detect and match; nothing is corrected yet.

        Args:
            values: the ring [bins].
            pose: x, y, cos(yaw), sin(yaw) by odometry.

        Returns:
            Residuals (dx, dy, variance) [m, m, m^2]: by how much the pose is ahead of what static objects say, one
            per match, with the variance of the object's position.
        """
        self._values = values
        if self.config.moves == "always":
            for track in self.tracks:
                dx, dy, track.vx, track.vy = self._arc(track.vx, track.vy)
                track.x += dx
                track.y += dy
        self._detections = exact_detections(values, self.max_dist) if any(values) else []
        x, y, cos, sin = pose
        gate = self.config.gate
        free = list(self.tracks)
        self._matches = []
        residuals = []
        for fx, fy, _ in self._detections:
            px, py = x + cos * fx - sin * fy, y + sin * fx + cos * fy
            best: Track | None = None
            best_distance = math.inf
            for track in free:
                distance = (px - track.x) ** 2 + (py - track.y) ** 2
                if distance < best_distance:
                    best, best_distance = track, distance
            if best is not None and math.sqrt(best_distance) > gate + 3.0 * math.sqrt(best.var):
                best = None
            if best is not None:
                free.remove(best)
                if self.config.moves == "no" and best.var < LANDMARK_VAR:
                    residuals.append((px - best.x, py - best.y, best.var))
            self._matches.append(best)
        return residuals

    def finish(self, pose: tuple[float, float, float, float], slack: float, dropped: bool = False) -> None:
        """Take over this step's ring, at the corrected pose; `slack` [m] is the pose's uncertainty.

        `dropped`: every ring of this observation is zero, which is a lost reading rather than an empty world.
        """
        config = self.config
        for track in self.tracks:
            track.seen = False
        for (fx, fy, _), match in zip(self._detections, self._matches, strict=True):
            self._take(fx, fy, match, pose)
        if not any(self._values):
            if not dropped:
                self._silence(pose)
        elif config.single:
            self._finish_single(pose)
        else:
            self._finish_many(pose, slack)
        grow = config.drift * config.drift + slack * slack * 0.01
        for track in self.tracks:
            if not track.seen:
                track.grow(grow)
                if config.moves == "always":  # it may turn: the spread of the prediction grows with its speed
                    unsure = 0.0 if config.turn_rate else 0.3
                    track.grow((unsure * self.dt * math.hypot(track.vx, track.vy)) ** 2 + (0.05 * self.dt) ** 2)
        if config.moves != "no":
            self.tracks = [track for track in self.tracks if track.seen or track.var < config.forget_sigma**2]
        if config.moves == "always":  # out of range it is not seen, and where it goes nobody knows
            reach = self.max_dist**2
            self.tracks = [t for t in self.tracks if (t.x - pose[0]) ** 2 + (t.y - pose[1]) ** 2 < reach]

    def _take(self, fx: float, fy: float, track: Track | None, pose: tuple[float, float, float, float]) -> None:
        """One exact detection becomes, or confirms, an object."""
        x, y, cos, sin = pose
        px, py = x + cos * fx - sin * fy, y + sin * fx + cos * fy
        if track is None:
            for other in self.tracks:  # an object on the edge of two bins shows in both
                if other.seen and (other.x - px) ** 2 + (other.y - py) ** 2 < 1e-4:
                    return
            if self.config.single:
                self.tracks = []
            self._explain_away(px, py)
            self.tracks.append(Track(px, py, (0.5 * EXACT_SIGMA**2, 0.0, 0.5 * EXACT_SIGMA**2)))
            return
        if track.origin is not None:
            track.origin = None
            self._explain_away(px, py)
        if self.config.moves == "no":
            gain = 1.0 if track.var > 9e-6 else max(1.0 / (track.hits + 1), 0.02)
            track.x += gain * (px - track.x)
            track.y += gain * (py - track.y)
        else:
            fresh = track.var < 1e-4
            if fresh:  # both readings are exact, so their difference is a velocity
                blend = 1.0 if track.hits < 2 else 0.5
                vx = track.vx + blend * (px - track.x) / self.dt
                vy = track.vy + blend * (py - track.y) / self.dt
                if math.hypot(vx, vy) <= self.config.top_speed:  # faster: two objects taken for one
                    track.vx, track.vy = vx, vy
                if self.config.moves == "pushed":
                    track.vx = (px - track.x) / self.dt
                    track.vy = (py - track.y) / self.dt
            track.x, track.y = px, py
        track.pin()
        track.hits += 1
        track.against = 0
        track.seen = True

    def _explain_away(self, x: float, y: float, tolerance: float = 5e-3) -> None:
        """An object is certain: what was only supposed because of readings that it explains goes."""
        bins, reach = len(self._values), self.max_dist

        def needed(origin: Origin | None) -> bool:
            return origin is None or not origin.explained_by(x, y, reach, bins, tolerance)

        self.sets = [c for c in self.sets if needed(c.origin) and c.drop_near(x, y, self.config.separation)]
        self.tracks = [
            t
            for t in self.tracks
            if t.origin is None
            or (t.x == x and t.y == y)
            or (needed(t.origin) and math.hypot(t.x - x, t.y - y) > self.config.separation)
        ]

    def _silence(self, pose: tuple[float, float, float, float]) -> None:
        """The whole ring is zero: switched off, dropped, or nothing in range; no object is contradicted by that."""
        self._silent += 1
        if self.config.single and self.tracks:
            track = self.tracks[0]
            distance = math.hypot(track.x - pose[0], track.y - pose[1])
            if self._silent > (LOST_NEAR if distance < 0.5 else LOST_FAR) and distance < 0.9 * self.max_dist:
                self.tracks = []  # reached or jumped away: where it is now is not known

    def _finish_single(self, pose: tuple[float, float, float, float]) -> None:
        """One object without company is exact whatever rounding did to the neighbours' sum."""
        self._silent = 0
        if self.tracks and self.tracks[0].seen:
            return
        values = self._values
        bins = len(values)
        index = max(range(bins), key=values.__getitem__)
        before, after = values[index - 1], values[(index + 1) % bins]
        share = after / (before + after) if before + after > 0 else 0.5
        bearing = (index + share) * TWO_PI / bins
        distance = self.max_dist * (1.0 - values[index])
        fx, fy = distance * math.cos(bearing), distance * math.sin(bearing)
        self.tracks = []
        self._take(fx, fy, None, pose)

    def _finish_many(self, pose: tuple[float, float, float, float], slack: float) -> None:
        values, config = self._values, self.config
        bins = len(values)
        scale = bins / TWO_PI
        x, y, cos, sin = pose
        upper = [0.0] * bins  # the largest reading that known objects can explain, per bin
        wrong = []
        self._silent = 0
        # Certain objects first: what they explain no supposed one may claim.
        for track in sorted(self.tracks, key=_uncertainty) if self._supposed() else self.tracks:
            dx, dy = track.x - x, track.y - y
            forward, left = cos * dx + sin * dy, cos * dy - sin * dx
            distance = math.sqrt(dx * dx + dy * dy)
            sigma = 3.0 * math.sqrt(track.var) + slack
            closeness = 1.0 - distance / self.max_dist
            radial = sigma / self.max_dist + 2e-4
            if closeness < -radial:
                continue
            turn = (math.atan2(left, forward) * scale) % bins
            index = int(turn) % bins
            alias = turn - int(turn)
            blur = min(1.0, sigma * scale / max(distance, 1e-3)) + 1e-3
            low, high = closeness - radial, closeness + radial
            after, before = (index + 1) % bins, index - 1
            if not track.seen:
                own = low if blur < alias < 1.0 - blur else low * (1.0 - blur)
                if (
                    values[index] < own
                    or values[after] < low * (alias - blur)
                    or values[before] < low * (1.0 - alias - blur)
                ):
                    track.against += 1
                    if track.against >= config.patience or track.origin is not None or config.moves != "no":
                        wrong.append(track)
                    continue
                track.against = 0
                if config.moves != "no" and blur < alias < 1.0 - blur:
                    self._refine(track, index, alias, dx, dy, distance, upper, slack)
            if high > upper[index]:
                upper[index] = high
            share = min(1.0, alias + blur)
            if share * high > upper[after]:
                upper[after] = share * high
            share = min(1.0, 1.0 - alias + blur)
            if share * high > upper[before]:
                upper[before] = share * high
            if alias < blur:  # it may stand across the edge, and then reach one bin further
                upper[index - 2] = max(upper[index - 2], blur * high)
            elif alias > 1.0 - blur:
                upper[(index + 2) % bins] = max(upper[(index + 2) % bins], blur * high)
        if wrong:
            self.tracks = [track for track in self.tracks if track not in wrong]
        open_bins = [i for i in range(bins) if values[i] > upper[i] and values[i] > MIN_READING]
        if self.sets or open_bins:
            self._hypothesise(open_bins, pose, slack)

    def _refine(
        self,
        track: Track,
        index: int,
        alias: float,
        dx: float,
        dy: float,
        distance: float,
        upper: list[float],
        slack: float,
    ) -> None:
        """Draw an imprecisely known object to those readings of its three bins that no other object explains."""
        values, bins, reach = self._values, len(self._values), self.max_dist
        closeness = 1.0 - distance / reach
        if distance < 0.05 or closeness < 0.02:
            return
        # Gradients: of the closeness along the line of sight, of the sub-bin fraction across it.
        sx, sy = -dx / (distance * reach), -dy / (distance * reach)
        per_angle = bins / (TWO_PI * distance * distance)
        ax, ay = -dy * per_angle, dx * per_angle
        noise = (0.5 * slack / reach) ** 2
        matched = 0
        after, before = (index + 1) % bins, index - 1
        if upper[index] < values[index]:
            matched += track.absorb(values[index] - closeness, sx, sy, noise, 3.0)
        if upper[after] < values[after] and alias > 0.05:
            hx, hy = alias * sx + closeness * ax, alias * sy + closeness * ay
            matched += track.absorb(values[after] - alias * closeness, hx, hy, noise, 3.0)
        elif upper[before] < values[before] and alias < 0.95:
            share = 1.0 - alias
            hx, hy = share * sx - closeness * ax, share * sy - closeness * ay
            matched += track.absorb(values[before] - share * closeness, hx, hy, noise, 3.0)
        if matched:
            track.seen = True
            track.exact += 1
            if track.origin is not None and track.var < CERTAIN_VAR and track.exact >= CERTAIN_READINGS:
                track.origin = None

    def _hypothesise(self, open_bins: list[int], pose: tuple[float, float, float, float], slack: float) -> None:
        """Readings that nothing known explains: prune old hypotheses with them, form new ones for the rest."""
        values, config = self._values, self.config
        left_over = set(open_bins)
        if self.sets:
            ring = np.asarray(values)
            unexplained = np.zeros(len(values), dtype=bool)
            unexplained[open_bins] = True
            kept, settled = [], []
            for cells in self.sets:
                covered = cells.update(ring, unexplained, pose, slack)
                if covered is None or (cells.age > GLITCH_AGE and cells.supports <= GLITCH_READINGS):
                    continue
                left_over.difference_update(np.flatnonzero(covered).tolist())
                if cells.sigma < config.resolve_sigma:
                    settled.append(cells)
                elif config.moves == "no" or cells.age < 5:
                    kept.append(cells)
            self.sets = kept
            for cells in sorted(settled, key=_spread):
                mean_x, mean_y = cells.mean.tolist()
                if all(math.hypot(t.x - mean_x, t.y - mean_y) > config.separation for t in self.tracks):
                    self.tracks.append(Track(mean_x, mean_y, cells.covariance(), cells.origin))
                    self._explain_away(mean_x, mean_y, 3.0 * cells.sigma)
        if left_over:
            self._suppose(left_over, pose, slack)

    def _suppose(self, left_over: set[int], pose: tuple[float, float, float, float], slack: float) -> None:
        """New hypotheses for readings that neither known nor supposed objects explain, the nearest first."""
        values, config = self._values, self.config
        bins = len(values)
        ring = np.asarray(values)
        flags = [index in left_over for index in range(bins)]
        unexplained = np.array(flags)
        born = 0
        for index in sorted(left_over, key=values.__getitem__, reverse=True):
            if born >= MAX_BIRTHS or len(self.sets) >= MAX_SETS:
                return
            if index not in left_over:
                continue  # a hypothesis of this step explains it
            curves = candidate_cells(values, index, self.max_dist, flags)
            if curves is None:
                continue
            fresh = HypothesisSet(curves, Origin(*pose, index, values[index]), self.max_dist, bins)
            known = (t for t in self.tracks if t.origin is None)
            if not all(fresh.drop_near(t.x, t.y, config.separation) for t in known):
                continue
            covered = fresh.update(ring, unexplained, pose, slack)
            if covered is None:
                continue
            left_over.difference_update(np.flatnonzero(covered).tolist())
            self.sets.append(fresh)
            born += 1

    def _supposed(self) -> bool:
        return any(track.var > 4.0 * EXACT_SIGMA**2 for track in self.tracks)

    def arrays(self) -> list[tuple[float, float, float, float, float]]:
        """Rows (x, y, vx, vy, sigma) of all objects, certain and uncertain, in the odometric frame."""
        rows: list[Any] = [(t.x, t.y, t.vx, t.vy, math.sqrt(t.var)) for t in self.tracks]
        for cells in self.sets:
            px, py, sigma = cells.likeliest()
            rows.append((px, py, 0.0, 0.0, sigma))
        return rows
