"""`diffdecide calibrate` and the evaluations that use what it found."""

import json

import pytest

from diffdecide.app.cli.main import main

GOAL = "SafetyPointGoal1-v0"


@pytest.fixture(scope="module")
def margin(tmp_path_factory):
    out = tmp_path_factory.mktemp("margins") / "noise.json"
    options = ["--env", GOAL, "--lidar-noise", "0.02", "--episodes", "1", "--miss", "0.5", "--max-steps", "30"]
    assert main(["calibrate", *options, "--out", str(out)]) == 0
    return out


def evaluate(*words):
    return main(["evaluate", "--env", GOAL, "--planner", "proportional", "--max-steps", "30", *map(str, words)])


def test_an_evaluation_takes_the_calibrated_margin_and_says_so(margin, tmp_path):
    out = tmp_path / "result.json"
    options = ["--episodes", 1, "--seed", 500, "--calibrated", margin, "--out", out]
    assert evaluate(*options, "--lidar-noise", 0.02) == 0
    meta = json.loads(out.read_text())["meta"]
    assert meta["margin"] == json.loads(margin.read_text())["margin"] >= 0.03
    assert meta["lidar"] == {"noise": 0.02, "dropout": 0.0}


def test_corrupted_episodes_are_the_same_again_and_not_mixed_with_clean_ones(tmp_path, capsys):
    records = []
    for name in ("first", "again"):
        out = tmp_path / f"{name}.json"
        assert evaluate("--episodes", 2, "--seed", 500, "--lidar-dropout", 0.1, "--out", out) == 0
        records.append([(item["return"], item["cost"]) for item in json.loads(out.read_text())["episodes"]])
    assert records[0] == records[1]
    assert evaluate("--episodes", 2, "--seed", 500, "--out", out, "--resume") == 2
    assert "lidar" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lidar-noise", "-1"], "--lidar-noise must be"),
        (["--lidar-dropout", "nan"], "--lidar-dropout must be"),
        (["--calibrated", "missing.json"], "missing.json holds no calibrated margin"),
    ],
)
def test_wrong_options_are_told(options, message, capsys):
    assert evaluate("--episodes", 1, *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_margin_for_a_better_sensor_is_refused(margin, capsys):
    assert evaluate("--episodes", 1, "--calibrated", margin, "--lidar-noise", 0.05) == 2
    assert "calibrated for noise 0.02" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env", GOAL, "--lidar-noise", "2"], "--lidar-noise must be"),
        (["--env", GOAL, "--margin", "-1"], "--margin must be"),
        (["--env", GOAL, "--episodes", "3"], "at least 9 episodes"),
        (["--env", "SafetyHopperVelocity-v1"], "learned filter"),
    ],
)
def test_what_cannot_be_calibrated_is_told(options, message, tmp_path, capsys):
    assert main(["calibrate", *options, "--out", str(tmp_path / "margin.json")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
