"""Relative rewards and teachers as scores of plans, and scenes read back from features."""

from functools import partial

import numpy as np
import pytest
import torch
from gaussian_planner import GaussianPlanner

from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.features import FeatureConfig, SceneEncoder, SceneTokens
from diffdecide.guidance import apply_guide
from diffdecide.plan import PlanRows
from diffdecide.preference import Preference
from reward_models.guide import RelativePlanScore, goal_seeking_plan, unhurried_plan
from reward_models.plan_pairs import compare_plans, plan_scorer, scene_of
from reward_models.relative import RelativeConfig, RelativeReward, advantage, auc
from reward_models.teachers import Teacher
from safety import envs
from safety.dynamics import POINT
from safety.scene import KIND_ID, Scene

ENV = "SafetyPointGoal1-v0"
ROWS = PlanRows(dense=3, strided=2, stride=4)


def scene():
    return Scene(
        state=np.array([0.4, -0.2, 0.7, 0.5, 0.1, 0.3]),
        positions=np.array([[1.4, 0.2], [0.5, -0.9]]),
        velocities=np.array([[0.0, 0.0], [0.2, 0.1]]),
        kinds=np.array([KIND_ID["goal"], KIND_ID["hazards"]]),
        radii=np.array([0.3, 0.2]),
        sigma=np.zeros(2),
    )


def situation(of):
    made = SceneEncoder(envs.spec(ENV), FeatureConfig()).encode(of, np.zeros(2))
    return {
        "ego": torch.from_numpy(made.ego)[None],
        "tokens": torch.from_numpy(made.tokens)[None],
        "token_mask": torch.from_numpy(made.mask)[None],
        "goal": torch.zeros(1, 32),
    }


def relative(**options):
    values = {"environments": (ENV,), "rows": (3, 2, 4), "ego_dim": 15, "token_dim": 22, "goal_dim": 32} | options
    return RelativeReward(RelativeConfig(horizon=5, dim=2, width=8, depth=1, **values))


def test_a_relative_reward_judges_the_rows_that_a_plan_came_from():
    reward = relative()
    score = RelativePlanScore(reward, envs.spec(ENV), POINT)
    given = situation(scene())
    commands = torch.rand(4, 5, 2, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    actions = POINT.command(ROWS.expand(commands)).requires_grad_(True)
    ours = score.at(given)(scene(), torch.zeros(4, ROWS.span, 6), actions)
    assert torch.allclose(ours, reward.reward(commands, given), atol=1e-5)
    (gradient,) = torch.autograd.grad(ours.sum(), actions)
    assert gradient.abs().sum() > 0
    with pytest.raises(ValueError, match="needs the situation"):
        score(scene(), torch.zeros(4, ROWS.span, 6), actions)
    assert Preference(score=score).at(given).score._encoded is not None


def test_a_relative_reward_refuses_what_it_was_not_fitted_for():
    with pytest.raises(ValueError, match="cannot judge SafetyCarGoal1-v0"):
        RelativePlanScore(relative(), envs.spec("SafetyCarGoal1-v0"), POINT)
    with pytest.raises(ValueError, match="rows"):
        RelativePlanScore(relative(rows=None), envs.spec(ENV), POINT)


def test_where_a_relative_reward_belongs_is_saved_with_it(tmp_path):
    reward = relative()
    reward.save_pretrained(tmp_path)
    again = RelativeReward.from_pretrained(tmp_path)
    assert again.config.environments == (ENV,)
    assert again.config.rows == (3, 2, 4)
    plans = torch.ones(1, 5, 2)
    given = situation(scene())
    assert torch.equal(again.reward(plans, given), reward.reward(plans, given))


def test_the_advantage_gives_all_situations_one_zero():
    reward = relative()
    planners = [GaussianPlanner(mean, 1e-4) for mean in (-0.5, 0.5)]
    for planner in planners:
        planner.context = lambda ego, **rest: type("Encoded", (), {"context": torch.zeros(len(ego), 1)})()
    given = situation(scene())
    plans = torch.full((1, 5, 2), 0.2)
    ours = advantage(reward, plans, given, planners, generator=torch.Generator().manual_seed(0), steps=10)
    at = [float(reward.reward(torch.full((1, 5, 2), mean), given)) for mean in (0.2, -0.5, 0.5)]
    assert float(ours) == pytest.approx(at[0] - (at[1] + at[2]) / 2, abs=2e-2 * (abs(at[1] - at[2]) + 0.1))


def test_transport_moves_the_base_planners_estimate_onto_the_experts():
    """Two Gaussians with their closed-form denoisers, and the rho that belongs to them: log p_expert / p_base."""
    means, std = (-0.2, 0.4), 0.3
    base, expert = (GaussianPlanner(mean, std) for mean in means)
    reward = relative(environments=(), ego_dim=0, token_dim=0, goal_dim=0)
    variance = reward.alpha**2 * std**2 + reward.sigma**2

    def rho(x, t, encoded=None):
        gain = (reward.sigma * reward.alpha * (means[1] - means[0]) / variance)[t][:, None, None]
        return (gain * x).sum((1, 2))

    reward.forward = rho
    for t in (60, 300, 800):
        clean = torch.full((1, 5, 2), 0.1)
        x, clock = reward.alpha[t] * clean, torch.tensor([t])
        before, wanted = (planner.denoise(x, clock, None) for planner in (base, expert))
        moved = apply_guide(reward.transport(None), before, t, float(reward.sigma[t]))
        assert torch.allclose(moved, wanted, atol=1e-4)
    assert torch.equal(apply_guide(reward.transport(None), before, 950, 1.0), before)


def test_a_relative_reward_begins_with_the_experts_way_to_read_a_situation():
    sizes = {"horizon": 5, "dim": 2, "ego_dim": 15, "token_dim": 22, "goal_dim": 32}
    network = {"denoiser_options": {"width": 16, "blocks": 1}, "tokens_options": {"width": 16}}
    expert = TrajectoryDiffusion(**sizes, context_dim=8, **network)
    config = RelativeConfig(**sizes, context_dim=8, tokens_options={"width": 16}, schedule=expert.schedule.to_dict())
    given = situation(scene())
    ours = RelativeReward(config, expert, expert).encode(given)
    assert torch.equal(ours, expert.context(**given).context)


def test_comparisons_of_a_planners_own_plans_follow_the_teacher():
    torch.manual_seed(0)
    network = {"denoiser_options": {"width": 16, "blocks": 1}, "tokens_options": {"width": 16}}
    model = TrajectoryDiffusion(horizon=5, dim=2, ego_dim=15, token_dim=22, goal_dim=32, context_dim=8, **network)
    given = situation(scene())
    many = {name: value.repeat(12, *[1] * (value.ndim - 1)) for name, value in given.items()}
    found = compare_plans(
        model,
        many,
        goal_seeking_plan,
        Teacher(beta=float("inf")),
        spec=envs.spec(ENV),
        rows=ROWS,
        dynamics=POINT,
        generator=torch.Generator().manual_seed(1),
        rng=np.random.default_rng(1),
        chunk=5,
    )
    assert found.data.first.observations.shape == (12 * ROWS.span, 60)
    assert (found.data.label == (found.score_1 > found.score_2)).all()
    observations, actions = found.data.first.segment(3)
    state = torch.tensor(scene_of(SceneTokens(*(given[n][0].numpy() for n in ("ego", "tokens", "token_mask")))).state)
    assert np.allclose(observations[0, 3:5], state[3:5], atol=1e-5)  # the velocimeter, at the beginning
    assert np.abs(actions[:, 0]).max() <= POINT.saturation[0] + 1e-6


def test_auc_counts_pairs():
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5
    assert auc(np.array([0.0, 2.0]), np.array([1.0])) == 0.5
    with pytest.raises(ValueError, match="both sides"):
        auc(np.array([]), np.array([1.0]))


def test_a_scene_is_read_back_from_its_features():
    true = scene()
    features = SceneEncoder(envs.spec(ENV), FeatureConfig()).encode(true, np.zeros(2))
    ours = scene_of(features)
    assert ours.kinds.tolist() == true.kinds.tolist()
    np.testing.assert_allclose(ours.radii, true.radii, atol=1e-6)
    yaw = true.state[2]
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    np.testing.assert_allclose(ours.positions, (true.positions - true.state[:2]) @ turn.T, atol=1e-6)
    np.testing.assert_allclose(ours.velocities, true.velocities @ turn.T, atol=1e-6)
    np.testing.assert_allclose(ours.state[3:], [*(turn @ true.state[3:5]), true.state[5]], atol=1e-6)


def test_teachers_judge_plans_in_recorded_situations():
    given = situation(scene())
    both = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in given.items()}
    ahead = torch.tensor([1.0, -0.3]).expand(2, 5, 2).clone()
    ahead[1] = -ahead[1]
    worth = plan_scorer(goal_seeking_plan, ROWS, POINT)(ahead, both)
    assert worth[0] > worth[1]
    calm = plan_scorer(partial(unhurried_plan, scale=POINT.saturation), ROWS, POINT)
    full, half = calm(torch.ones(1, 5, 2), given)[0], calm(torch.full((1, 5, 2), 0.5), given)[0]
    assert full == pytest.approx(-2 * ROWS.span)
    assert half == pytest.approx(full / 4)
