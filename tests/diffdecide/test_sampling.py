"""The sampling loop: order of its hooks, warm start, randomness."""

import pytest
import torch

from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.guidance import Guide
from diffdecide.noise import seeded
from diffdecide.sampling import Inpaint, sample
from diffdecide.schedules import SCHEDULERS, ScheduleConfig

SHAPE = (5, 4, 2)


@pytest.fixture(scope="module")
def model():
    with seeded(0):
        return TrajectoryDiffusion(4, 2, 3, 4, 5, 8, denoiser_options={"width": 32, "blocks": 1}).eval()


@pytest.fixture(scope="module")
def contexts(model):
    with torch.no_grad():
        inputs = (
            torch.ones(1, 3),
            torch.ones(1, 2, 4),
            torch.ones(1, 2, dtype=torch.bool),
            torch.ones(1, 5),
            torch.ones(1),
        )
        return model.context(*inputs).context, model.context(*inputs, without=("return", "goal")).context


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(model, contexts, **options):
    options = {"generator": generator(), "context": contexts[0]} | options
    return sample(model, SHAPE, **options)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_generator_is_the_only_randomness(model, contexts, scheduler):
    config = ScheduleConfig(scheduler=scheduler)
    before = torch.get_rng_state()
    first, again, other = (
        draw(model, contexts, generator=generator(seed), scheduler=config).sample for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert not first.requires_grad


def test_result_says_what_was_done(model, contexts):
    result = draw(model, contexts, steps=3)
    assert result.sample.shape == SHAPE
    assert result.network_calls == len(result.timesteps) == 3
    assert not result.stopped
    doubled = draw(model, contexts, steps=3, uncond_context=contexts[1], guidance_scale=2.0)
    assert doubled.network_calls == 6


def test_guidance_scale_moves_from_unconditional_to_conditional(model, contexts):
    def at(**options):
        return draw(model, contexts, clip=None, steps=1, **options).sample

    conditional, plain = at(), at(context=contexts[1])
    for scale in (0.0, 1.0, 2.5):
        got = at(uncond_context=contexts[1], guidance_scale=scale)
        torch.testing.assert_close(got, plain + scale * (conditional - plain), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("every", [True, False])
def test_the_projection_has_the_last_word(model, contexts, every):
    seen = []

    def projection(clean):
        seen.append(clean)
        return clean.clamp(-0.1, 0.1)

    keep = Inpaint(torch.tensor(0.8), torch.ones(4, 2, dtype=torch.bool))
    result = draw(model, contexts, projection=projection, project_every_step=every, inpaint=keep)
    assert result.sample.abs().max() <= 0.1
    assert len(seen) == (5 if every else 1)
    assert all((clean == 0.8).all() for clean in seen)


def test_inpainted_values_are_kept_and_shown_to_the_network():
    config, inputs = ScheduleConfig(), []
    mask = torch.zeros(4, 2, dtype=torch.bool)
    mask[0] = True

    def denoise(x, t, context):
        inputs.append(x)
        return torch.zeros_like(x)

    result = sample(
        denoise, SHAPE, generator=generator(), scheduler=config, inpaint=Inpaint(torch.full((4, 2), 0.7), mask)
    )
    assert (result.sample[:, 0] == 0.7).all()
    assert (result.sample[:, 1:] == 0).all()
    # At the last step little noise is left, so the network sees nearly the given values.
    assert inputs[-1][:, 0].mean().item() == pytest.approx(0.7, abs=0.1)


def test_inpainting_conditions_the_rest_of_the_plan():
    """Two rows of a Gaussian plan with correlation 0.9: the second must follow the first that is given."""
    config = ScheduleConfig(steps=60)
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]]) * 0.25

    def denoise(x, t, context):
        from diffdecide.schedules import alphas_cumprod

        kept = alphas_cumprod(config)[t].float()
        gain = kept.sqrt() * covariance @ torch.linalg.inv(kept * covariance + (1 - kept) * torch.eye(2))
        return (x.squeeze(-1) @ gain.T)[..., None]

    mask = torch.tensor([[True], [False]])
    given = Inpaint(torch.full((2, 1), 0.5), mask)
    got = sample(denoise, (4000, 2, 1), generator=generator(), scheduler=config, clip=None, inpaint=given).sample
    assert (got[:, 0] == 0.5).all()
    # Replacement is an approximation (Lugmayr et al. 2022): it carries half of the 0.45 that Bayes asks for here.
    assert 0.18 < got[:, 1].mean().item() < 0.5


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_zero_temperature_is_deterministic(model, contexts, scheduler):
    config = ScheduleConfig(scheduler=scheduler)
    cold = [draw(model, contexts, generator=generator(s), temperature=0.0, scheduler=config).sample for s in (0, 1)]
    torch.testing.assert_close(cold[0], cold[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_low_temperature_narrows_the_spread(scheduler):
    config = ScheduleConfig(scheduler=scheduler, steps=30)

    def denoise(x, t, context):  # the optimal denoiser of a Gaussian with deviation 0.5
        from diffdecide.schedules import alphas_cumprod

        kept = alphas_cumprod(config)[t].float()
        return kept.sqrt() * 0.25 / (kept * 0.25 + 1 - kept) * x

    warm, cool = (
        sample(denoise, (3000, 1, 2), generator=generator(), scheduler=config, clip=None, temperature=t).sample.std()
        for t in (1.0, 0.5)
    )
    assert (cool / warm).item() == pytest.approx(0.5, abs=0.03)


def test_warm_start_stays_near_its_plan_and_takes_fewer_steps():
    config = ScheduleConfig(steps=10)
    plan = torch.linspace(-0.8, 0.8, 8).view(1, 4, 2)
    times = []

    def denoise(x, t, context):  # wide prior: the estimate follows the iterate
        from diffdecide.schedules import alphas_cumprod

        times.append(int(t))
        kept = alphas_cumprod(config)[t].float()
        return kept.sqrt() / (kept + 1 - kept) * x

    def distance(strength):
        times.clear()
        result = sample(
            denoise, (64, 4, 2), generator=generator(), scheduler=config, init=plan, init_strength=strength, clip=None
        )
        return (result.sample - plan).square().mean().item(), len(times), times[0]

    near, calls_near, first_near = distance(0.1)
    far, calls_far, first_far = distance(1.0)
    assert near < 0.1 * far
    assert calls_near < calls_far == 10
    assert first_near < 200
    assert first_far == 999


def test_callback_sees_every_step_and_can_stop(model, contexts):
    steps = []

    def callback(info):
        steps.append(info)
        return info.index == 2

    result = draw(model, contexts, callback=callback)
    assert result.stopped
    assert [info.index for info in steps] == [0, 1, 2]
    assert torch.equal(result.sample, steps[-1].clean)
    assert len(result.timesteps) == 3


def test_guides_get_gradients_and_the_network_does_not(model, contexts):
    for parameter in model.parameters():
        parameter.grad = None
    towards = Guide(lambda clean, t: -(clean - 0.9).square().sum((1, 2)), scale=0.5)
    gains = []

    def callback(info):
        gains.append((info.raw - 0.9).square().sum() - (info.clean - 0.9).square().sum())

    assert not draw(model, contexts, guides=[towards], callback=callback).sample.requires_grad
    assert min(gains) > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_samples_stay_within_the_clip(model, contexts):
    push = Guide(lambda clean, t: clean.sum((1, 2)), scale=100.0)
    assert draw(model, contexts, guides=[push]).sample.abs().max() <= 1
    assert draw(model, contexts, guides=[push], clip=None).sample.abs().max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"init": torch.zeros(3, 4, 2)}, "init must have shape"),
        ({"init": torch.zeros(1, 4, 2), "init_strength": 0.0}, "init_strength"),
        ({"guidance_scale": 2.0}, "needs uncond_context"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"steps": 0}, "steps must lie"),
        ({"inpaint": Inpaint(torch.zeros(3), torch.ones(7))}, "must broadcast"),
        ({"projection": lambda clean: clean[:1]}, "projection must return shape"),
        ({"scheduler": ScheduleConfig(prediction="v")}, "must be the model's"),
        ({"scheduler": ScheduleConfig(train_steps=100)}, "must be the model's"),
    ],
)
def test_bad_arguments_are_named(model, contexts, options, message):
    with pytest.raises(ValueError, match=message):
        draw(model, contexts, **options)


def test_bad_shape_is_named(model):
    with pytest.raises(ValueError, match="shape must be"):
        sample(model, (0, 4, 2), generator=generator())
