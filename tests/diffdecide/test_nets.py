"""What every denoiser and the conditioner promise."""

import pytest
import torch

from diffdecide.diffusion import build_denoiser
from diffdecide.nets.object_tokens import ABSENT, ObjectTokens
from diffdecide.noise import seeded

H, D, C = 6, 3, 16
SMALL = {
    "mlp": {"width": 32, "blocks": 2},
    "dit": {"width": 16, "blocks": 2, "heads": 2},
    "unet": {"channels": (8, 16, 16), "groups": 4},
}


def denoiser(name, horizon=H):
    with seeded(1):
        network = build_denoiser(name, horizon, D, C, **SMALL[name])
        # Layers that start at zero would make several properties hold trivially.
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return network


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("horizon", [1, 5, 8])
def test_denoiser_keeps_the_shape_for_any_horizon(name, horizon):
    out = denoiser(name, horizon)(draw(4, horizon, D), torch.tensor([0, 3, 10, 999]), draw(4, C))
    assert out.shape == (4, horizon, D)
    assert out.isfinite().all()


@pytest.mark.parametrize("name", SMALL)
def test_one_time_and_one_context_serve_the_batch(name):
    network, x, context = denoiser(name), draw(4, H, D), draw(1, C)
    whole = network(x, torch.full((4,), 7), context.expand(4, -1))
    torch.testing.assert_close(network(x, torch.tensor([7]), context), whole)


@pytest.mark.parametrize("name", SMALL)
def test_denoiser_depends_on_time_context_and_every_row(name):
    network, x, context = denoiser(name), draw(1, H, D).requires_grad_(), draw(1, C)
    out = network(x, torch.tensor([7]), context)
    assert not torch.allclose(out, network(x, torch.tensor([500]), context), atol=1e-4)
    assert not torch.allclose(out, network(x, torch.tensor([7]), context + 1), atol=1e-4)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert (gradient.abs().amax((0, 2)) > 0).all()


@pytest.mark.parametrize("name", SMALL)
def test_denoiser_save_and_load(name, tmp_path):
    network = denoiser(name)
    network.save_pretrained(tmp_path)
    loaded = type(network).from_pretrained(tmp_path)
    args = draw(2, H, D), torch.tensor([5]), draw(2, C)
    stored = loaded.state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in network.state_dict().items())
    torch.testing.assert_close(network(*args), loaded(*args), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("x", "t", "context", "message"),
    [
        ((2, H, D + 1), (2,), (2, C), "x must have shape"),
        ((2, H, D), (3,), (2, C), "t must have shape"),
        ((2, H, D), (2,), (3, C), "context must have shape"),
    ],
)
def test_denoiser_names_the_wrong_input(name, x, t, context, message):
    with pytest.raises(ValueError, match=message):
        denoiser(name)(torch.zeros(x), torch.zeros(t), torch.zeros(context))


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="denoiser must be one of"):
        build_denoiser("gru", H, D, C)
    with pytest.raises(ValueError, match="multiple of heads"):
        build_denoiser("dit", H, D, C, width=10, heads=3)
    with pytest.raises(ValueError, match="width must be at least 1"):
        build_denoiser("mlp", H, D, C, width=0)
    with pytest.raises(ValueError, match="multiples of groups"):
        build_denoiser("unet", H, D, C, channels=(9,))
    with pytest.raises(ValueError, match="pointer_features"):
        ObjectTokens(3, 4, 5, pointer_features=(2, 9))


E, F, G, K = 5, 7, 4, 6


@pytest.fixture
def conditioner():
    with seeded(2):
        encoder = ObjectTokens(E, F, G, context_dim=8, width=16, pointer_features=(0, 3))
        for parameter in (encoder.null_goal, encoder.null_return, encoder.null_budget, encoder.nothing):
            torch.nn.init.normal_(parameter)
    return encoder


def scene(rows=3):
    mask = torch.ones(rows, K, dtype=torch.bool)
    mask[:, -2:] = False
    inputs = {
        "ego": draw(rows, E),
        "tokens": draw(rows, K, F, seed=1),
        "token_mask": mask,
        "goal": draw(rows, G, seed=2),
    }
    return inputs | {"return_to_go": draw(rows, seed=3), "cost_budget": draw(rows, seed=4)}


def test_order_of_tokens_does_not_matter(conditioner):
    inputs, order = scene(), torch.tensor([3, 5, 0, 2, 4, 1])
    straight = conditioner(**inputs)
    shuffled = conditioner(
        **{**inputs, "tokens": inputs["tokens"][:, order], "token_mask": inputs["token_mask"][:, order]}
    )
    torch.testing.assert_close(straight.context, shuffled.context)
    torch.testing.assert_close(straight.target_logits[:, order], shuffled.target_logits)


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_absent_tokens_never_matter(conditioner, junk):
    inputs = scene()
    tokens = inputs["tokens"].clone()
    tokens[:, -2:] = junk
    clean, spoilt = conditioner(**inputs), conditioner(**{**inputs, "tokens": tokens})
    torch.testing.assert_close(clean.context, spoilt.context)
    torch.testing.assert_close(clean.target_logits, spoilt.target_logits)
    assert (clean.target_logits[:, -2:] == ABSENT).all()


def test_present_tokens_matter(conditioner):
    inputs = scene()
    for index in range(K - 2):
        mask = inputs["token_mask"].clone()
        mask[:, index] = False
        without = conditioner(**{**inputs, "token_mask": mask})
        assert not torch.allclose(conditioner(**inputs).context, without.context, atol=1e-5)


@pytest.mark.parametrize("slots", [0, K])
def test_an_empty_scene_is_finite_in_values_and_gradients(conditioner, slots):
    inputs = scene()
    inputs |= {"tokens": inputs["tokens"][:, :slots], "token_mask": torch.zeros(3, slots, dtype=torch.bool)}
    encoded = conditioner(**inputs)
    encoded.context.square().sum().backward()
    assert encoded.context.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in conditioner.parameters())


def test_an_empty_row_beside_a_full_one(conditioner):
    inputs = scene(2)
    inputs["token_mask"][0] = False
    alone = conditioner(**{name: tensor[:1] for name, tensor in inputs.items()})
    torch.testing.assert_close(conditioner(**inputs).context[:1], alone.context)


@pytest.mark.parametrize(
    ("drop", "name"), [("drop_goal", "goal"), ("drop_return", "return_to_go"), ("drop_budget", "cost_budget")]
)
def test_a_dropped_condition_equals_a_missing_one_per_sample(conditioner, drop, name):
    inputs = scene()
    mixed = conditioner(**inputs, **{drop: torch.tensor([True, False, True])}).context
    missing, full = conditioner(**{**inputs, name: None}).context, conditioner(**inputs).context
    torch.testing.assert_close(mixed[[0, 2]], missing[[0, 2]])
    torch.testing.assert_close(mixed[1], full[1])
    assert not torch.allclose(missing, full, atol=1e-4)


def test_the_pointer_reads_the_goal_and_the_kind_alone(conditioner):
    inputs = scene()
    logits = conditioner(**inputs).target_logits
    other = inputs | {"ego": inputs["ego"] + 1, "return_to_go": None}
    other["tokens"] = inputs["tokens"] + torch.tensor([0.0] * 3 + [1.0] * (F - 3))
    torch.testing.assert_close(conditioner(**other).target_logits, logits)
    assert not torch.allclose(conditioner(**{**inputs, "goal": inputs["goal"] + 1}).target_logits, logits, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ego", (3, E + 1)),
        ("tokens", (3, K, F + 1)),
        ("token_mask", (3, K + 1)),
        ("goal", (3, G + 1)),
        ("cost_budget", (3, 1)),
    ],
)
def test_conditioner_names_the_wrong_input(conditioner, name, shape):
    with pytest.raises(ValueError, match=name):
        conditioner(**{**scene(), name: torch.zeros(shape)})
