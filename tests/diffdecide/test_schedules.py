"""Every scheduler and prediction, against distributions whose optimal denoiser is known in closed form."""

from itertools import pairwise

import pytest
import torch

from diffdecide.sampling import sample
from diffdecide.schedules import (
    BETAS,
    PREDICTIONS,
    SCHEDULERS,
    SPACINGS,
    ScheduleConfig,
    add_noise,
    alphas_cumprod,
    make_scheduler,
    noise_levels,
    target,
    timesteps,
    to_clean,
)


def optimal(config, mean, std, weight):
    """The Bayes-optimal prediction for a mixture of Gaussians with means [M], deviations [M] and weights [M]."""
    table = alphas_cumprod(config)
    mean, std, weight = (torch.tensor(values, dtype=torch.float64) for values in (mean, std, weight))

    def denoise(x, t, context):
        kept = table[t].reshape(-1, 1, 1, 1)
        alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
        noisy = x.double()[..., None]
        variance = kept * std**2 + sigma**2
        likelihood = weight.log() - 0.5 * variance.log() - 0.5 * (noisy - alpha * mean) ** 2 / variance
        clean = mean + alpha * std**2 / variance * (noisy - alpha * mean)
        clean = (likelihood.softmax(-1) * clean).sum(-1)
        alpha, sigma = alpha[..., 0], sigma[..., 0]
        eps = (x - alpha * clean) / sigma
        return target(config.prediction, clean, eps, alpha, sigma).to(x)

    return denoise


def betas_for(prediction):
    return "linear" if prediction == "epsilon" else "squaredcos_cap_v2"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gaussian_is_sampled_with_its_mean_and_deviation(scheduler, prediction):
    config = ScheduleConfig(scheduler=scheduler, prediction=prediction, steps=100, betas=betas_for(prediction))
    model = optimal(config, [0.3], [0.2], [1.0])
    got = sample(model, (2000, 4, 2), generator=torch.Generator().manual_seed(0), scheduler=config, clip=None).sample
    assert got.mean().item() == pytest.approx(0.3, abs=0.01)
    # First-order schedulers need more steps for the same accuracy.
    assert got.std().item() == pytest.approx(0.2, rel=0.03 if scheduler == "dpmsolver++" else 0.1)


def test_the_default_keeps_spread_in_five_steps_where_uniform_strides_average():
    def spread(**options):
        config = ScheduleConfig(**options)
        model = optimal(config, [0.3], [0.2], [1.0])
        return sample(model, (2000, 1, 2), generator=torch.Generator().manual_seed(0), scheduler=config).sample.std()

    assert spread() > 0.16
    assert spread(scheduler="ddim", spacing="trailing") < 0.11


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("prediction", ["sample", "v"])
def test_five_steps_find_both_modes_of_a_mixture(scheduler, prediction):
    config = ScheduleConfig(scheduler=scheduler, prediction=prediction)
    model = optimal(config, [-0.6, 0.5], [0.05, 0.05], [0.25, 0.75])
    got = sample(model, (2000, 1, 2), generator=torch.Generator().manual_seed(0), scheduler=config).sample
    high = got > 0
    assert high.float().mean().item() == pytest.approx(0.75, abs=0.06)
    assert got[high].mean().item() == pytest.approx(0.5, abs=0.03)
    assert got[~high].mean().item() == pytest.approx(-0.6, abs=0.05)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_a_perfect_prediction_is_returned_whatever_the_stride(scheduler, steps):
    answer = torch.linspace(-1, 1, 6).view(1, 3, 2)
    config = ScheduleConfig(scheduler=scheduler, steps=steps)
    got = sample(lambda x, t, c: answer.expand_as(x), (4, 3, 2), generator=torch.Generator(), scheduler=config)
    assert torch.equal(got.sample, answer.expand(4, 3, 2))
    assert len(got.timesteps) == steps
    assert got.timesteps[0] == 999


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_all_but_the_last_step_have_the_marginal_of_the_next_time(scheduler):
    """A step taken with exact posteriors keeps x_t distributed as alpha x_0 + sigma eps, strides that divide or not."""
    config = ScheduleConfig(scheduler=scheduler, steps=60)
    seen = {}
    model = optimal(config, [0.4], [0.3], [1.0])
    sample(
        model,
        (4000, 1, 2),
        generator=torch.Generator().manual_seed(1),
        scheduler=config,
        clip=None,
        callback=lambda step: seen.update({step.index: (step.x.mean().item(), step.x.std().item())}),
    )
    for index, (alpha, sigma) in enumerate(noise_levels(config, 60)):
        mean, std = seen[index]
        assert mean == pytest.approx(0.4 * alpha, abs=0.04)
        assert std == pytest.approx((0.09 * alpha**2 + sigma**2) ** 0.5, rel=0.06)


@pytest.mark.parametrize("train_steps", [2, 10, 50, 1000])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_times_fall_and_differ(train_steps, spacing):
    config = ScheduleConfig(train_steps=train_steps, spacing=spacing, steps=1)
    for steps in {1, 2, min(7, train_steps), train_steps}:
        times = timesteps(config, steps)
        assert len(times) == steps
        assert all(a > b for a, b in pairwise(times))
        assert train_steps > times[0]
        assert times[-1] >= 0


def test_first_order_solver_is_ddim():
    uniform = ScheduleConfig(scheduler="ddim", spacing="trailing", steps=10)
    solver = ScheduleConfig(scheduler="dpmsolver++", order=1, spacing="trailing", steps=10)
    model = optimal(uniform, [-0.6, 0.5], [0.1, 0.1], [0.25, 0.75])
    first, second = (
        sample(model, (16, 2, 2), generator=torch.Generator().manual_seed(0), scheduler=config).sample
        for config in (uniform, solver)
    )
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-3)


def test_schedulers_are_fresh_each_time():
    config = ScheduleConfig(scheduler="dpmsolver++")
    first, second = make_scheduler(config), make_scheduler(config)
    x = torch.zeros(1, 2, 2)
    first.step(x + 1, first.timesteps[0], x)
    assert second.step_index is None
    assert second.model_outputs == [None, None]
    assert make_scheduler(config).step_index is None


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_predictions_convert_back_to_the_clean_sample(prediction):
    generator = torch.Generator().manual_seed(0)
    clean, eps = torch.randn(2, 3, 4, generator=generator).unbind(0)
    alpha, sigma = torch.tensor(0.6), torch.tensor(0.8)
    noisy = add_noise(clean, eps, alpha, sigma)
    back = to_clean(prediction, target(prediction, clean, eps, alpha, sigma), noisy, alpha, sigma)
    torch.testing.assert_close(back, clean)


@pytest.mark.parametrize("betas", BETAS)
def test_the_tables_are_those_of_the_scheduler(betas):
    config = ScheduleConfig(betas=betas, spacing="trailing")
    torch.testing.assert_close(
        alphas_cumprod(config).float(), make_scheduler(config).alphas_cumprod, atol=1e-6, rtol=1e-3
    )
    assert timesteps(config, 5) == (999, 799, 599, 399, 199)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "unipc"}, "scheduler must be one of"),
        ({"prediction": "score"}, "prediction must be one of"),
        ({"betas": "sigmoid"}, "betas must be one of"),
        ({"spacing": "cubic"}, "spacing must be one of"),
        ({"order": 4}, "order must be"),
        ({"steps": 0}, "steps must lie"),
        ({"steps": 2000}, "steps must lie"),
        ({"train_steps": 1, "steps": 1}, "train_steps must be"),
        ({"prediction": "epsilon", "betas": "linear", "zero_snr": True}, "cannot work with zero_snr"),
        ({"prediction": "epsilon"}, "cannot work with betas"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**options)


def test_zero_snr_works_where_it_can():
    for scheduler in SCHEDULERS:
        config = ScheduleConfig(scheduler=scheduler, prediction="v", zero_snr=True, steps=50)
        model = optimal(config, [0.3], [0.2], [1.0])
        got = sample(model, (2000, 1, 2), generator=torch.Generator().manual_seed(0), scheduler=config).sample
        assert got.mean().item() == pytest.approx(0.3, abs=0.02)
        assert got.std().item() == pytest.approx(0.2, rel=0.1)


def test_a_schedule_survives_json():
    config = ScheduleConfig(scheduler="dpmsolver++", steps=8)
    assert ScheduleConfig(**config.to_dict()) == config
