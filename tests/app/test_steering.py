"""`train relative`, `train dpo`, `bench steering`: small real runs, resumed, and bad input."""

import json
import shutil

import pytest

from diffdecide.app.cli.main import main
from diffdecide.app.sample_data import sample_file
from diffdecide.planner import Planner
from reward_models.relative import RelativeReward

GOAL = "SafetyPointGoal1-v0"
QUICK = ["--steps", "2", "--batch-size", "8", "--no-progress", "--tracker", "None", "--device", "cpu"]
DATA = ["--start-every", "20"]


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture
def other_planner(small_planner, tmp_path):
    return shutil.copytree(small_planner, tmp_path / "other")


def test_a_relative_reward_is_fitted_resumed_and_used(small_planner, other_planner, tmp_path, capsys):
    out = tmp_path / "relative"
    words = ["train", "relative", sample_file(GOAL), "--base", small_planner, "--expert", other_planner, "--out", out]
    words += [*DATA, "--width", 16, "--depth", 1]
    assert run(*words, *QUICK) == 0
    assert "of the difference explained" in capsys.readouterr().out
    assert RelativeReward.from_pretrained(out).config.rows == (4, 2, 4)
    assert run(*words, *QUICK) == 2  # there is a run already
    assert run(*words, *QUICK, "--resume") == 0
    evaluate = ["evaluate", "--env", GOAL, "--planner", small_planner, "--reward", out, "--reward-guidance", 0.1]
    assert run(*evaluate, "--episodes", 1, "--seed", 5000, "--max-steps", 5) == 0
    planner = json.loads((other_planner / "planner.json").read_text())
    planner["features"]["max_objects"] = 4
    (other_planner / "planner.json").write_text(json.dumps(planner))
    assert run(*words, *QUICK) == 2
    assert "differ in features" in capsys.readouterr().err


def test_a_planner_is_aligned_and_its_reference_stays(small_planner, tmp_path, capsys):
    out = tmp_path / "aligned"
    before = (small_planner / "diffusion" / "diffusion_pytorch_model.safetensors").read_bytes()
    words = ["train", "dpo", sample_file(GOAL), "--planner", small_planner, *DATA, "--pairs", 30]
    assert run(*words, "--out", out, *QUICK) == 0
    assert "Bayes rate is" in capsys.readouterr().out
    ours = Planner.from_pretrained(out)
    assert ours.config == Planner.from_pretrained(small_planner).config
    assert (out / "diffusion" / "diffusion_pytorch_model.safetensors").read_bytes() != before
    assert (small_planner / "diffusion" / "diffusion_pytorch_model.safetensors").read_bytes() == before
    assert run(*words, "--out", out, *QUICK, "--resume") == 0
    assert run(*words, "--out", small_planner, *QUICK) == 2
    assert "name another one" in capsys.readouterr().err
    assert run(*words, "--out", tmp_path / "x", *QUICK, "--accuracy", 0.3) == 2
    assert not (tmp_path / "x").exists()


def test_the_bench_keeps_what_it_has_done(small_planner, tmp_path, capsys):
    out, work = tmp_path / "steering.json", tmp_path / "work"
    work.mkdir()
    for name in ("cautious", "reckless"):
        for first in (3000, 4000):
            shutil.copy(sample_file(GOAL), work / f"{name}-{first}.hdf5")
    words = ["bench", "steering", sample_file(GOAL), "--out", out, "--work", work, "--planner", small_planner]
    words += ["--seed", 5000, "--max-steps", 4, "--pairs", 40, "--reward-steps", 2, "--tune-steps", 2, "--collected", 2]
    words += ["--relative-steps", 2, "--dpo-steps", 2, "--dpo-pairs", 20, "--batch-size", 8]
    words += ["--weights", 0.1, "--curve-episodes", 2]
    assert run(*words, "--episodes", 1) == 0
    result = json.loads(out.read_text())
    assert set(result["parts"]) == {"unhurried", "goal", "curve", "relative", "dpo"}
    assert {"true", "learned", "share"} <= set(result["parts"]["goal"]["improvement"])
    assert 0 <= result["parts"]["relative"]["auc"]["centred"] <= 1
    assert str(tmp_path) not in out.read_text()
    document = tmp_path / "page.md"
    document.write_text("<!-- results:steering -->\nnothing yet\n<!-- /results:steering -->\n")
    assert run("bench", "table", out, "--into", document) == 0
    assert "AUC" in document.read_text()
    assert "nothing yet" not in document.read_text()
    assert (tmp_path / "steering.curve.png").stat().st_size > 1000
    first = result["rollouts"]["dpo: aligned"]["rows"]
    assert run(*words, "--episodes", 2, "--parts", "dpo") == 0
    again = json.loads(out.read_text())["rollouts"]["dpo: aligned"]["rows"]
    assert again[0] == first[0]
    assert [row["seed"] for row in again] == [5000, 5001]
    capsys.readouterr()
    assert run("bench", "steering", tmp_path / "no.hdf5", "--out", out) == 2
    assert "no such data file" in capsys.readouterr().err
