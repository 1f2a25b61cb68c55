"""Conformal margins and thresholds keep what they promise; calibration reports what was."""

import math

import numpy as np
import pytest

from safety.calibration import boundary_margin, calibrate, conformal_quantile, per_episode, risk_threshold


def test_the_conformal_quantile_is_exceeded_as_rarely_as_promised():
    generator = np.random.default_rng(0)
    exceeded = [
        scores[-1] > conformal_quantile(scores[:-1], 0.1) for scores in generator.exponential(size=(4000, 40))
    ]  # fmt: skip
    assert np.mean(exceeded) <= 0.115
    assert np.mean(exceeded) >= 0.07  # and it is not needlessly wide


def test_too_few_scores_promise_nothing():
    assert conformal_quantile([1.0, 2.0], 0.1) == math.inf
    assert conformal_quantile(np.arange(9.0), 0.1) == 8.0


def test_the_worst_of_each_episode():
    assert per_episode([1, 5, 2, 3], [7, 7, 9, 9]).tolist() == [5, 3]


def test_the_risk_threshold_controls_harm_that_is_let_through():
    generator = np.random.default_rng(1)
    harm = []
    for _ in range(1500):
        risk = generator.uniform(size=60)
        harmed = generator.uniform(size=60) < risk**2
        threshold = risk_threshold(risk[:-1], harmed[:-1], 0.1)
        harm.append(harmed[-1] and risk[-1] <= threshold)
    assert 0.05 < np.mean(harm) <= 0.115


def test_without_harm_everything_passes_and_without_data_nothing():
    assert risk_threshold(np.arange(20.0), np.zeros(20), 0.1) == 19.0
    assert risk_threshold([0.5], [False], 0.1) == -math.inf


def test_a_calibrated_prediction_reads_as_one():
    generator = np.random.default_rng(2)
    episodes = np.repeat(np.arange(50), 20)
    mean = generator.uniform(0, 5, size=1000)
    realised = mean + generator.normal(size=1000)
    levels = (0.1, 0.5, 0.9)
    quantiles = mean[:, None] + np.array([-1.2816, 0.0, 1.2816])
    report = calibrate(mean, realised, episodes, quantiles=quantiles, levels=levels)
    assert abs(report.bias) < 0.1
    assert report.coverage == pytest.approx(levels, abs=0.04)
    assert report.correlation > 0.7
    assert 0.6 < report.step_margin < 2.5
    assert report.episode_margin > report.step_margin
    assert sum(row["steps"] for row in report.bins) == 1000
    assert report.to_dict()["episodes"] == 50


def test_a_margin_that_cannot_be_promised_is_null():
    assert calibrate([1.0, 2.0], [1.0, 2.0], [0, 1]).to_dict()["episode_margin"] is None


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="NaN"):
        conformal_quantile([math.nan], 0.1)
    with pytest.raises(ValueError, match="miss"):
        conformal_quantile([1.0], 0.0)
    with pytest.raises(ValueError, match="harmed"):
        risk_threshold([1.0], [True, False], 0.1)
    with pytest.raises(ValueError, match="quantiles must be"):
        calibrate([1.0], [1.0], [0], quantiles=[[1.0, 2.0]], levels=(0.5,))


def test_the_boundary_margin_is_the_error_where_the_filter_works():
    generator = np.random.default_rng(0)
    risk = generator.uniform(-1, 1, 20_000)
    # Exact far from the boundary, mistaken by a Gaussian of 0.05 near it.
    error = np.where(np.abs(risk) < 0.3, 0.05 * generator.standard_normal(20_000), 0.0)
    margin = boundary_margin(risk, risk + error, 0.05)
    assert margin == pytest.approx(1.645 * 0.05, rel=0.1)
    at_threshold = np.abs(risk + margin) < 0.02
    assert np.mean((risk + error)[at_threshold] > 0) == pytest.approx(0.05, abs=0.02)
    assert boundary_margin(risk, risk - 0.1, 0.05) == 0.0  # a critic that is pessimistic needs none
    assert boundary_margin([0.1] * 5, [0.1] * 5, 0.05) == math.inf  # one step cannot promise it
    with pytest.raises(ValueError, match="violation"):
        boundary_margin(risk, risk[:5], 0.05)
    with pytest.raises(ValueError, match="share"):
        boundary_margin(risk, risk, 0.05, share=1.5)
