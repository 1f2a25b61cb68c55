"""`diffdecide run`: what it writes, what it declines, and that nothing is half-written."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffdecide.app.agent import AgentConfig
from diffdecide.app.agent_policy import AgentPolicy, PolicyConfig
from diffdecide.app.cli.main import main
from diffdecide.app.demo import Declined, perform, understand, write_performance
from diffdecide.app.embedded import planner_folder
from safety.envs import spec

GOAL, ZONES = "SafetyPointGoal1-v0", "SafetyPointZones1-v0"
TEXT = "go to the green zone, then the red one, but never enter the blue one, and be careful"

pytestmark = pytest.mark.usefixtures("bridge_once")


@pytest.fixture
def policy(small_planner):
    config = PolicyConfig(planner=str(small_planner), language="bridge", agent=AgentConfig(margin=0.05))
    return AgentPolicy(config)


def run(*words):
    return main(["run", *map(str, words)])


def test_a_rollout_is_recorded_and_written(policy, tmp_path):
    short = replace(spec(ZONES), max_steps=30)
    understanding = understand(policy, TEXT, short)
    seen = []
    performance = perform(policy, understanding, short, seed=7, episodes=2, on_step=lambda n, s: seen.append(n))
    assert seen == [0] * 30 + [1] * 30
    recorder = performance.recorder
    assert recorder.goals == ("green", "red")
    assert recorder.forbidden == ("blue_zone",)
    assert recorder.margin == policy.agent.margin == pytest.approx(0.09)
    assert len(recorder.frames) == 30
    assert len(recorder.plans) == 8  # a plan every four steps
    summary = performance.summary(policy.config, env_id=ZONES, seed=7)
    write_performance(performance, summary, tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["understood"]["spec"] == {
        "kind": "avoid", "targets": ["green", "red"], "avoid": ["blue"], "caution": "careful",
    }  # fmt: skip
    assert [episode["seed"] for episode in written["episodes"]] == [7, 8]
    assert written["outcome"].startswith("failed")
    assert Image.open(tmp_path / "rollout.gif").n_frames > 10
    assert Image.open(tmp_path / "plan.png").size[0] > 500


def test_plans_are_drawn_where_they_lead(policy):
    """A plan's picture begins at the agent's true place, whatever frame the agent thinks in."""
    short = replace(spec(ZONES), max_steps=25)
    performance = perform(policy, understand(policy, TEXT, short), short, seed=5001)
    for plan in performance.recorder.plans:
        assert np.linalg.norm(plan.chosen[0] - plan.scene.state[:2]) < 0.05
        assert plan.candidates.shape[1:] == (len(plan.times), 2)
    # Where the plan said the agent would be, there it is: the next frames lie on the path.
    plan, frames = performance.recorder.plans[1], performance.recorder.frames
    after = [frame.scene.state[:2] for frame in frames[plan.step : plan.step + 3]]
    followed = not any(frame.intervened for frame in frames[plan.step : plan.step + 3])
    if followed:
        np.testing.assert_allclose(after, plan.chosen[:3], atol=0.02)


def test_what_was_understood_is_said_when_declined(small_planner, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("go to red, never enter red", "--planner", small_planner, "--out", out) == 2
    captured = capsys.readouterr()
    assert "contradicts itself" in captured.err
    assert "declined" in captured.out
    assert not out.exists()


@pytest.mark.parametrize("text", ["", "  ", "bring mir bitte die rote Kiste", "go " * 5000, "what a lovely day"])
def test_other_instructions_are_declined_too(policy, text):
    with pytest.raises(Declined):
        understand(policy, text, spec(ZONES))


def test_instructions_have_to_fit_the_environment(policy):
    with pytest.raises(ValueError, match="no coloured zones"):
        understand(policy, "go to the red zone", spec(GOAL))
    with pytest.raises(ValueError, match="no goal besides its zones"):
        understand(policy, "go to the goal", spec(ZONES))
    assert understand(policy, "go to the goal", spec(GOAL)).is_goal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env", "SafetyPointZnoes1-v0"], "SafetyPointZones1-v0"),
        (["--env", "SafetyCarZones1-v0"], "not for SafetyCarZones1-v0"),
        (["--planner", "nowhere"], "no planner 'nowhere'"),
        (["--instruct-model", "nowhere"], "bridge 'nowhere'"),
        (["--cost-limit", "-1"], "--cost-limit must be"),
        (["--margin", "nan"], "--margin must be"),
        (["--episodes", "0"], "--episodes must be"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(small_planner, tmp_path, capsys, options, message):
    if "--planner" not in options:
        options = [*options, "--planner", small_planner]
    assert run("go to red", *options, "--out", tmp_path / "out") == 2
    text = "".join(capsys.readouterr())
    assert message in " ".join(text.replace("│", " ").split())
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_is_told_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run("go to red", "--planner", "nowhere", "--out", tmp_path / "file" / "out") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_corrupt_models_are_named(small_planner, tmp_path, capsys):
    weights = "diffusion/diffusion_pytorch_model.safetensors"
    for name, content in ((weights, b"\x00" * 64), ("planner.json", b"{"), ("statistics.json", b"{}")):
        broken = tmp_path / f"broken-{name.replace('/', '-')}"
        shutil.copytree(small_planner, broken)
        (broken / name).write_bytes(content)
        assert run("go to red", "--planner", broken, "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert broken.name in error, error
        assert not (tmp_path / "out").exists()


def test_the_demo(tmp_path, capsys):
    if not (planner_folder(ZONES) / "planner.json").is_file():
        pytest.skip("this checkout has no embedded planner yet: `make pretrained` makes it")
    text = "go to the green zone, then the red one, and keep well clear of the hazards"
    assert run(text, "--out", tmp_path / "demo") == 0
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"summary.json", "rollout.gif", "plan.png"}
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["understood"]["spec"]["targets"] == ["green", "red"]
    assert summary["outcome"] == "succeeded"
    assert summary["episodes"][0]["cost"] == 0
    assert "green, then red" in capsys.readouterr().out
