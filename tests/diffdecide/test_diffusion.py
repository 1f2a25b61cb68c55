"""TrajectoryDiffusion: its loss, its conditions, saving and loading."""

import json

import pytest
import torch

from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.noise import RowGenerator, rand, randint, randn, seeded
from diffdecide.sampling import sample

H, D, E, F, G, K = 4, 2, 3, 5, 4, 3
SMALL = {
    "mlp": {"width": 32, "blocks": 1},
    "dit": {"width": 16, "blocks": 1, "heads": 2},
    "unet": {"channels": (8, 8), "groups": 4},
}


def build(denoiser="mlp", **options):
    with seeded(0):
        return TrajectoryDiffusion(H, D, E, F, G, 16, denoiser, SMALL[denoiser], {"width": 16, "heads": 2}, **options)


def batch(rows=8, seed=0):
    source = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(rows, *shape, generator=source)

    return {
        "trajectory": draw(H, D).clamp(-1, 1),
        "mask": torch.ones(rows, H, dtype=torch.bool),
        "ego": draw(E),
        "tokens": draw(K, F),
        "token_mask": torch.ones(rows, K, dtype=torch.bool),
        "goal": draw(G),
        "target_index": torch.arange(rows) % K,
        "return_to_go": draw(),
        "cost_budget": draw(),
    }


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("denoiser", SMALL)
@pytest.mark.parametrize("prediction", ["sample", "v"])
def test_every_parameter_learns(denoiser, prediction):
    model = build(denoiser, schedule={"prediction": prediction})
    for parameter in model.parameters():  # layers that start at zero keep others from a gradient in the first step
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    model.loss(batch(64), generator())["loss"].backward()
    lazy = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert lazy == []


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v"])
def test_a_short_training_learns_a_plan_per_goal(prediction):
    """Plans that follow from the goal: after training, samples follow it too."""
    schedule = {"prediction": prediction, "betas": "linear" if prediction == "epsilon" else "squaredcos_cap_v2"}
    model = build(schedule=schedule, drop_goal=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    data = batch(64)
    data["goal"] = torch.where(data["goal"][:, :1] > 0, 1.0, -1.0).expand(-1, G).contiguous()
    data["trajectory"] = 0.5 * data["goal"][:, :1, None].expand(-1, H, D)
    source = generator()
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(data, source)["loss"].backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        context = model.context(*(data[name] for name in ("ego", "tokens", "token_mask", "goal"))).context
    plans = sample(model, (64, H, D), context=context, generator=generator(), steps=10).sample
    # The two plans are 1 apart. Noise prediction is worse after so few steps: it magnifies errors at high noise.
    assert (plans - data["trajectory"]).abs().mean() < (0.35 if prediction == "epsilon" else 0.2)


def test_the_pointer_learns_its_target_from_goal_and_kind():
    model = build(target_weight=1.0, drop_goal=0.0)
    data = batch(128)
    data["tokens"][..., :K] = torch.eye(K)[torch.stack([torch.randperm(K, generator=generator(i)) for i in range(128)])]
    kind = torch.arange(128) % K
    data["goal"] = torch.nn.functional.one_hot(kind, G).float()
    data["target_index"] = data["tokens"][..., :K].argmax(-1).eq(kind[:, None]).int().argmax(-1)
    optimizer, source = torch.optim.Adam(model.parameters(), lr=5e-3), generator()
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(data, source)["loss"].backward()
        optimizer.step()
    logits = model.context(*(data[name] for name in ("ego", "tokens", "token_mask", "goal"))).target_logits
    assert (logits.argmax(-1) == data["target_index"]).float().mean() > 0.95


def test_masked_rows_do_not_teach():
    model, data = build(), batch()
    data["mask"][:, 2:] = False
    spoilt = {**data, "trajectory": data["trajectory"].clone()}
    # The noisy input holds the masked rows as well; an output that ignores its input shows the error on the others.
    model.network.leave.weight.data.zero_()
    model.network.leave.bias.data.zero_()
    plain = model.loss(data, generator())["denoise"]
    spoilt["trajectory"][:, 2:] = 0.9
    torch.testing.assert_close(model.loss(spoilt, generator())["denoise"], plain)
    torch.testing.assert_close(plain, data["trajectory"][:, :2].square().mean())


def test_row_and_sample_weights():
    model, data = build(row_weights=[1.0, 0.0, 0.0, 3.0]), batch()
    model.network.leave.weight.data.zero_()
    model.network.leave.bias.data.zero_()
    per_row = data["trajectory"].square().mean(2)
    expected = (per_row * torch.tensor([0.25, 0, 0, 0.75])).sum(1)
    torch.testing.assert_close(model.loss(data, generator())["denoise"], expected.mean())
    weight = torch.arange(8.0)
    torch.testing.assert_close(
        model.loss({**data, "weight": weight}, generator())["denoise"], (expected * weight).mean()
    )


def test_unknown_targets_are_ignored():
    model, data = build(drop_goal=0.0), batch()
    unknown = {**data, "target_index": torch.full((8,), -1)}
    assert model.loss(unknown, generator())["target"] == 0
    absent = {**data, "token_mask": torch.zeros(8, K, dtype=torch.bool)}
    assert model.loss(absent, generator())["target"] == 0
    assert model.loss(data, generator())["target"] > 0


def test_absent_targets_are_ignored_under_autocast():
    model, data = build(drop_goal=0.0), batch()
    data["token_mask"][:, 0] = False
    data["target_index"][:] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = model.loss(data, generator())
    assert parts["target"] == 0
    assert parts["loss"].isfinite()


def test_conditions_are_dropped_per_sample_and_independently():
    seen = {}
    model = build(drop_goal=0.3, drop_return=0.5, drop_budget=0.2)
    model.conditioner.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    model.loss(batch(4000), generator())
    rates = {name: seen[f"drop_{name}"].float().mean().item() for name in ("goal", "return", "budget")}
    assert rates == pytest.approx({"goal": 0.3, "return": 0.5, "budget": 0.2}, abs=0.03)
    both = (seen["drop_goal"] & seen["drop_return"]).float().mean().item()
    assert both == pytest.approx(0.15, abs=0.03)


def test_the_loss_is_a_function_of_batch_and_generator():
    model, data = build(), batch()
    first, again, other = (model.loss(data, generator(seed))["loss"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_two_halves_make_the_whole_batch():
    """Row noise is keyed by its place in the global batch: halves on two processes average to the whole."""
    model, data = build(), batch(8)
    data["mask"][2, 1:] = False
    whole = model.loss(data, RowGenerator((5, 1), start=0, total=8))["loss"]
    halves = [
        model.loss({name: t[start : start + 4] for name, t in data.items()}, RowGenerator((5, 1), start=start, total=8))
        for start in (0, 4)
    ]
    torch.testing.assert_close((halves[0]["loss"] + halves[1]["loss"]) / 2, whole)


def test_row_generator_slices_the_global_draw():
    like = torch.zeros(())
    for draw in (
        lambda rows, source: randn((rows, 3), source, like=like),
        lambda rows, source: rand((rows,), source, like=like),
        lambda rows, source: randint(1000, (rows, 2), source, device=like.device),
    ):
        whole = draw(6, RowGenerator((1, 2), start=0, total=6))
        parts = [draw(2, RowGenerator((1, 2), start=start, total=6)) for start in (0, 2, 4)]
        assert torch.equal(torch.cat(parts), whole)
        assert not torch.equal(draw(6, RowGenerator((1, 3), start=0, total=6)), whole)
    plain = [torch.rand(4, generator=RowGenerator((1, 2), start=start, total=6)) for start in (0, 2)]
    assert not torch.equal(plain[0], plain[1])
    with pytest.raises(ValueError, match="global batch has 6"):
        randn((3, 1), RowGenerator((1,), start=4, total=6), like=like)


@pytest.mark.parametrize("denoiser", SMALL)
def test_save_and_load(denoiser, tmp_path):
    model = build(denoiser, schedule={"scheduler": "ddpm", "steps": 3}, row_weights=[1.0, 2.0, 3.0, 4.0])
    model.save_pretrained(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    loaded = TrajectoryDiffusion.from_pretrained(tmp_path)
    assert loaded.schedule == model.schedule
    assert loaded.plan_shape == (H, D)
    stored = loaded.state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(loaded.loss(batch(), generator())["loss"], model.loss(batch(), generator())["loss"])


def test_the_saved_schedule_is_complete(tmp_path):
    build().save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())["schedule"]
    assert stored == build().schedule.to_dict()


def test_half_precision_survives(tmp_path):
    build().half().save_pretrained(tmp_path)
    loaded = TrajectoryDiffusion.from_pretrained(tmp_path, torch_dtype=torch.float32)
    assert loaded.loss(batch(), generator())["loss"].isfinite()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("trajectory"), "lacks 'trajectory'"),
        (lambda data: data.pop("mask"), "lacks 'mask'"),
        (lambda data: data.update(trajectory=torch.zeros(8, H + 1, D)), "trajectory must have shape"),
        (lambda data: data.update(mask=torch.ones(8, H + 1)), "mask must have shape"),
        (lambda data: data.update(target_index=torch.full((8,), K)), "target_index must be"),
        (lambda data: data.update(ego=torch.zeros(8, E + 1)), "ego must have shape"),
    ],
)
def test_bad_batches_are_named(change, message):
    data = batch()
    change(data)
    with pytest.raises(ValueError, match=message):
        build().loss(data, generator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_goal": 1.5}, "drop_goal must be a probability"),
        ({"row_weights": [1.0]}, "row_weights must hold 4"),
        ({"target_weight": -1.0}, "target_weight"),
        ({"schedule": {"prediction": "epsilon"}}, "cannot work"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_unknown_condition_is_named():
    with pytest.raises(ValueError, match="without may hold"):
        build().context(torch.zeros(1, E), torch.zeros(1, K, F), torch.ones(1, K), without=("cost",))
