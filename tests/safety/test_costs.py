"""Costs: tails, cost-to-go, budgets, normalised scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.costs import Budget, cost_to_go, cvar, normalised_cost, normalised_score, score_range


def test_cvar_counts_the_cut_value_by_its_share():
    assert cvar(np.arange(25), 0.1) == pytest.approx((24 + 23 + 0.5 * 22) / 2.5)
    assert cvar(np.arange(30), 0.1) == pytest.approx(28.0)
    assert cvar([1.0, 2.0, 3.0], 0.1) == 3.0
    np.testing.assert_allclose(cvar(np.arange(12.0).reshape(2, 6), 0.5), [4.0, 10.0])
    np.testing.assert_allclose(cvar(np.arange(12.0).reshape(2, 6), 1.0, axis=0), np.arange(6) + 3.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.floats(0.01, 1.0))
def test_cvar_lies_between_mean_and_maximum_and_is_the_rockafellar_minimum(values, alpha):
    result = cvar(values, alpha)
    assert np.mean(values) - 1e-6 <= result <= max(values) + 1e-6
    array = np.asarray(values)
    # Rockafellar and Uryasev: CVaR = min over c of c + E[max(v - c, 0)] / alpha, reached at one of the values.
    objective = [c + np.clip(array - c, 0, None).mean() / alpha for c in array]
    assert result == pytest.approx(min(objective), abs=1e-6)


@pytest.mark.parametrize(
    ("values", "alpha", "message"),
    [([], 0.1, "at least one"), ([math.nan], 0.1, "NaN"), ([1.0], 0.0, "alpha"), ([1.0], 1.5, "alpha")],
)
def test_cvar_names_bad_input(values, alpha, message):
    with pytest.raises(ValueError, match=message):
        cvar(values, alpha)


def test_cost_to_go_stops_at_terminals_and_bootstraps_at_time_outs():
    costs = [1.0, 0.0, 2.0, 1.0, 1.0, 4.0]
    terminals = [0, 1, 0, 0, 0, 0]
    timeouts = [0, 0, 0, 1, 0, 0]  # the last episode is left open
    after = np.array([9.0, 9.0, 9.0, 10.0, 9.0, 6.0])
    result = cost_to_go(costs, gamma=0.5, terminals=terminals, timeouts=timeouts, next_values=after)
    np.testing.assert_allclose(result, [1.0, 0.0, 2.0 + 0.5 * 6.0, 1.0 + 0.5 * 10.0, 1.0 + 0.5 * 7.0, 4.0 + 0.5 * 6.0])
    within = cost_to_go(costs, gamma=1.0, terminals=terminals, timeouts=timeouts, bootstrap="none")
    np.testing.assert_allclose(within, [1.0, 0.0, 3.0, 1.0, 5.0, 4.0])


def test_bootstrapping_with_the_true_value_undoes_the_time_out():
    costs = np.random.default_rng(0).random(50)
    whole = cost_to_go(costs, gamma=0.9, terminals=np.arange(50) == 49)
    after = np.append(whole[1:], 0.0)
    cut = cost_to_go(
        costs, gamma=0.9, terminals=np.arange(50) == 49, timeouts=np.arange(50) % 7 == 6, next_values=after
    )
    np.testing.assert_allclose(cut, whole)


def test_a_step_that_is_terminal_and_timed_out_is_terminal():
    assert cost_to_go([3.0], gamma=0.9, terminals=[1], timeouts=[1]).tolist() == [3.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0.9}, "next_values"),
        ({"gamma": 1.1, "bootstrap": "none"}, "gamma"),
        ({"gamma": 0.9, "bootstrap": "maybe"}, "bootstrap"),
        ({"gamma": 0.9, "timeouts": [1]}, "timeouts"),
        ({"gamma": 0.9, "next_values": [0.0, math.nan]}, "next_values"),
    ],
)
def test_cost_to_go_names_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        cost_to_go([1.0, 0.0], **arguments)


def test_a_budget_tells_observed_from_predicted():
    budget = Budget(3.0)
    assert budget.source == "none"
    assert budget.remaining == 3.0
    assert budget.spend(1.0, predicted=5.0) == 2.0
    assert budget.source == "observed"
    assert budget.spend(None, predicted=0.5) == 1.5
    report = budget.report()
    assert report["source"] == "mixed"
    assert report["observed"] == 1.0
    assert report["predicted"] == 0.5
    assert report["observed_steps"] == report["predicted_steps"] == 1
    assert not report["exceeded"]
    budget.spend(2.0)
    assert budget.remaining == -0.5
    assert budget.report()["exceeded"]
    budget.reset()
    assert budget.remaining == 3.0
    assert budget.report()["source"] == "none"


@pytest.mark.parametrize("limit", [-1.0, math.nan])
def test_a_budget_needs_a_limit(limit):
    with pytest.raises(ValueError, match="limit"):
        Budget(limit)


@pytest.mark.parametrize(("cost", "predicted"), [(None, None), (-1.0, None), (math.nan, None), (None, math.inf)])
def test_a_budget_refuses_nonsense(cost, predicted):
    budget = Budget(1.0)
    with pytest.raises(ValueError, match=r"cost|predicted"):
        budget.spend(cost, predicted=predicted)
    assert budget.remaining == 1.0


def test_scores_are_normalised_by_the_published_ranges():
    assert normalised_score("SafetyPointGoal1-v0", 30.071) == pytest.approx(1.0)
    assert normalised_score("SafetyCarCircle1-v0", 8.037) == pytest.approx(0.0)
    np.testing.assert_allclose(normalised_score("PointGoal1", [0.012, 30.071]), [0.0, 1.0])
    ids = ["SafetyHalfCheetahVelocity-v1", "OfflineHalfCheetahVelocityGymnasium-v1", "HalfCheetahVelocity"]
    assert len({score_range(name) for name in ids}) == 1
    with pytest.raises(ValueError, match="SafetyPointZones1"):
        score_range("SafetyPointZones1-v0")


def test_costs_are_normalised_by_one_limit_or_averaged_over_several():
    assert normalised_cost(20.0, 10.0) == pytest.approx(2.0)
    assert normalised_cost(40.0) == pytest.approx((2.0 + 1.0 + 0.5) / 3)
    for limit in (0.0, -1.0, math.inf, ()):
        with pytest.raises(ValueError, match="limit"):
            normalised_cost(1.0, limit)
