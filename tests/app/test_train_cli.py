"""`diffdecide collect`, `train`, `pretrained`: small real runs, resume, bad input, the recipe."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import tyro

from diffdecide.app.agent_policy import load_planner
from diffdecide.app.cli.main import main
from diffdecide.app.recipe import MODELS, STEPS, models_named, steps_for
from diffdecide.app.sample_data import sample_file
from diffdecide.cloning import CloningPlanner
from diffdecide.data.readers import read_hdf5
from diffdecide.planner import Planner

GOAL, ZONES, CAR = "SafetyPointGoal1-v0", "SafetyPointZones1-v0", "SafetyCarGoal1-v0"
QUICK = ["--steps", "2", "--batch-size", "8", "--no-progress", "--tracker", "None", "--device", "cpu"]
SMALL = ["--rows.dense", "4", "--rows.strided", "2", "--rows.stride", "4", "--start-every", "10"]


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a planner trained for two steps on both tasks of the Point."""
    out = tmp_path_factory.mktemp("run") / "planner"
    files = [sample_file(GOAL), sample_file(ZONES)]
    network = ["--denoiser-options", '{"width": 32, "blocks": 1}', "--context-dim", 16]
    assert run("train", "planner", *files, "--out", out, *QUICK, *SMALL, *network) == 0
    return out


def test_a_planner_is_trained_on_several_files(trained):
    planner = Planner.from_pretrained(trained)
    assert planner.config.environments == (GOAL, ZONES)
    assert planner.config.rows.rows == 6
    assert planner.model.config["denoiser_options"] == {"width": 32, "blocks": 1}
    facts = json.loads((trained / "facts.json").read_text())
    assert facts["kind"] == "planner"
    assert facts["data"] == [sample_file(GOAL).name, sample_file(ZONES).name]
    assert facts["train"]["steps"] == 2
    assert str(trained.parent) not in (trained / "facts.json").read_text()


def test_a_critic_is_trained_for_a_planner_and_ranks_its_candidates(trained, tmp_path, capsys):
    out = tmp_path / "planner"
    shutil.copytree(trained, out)
    assert run("train", "value", sample_file(GOAL), "--planner", out, *QUICK) == 0
    made = Planner.from_pretrained(out, value_weight=0.1)
    assert made.critic.plan_shape == (6, 2)
    assert made.critic.target_scale.min() > 0
    before = (out / "diffusion" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert before == (trained / "diffusion" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert run("train", "value", sample_file(CAR), "--planner", out, *QUICK, "--overwrite") == 2
    assert "for the point, the data are of the car" in capsys.readouterr().err


def test_training_goes_on_where_it_stopped(trained, tmp_path, capsys):
    out = tmp_path / "planner"
    shutil.copytree(trained, out)
    words = ["train", "planner", sample_file(GOAL), sample_file(ZONES), "--out", out, *QUICK, *SMALL]
    words += ["--denoiser-options", '{"width": 32, "blocks": 1}', "--context-dim", 16]
    assert run(*words) == 2  # there is a run already, and nobody said what to do with it
    assert "resume" in capsys.readouterr().err
    assert run(*words, "--resume") == 0
    assert json.loads((out / "facts.json").read_text())["resumed_from"] == 2


def test_a_cloned_policy_is_trained_and_drives(tmp_path, capsys):
    out = tmp_path / "bc"
    assert run("train", "bc", sample_file(GOAL), "--out", out, *QUICK, *SMALL, "--width", 16, "--layers", 1) == 0
    assert isinstance(load_planner(out), CloningPlanner)
    options = ["--env", GOAL, "--episodes", 1, "--seed", 5000, "--max-steps", 5]
    assert run("evaluate", "--planner", out, *options) == 0
    assert run("evaluate", "--planner", out, *options, "--no-filter") == 0
    assert "per plan, ms" in capsys.readouterr().out


def test_two_processes_train_one_model(tmp_path):
    out = tmp_path / "bc"
    words = ["train", "bc", sample_file(GOAL), "--out", out, *QUICK, *SMALL, "--width", 16, "--layers", 1]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE")}
    result = subprocess.run(
        [*command, "-m", "diffdecide.app", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("2 steps in") == 1  # one process reports, one model is written
    assert isinstance(load_planner(out), CloningPlanner)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["planner"], "at least one data file"),
        (["planner", "missing.hdf5"], "no such data file: missing.hdf5"),
        (["planner", sample_file(GOAL), "--denoiser-options", "{"], "not JSON"),
        (["planner", sample_file(GOAL), "--denoiser-options", '{"widht": 3}'], "widht"),
        (["planner", sample_file(GOAL), sample_file(CAR)], "a planner is for one agent"),
        (["planner", sample_file(GOAL), "--learning-rate", "-1"], "learning_rate must be positive"),
        (["bc", "missing.hdf5"], "no such data file"),
        (["bc", sample_file(GOAL), "--width", "0"], "width must be at least 1"),
        (["bridge", "--batch-size", "0"], "batch_size must be at least 1"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(words, message, tmp_path, capsys):
    code = run("train", *words, "--out", tmp_path / "out", *(SMALL if words[0] != "bridge" else []))
    text = "".join(capsys.readouterr())
    assert message in " ".join(text.replace("│", " ").split()), text
    assert code == 2
    assert "Traceback" not in text


def test_collecting_goes_on_and_labels_what_a_driver_visits(trained, tmp_path, capsys):
    out = tmp_path / "data.hdf5"
    words = ["collect", "--env", GOAL, "--behaviour", "random", "--out", out]
    assert run(*words, "--episodes", 1) == 0
    assert run(*words, "--episodes", 2) == 0
    assert [episode.metadata["seed"] for episode in read_hdf5(out)] == [0, 1]
    assert run(*words, "--behaviour", "policy") == 2
    assert "--driver goes with --behaviour policy" in " ".join("".join(capsys.readouterr()).replace("│", " ").split())
    assert run("collect", "--env", CAR, "--behaviour", "policy", "--driver", trained, "--out", tmp_path / "x.hdf5") == 2
    assert "not for SafetyCarGoal1-v0" in capsys.readouterr().err
    assert run("collect", "--env", GOAL, "--skill", "2", "3", "--out", out) == 2


def test_the_recipe_is_made_of_commands_that_exist():
    from diffdecide.app.cli import collect, train

    places = {"data": "data", "runs": "runs", "workers": "2"}
    for step in STEPS:
        words = step.command(places)
        if words[0] == "collect":
            config = tyro.cli(collect.Collect, args=words[1:]).config
            assert config.seed + config.episodes <= 5000, f"{step.name} leaves the seeds of training data"
        else:
            assert words[0] == "train"
            tyro.cli(train.COMMANDS[words[1]], args=[*words[2:], "--resume"])
    assert {name for model in MODELS for name in model.steps} == {step.name for step in STEPS}


def test_the_recipe_makes_files_before_it_reads_them():
    made: set[str] = set()
    for step in STEPS:
        inputs = [word for word in step.words if word.endswith(".hdf5") and word != step.words[-1]]
        if step.words[0] == "train":
            assert set(inputs) <= made, step.name
        made.add(step.words[-1] if step.words[0] == "collect" else step.name)
    with pytest.raises(ValueError, match="unknown models paint"):
        models_named(("paint",))
    assert [step.name for step in steps_for(models_named(("bridge",)))] == ["bridge"]


def test_pretrained_lists_its_steps(tmp_path, capsys):
    assert run("pretrained", "--list", "--runs", tmp_path) == 0
    out = capsys.readouterr().out
    assert out.count("open  diffdecide ") == len(STEPS)
    assert run("pretrained", "paint", "--list") == 2


def test_pretrained_publishes_what_the_steps_made(trained, tmp_path, capsys):
    """The steps are noted as done, so that what is left is to publish: half precision, facts, card."""
    from diffdecide.app.recipe import step_named

    model = models_named(("point",))[0]
    runs, out = tmp_path / "runs", tmp_path / "models"
    shutil.copytree(trained, runs / model.run)
    assert run("train", "value", sample_file(GOAL), "--planner", runs / model.run, *QUICK) == 0
    for name in model.steps:
        note = runs / "done" / f"{name}.json"
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps({"words": list(step_named(name).words)}))
    words = ["pretrained", "point", "--runs", runs, "--out", out, "--data", tmp_path, "--benchmarks", tmp_path]
    assert run(*words) == 0
    assert "point: done before" in capsys.readouterr().out
    card = (out / "point" / "README.md").read_text()
    assert "2 steps of 8 windows, seed 0" in card
    assert "diffdecide train planner data/point_goal.hdf5" in card
    assert "of held-out episodes it explains" in card
    assert Planner.from_pretrained(out / "point", value_weight=0.1).critic is not None
    whole, half = Planner.from_pretrained(trained), Planner.from_pretrained(out / "point")
    for mine, theirs in zip(whole.model.parameters(), half.model.parameters(), strict=True):
        assert (mine.half().float() == theirs).all()
    weights = "diffusion/diffusion_pytorch_model.safetensors"
    assert (out / "point" / weights).stat().st_size < 0.6 * (trained / weights).stat().st_size
    assert str(tmp_path) not in "".join(
        p.read_text() for p in (out / "point").rglob("*") if p.suffix in (".json", ".md")
    )
    (out / "point" / "README.md").write_text("old")
    assert run(*words, "--cards") == 0
    assert (out / "point" / "README.md").read_text() == card


def test_a_rehearsal_makes_a_model_from_nothing(tmp_path):
    """Every step of the recipe of one model, for real, with next to no data and training."""
    assert run("pretrained", "car_cloning", "--rehearse", tmp_path, "--workers", 1) == 0
    assert sorted(path.stem for path in (tmp_path / "runs" / "done").iterdir()) == [
        "car_cloning",
        "car_goal",
        "car_zones",
    ]
    assert len(list(read_hdf5(tmp_path / "data" / "car_zones.hdf5"))) == 2
    assert isinstance(load_planner(tmp_path / "models" / "car_cloning"), CloningPlanner)


def test_cards_show_results(trained, tmp_path):
    from diffdecide.app.model_cards import load_results, model_card
    from diffdecide.records import EpisodeRecord, EvaluationResult

    for name, value in (("planner", 18.0), ("mpc", 20.0)):
        episodes = tuple(EpisodeRecord(10_000 + i, value, 0.0, 1000, True, 0, 0, 0.0) for i in range(3))
        EvaluationResult(episodes, meta={"env": GOAL, "filter": name == "planner"}).save(
            tmp_path / GOAL / f"{name}.json"
        )
    model = models_named(("point",))[0]
    config = json.loads((trained / "planner.json").read_text())
    card = model_card(model, config=config, facts=None, results=load_results(tmp_path, model.environments))
    assert f"| {GOAL} | yes | 3 | 18 [18, 18] | 90 % | 0 [0, 0] |" in card


def test_publishing_what_was_not_trained_leaves_the_old_model(trained, tmp_path):
    from diffdecide.app.publish import publish

    target = tmp_path / "models" / "point"
    shutil.copytree(trained, target)
    before = sorted(path.name for path in target.rglob("*"))
    with pytest.raises(ValueError, match="holds no planner"):
        publish(models_named(("point",))[0], tmp_path, target, tmp_path)
    assert sorted(path.name for path in target.rglob("*")) == before
    assert [path.name for path in target.parent.iterdir()] == ["point"]
