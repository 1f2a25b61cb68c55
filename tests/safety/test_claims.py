"""What a ring proves: every nearest object is claimed at its distance, and the guard acts on it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import envs
from safety.claims import ClaimedObstacles, claims
from safety.guard import GeometricGuard
from safety.lidar import lidar_reading
from safety.scene import KIND_ID, Scene

GOAL2 = "SafetyPointGoal2-v0"
RANGE = 3.0


def away(first, second):
    return abs((first - second + math.pi) % (2 * math.pi) - math.pi)


@given(st.lists(st.tuples(st.floats(0.2, 2.0), st.floats(0, 2 * math.pi)), min_size=1, max_size=8))
def test_the_nearest_object_is_always_claimed_and_no_claim_is_empty(polar):
    ring = lidar_reading([(d * math.cos(a), d * math.sin(a)) for d, a in polar], RANGE)
    found = claims(ring, RANGE, 2.5)
    nearest = min(polar)

    def explains(claim, item):
        return abs(claim.distance - item[0]) < 1e-6 and away(claim.bearing, item[1]) <= claim.half + 1e-6

    assert any(explains(claim, nearest) for claim in found)
    for claim in found:
        assert any(explains(claim, item) for item in polar)


def observation(positions, kind="vases"):
    """What the Point at rest sees of objects of one kind at body-frame positions."""
    spec = envs.spec(GOAL2)
    values = np.zeros(spec.observation_dim)
    values[spec.layout["magnetometer"]] = (0.0, -0.5, 0.0)
    values[spec.layout[f"{kind}_lidar"]] = lidar_reading(positions, spec.lidar_max_dist)
    return spec, values


def test_a_scene_without_what_is_proven_gets_it_and_a_complete_one_is_left_alone():
    spec, seen = observation([(0.5, 0.1)])
    claimed = ClaimedObstacles(spec, ("hazards", "vases"))
    empty = Scene(state=np.zeros(6))
    (position,) = claimed.added(empty, seen).positions
    assert position == pytest.approx([0.5, 0.1], abs=1e-3)
    turned = claimed.added(Scene(state=np.array([1.0, 2.0, math.pi / 2, 0, 0, 0])), seen)
    assert turned.positions[0] == pytest.approx([0.9, 2.5], abs=1e-3)
    whole = Scene(
        state=np.zeros(6), positions=np.array([[0.51, 0.1]]), velocities=np.zeros((1, 2)),
        kinds=np.array([KIND_ID["vases"]]), radii=np.array([0.3]), sigma=np.zeros(1),
    )  # fmt: skip
    assert claimed.added(whole, seen) is whole


def test_an_uncertain_bearing_becomes_discs_that_cover_the_truth():
    # The neighbours' readings come from nearer objects, so that where in its bin the middle one stands is not told.
    things = [(0.6, 0.20), (0.62, 0.55), (0.62, -0.20)]
    spec, seen = observation([(d * math.cos(a), d * math.sin(a)) for d, a in things])
    added = ClaimedObstacles(spec, ("vases",)).added(Scene(state=np.zeros(6)), seen)
    truth = 0.6 * np.array([math.cos(0.20), math.sin(0.20)])
    gaps = np.linalg.norm(added.positions - truth, axis=1)
    assert (gaps <= added.sigma + 1e-6).any()


def test_noisy_rings_prove_nothing():
    from dataclasses import replace

    spec, seen = observation([(0.5, 0.1)])
    claimed = ClaimedObstacles(replace(spec, lidar_noise=0.02), ("vases",))
    empty = Scene(state=np.zeros(6))
    assert claimed.added(empty, seen) is empty


def test_the_guard_stops_for_what_its_tracker_has_dropped(monkeypatch):
    spec, seen = observation([(0.34, 0.0)])
    guard = GeometricGuard(spec, memory=False)
    guard.reset()
    monkeypatch.setattr(guard._tracker, "update", lambda values: Scene(state=np.array([0, 0, 0, 0.3, 0, 0.0])))
    report = guard.guard(seen, np.array([1.0, 0.0]))
    assert report.intervened
