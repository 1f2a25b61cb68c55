"""The backup-set filter: it keeps adversaries out, says when it cannot, and knows what ranks above what."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safety import envs
from safety.constraints import Ball
from safety.dynamics import dynamics_for
from safety.filters import FilterConfig, SafetyFilter
from safety.moving_filter import MovingFilter
from safety.perception import LidarTracker
from safety.scene import KIND_ID, Scene

HAZARD = KIND_ID["hazards"]
# m: at the edge the filter tolerates creeping into a margin by its recovery depth, and then drives out again.
INSIDE = 2 * FilterConfig().recovery_depth + 1e-3


def scene(hazards, state=(0, 0, 0, 0, 0, 0), sigma=0.0):
    hazards = np.asarray(hazards, dtype=float).reshape(-1, 2)
    count = len(hazards)
    return Scene(
        state=np.asarray(state, dtype=float),
        positions=hazards,
        velocities=np.zeros((count, 2)),
        kinds=np.full(count, HAZARD),
        radii=np.full(count, 0.2),
        sigma=np.full(count, sigma),
    )


def drive(dynamics, start, act, steps, hazards, soft=(), margin=0.03):
    """States [steps, 6] of filtered driving on the fitted model, with the reports."""
    filter_ = SafetyFilter(dynamics, margin=margin)
    state, states, reports = np.asarray(start, dtype=float), [], []
    for step in range(steps):
        now = scene(hazards, state)
        reports.append(filter_.filter(now, act(step, now), soft=soft))
        state = dynamics.rollout(state, reports[-1].action[None])[0]
        states.append(state)
    return np.array(states), reports


def clearance(states, centre, radius=0.2):
    return np.linalg.norm(states[:, :2] - centre, axis=1) - radius


def straight_at(dynamics, target):
    """The adversary: full speed at the hazard."""
    from safety.controllers.objective import SubGoal
    from safety.controllers.proportional import ProportionalController

    driver = ProportionalController(dynamics)

    def act(step, now):
        goal = Scene(
            state=now.state,
            positions=np.array([target], dtype=float),
            velocities=np.zeros((1, 2)),
            kinds=np.array([KIND_ID["goal"]]),
            radii=np.array([0.3]),
            sigma=np.zeros(1),
        )
        return np.asarray(driver.act(goal, SubGoal(target="goal")), dtype=float)

    return act


@pytest.mark.parametrize("agent", ["point", "car"])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_who_drives_at_a_hazard_is_stopped_before_it(agent, margin):
    dynamics = dynamics_for(agent)
    states, reports = drive(dynamics, np.zeros(6), straight_at(dynamics, (1.5, 0.3)), 200, [(1.5, 0.3)], margin=margin)
    gap = clearance(states, (1.5, 0.3))
    assert gap.min() >= margin - INSIDE
    assert gap.min() < margin + 0.06  # it is not kept away further than needed
    assert any(report.intervened for report in reports)
    assert all(report.clearance > -INSIDE for report in reports if report.method == "fallback")


@pytest.mark.parametrize("agent", ["point", "car"])
def test_random_driving_among_hazards_stays_out(agent):
    dynamics = dynamics_for(agent)
    rng = np.random.default_rng(3)
    hazards = [(0.6, 0.1), (-0.5, 0.5), (0.1, -0.7), (0.9, 0.9), (-0.8, -0.4)]
    held = {"action": np.zeros(2)}

    def act(step, now):
        if step % 15 == 0:
            held["action"] = rng.uniform(-1, 1, 2)
        return held["action"]

    states, reports = drive(dynamics, np.zeros(6), act, 300, hazards)
    for centre in hazards:
        assert clearance(states, centre).min() >= 0.03 - INSIDE
    assert np.ptp(states[:, 0]) > 0.1  # it drives all the same
    assert all(report.clearance > -INSIDE for report in reports if report.method == "fallback")


def test_a_safe_action_passes_unchanged():
    dynamics = dynamics_for("point")
    action = np.array([0.03, -0.4])
    for hazards in ([], [(3.0, 3.0)], [(-1.0, 0.0)]):
        report = SafetyFilter(dynamics).filter(scene(hazards), action)
        np.testing.assert_array_equal(report.action, action)
        assert not report.intervened
        assert report.delta == 0.0


def test_where_nothing_is_safe_it_says_so_and_does_what_is_least_unsafe():
    """Right in front of a hazard at full speed: braking is too late, and is done all the same."""
    dynamics = dynamics_for("point")
    report = SafetyFilter(dynamics).filter(scene([(0.33, 0.0)], (0, 0, 0, 1.4, 0, 0)), np.array([0.05, 0.0]))
    assert report.infeasible
    assert report.intervened
    assert report.method == "fallback"
    assert report.clearance < 0
    assert report.action[0] < 0  # against the motion


def test_whoever_is_inside_a_margin_is_led_out():
    dynamics = dynamics_for("point")
    start = np.array([0.19, 0.0, np.pi, 0, 0, 0])  # 1 cm inside the hazard, looking at its middle
    states, reports = drive(dynamics, start, lambda step, now: np.array([0.05, 0.0]), 100, [(0.0, 0.0)])
    gap = clearance(states, (0.0, 0.0))
    assert gap.min() >= -0.0105
    assert gap[-1] > 0.02
    assert reports[0].infeasible


def test_uncertainty_and_margin_make_it_keep_more_distance():
    dynamics = dynamics_for("car")
    gaps = []
    for margin, sigma in ((0.0, 0.0), (0.0, 0.05), (0.05, 0.0), (0.05, 0.5)):
        filter_ = SafetyFilter(dynamics, margin=margin)
        act, state, near = straight_at(dynamics, (1.0, 0.0)), np.zeros(6), np.inf
        for step in range(120):
            now = scene([(1.0, 0.0)], state, sigma)
            state = dynamics.rollout(state, filter_.filter(now, act(step, now)).action[None])[0]
            near = min(near, np.hypot(*(state[:2] - (1.0, 0.0))) - 0.2)
        gaps.append(near)
    assert gaps[0] < gaps[1] <= gaps[2] + 0.02 < gaps[3]
    assert gaps[3] >= 0.15 - 1e-3  # 0.05 and the cap of 0.10, however unsure


def test_forbidden_zones_are_kept_where_possible():
    dynamics = dynamics_for("point")
    zone = Ball(center=np.array([1.2, 0.0]), radius=0.3, margin=0.03, rank="soft")
    states, reports = drive(dynamics, np.zeros(6), straight_at(dynamics, (1.2, 0.0)), 200, [], soft=[zone])
    assert clearance(states, (1.2, 0.0), 0.3).min() >= 0.03 - INSIDE
    assert max(report.slack for report in reports) < INSIDE


@example(angle=0.0, gap=0.25, heading=0.0, zone_angle=2.0, depth=0.25, command=(0.0, 0.0))
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    angle=st.floats(0, 2 * np.pi),
    gap=st.floats(0.04, 0.3),
    heading=st.floats(0, 2 * np.pi),
    zone_angle=st.floats(0, 2 * np.pi),
    depth=st.floats(-0.2, 0.25),
    command=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_a_soft_constraint_never_displaces_a_hard_one(angle, gap, heading, zone_angle, depth, command):
    """From rest beside a hazard and a forbidden zone, inside the zone or not: the hazard is never entered."""
    dynamics = dynamics_for("point")
    hazard = (0.2 + gap) * np.array([np.cos(angle), np.sin(angle)])
    centre = (0.3 - depth) * np.array([np.cos(zone_angle), np.sin(zone_angle)])
    zone = Ball(center=centre, radius=0.3, margin=0.03, rank="soft")
    start = np.array([0, 0, heading, 0, 0, 0])
    action = np.asarray(dynamics.command(np.array(command)))
    states, reports = drive(dynamics, start, lambda step, now: action, 40, [hazard], soft=[zone])
    assert clearance(states, hazard).min() >= 0.03 - 2 * INSIDE  # both margins at once: a little deeper
    assert all(report.clearance > -INSIDE for report in reports if report.method == "fallback")


def test_relaxing_a_forbidden_zone_is_reported():
    """Sliding towards a hazard with a zone across the only way around it: the zone gives way, with slack."""
    dynamics = dynamics_for("point")
    zone = Ball(center=np.array([0.0, 0.0]), radius=0.3, margin=0.03, rank="soft")
    report = SafetyFilter(dynamics).filter(scene([(2.0, 2.0)]), np.array([0.05, 0.0]), soft=[zone])
    assert report.slack > 0.2  # starting inside: leave it first
    assert not report.infeasible


def test_a_plan_is_judged_as_a_manoeuvre():
    """Swerving is safe where braking comes too late."""
    dynamics = dynamics_for("point")
    state = np.array([0, 0, 0.0, 1.3, 0.0, 0])
    commands = np.tile([1.0, 1.0], (12, 1))
    commands = np.vstack([commands, np.tile([1.0, 0.0], (30, 1))])
    plan = np.asarray(dynamics.command(commands))
    path = dynamics.rollout(state, plan)[:, :2]
    nearest = path[20] + 0.28 * np.array([1.0, -0.5]) / np.hypot(1, 0.5)
    now = scene([nearest], state)
    with_plan = SafetyFilter(dynamics).filter(now, plan[0], plan=plan)
    without = SafetyFilter(dynamics).filter(now, plan[0])
    if with_plan.method == "plan":
        assert not with_plan.intervened
        assert without.clearance <= with_plan.clearance + 1.0
    far = (np.linalg.norm(path - nearest, axis=1) - 0.2).min()
    assert (with_plan.method in ("plan", "pass")) == (far >= 0.03) or not with_plan.infeasible


@pytest.mark.parametrize("action", [[0.0], [0.0, np.nan], [np.inf, 0.0], [[0.0, 0.0]]])
def test_an_action_that_is_none_is_refused(action):
    with pytest.raises(ValueError, match="finite action"):
        SafetyFilter(dynamics_for("point")).filter(scene([]), np.array(action))


def test_a_state_that_is_none_is_refused():
    with pytest.raises(ValueError, match="finite agent state"):
        SafetyFilter(dynamics_for("point")).filter(scene([], (0, 0, np.nan, 0, 0, 0)), np.zeros(2))


@pytest.mark.parametrize("margin", [-0.01, np.nan, np.inf])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(ValueError, match="margin must be"):
        SafetyFilter(dynamics_for("point"), margin=margin)


@pytest.mark.parametrize("agent", ["point", "car"])
def test_without_a_margin_nothing_is_entered_all_the_same(agent):
    """A margin may be undercut by the recovery depth, an obstacle may not: also by who leans on it for long."""
    dynamics = dynamics_for(agent)
    start, target = (0.6, 0.0, 0, 0, 0, 0), (1.0, 0.1)
    states, _ = drive(dynamics, start, straight_at(dynamics, target), 150, [target], margin=0.0)
    assert 0 < clearance(states, target).min() < 0.03


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (np.zeros((3, 3)), r"plan of shape \(T, 2\), got \(3, 3\)"),
        (np.zeros(2), r"plan of shape \(T, 2\), got \(2,\)"),
        (np.full((3, 2), np.nan), "finite plan"),
    ],
)
@pytest.mark.parametrize("moving", [False, True])
def test_a_plan_that_is_none_is_refused(plan, message, moving):
    shield = (MovingFilter if moving else SafetyFilter)(dynamics_for("point"))
    with pytest.raises(ValueError, match=message):
        shield.filter(scene([(0.4, 0.0)]), np.zeros(2), plan=plan)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("positions", np.array([[np.nan, 0.0]]), "finite positions"),
        ("positions", np.array([[np.inf, 0.0]]), "finite positions"),
        ("positions", np.array([[0.4, 0.0, 0.0]]), r"positions in shape \(1, 2\), got \(1, 3\)"),
        ("velocities", np.array([[0.0, np.nan]]), "finite velocities"),
        ("radii", np.array([np.nan]), "finite radii"),
        ("radii", np.array([-0.2]), "radii >= 0"),
        ("sigma", np.array([np.inf]), "finite sigma"),
        ("sigma", np.array([-1.0]), "sigma >= 0"),
    ],
)
@pytest.mark.parametrize("moving", [False, True])
def test_an_obstacle_that_is_none_is_refused_and_not_forgotten(field, value, message, moving):
    shield = (MovingFilter if moving else SafetyFilter)(dynamics_for("point"))
    with pytest.raises(ValueError, match=message):
        shield.filter(replace(scene([(0.4, 0.0)]), **{field: value}), np.zeros(2))


def test_contradictory_constraints_are_told_and_the_least_bad_is_done():
    """Between two hazards whose margins overlap, moving: nothing keeps both."""
    dynamics = dynamics_for("point")
    report = SafetyFilter(dynamics, margin=0.1).filter(
        scene([(0.0, 0.26), (0.0, -0.26)], (-0.1, 0, 0, 0.6, 0, 0)), np.array([0.05, 0.0])
    )
    assert report.infeasible
    assert report.method in ("fallback", "recovery")
    assert np.isfinite(report.action).all()
    assert report.clearance < 0


def test_settings_are_checked():
    with pytest.raises(ValueError, match="grid"):
        FilterConfig(grid=1)
    with pytest.raises(ValueError, match="sigma_factor"):
        FilterConfig(sigma_factor=-1)
    with pytest.raises(ValueError, match="recovery_depth"):
        FilterConfig(recovery_depth=float("nan"))


@pytest.mark.parametrize("env_id", ["SafetyPointGoal1-v0", "SafetyCarGoal1-v0"])
def test_an_adversary_in_the_simulator_costs_nothing(env_id):
    """Positions decoded from the lidars, a policy that drives at the nearest hazard: the episode costs nothing."""
    env, spec = envs.make(env_id, seed=5000), envs.spec(env_id)
    dynamics = dynamics_for(spec.agent)
    tracker, filter_ = LidarTracker(spec), SafetyFilter(dynamics, margin=0.03)
    observation, _ = env.reset(seed=5000)
    cost = interventions = 0
    for step in range(250):
        now = tracker.update(observation)
        hazards = now.of_kind("hazards")
        nearest = now.positions[hazards[np.argmin(np.linalg.norm(now.positions[hazards] - now.state[:2], axis=1))]]
        report = filter_.filter(now, straight_at(dynamics, nearest)(step, now))
        interventions += report.intervened
        observation, _, _, _, info = env.step(report.action)
        cost += info["cost"]
    env.close()
    assert cost == 0
    assert interventions > 50
