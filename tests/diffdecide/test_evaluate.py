"""Evaluation on real environments, short episodes."""

import functools
import json
import os
import signal

import numpy as np
import pytest

from diffdecide.evaluate import Action, EpisodeTask, EvaluationError, EvaluationResult, evaluate, rollout
from diffdecide.files import read_json
from safety.tasks.spec import TaskSpec

ENV = "SafetyPointGoal1-v0"


class Wanderer:
    """Smooth random actions from its own seeded generator; reports like a planner with a filter."""

    def reset(self, spec, *, seed):
        self.generator = np.random.default_rng(seed)
        self.action = np.zeros(spec.action_dim)
        self.steps = 0
        self.seen_costs = []

    def act(self, observation, cost=None):
        assert np.isfinite(observation).all()
        self.seen_costs.append(cost)
        self.action = np.clip(0.9 * self.action + 0.4 * self.generator.normal(size=self.action.shape), -1, 1)
        self.steps += 1
        report = {"intervened": self.steps % 3 == 0, "filter_ms": 0.25}
        if self.steps % 2:
            report["plan_ms"] = 10.0
        return Action(self.action.copy(), report)


class Resting(Wanderer):
    def act(self, observation, cost=None):
        return Action(np.zeros_like(self.action))


class Faulty(Wanderer):
    """Works until seed 102, then does `what`."""

    def __init__(self, what):
        self.what = what

    def reset(self, spec, *, seed):
        super().reset(spec, seed=seed)
        self.seed = seed

    def act(self, observation, cost=None):
        if self.seed == 102 and self.steps == 3:
            if self.what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "raise":
                raise RuntimeError("the planner has lost its way")
            return Action(np.full(2, np.nan) if self.what == "nan" else np.zeros(3))
        return super().act(observation, cost)


def run(factory=Wanderer, **options):
    settings = {"episodes": 3, "seed": 100, "max_steps": 40, "progress": False} | options
    return evaluate(ENV, factory, **settings)


@pytest.fixture(scope="module")
def alone():
    return run()


def test_records_say_what_happened(alone):
    assert [episode.seed for episode in alone.episodes] == [100, 101, 102]
    first = alone.episodes[0]
    assert first.length == 40
    assert first.interventions == 13
    assert first.infeasible == 0
    assert first.success is False
    assert first.plan_ms == pytest.approx(10.0)  # the mean over the plans, not over the steps
    assert first.filter_ms == pytest.approx(0.25)
    assert first.control_ms > 0
    assert len({episode.return_ for episode in alone.episodes}) == 3


def test_any_number_of_workers_gives_the_same_records(alone):
    assert run(workers=2).episodes == alone.episodes


def test_an_episode_does_not_depend_on_those_before_it(alone):
    assert run(seed=102, episodes=1).episodes[0] == alone.episodes[2]


def test_a_resting_agent_is_stuck():
    record = run(Resting, episodes=1).episodes[0]
    assert record.stuck == 1.0
    assert record.plan_ms is None


def test_the_cost_is_shown_only_when_asked_for():
    from safety.envs import make, spec

    env, policy = make(ENV), Wanderer()
    rollout(env, policy, 1, spec=spec(ENV), max_steps=5)
    assert policy.seen_costs == [None] * 5
    rollout(env, policy, 1, spec=spec(ENV), max_steps=5, observe_cost=True)
    assert policy.seen_costs == [0.0] * 5


def test_steps_are_shown_to_a_recorder_with_ground_truth():
    from safety.envs import make, spec

    steps = []
    record = rollout(make(ENV), Wanderer(), 1, spec=spec(ENV), max_steps=6, on_step=steps.append)
    assert [step.index for step in steps] == list(range(6))
    assert sum(step.reward for step in steps) == pytest.approx(record.return_)
    assert len(steps[0].scene.of_kind("hazards")) == 8


def test_velocity_tasks_have_no_scene_to_be_stuck_in():
    result = evaluate("SafetyHopperVelocity-v1", Resting, episodes=1, seed=0, max_steps=5, progress=False)
    assert result.episodes[0].stuck is None
    assert result.episodes[0].success is None
    assert result.aggregate()["stuck"] is None


def test_file_layout_and_round_trip(alone, tmp_path):
    path = tmp_path / "sub" / "result.json"
    result = run(out=path, settings={"planner": "wanderer"})
    content = json.loads(path.read_text())
    assert set(content) == {"episodes", "aggregate", "meta"}
    names = {"seed", "return", "cost", "length", "success", "interventions", "infeasible", "stuck", "plan_ms"}
    assert names | {"filter_ms", "control_ms"} == set(content["episodes"][0])
    assert {"commit", "dirty", "command", "date", "machine", "python", "versions", "seeds"} <= set(content["meta"])
    assert content["meta"]["planner"] == "wanderer"
    assert content["meta"]["seeds"] == [100, 102]
    assert {"mean", "low", "high", "count", "max", "cvar_0.1", "limit", "share_within_limit"} == set(
        content["aggregate"]["cost"]
    )
    assert EvaluationResult.load(path).episodes == result.episodes == alone.episodes
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_resume_goes_on_where_it_stopped(alone, tmp_path):
    path = tmp_path / "result.json"
    run(episodes=2, out=path)
    marked = read_json(path)
    marked["episodes"][0]["return"] = 123.0  # recognisable: a repeated episode would overwrite it
    here, marked["meta"]["commit"] = marked["meta"]["commit"], "0" * 40
    path.write_text(json.dumps(marked))
    result = run(out=path, resume=True)
    assert result.episodes[0].return_ == 123.0
    assert EvaluationResult.load(path).commits == result.commits == sorted({"0" * 40, here or "unknown"})
    assert result.episodes[2] == alone.episodes[2]


def test_resume_refuses_another_run(tmp_path):
    path = tmp_path / "result.json"
    run(episodes=1, out=path, settings={"filter": True})
    with pytest.raises(ValueError, match="filter True there, False here"):
        run(out=path, resume=True, settings={"filter": False})
    with pytest.raises(ValueError, match="resume needs an output file"):
        run(resume=True)
    path.write_text("not json")
    with pytest.raises(ValueError, match="not a JSON file"):
        run(out=path, resume=True)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("raise", EvaluationError, "seed 102.*lost its way"),
        ("nan", ValueError, "seed 102.*not finite"),
        ("shape", ValueError, r"seed 102.*shape \(3,\), expected \(2,\)"),
    ],
)
def test_a_failing_policy_is_named_and_finished_episodes_are_kept(what, error, message, tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(error, match=message):
        run(functools.partial(Faulty, what), out=path)
    assert [episode.seed for episode in EvaluationResult.load(path).episodes] == [100, 101]


def test_a_dying_worker_is_told_and_finished_episodes_are_kept(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(EvaluationError, match="worker process died.*kept in"):
        run(functools.partial(Faulty, "die"), out=path, workers=2, episodes=5)
    kept = EvaluationResult.load(path).episodes
    assert kept
    assert 102 not in [episode.seed for episode in kept]
    finished = run(out=path, resume=True, episodes=5)
    assert len(finished.episodes) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"cost_limit": -1.0}, "cost_limit must be finite and >= 0"),
        ({"tasks": [EpisodeTask()]}, "one entry per episode"),
        ({"workers": 2, "factory": lambda: Wanderer()}, "picklable"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_unknown_environment_is_named():
    with pytest.raises(ValueError, match="SafetyPointGaol1-v0"):
        evaluate("SafetyPointGaol1-v0", Wanderer, episodes=1, seed=0, progress=False)


class Told(Wanderer):
    """Is told its task both ways and remembers which way was used."""

    def assign(self, task):
        self.task = task

    def instruct(self, text):
        return f"heard {text!r}"


def test_zone_tasks_are_judged_and_told():
    task = TaskSpec("reach", ("green",))
    tasks = [EpisodeTask(task), EpisodeTask(task, prompt="go green")]
    result = evaluate("SafetyPointZones1-v0", Told, episodes=2, seed=0, tasks=tasks, max_steps=30, progress=False)
    first, second = result.episodes
    assert first.success is False
    assert first.details["task"] == task.to_dict()
    assert "understood" not in first.details
    assert second.details["understood"] == "heard 'go green'"
