"""Pictures of a small rollout whose geometry is known."""

import numpy as np
import pytest
from PIL import Image

from diffdecide.app.palette import UNSAFE
from diffdecide.app.plan_picture import write_plan
from diffdecide.app.recording import Frame, PlanSnapshot, RolloutRecorder, clearances, to_frame_of
from diffdecide.app.rendering import write_gif
from diffdecide.app.results import markdown_table, results_table, staged_folder
from diffdecide.records import EpisodeRecord, EvaluationResult
from safety.scene import KIND_ID, Scene


def scene(x=0.0, hazard=(1.0, 0.0)):
    kinds = np.array([KIND_ID["hazards"], KIND_ID["green_zone"]])
    positions = np.array([hazard, (0.0, 1.5)])
    state = np.array([x, 0.0, 0.0, 0.5, 0.0, 0.0])
    return Scene(state, positions, np.zeros((2, 2)), kinds, np.array([0.2, 0.3]), np.zeros(2))


def recorder(steps=30, intervene=(), instruction="go to the green zone"):
    result = RolloutRecorder(instruction, ("green",), 0.02, 0.05)
    for step in range(steps):
        here = scene(0.01 * step)
        plan = np.column_stack([0.01 * step + np.linspace(0.05, 0.5, 8), np.zeros(8)])
        result.add(Frame(step, here, plan, intervened=step in intervene, clearance=0.3))
    return result


def snapshot(step=0, offset=0.0):
    line = np.column_stack([np.linspace(0.1, 1.0, 10), np.full(10, offset)])
    candidates = np.stack([line, line + (0, 0.6)])
    return PlanSnapshot(step, scene(), candidates, candidates[1], 0.1 * np.arange(1, 11))


def pink(picture):
    """Pixels of the filter's colour inside the view."""
    target = np.array([int(UNSAFE[i : i + 2], 16) for i in (1, 3, 5)])
    pixels = np.asarray(picture.convert("RGB")).astype(int)[80:-30]
    return int((np.abs(pixels - target).max(axis=-1) < 24).sum())


def test_gif_plays_in_real_time_and_is_thinned(tmp_path):
    path = write_gif(recorder(steps=103), tmp_path / "r.gif", size=160, max_frames=20)
    with Image.open(path) as gif:
        durations = []
        for index in range(gif.n_frames):
            gif.seek(index)
            durations.append(gif.info["duration"])
        assert gif.n_frames <= 21
        assert gif.info["loop"] == 0
    assert sum(durations[:-1]) == pytest.approx(103 * 20, rel=0.1)
    assert [file.name for file in tmp_path.iterdir()] == ["r.gif"]


def test_gif_marks_an_intervention_even_between_two_shown_frames(tmp_path):
    plain = write_gif(recorder(), tmp_path / "plain.gif", size=160, max_frames=10)
    marked = write_gif(recorder(intervene={13}), tmp_path / "marked.gif", size=160, max_frames=10)  # 13 % 3 != 0
    with Image.open(plain) as gif:
        gif.seek(5)
        assert pink(gif) == 0
    with Image.open(marked) as gif:
        gif.seek(4)
        assert pink(gif) == 0
        gif.seek(5)
        assert pink(gif) > 20


@pytest.mark.parametrize("text", ["", "x" * 400, "в зелёную зону", "go " * 100])
def test_any_instruction_can_be_drawn(text, tmp_path):
    assert write_gif(recorder(3, instruction=text), tmp_path / "r.gif", size=96).stat().st_size > 0


def test_moving_objects_and_empty_scenes_can_be_drawn(tmp_path):
    result = RolloutRecorder("walk", (), 0.02, 0.0)
    for step in range(4):
        result.add(Frame(step, scene(hazard=(1.0, 0.1 * step))))
    assert write_gif(result, tmp_path / "moving.gif", size=96).exists()
    empty = RolloutRecorder("walk", (), 0.02, 0.0)
    empty.add(Frame(0, Scene(np.zeros(6))))
    assert write_gif(empty, tmp_path / "empty.gif", size=96).exists()


def test_forbidden_zones_are_crossed_out(tmp_path):
    result = recorder(3)
    result.forbidden = ("green_zone",)
    with Image.open(write_gif(result, tmp_path / "r.gif", size=160)) as gif:
        assert pink(gif) > 20


def test_nothing_recorded_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no frame"):
        write_gif(RolloutRecorder("x", (), 0.02, 0.0), tmp_path / "r.gif")
    with pytest.raises(ValueError, match="no plan"):
        write_plan(RolloutRecorder("x", (), 0.02, 0.0), tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_plan_picture_draws_the_telling_plan(tmp_path):
    result = recorder()
    boring = snapshot(1, offset=-1.5)  # both candidates far from the hazard
    result.add_plan(boring)
    result.add_plan(snapshot(2))  # one of two runs through it
    assert result.telling_plan().step == 2
    path = write_plan(result, tmp_path / "p.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 800


def test_plan_picture_without_obstacles(tmp_path):
    plan = PlanSnapshot(0, Scene(np.zeros(6)), np.zeros((1, 3, 2)), np.zeros((3, 2)), np.arange(3.0))
    assert write_plan(recorder(), tmp_path / "p.png", plan=plan).exists()


def test_clearance_is_the_distance_to_the_rim():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.5]])
    assert clearances(points, scene()) == pytest.approx([0.8, -0.2, 0.3])
    assert snapshot().too_close(0.05).tolist() == [True, False]
    assert np.isinf(clearances(points, scene(), ("gremlins",))).all()


def test_a_plan_moves_with_the_agent_between_frames():
    odometric = np.array([1.0, 2.0, 0.0, 0, 0, 0])
    world = np.array([-1.0, 0.5, np.pi / 2, 0, 0, 0])
    moved = to_frame_of(np.array([[1.0, 2.0], [2.0, 2.0]]), odometric, world)
    assert moved == pytest.approx(np.array([[-1.0, 0.5], [-1.0, 1.5]]))
    assert to_frame_of(moved, world, odometric) == pytest.approx(np.array([[1.0, 2.0], [2.0, 2.0]]))


def test_snapshots_check_their_shapes():
    with pytest.raises(ValueError, match=r"\[C, T, 2\]"):
        PlanSnapshot(0, scene(), np.zeros((3, 2)), np.zeros((3, 2)), np.arange(3.0))
    with pytest.raises(ValueError, match="like its times"):
        PlanSnapshot(0, scene(), np.zeros((1, 3, 2)), np.zeros((4, 2)), np.arange(3.0))
    with pytest.raises(ValueError, match="must be among"):
        PlanSnapshot(0, scene(), np.zeros((1, 3, 2)), np.zeros((3, 2)), np.arange(3.0), obstacles=("dragons",))


def test_staged_files_appear_together(tmp_path):
    out = tmp_path / "a" / "b"
    with staged_folder(out) as staging:
        (staging / "one.txt").write_text("1")
        (staging / "sub").mkdir()
        (staging / "sub" / "two.txt").write_text("2")
        assert not (out / "one.txt").exists()
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == ["one.txt", "sub/two.txt"]


def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "one.txt").write_text("before")

    def fill(folder):
        with staged_folder(folder) as staging:
            (staging / "one.txt").write_text("after")
            raise RuntimeError("no")

    for folder in (old, tmp_path / "new" / "deep"):
        with pytest.raises(RuntimeError):
            fill(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert (old / "one.txt").read_text() == "before"
    assert len(list(old.iterdir())) == 1


def test_an_unwritable_folder_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"), staged_folder(tmp_path / "file" / "out"):
        raise AssertionError("the work must not begin")


def test_tables(capsys):
    from rich.console import Console

    rows = [EpisodeRecord(i, float(i), 0.0, 10, None, 0, 0, 0.5) for i in range(4)]
    results = {"ours": EvaluationResult(tuple(rows)), "ceiling": EvaluationResult(tuple(rows))}
    Console(width=220).print(results_table(results, baseline="ceiling"))
    out = capsys.readouterr().out
    assert "ours" in out
    assert "0 [0, 0]" in out
    with pytest.raises(ValueError, match="baseline must be one of"):
        results_table(results, baseline="nobody")
    assert markdown_table(["a", "b"], [[1, None]]) == "| a | b |\n| --- | --- |\n| 1 | – |\n"
    with pytest.raises(ValueError, match="needs 2 cells"):
        markdown_table(["a", "b"], [[1]])
