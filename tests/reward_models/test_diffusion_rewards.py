"""Rewards from diffusion models against closed forms of Gaussians."""

import math

import numpy as np
import pytest
import torch
from gaussian_planner import GaussianPlanner

from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.train import TrainConfig, fit
from reward_models.dpo import DiffusionDPO, DPOConfig, pair_plans
from reward_models.likelihood import Quadrature, class_log_ratio, conditional_entropy, log_likelihood
from reward_models.relative import RelativeConfig, RelativeReward
from reward_models.teachers import Teacher

H, D = 2, 2
NONE = torch.zeros(1, 1)


def seed(number=0):
    return torch.Generator().manual_seed(number)


def log_density(x, mean, std):
    return (-0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)).sum((1, 2))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.3, 0.4)])
def test_log_likelihood_of_a_gaussian(mean, std):
    model = GaussianPlanner(mean, std)
    plans = mean + std * torch.randn(6, H, D, generator=seed(1))
    ours = log_likelihood(
        model, plans, NONE, generator=seed(), quadrature=Quadrature(times=30, samples=256, low=1e-4, high=1e4)
    )
    assert torch.allclose(ours, log_density(plans, mean, std), atol=0.15)


def test_entropy_of_a_gaussian():
    std = 0.4
    contexts = torch.tensor([[0.0], [0.5]])
    ours = conditional_entropy(
        GaussianPlanner(std=std, conditional=True),
        contexts,
        (H, D),
        generator=seed(),
        plans=768,
        steps=40,
        clip=None,
        quadrature=Quadrature(times=24, samples=2),
    )
    exact = 0.5 * H * D * math.log(2 * math.pi * math.e * std**2)
    assert torch.allclose(ours, torch.full((2,), exact), atol=0.25)


def test_a_surer_model_has_less_entropy():
    sure, vague = (
        conditional_entropy(GaussianPlanner(0.0, std), NONE, (H, D), generator=seed(), plans=32) for std in (0.1, 0.8)
    )
    assert float(sure) < float(vague)


def test_class_ratio_is_the_log_ratio_of_gaussians():
    model = GaussianPlanner(std=0.5, conditional=True)
    plans = 0.6 * torch.randn(8, H, D, generator=seed(2))
    one, two = torch.tensor([[0.4]]), torch.tensor([[-0.2]])
    ours = class_log_ratio(
        model, plans, one, two, generator=seed(), quadrature=Quadrature(times=30, samples=64, low=1e-4, high=1e4)
    )
    exact = log_density(plans, 0.4, 0.5) - log_density(plans, -0.2, 0.5)
    assert torch.allclose(ours, exact, atol=0.25)
    assert torch.equal(ours > 0, exact > 0) or bool((exact.abs() < 0.3).any())


def test_likelihood_is_differentiable_in_the_plans():
    plans = (0.5 * torch.randn(3, H, D, generator=seed(3))).requires_grad_(True)
    quadrature = Quadrature(times=30, samples=64, low=1e-4, high=1e4)
    value = log_likelihood(GaussianPlanner(0.0, 0.5), plans, NONE, generator=seed(), quadrature=quadrature)
    (gradient,) = torch.autograd.grad(value.sum(), plans)
    assert torch.allclose(gradient, -plans.detach() / 0.25, atol=0.6)


class GaussianPlans:
    """Clean plans of two Gaussians, half and half."""

    def __init__(self, means, std, size=2048):
        pick = torch.randint(2, (size,), generator=seed(4))
        self.plans = torch.tensor(means)[pick][:, None, None] + std * torch.randn(size, H, D, generator=seed(5))

    def __len__(self):
        return len(self.plans)

    def __getitems__(self, indices):
        return {"trajectory": self.plans[indices], "context": torch.zeros(len(indices), 1)}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relative")
    base, expert = GaussianPlanner(-0.3, 0.4), GaussianPlanner(0.3, 0.4)
    config = RelativeConfig(horizon=H, dim=D, width=48, depth=2, first=0.05)
    reward = RelativeReward(config, base, expert)
    settings = TrainConfig(
        steps=300,
        batch_size=128,
        learning_rate=3e-3,
        ema_decay=0.98,
        warmup_steps=20,
        tracker=None,
        progress=False,
        device="cpu",
        checkpoint_every=0,
    )
    result = fit(reward, GaussianPlans([-0.3, 0.3], 0.4), settings, output_dir=folder)
    return reward, result, folder


def test_relative_reward_has_the_gradient_of_the_log_ratio(fitted):
    reward, result, _ = fitted
    assert result.metrics["explained"] > 0.95
    for share in (0.2, 0.5):
        t = int(share * 1000)
        alpha, sigma = float(reward.alpha[t]), float(reward.sigma[t])
        x = (alpha * 0.3 * torch.randn(64, H, D, generator=seed(6))).requires_grad_(True)
        (gradient,) = torch.autograd.grad(reward(x, torch.tensor([t])).sum(), x)
        # sigma * grad log (p_expert / p_base) at this noise level is the same everywhere.
        exact = sigma * alpha * 0.6 / (alpha**2 * 0.16 + sigma**2)
        assert float(gradient.mean()) == pytest.approx(exact, rel=0.1)
        assert float((gradient - exact).abs().mean()) < 0.2 * exact


def test_relative_reward_ranks_plans_as_the_log_ratio_does(fitted):
    reward = fitted[0]
    plans = 0.5 * torch.randn(500, H, D, generator=seed(7))
    exact = plans.sum((1, 2)).numpy()
    ours = reward.reward(plans).detach().numpy()
    assert np.corrcoef(ours, exact)[0, 1] > 0.98


def test_relative_reward_survives_a_round_trip_without_its_planners(fitted, tmp_path):
    reward = fitted[0]
    again = RelativeReward.from_pretrained(fitted[2])
    plans = torch.randn(5, H, D, generator=seed(8))
    assert torch.equal(again.reward(plans), reward.eval().reward(plans))
    assert not any("_planners" in name or "base" in name for name in again.state_dict())
    with pytest.raises(ValueError, match="no relative reward"):
        RelativeReward.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="two planners"):
        again.loss({"trajectory": plans}, seed())


def test_relative_reward_refuses_bad_settings():
    with pytest.raises(ValueError, match="first < last"):
        RelativeConfig(horizon=H, dim=D, first=0.5, last=0.2)
    reward = RelativeReward(RelativeConfig(horizon=H, dim=D))
    with pytest.raises(ValueError, match="x must be"):
        reward(torch.zeros(2, H, D + 1), torch.tensor([3]))


def pair_batch(rows, rng_seed=9):
    first = 0.4 * torch.randn(rows, H, D, generator=seed(rng_seed))
    second = 0.4 * torch.randn(rows, H, D, generator=seed(rng_seed + 1))
    label = torch.sigmoid(2.0 * (first - second).sum((1, 2)))
    return {"trajectory_1": first, "trajectory_2": second, "label": label, "context": torch.zeros(rows, 1)}


def test_dpo_starts_at_log_two_and_at_the_closed_form_gradient():
    policy = GaussianPlanner(0.1, 0.4)
    dpo = DiffusionDPO(policy, DPOConfig(beta=3.0, max_snr=5.0))
    batch = pair_batch(20_000)
    parts = dpo.loss(batch, seed())
    assert parts["loss"].item() == pytest.approx(math.log(2), abs=1e-6)
    (ours,) = torch.autograd.grad(parts["loss"], policy.mean)
    # e = mean over values of w(t) |x̂ - x|², x̂ - x = (1 - gain alpha) (mean - x) + gain sigma eps, so
    # d e / d mean = 2 w (1 - gain alpha)² (mean - x) in expectation over eps; at the reference the logit is 0.
    alpha, sigma = policy.alpha, policy.sigma
    gain = alpha * 0.16 / (alpha**2 * 0.16 + sigma**2)
    factor = float((2 * (alpha / sigma).square().clamp_max(5.0) * (1 - gain * alpha).square()).mean())
    difference = (batch["trajectory_2"] - batch["trajectory_1"]).mean((1, 2))  # de_1 - de_2, over the factor
    exact = float((3.0 * (batch["label"] - 0.5) * difference).mean()) * factor
    assert exact < 0  # the preferred plans lie above: the mean has to rise
    assert float(ours) == pytest.approx(exact, rel=0.1)


def test_dpo_moves_the_planner_towards_what_is_preferred_and_no_further_than_beta_allows():
    shifts = []
    for beta in (2.0, 20.0):
        policy = GaussianPlanner(0.0, 0.4)
        dpo = DiffusionDPO(policy, DPOConfig(beta=beta))
        optimizer = torch.optim.Adam([policy.mean], 0.02)
        batch = pair_batch(500)
        for step in range(80):
            optimizer.zero_grad()
            dpo.loss(batch, seed(step))["loss"].backward()
            optimizer.step()
        shifts.append(float(policy.mean))
        assert float(dpo._reference[0].mean) == 0.0
    assert shifts[0] > shifts[1] > 0.01


def test_dpo_on_a_real_planner_pairs_its_own_plans():
    torch.manual_seed(0)
    planner = TrajectoryDiffusion(
        horizon=4,
        dim=2,
        ego_dim=3,
        token_dim=4,
        goal_dim=2,
        context_dim=16,
        denoiser_options={"width": 32, "blocks": 1},
    )
    situations = {
        "ego": torch.randn(12, 3, generator=seed()),
        "tokens": torch.randn(12, 2, 4, generator=seed()),
        "token_mask": torch.ones(12, 2, dtype=torch.bool),
        "goal": torch.randn(12, 2, generator=seed()),
    }
    pairs = pair_plans(
        planner,
        situations,
        lambda plans, _: plans.sum((1, 2)).numpy(),
        Teacher(beta=4.0),
        generator=seed(),
        rng=np.random.default_rng(0),
        steps=3,
    )
    assert len(pairs) == 12
    assert 0.5 < pairs.bayes_accuracy <= 1
    dpo = DiffusionDPO(planner)
    loss = dpo.loss(pairs.__getitems__(range(12)), seed())["loss"]
    assert float(loss) == pytest.approx(math.log(2), abs=1e-5)
    loss.backward()
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in planner.parameters())
    assert all(not p.requires_grad for p in dpo._reference[0].parameters())
    with pytest.raises(ValueError, match="one shape"):
        dpo.loss({**pairs.batch, "trajectory_2": torch.zeros(12, 3, 2)}, seed())
