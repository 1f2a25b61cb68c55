"""Latency: the parts add up, instruments leave no trace, networks are compared."""

import json
import time

import pytest

from diffdecide import planner as planner_module
from diffdecide.app.bench.latency import (
    PLAN_PARTS,
    STEP_PARTS,
    LatencyConfig,
    Stopwatch,
    instrumented,
    latency_table,
    measure_latency,
)
from diffdecide.app.cli.main import main
from safety.controllers.judge import PlanJudge
from safety.filters import SafetyFilter

GOAL = "SafetyPointGoal1-v0"


def burn(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_nested_time_counts_for_the_inner_part_only():
    watch = Stopwatch()
    inner = watch.wrap("inner", lambda: burn(0.02))

    def outer():
        burn(0.01)
        inner()
        burn(0.01)

    watch.wrap("outer", outer)()
    # Nothing is counted twice and nothing is lost: both are at least what they burnt, with little on top.
    assert watch.seconds["inner"] >= 0.02
    assert watch.seconds["outer"] >= 0.02
    assert watch.seconds["inner"] + watch.seconds["outer"] < 0.06


def test_a_failing_part_is_left_again():
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError):
        watch.wrap("part", lambda: 1 / 0)()
    watch.wrap("other", lambda: None)()
    assert set(watch.seconds) == {"part", "other"}


def test_every_part_is_timed_and_the_instruments_are_removed(small_planner):
    before = planner_module.sample, PlanJudge.cost, SafetyFilter.filter
    config = LatencyConfig(env=GOAL, planner=str(small_planner), episodes=1, max_steps=40)
    result = measure_latency(config)
    assert (planner_module.sample, PlanJudge.cost, SafetyFilter.filter) == before
    assert result["parts"].keys() == {*PLAN_PARTS, *STEP_PARTS}
    assert result["parts"]["network calls"]["ratio_to_network"] == 1.0
    for name, part in result["parts"].items():
        if name != "projection":  # is called only where a plan comes too close
            assert part["ms_per_step"] > 0, name
    assert result["plan_ms"]["count"] == 5  # 20 steps behind the warm-up, a plan every 4
    assert result["step_ms"]["count"] == 20
    assert result["configuration"]["candidates"] == 4
    table = latency_table(result)
    assert all(part in table for part in (*PLAN_PARTS, *STEP_PARTS))
    json.dumps(result)


def test_zone_tasks_can_be_timed(small_planner, tmp_path):
    out = tmp_path / "latency.json"
    words = ["bench", "latency", "--env", "SafetyPointZones1-v0", "--planner", small_planner, "--episodes", 1]
    assert main([str(word) for word in [*words, "--max-steps", 30, "--out", out]]) == 0
    assert json.loads(out.read_text())["threads"] == 1


def test_instruments_are_removed_after_an_error(small_planner):
    from diffdecide.app.agent import Agent

    agent = Agent.from_pretrained(small_planner, None)
    with pytest.raises(RuntimeError), instrumented(agent, Stopwatch()):
        raise RuntimeError("stop")
    assert "plan" not in vars(agent.planner)
    assert "denoise" not in vars(agent.planner.model)


def test_networks_are_compared(small_planner, small_cloned, tmp_path, capsys):
    words = ["bench", "denoisers", f"mlp={small_planner}", "--out", tmp_path, "--episodes", 1, "--max-steps", 30]
    assert main([str(word) for word in words]) == 0
    row = json.loads((tmp_path / "denoisers.json").read_text())["rows"]["mlp"]
    assert row["denoiser"] == "mlp"
    assert row["parameters"] > row["denoiser_parameters"] > 0
    assert row["plan_ms"]["median"] > 0
    table = (tmp_path / "table.md").read_text()
    assert "| mlp | " in table
    assert main(["bench", "table", str(tmp_path)]) == 0
    assert (tmp_path / "table.md").read_text() == table
    capsys.readouterr()
    assert main(["bench", "denoisers", f"bc={small_cloned}", "--out", str(tmp_path / "x")]) == 2
    assert "has no denoiser" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"episodes": 0}, {"seed": -1}, {"max_steps": 20}, {"warm_up": -1}], ids=lambda w: next(iter(w))
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LatencyConfig(**wrong)
