"""`diffdecide evaluate` with the baselines, on real environments."""

import json

import pytest

from diffdecide.app.cli.main import main
from diffdecide.app.policies import BASELINES, baseline_factory
from diffdecide.app.zone_tasks import task_of_seed
from diffdecide.evaluate import EpisodeTask, evaluate
from safety.tasks.spec import TASK_KINDS, TaskSpec

GOAL, ZONES = "SafetyPointGoal1-v0", "SafetyPointZones1-v0"


def run(*words):
    return main(["evaluate", *map(str, words)])


def test_writes_the_promised_json_and_resumes(tmp_path, capsys):
    out = tmp_path / "result.json"
    options = ["--env", GOAL, "--planner", "proportional", "--seed", 500, "--max-steps", 30, "--out", out]
    assert run(*options, "--episodes", 1) == 0
    assert run(*options, "--episodes", 2, "--resume") == 0
    content = json.loads(out.read_text())
    assert [episode["seed"] for episode in content["episodes"]] == [500, 501]
    assert content["meta"]["planner"] == "proportional"
    assert content["meta"]["filter"] is True
    assert "worst episode" in capsys.readouterr().out
    assert run(*options, "--episodes", 2, "--resume", "--no-filter") == 2
    assert "other settings" in capsys.readouterr().err


def test_compares_with_an_earlier_result_on_the_same_seeds(tmp_path, capsys):
    out = tmp_path / "result.json"
    options = ["--env", GOAL, "--planner", "random", "--seed", 500, "--episodes", 2, "--max-steps", 20]
    assert run(*options, "--out", out) == 0
    assert run(*options, "--against", out) == 0
    assert "over 2 seeds" in capsys.readouterr().out
    assert run("--env", ZONES, "--planner", "random", "--episodes", 1, "--against", out) == 2
    assert f"made in {GOAL}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env", "SafetyPointGaol1-v0"], "SafetyPointGoal1-v0"),
        (["--env", GOAL, "--cost-limit", "-1"], "--cost-limit must be"),
        (["--env", GOAL, "--cost-limit", "nan"], "--cost-limit must be"),
        (["--env", GOAL, "--margin", "-0.1"], "--margin must be"),
        (["--env", GOAL, "--episodes", "0"], "--episodes must be"),
        (["--env", GOAL, "--resume"], "--resume needs --out"),
        (["--env", GOAL, "--planner", "mcp"], "mpc"),
        (["--env", GOAL, "--task", "{}"], "--task is for the zone tasks"),
        (["--env", ZONES, "--task", "{"], "not valid JSON"),
        (["--env", ZONES, "--task", '{"kind": "reach", "targets": ["pink"]}'], "pink"),
        (["--env", "SafetyAntGoal1-v0"], "ant"),
        (["--env", "SafetySwimmerVelocity-v1"], "swimmer"),
        (["--env", GOAL, "--against", "missing.json"], "missing.json: no such file"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(options, message, capsys):
    if "--planner" not in options:
        options = [*options, "--planner", "mpc"]
    assert run(*options, "--max-steps", 2) == 2
    text = "".join(capsys.readouterr())
    assert message in " ".join(text.replace("│", " ").split())
    assert "Traceback" not in text


def test_an_unwritable_output_is_told_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run("--env", GOAL, "--planner", "random", "--out", tmp_path / "file" / "result.json") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_ceiling_visits_zones_in_order():
    task = EpisodeTask(TaskSpec("avoid", ("green", "red"), ("blue",)))
    factory = baseline_factory("mpc", filtered=True, margin=0.05)
    result = evaluate(ZONES, factory, episodes=1, seed=500, tasks=[task], progress=False)
    assert result.episodes[0].success is True
    assert result.episodes[0].cost == 0
    assert result.episodes[0].details["reason"] == "visited green, then red"


def test_the_tour_ignores_what_is_asked():
    task = EpisodeTask(TaskSpec("reach", ("yellow",)))
    factory = baseline_factory("tour", filtered=False, margin=0.03)
    result = evaluate(ZONES, factory, episodes=1, seed=500, tasks=[task], progress=False)
    assert result.episodes[0].success is False
    assert "red" in result.episodes[0].details["reason"]


def test_every_baseline_acts():
    for name in BASELINES:
        tasks = [EpisodeTask(task_of_seed(500))]
        factory = baseline_factory(name, filtered=True, margin=0.03)
        result = evaluate(ZONES, factory, episodes=1, seed=500, tasks=tasks, max_steps=3, progress=False)
        assert result.episodes[0].filter_ms > 0


def test_random_tasks_are_valid_and_cover_all_kinds():
    tasks = [task_of_seed(seed) for seed in range(200)]
    assert {task.kind for task in tasks} == set(TASK_KINDS)
    assert task_of_seed(7) == task_of_seed(7)
