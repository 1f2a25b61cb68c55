"""The filter check runs, goes on where it was and sorts what it finds; its policies do what they claim."""

import json

import numpy as np
import pytest

from safety import envs, truth
from safety.check_policies import adversarial_action, make_policy
from safety.controllers.circle import CircleJudge
from safety.dynamics import dynamics_for
from safety.filter_check import CheckConfig, Job, _reason, episode, main, summarise
from safety.filter_timing import MARKS, timing
from safety.scene import KIND_ID, Scene
from safety.walls import Walls

CIRCLE = "SafetyPointCircle1-v0"


def scene(*objects):
    count = len(objects)
    return Scene(
        state=np.zeros(6),
        positions=np.array([entry[1:] for entry in objects], dtype=float).reshape(-1, 2),
        velocities=np.zeros((count, 2)),
        kinds=np.array([KIND_ID[entry[0]] for entry in objects], dtype=np.int64),
        radii=np.full(count, 0.2),
        sigma=np.zeros(count),
    )


def test_it_goes_on_where_it_was_and_refuses_what_does_not_fit(tmp_path, capsys):
    out = tmp_path / "check.json"
    run = ["--tasks", CIRCLE, "--policies", "random", "--max-steps", "20", "--out", str(out)]
    main([*run, "--episodes", "1"])
    first = json.loads(out.read_text())
    assert [record["seed"] for record in first["records"]] == [5000]
    main([*run, "--episodes", "2"])
    assert "1 episodes to do, 1 kept" in capsys.readouterr().out
    second = json.loads(out.read_text())
    assert [record["seed"] for record in second["records"]] == [5000, 5001]
    assert second["records"][0] == first["records"][0]
    assert second["rows"][0]["episodes"] == 2
    assert second["rows"][0]["mean_cost"] == 0
    for wrong in (["--margin", "0.05"], ["--margin", "-1"], ["--episodes", "0"], ["--tasks", "SafetyNothing-v0"]):
        with pytest.raises(SystemExit):
            main([*run, *wrong])
    assert "other settings" in capsys.readouterr().err
    assert json.loads(out.read_text()) == second


def test_an_adversary_is_held_off_although_readings_drop_out():
    from safety.corruption import LidarCorruption

    config = CheckConfig(margin=0.05, lidar=LidarCorruption(dropout=0.1), max_steps=150)
    record = episode(Job("SafetyPointGoal1-v0", "adversarial", 5000), config)
    assert record["cost"] == 0
    assert record["least_clearance"] > 0
    assert record["interventions"] > 20


def test_steps_without_a_feasible_action_are_explained():
    assert _reason("recovery", -0.01, 0.03) == "margin"
    assert _reason("fallback", -0.05, 0.03) == "contact"
    assert _reason("blind", float("-inf"), 0.03) == "blind"


def test_the_share_of_the_return_that_is_kept_is_paired_by_seed():
    def record(policy, seed, returned):
        zeros = dict.fromkeys(("cost", "steps", "least_clearance", "moving", "interventions", "infeasible"), 0)
        because = {"margin": 0, "contact": 0, "blind": 0}
        return {"env": "E", "policy": policy, "seed": seed, "return": returned, "infeasible_because": because, **zeros}

    rows = summarise([record("mpc", 1, 9.0), record("mpc", 2, 1.0), record("mpc-free", 1, 10.0)])
    assert rows[0]["return_kept"] == pytest.approx(0.9)


def test_the_adversary_drives_at_what_costs_and_not_at_the_goal_button():
    dynamics = dynamics_for("point")
    kinds = ("buttons", "gremlins")
    left = adversarial_action(dynamics, scene(("buttons", 0.1, 1.0)), kinds, walls=False)
    assert left[1] > 0
    other = scene(("buttons", 0.1, 1.0), ("goal", 0.1, 1.0), ("gremlins", 0.1, -1.5))
    assert adversarial_action(dynamics, other, kinds, walls=False)[1] < 0
    assert adversarial_action(dynamics, scene(), kinds, walls=False).tolist() == [0, 0]


def test_the_circle_judge_pays_what_the_task_pays():
    env = envs.make(CIRCLE, seed=5000)
    env.reset(seed=5000)
    reward = 0.0
    for _ in range(40):
        _, reward, _, _, _ = env.step(np.array([1.0, 0.3]))
    now = truth.scene(env)
    env.close()
    judge = CircleJudge(now, (), margin=0.03)
    assert -0.1 * float(judge.cost(now.state[None, None])[0]) == pytest.approx(reward, abs=2e-3)


def test_behind_a_wall_costs_more_than_any_speed_is_worth():
    walls = Walls(envs.spec(CIRCLE)).world()
    centre = scene(("circle", 0.0, 0.0))
    states = np.zeros((2, 5, 6))
    states[:, :, 0] = np.array([[1.0], [1.2]])
    states[:, :, 4] = 1.5
    inside, behind = CircleJudge(centre, walls, margin=0.03).cost(states)
    assert inside < 0 < behind
    with pytest.raises(ValueError, match="no circle"):
        CircleJudge(scene(), walls, margin=0.03)


def test_the_mpc_goes_round_and_keeps_within_the_walls():
    config = CheckConfig(max_steps=80)
    record = episode(Job(CIRCLE, "mpc", 5000), config)
    assert record["return"] > 3
    assert record["cost"] == 0


def test_unknown_policies_are_named():
    with pytest.raises(ValueError, match="random, adversarial, mpc, mpc-free"):
        make_policy("nobody", envs.spec(CIRCLE), seed=0, margin=0.03)
    with pytest.raises(ValueError, match="nobody"):
        episode(Job(CIRCLE, "nobody", 5000), CheckConfig())


def test_a_short_timing_has_all_its_rows_and_marks():
    report = timing(0, rounds=2)
    assert set(report["marks"]) == set(MARKS)
    assert report["rows"]["projection, single"]["ratio_to_single"] == 1.0
    assert report["rows"]["projection, cvxpy with DPP parameters"]["ratio_to_single"] > 3
    assert report["rows"]["projection, batch of 256"]["ratio_to_single"] < 1
