"""The training loop: exact resume, process counts, checkpoints, records, bad input."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from train_samples import Plans, PlansOneByOne, build, config

from diffdecide.checkpoints import CheckpointError, checkpoint_paths, load_checkpoint
from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.train import TrainConfig, fit
from diffdecide.value import StateValue


def same(left, right):
    theirs = right.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in left.state_dict().items())


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, module = tmp_path_factory.mktemp("finished"), build()
    return folder, module, fit(module, Plans(), config(), output_dir=folder)


def test_a_run_leaves_model_record_and_checkpoints(finished):
    folder, module, result = finished
    assert result.steps == 12
    assert result.resumed_from is None
    assert result.output_dir == folder
    assert same(TrajectoryDiffusion.from_pretrained(folder), module)
    assert not module.training
    assert [path.name for path in checkpoint_paths(folder / "checkpoints")] == [
        "step_00000010.safetensors",
        "step_00000012.safetensors",
    ]
    assert lines(folder)[-1]["step"] == 12
    assert result.metrics["loss"] == lines(folder)[-1]["loss"]
    assert {"loss", "denoise", "target", "grad_norm", "learning_rate", "steps_per_second"} <= result.metrics.keys()
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp" or path.name.startswith(".")]


def test_the_exported_weights_are_the_average(finished):
    folder, module, _ = finished
    tensors = load_checkpoint(checkpoint_paths(folder / "checkpoints")[-1]).tensors
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, tensors[f"average/{name}"])
    assert any(not torch.equal(tensors[f"weight/{name}"], p) for name, p in module.named_parameters())


def test_training_is_repeatable_and_depends_on_the_seed(finished, tmp_path):
    again, other = build(), build()
    torch.rand(3)  # the global state must not matter
    fit(again, PlansOneByOne(), config(), output_dir=tmp_path / "again")
    fit(other, Plans(), config(seed=1), output_dir=tmp_path / "other")
    assert same(again, finished[1])
    assert not same(other, finished[1])


@pytest.mark.parametrize("killed_at", [3, 7, 11])
def test_a_killed_run_resumes_to_the_same_bits(finished, tmp_path, killed_at):
    with pytest.raises(InterruptedError):
        fit(build(), Plans(fail_at=killed_at), config(), output_dir=tmp_path)
    assert not (tmp_path / "config.json").exists()
    module = build()
    result = fit(module, Plans(), config(), output_dir=tmp_path, resume=True)
    assert result.resumed_from == (None if killed_at < 5 else killed_at // 5 * 5)
    assert same(module, finished[1])
    ours, theirs = (load_checkpoint(checkpoint_paths(f / "checkpoints")[-1]).tensors for f in (tmp_path, finished[0]))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_resumed_run_does_not_need_the_same_initial_weights(finished, tmp_path):
    with pytest.raises(InterruptedError):
        fit(build(), Plans(fail_at=6), config(), output_dir=tmp_path)
    module = build()
    for parameter in module.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(9))
    fit(module, Plans(), config(), output_dir=tmp_path, resume=True)
    assert same(module, finished[1])


def test_the_record_of_a_resumed_run_has_each_step_once(tmp_path):
    often = {"log_every": 1}
    with pytest.raises(InterruptedError):
        fit(build(), Plans(fail_at=8), config(**often), output_dir=tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # a line that the kill cut off
    fit(build(), Plans(), config(**often), output_dir=tmp_path, resume=True)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))


def test_a_finished_run_can_be_resumed_without_harm(finished, tmp_path):
    fit(build(), Plans(), config(), output_dir=tmp_path)
    module = build()
    result = fit(module, Plans(), config(), output_dir=tmp_path, resume=True)
    assert result.resumed_from == 12
    assert same(module, finished[1])


def test_every_epoch_shows_every_sample_once(tmp_path):
    plans = Plans(size=10)
    fit(build(), plans, config(steps=10, batch_size=4), output_dir=tmp_path)
    shown = [index for indices in plans.fetched for index in indices]
    epochs = [shown[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_data_set_is_fine(tmp_path):
    plans = Plans(size=3)
    fit(build(), plans, config(steps=2, batch_size=8), output_dir=tmp_path)
    assert [len(indices) for indices in plans.fetched] == [8, 8]


TWO_PROCESSES = """
import sys
sys.path.insert(0, {tests!r})
from accelerate import Accelerator, debug_launcher
from train_samples import Plans, build, config
from diffdecide.train import fit

def work():
    assert Accelerator(cpu=True).num_processes == 2
    fit(build(), Plans(), config(batch_size=4, checkpoint_every=0), output_dir={folder!r})

if __name__ == "__main__":
    debug_launcher(work, num_processes=2)
"""


def flat(module):
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach()


def test_two_processes_train_what_one_with_a_double_batch_trains(finished, tmp_path):
    tests, folder = str(Path(__file__).parent), str(tmp_path / "two")
    code = textwrap.dedent(TWO_PROCESSES).format(tests=tests, folder=folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    single = build()
    fit(single, Plans(), config(batch_size=4), output_dir=tmp_path / "single")
    path = (flat(finished[1]) - flat(build())).norm()

    def apart(module):
        return (flat(module) - flat(finished[1])).norm() / path

    # Adam magnifies rounding where gradients are nearly zero; one process with half the batch shows the contrast.
    assert apart(TrajectoryDiffusion.from_pretrained(folder)) < 0.005
    assert apart(single) > 0.2
    one, two = lines(finished[0])[-1], lines(Path(folder))[-1]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_training_lowers_the_loss_and_the_average_is_evaluated(tmp_path):
    module, seen = build(), []

    def evaluate(current, step):
        assert current is module
        assert not current.training
        seen.append((step, next(current.parameters()).detach().clone()))
        return {"score": step / 2}

    tuned = config(steps=150, batch_size=32, learning_rate=3e-3, log_every=30, eval_every=75, checkpoint_every=0)
    fit(module, Plans(), tuned, output_dir=tmp_path, eval_fn=evaluate)
    losses = [line["loss"] for line in lines(tmp_path) if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    assert [step for step, _ in seen] == [75, 150]
    assert torch.equal(seen[-1][1], next(module.parameters()))
    assert [line["eval/score"] for line in lines(tmp_path) if "eval/score" in line] == [37.5, 75.0]


def test_evaluation_leaves_the_training_alone(finished, tmp_path):
    module = build()
    fit(
        module,
        Plans(),
        config(eval_every=2),
        output_dir=tmp_path,
        eval_fn=lambda m, s: {"noise": torch.rand(()).item()},
    )
    assert same(module, finished[1])


def test_the_tracker_writes_tensorboard_files(tmp_path):
    fit(build(), Plans(), config(steps=2, tracker="tensorboard"), output_dir=tmp_path)
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_buffers_and_frozen_parameters_survive_a_resume(tmp_path):
    class Critic(Plans):
        def __getitems__(self, indices):
            batch = super().__getitems__(indices)
            return {**batch, "value_target": batch["ego"][:, 0], "cost_target": batch["ego"][:, 1].abs()}

    def critic(normalised):
        module = StateValue(3, 5, 4, 16, 32, {"width": 16})
        module.encoder.embed_ego.requires_grad_(False)
        if normalised:
            module.set_normaliser(torch.tensor([1.0, 5.0]), torch.tensor([0.0, 2.0]))
        return module

    unused = {"find_unused_parameters": True}
    with pytest.raises(InterruptedError):
        fit(critic(True), Critic(fail_at=7), config(**unused), output_dir=tmp_path)
    module = critic(False)
    before = module.encoder.embed_ego.weight.clone()
    fit(module, Critic(), config(**unused), output_dir=tmp_path, resume=True)
    assert module.target_mean.tolist() == [3.0, 1.0]
    assert torch.equal(module.encoder.embed_ego.weight, before)
    stored = load_checkpoint(checkpoint_paths(tmp_path / "checkpoints")[-1]).tensors
    assert not any("embed_ego" in name for name in stored)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign"])
def test_a_corrupt_checkpoint_is_named(tmp_path, damage):
    fit(build(), Plans(), config(), output_dir=tmp_path)
    path = checkpoint_paths(tmp_path / "checkpoints")[-1]
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-100] ^= 0xFF
    kept = {"truncate": content[: len(content) // 2], "flip": content, "empty": b"", "foreign": b"hello" * 50}[damage]
    path.write_bytes(kept)
    with pytest.raises(CheckpointError, match=path.name):
        fit(build(), Plans(), config(), output_dir=tmp_path, resume=True)
    path.unlink()
    assert fit(build(), Plans(), config(), output_dir=tmp_path, resume=True).resumed_from == 10


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    fit(build(), Plans(), config(), output_dir=tmp_path)
    with pytest.raises(CheckpointError, match="learning_rate=0.0003 \\(now 0.1\\)"):
        fit(build(), Plans(), config(learning_rate=0.1), output_dir=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="samples=37 \\(now 40\\)"):
        fit(build(), Plans(40), config(), output_dir=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="another network"):
        fit(StateValue(3, 5, 4), Plans(), config(), output_dir=tmp_path, resume=True)


def test_a_finished_run_is_not_overwritten_by_accident(finished, tmp_path):
    fit(build(), Plans(), config(seed=1), output_dir=tmp_path)
    with pytest.raises(ValueError, match="already holds checkpoints"):
        fit(build(), Plans(), config(), output_dir=tmp_path)
    module = build()
    result = fit(module, Plans(), config(overwrite=True), output_dir=tmp_path)
    assert result.resumed_from is None
    assert same(module, finished[1])
    assert [line["step"] for line in lines(tmp_path)] == [12]


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="Linear lacks"):
        fit(torch.nn.Linear(2, 2), Plans(), config(), output_dir=tmp_path)
    with pytest.raises(ValueError, match="data set is empty"):
        fit(build(), Plans(0), config(), output_dir=tmp_path)
    with pytest.raises(ValueError, match="no parameter"):
        fit(build().requires_grad_(False), Plans(), config(), output_dir=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        fit(build(), Plans(), config(), output_dir=tmp_path / "file" / "below")


def test_divergence_is_an_error_and_exports_nothing(tmp_path):
    plans = Plans()
    plans.columns["trajectory"][:] = float("nan")
    with pytest.raises(FloatingPointError, match="loss is nan at step 3"):
        fit(build(), plans, config(log_every=3), output_dir=tmp_path)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"final_rate": 2.0},
        {"ema_decay": 1.0},
        {"clip_norm": -1.0},
        {"warmup_steps": -1},
        {"mixed_precision": "int8"},
        {"device": "tpu"},
        {"keep_checkpoints": 0},
    ],
)
def test_bad_configurations_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TrainConfig(**options)


def test_the_learning_rate_warms_up_and_falls():
    plan = TrainConfig(steps=100, warmup_steps=10, learning_rate=1.0, final_rate=0.1)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert plan.rate(100) == pytest.approx(0.1)
