"""Corrupted lidars, and the margin that is calibrated for them."""

import json
import math

import gymnasium
import numpy as np
import pytest

from safety import envs
from safety.corruption import CorruptedLidar, LidarCorruption
from safety.filters import FilterConfig
from safety.layout import EnvSpec, ObservationLayout
from safety.margin import NEAR, MarginReport, calibrate_margin, overstatement
from safety.scene import KIND_ID, Scene

SPEC = EnvSpec("Toy", "point", 0.02, 10, 2, 19, ObservationLayout({"gyro": (0, 3), "hazards_lidar": (3, 19)}), 3.0)


class Constant(gymnasium.Env):
    """Every reading is 0.5."""

    observation_space = gymnasium.spaces.Box(-1, 1, (19,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        return np.full(19, 0.5), {}

    def step(self, action):
        return np.full(19, 0.5), 0.0, False, False, {}


def readings(corruption, seed=0, steps=2000):
    env = CorruptedLidar(Constant(), SPEC, corruption)
    first, _ = env.reset(seed=seed)
    return np.array([first] + [env.step(np.zeros(2))[0] for _ in range(steps)])


def test_noise_has_the_stated_spread_and_touches_the_lidar_only():
    seen = readings(LidarCorruption(noise=0.02))
    assert (seen[:, :3] == 0.5).all()
    assert seen[:, 3:].std() == pytest.approx(0.02, rel=0.03)
    assert seen[:, 3:].mean() == pytest.approx(0.5, abs=1e-3)


def test_bins_drop_out_as_often_as_stated_and_apart_from_each_other():
    lost = readings(LidarCorruption(dropout=0.1))[:, 3:] == 0
    assert lost.mean() == pytest.approx(0.1, abs=0.006)
    assert (lost[:, 0] & lost[:, 1]).mean() == pytest.approx(0.01, abs=0.008)


def test_the_errors_follow_the_seed():
    corruption = LidarCorruption(noise=0.02, dropout=0.1)
    assert (readings(corruption, 3, 5) == readings(corruption, 3, 5)).all()
    assert (readings(corruption, 3, 5) != readings(corruption, 4, 5)).any()


def test_the_policy_is_told_of_its_sensor():
    told = LidarCorruption(noise=0.02).told(SPEC)
    assert (told.lidar_noise, told.lidar_dropout) == (0.02, 0.0)
    assert EnvSpec.from_dict(told.to_dict()) == told
    assert not LidarCorruption()
    with pytest.raises(ValueError, match="no lidar"):
        LidarCorruption(noise=0.02).told(EnvSpec("SafetyAntVelocity-v1", "ant", 0.05, 1000, 8, 27))
    with pytest.raises(ValueError, match="dropout"):
        LidarCorruption(dropout=1.0)
    with pytest.raises(ValueError, match="noise"):
        LidarCorruption(noise=float("nan"))


def scene(x, sigma=0.0, kind="hazards"):
    return Scene(
        state=np.zeros(6),
        positions=np.array([[x, 0.0]]),
        velocities=np.zeros((1, 2)),
        kinds=np.array([KIND_ID[kind]]),
        radii=np.array([0.2]),
        sigma=np.array([sigma]),
    )


def test_an_overstatement_is_what_the_obstacle_is_nearer_than_it_was_said_to_be():
    settings = FilterConfig()
    assert overstatement(scene(0.45), scene(0.40), ("hazards",), settings) == pytest.approx(0.05)
    assert overstatement(scene(0.45, 0.02), scene(0.40), ("hazards",), settings) == pytest.approx(0.03)
    assert overstatement(scene(0.35), scene(0.40), ("hazards",), settings) == pytest.approx(-0.05)
    assert overstatement(scene(0.45), scene(0.80), ("hazards",), settings) is None  # far away: no matter
    unseen = overstatement(Scene(np.zeros(6)), scene(0.30), ("hazards",), settings)
    assert unseen == pytest.approx(NEAR - 0.10)
    assert overstatement(scene(0.45), scene(0.40, kind="vases"), ("hazards",), settings) is None


@pytest.fixture(scope="module")
def report():
    return calibrate_margin(
        envs.spec("SafetyPointGoal1-v0"),
        LidarCorruption(noise=0.02),
        episodes=3,
        seed=3000,
        miss=0.25,
        max_steps=60,
    )


def test_the_margin_is_the_conformal_quantile_and_never_below_the_operators(report):
    assert len(report.scores) == 3
    assert report.quantile == max(report.scores)  # ceil(4 * 0.75) = 3rd of 3
    assert report.margin == max(report.quantile, 0.03)
    assert report.seeds == (3000, 3002)
    assert report.quantile < 0.15  # the tracker works


def test_a_margin_survives_its_file_and_knows_what_it_was_made_for(report, tmp_path):
    path = tmp_path / "margin.json"
    report.save(path)
    loaded = MarginReport.load(path)
    assert loaded == report
    loaded.require("SafetyPointGoal1-v0", LidarCorruption(noise=0.01))
    with pytest.raises(ValueError, match="calibrated in SafetyPointGoal1-v0"):
        loaded.require("SafetyCarGoal1-v0", LidarCorruption(noise=0.02))
    with pytest.raises(ValueError, match="noise 0.03"):
        loaded.require("SafetyPointGoal1-v0", LidarCorruption(noise=0.03))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": "diffdecide-margin-1"}'])
def test_a_file_without_a_margin_is_refused(tmp_path, content):
    path = tmp_path / "margin.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"margin\.json holds no calibrated margin"):
        MarginReport.load(path)
    with pytest.raises(ValueError, match=r"missing\.json holds no calibrated margin"):
        MarginReport.load(tmp_path / "missing.json")


def test_a_file_with_a_margin_that_is_none_is_refused(report, tmp_path):
    path = tmp_path / "margin.json"
    report.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"margin": math.inf}))
    with pytest.raises(ValueError, match="its margin is inf"):
        MarginReport.load(path)


def test_what_cannot_be_promised_is_refused():
    spec, corruption = envs.spec("SafetyPointGoal1-v0"), LidarCorruption(noise=0.02)
    with pytest.raises(ValueError, match="at least 9 episodes"):
        calibrate_margin(spec, corruption, episodes=8, miss=0.1)
    with pytest.raises(ValueError, match="below 10000"):
        calibrate_margin(spec, corruption, episodes=20, seed=9990)
    with pytest.raises(ValueError, match="miss"):
        calibrate_margin(spec, corruption, miss=1.0)
