"""Rewards on plans, the labelling page, and the commands."""

import json
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import torch
from reward_samples import episodes

from diffdecide.app.cli.main import main
from diffdecide.guidance import apply_guide
from diffdecide.plan import PlanRows
from diffdecide.preference import rank, score_guide
from reward_models.config import RewardConfig
from reward_models.guide import LearnedPlanScore, goal_seeking_plan, unhurried_plan
from reward_models.heatmap import draw, reward_map
from reward_models.labelling.server import LabelServer
from reward_models.labelling.store import Answer, LabelStore, questions
from reward_models.model import RewardModel
from reward_models.plan_observations import PlanObservations
from reward_models.preferences import PreferenceError
from safety import envs, truth
from safety.dynamics import POINT
from safety.layout import EnvSpec, ObservationLayout
from safety.scene import KIND_ID, Scene

ENV = "SafetyPointGoal1-v0"


def scene():
    return Scene(
        state=np.zeros(6),
        positions=np.array([[1.0, 0.2], [0.5, -0.6]]),
        velocities=np.zeros((2, 2)),
        kinds=np.array([KIND_ID["goal"], KIND_ID["hazards"]]),
        radii=np.array([0.3, 0.2]),
        sigma=np.zeros(2),
    )


def test_imagined_observations_are_those_of_the_environment():
    env, spec = envs.make(ENV), envs.spec(ENV)
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    imagine = PlanObservations(spec)
    for _ in range(5):
        observation = env.step(rng.uniform(-1, 1, 2) * np.array([0.05, 1.0]))[0]
        now = truth.scene(env)
        ours = imagine(now, torch.tensor(now.state, dtype=torch.float32)[None, None])[0, 0].numpy()
        for name in spec.layout:
            if name != "accelerometer":  # contact forces cannot be foreseen
                where = spec.layout[name]
                assert np.allclose(ours[where], observation[where], atol=2e-4), name
    env.close()


def test_goal_seeking_ranks_and_guides_towards_the_goal():
    rows = PlanRows(dense=5, strided=3, stride=5)
    ahead = np.tile(np.array([0.05, 0.0], np.float32), (rows.span, 1))
    actions = np.stack([ahead, -ahead])
    states = POINT.rollout(scene().state.astype(np.float32), actions)
    values = rank(goal_seeking_plan, scene(), states, actions)
    assert values[0] > values[1]
    calm = rank(unhurried_plan, scene(), states, np.stack([ahead, np.zeros_like(ahead)]))
    assert calm[1] > calm[0]
    guide = score_guide(goal_seeking_plan, scene(), rows, POINT, scale=1.0)
    clean = torch.zeros(3, rows.rows, 2)
    moved = apply_guide(guide, clean, t=500, sigma=0.5)
    assert (moved[..., 0] > 0).all()


def test_a_learned_score_is_differentiable_and_of_one_environment(tmp_path):
    spec = envs.spec(ENV)
    score = LearnedPlanScore(RewardModel(RewardConfig.for_spec(spec, members=1, hidden=8)), spec)
    rows = PlanRows(dense=4, strided=0, stride=1)
    guide = score_guide(score, scene(), rows, "point", scale=0.5)
    clean = torch.full((2, 4, 2), 0.1)
    moved = apply_guide(guide, clean, t=100, sigma=0.4)
    assert moved.isfinite().all()
    assert not torch.equal(moved, clean)
    picture = reward_map(score, scene(), POINT, cells=6, headings=4, steps=2)
    assert picture.mean.shape == (6, 6)
    assert (picture.best >= picture.mean - 1e-6).all()
    assert draw(picture, scene(), tmp_path / "map.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="cannot judge"):
        LearnedPlanScore(score.model, envs.spec("SafetyCarGoal1-v0"))


LAYOUT = EnvSpec(
    id="Test-v0",
    agent="point",
    dt=0.02,
    max_steps=60,
    action_dim=2,
    observation_dim=4,
    layout=ObservationLayout({"velocimeter": (0, 3), "other": (3, 4)}),
)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as reply:
        return reply.read()


def post(url, value, token):
    request = urllib.request.Request(
        url, json.dumps(value).encode(), {"Content-Type": "application/json", "X-Label-Token": token}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.status


def test_the_page_stores_each_answer_as_it_comes(tmp_path):
    made = episodes(3)
    asked = questions(made, 3, 10, np.random.default_rng(0))
    path = tmp_path / "labels.jsonl"
    server = LabelServer(LabelStore(path, fingerprint="x"), asked, made, LAYOUT, annotator="me")
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        assert b"Which one is better?" in get(server.url)
        question = json.loads(get(server.url + "question"))
        assert (question["number"], question["total"]) == (0, 3)
        token = question["token"]
        assert post(server.url + "answer", {"number": 0, "answer": "first", "seconds": 1.5}, token) == 200
        assert len(path.read_text().splitlines()) == 2  # on disk before the next question
        for value, key, status in (
            ({"number": 9, "answer": "first"}, token, 400),
            ({"number": 1, "answer": "perhaps"}, token, 400),
            ([], token, 400),
            ({"number": 1, "answer": "tie"}, "stranger", 403),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(server.url + "answer", value, key)
            assert refused.value.code == status
        post(server.url + "answer", {"number": 1, "answer": "skip"}, token)
        post(server.url + "answer", {"number": 2, "answer": "tie"}, token)
        assert json.loads(get(server.url + "question"))["done"]
    finally:
        server.stop()
        thread.join(timeout=10)
    data = LabelStore(path, fingerprint="x").preferences(made)
    assert data.label.tolist() == [1.0, 0.5]
    assert data.annotator.tolist() == ["me", "me"]


def test_a_session_that_was_cut_off_goes_on(tmp_path):
    path = tmp_path / "labels.jsonl"
    asked = questions(episodes(3), 3, 10, np.random.default_rng(0))
    store = LabelStore(path, fingerprint="x")
    store.add(Answer(0, asked[0], "first", "me", 1.0))
    with path.open("a") as file:
        file.write('{"number": 1, "answ')  # killed in the middle of a line
    again = LabelStore(path, fingerprint="x")
    assert list(again.answers) == [0]
    again.add(Answer(1, asked[1], "second", "me", 1.0))
    assert list(LabelStore(path, fingerprint="x").answers) == [0, 1]
    with pytest.raises(PreferenceError, match="other episodes"):
        LabelStore(path, fingerprint="y")
    other = tmp_path / "notes.txt"
    other.write_text("mine\n")
    with pytest.raises(PreferenceError, match="nothing was changed"):
        LabelStore(other, fingerprint="x")
    assert other.read_text() == "mine\n"


@pytest.fixture
def files(tmp_path):
    from diffdecide.data.writers import write_hdf5

    return write_hdf5(tmp_path / "episodes.hdf5", episodes(12))


def test_commands_from_labels_to_relabelled_episodes(files, tmp_path, capsys):
    pairs, folder = tmp_path / "pairs.parquet", tmp_path / "reward"
    words = ["label", "teacher", str(files), "--out", str(pairs), "--pairs", "120", "--segment", "8"]
    assert main([*words, "--bayes-accuracy", "0.87"]) == 0
    assert json.loads(pairs.with_suffix(".json").read_text())["bayes_accuracy"] == pytest.approx(0.87)
    assert main(["label", "check", str(pairs)]) == 0
    assert "120 comparisons" in capsys.readouterr().out
    train = ["train", "reward", str(pairs), "--out", str(folder), "--steps", "4", "--eval-every", "2", "--hidden", "8"]
    train += ["--members", "1", "--no-progress", "--tracker", "None", "--device", "cpu", "--held-out-share", "0.4"]
    assert main(train) == 0
    assert (folder / "README.md").is_file()
    out = tmp_path / "new.hdf5"
    assert main(["label", "rewards", str(files), "--reward", str(folder), "--out", str(out)]) == 0
    assert out.is_file()
    assert main(["label", "rewards", str(files), "--reward", str(tmp_path), "--out", str(out)]) == 2
    assert "no reward model" in capsys.readouterr().err
    assert main(["train", "reward", str(pairs), "--out", str(tmp_path / "r"), "--env", ENV]) == 2
    assert "4 wide" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_two_processes_train_what_one_trains(files, tmp_path):
    from diffdecide.app.bench.reward_processes import loss_curve

    pairs = tmp_path / "pairs.parquet"
    assert main(["label", "teacher", str(files), "--out", str(pairs), "--pairs", "80", "--segment", "5"]) == 0
    curves = [
        loss_curve(pairs, tmp_path / str(n), None, processes=n, steps=8, batch=16, extra=["--held-out-share", "0.4"])
        for n in (1, 2)
    ]
    assert len(curves[0]) == 8
    assert np.allclose(*curves, atol=1e-5)


def test_the_bench_writes_its_parts_one_by_one(tmp_path):
    from diffdecide.data.writers import write_hdf5

    made = []
    for item in episodes(12, env_id=ENV):
        wide = np.random.default_rng(item.seed).uniform(size=(len(item), 60)).astype(np.float32)
        made.append(replace(item, observations=wide, next_observations=wide))
    data, out = write_hdf5(tmp_path / "episodes.hdf5", made), tmp_path / "rewards.json"
    words = ["bench", "rewards", str(data), "--out", str(out), "--pairs", "60", "--test-pairs", "80"]
    words += ["--steps", "4", "--members", "1", "--curve", "30", "--flips", "0.1", "--parts", "headline", "noise"]
    assert main(words) == 0
    parts = json.loads(out.read_text())["parts"]
    assert parts["headline"]["pairs"] == 80
    assert parts["noise"][0]["flipped"] == 0.1
    assert main([*words, "--segment", "10"]) == 2  # other settings do not mix with what is there
