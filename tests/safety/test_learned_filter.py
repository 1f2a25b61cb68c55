"""The learned filter behind a critic whose risk is known."""

import numpy as np
import pytest
import torch

from safety.critics.base import Critic, CriticConfig
from safety.learned_filter import LearnedFilter, LearnedFilterConfig

LOW, HIGH = -np.ones(2), np.ones(2)


class Known(Critic):
    """risk = observation + action[0]: a half-space of actions is safe."""

    kind = "known"

    def __init__(self):
        super().__init__(CriticConfig(observation_dim=1, action_dim=2, hidden=(4,)))

    def risk(self, observation, action):
        return observation[:, 0] + action[:, 0] + 0 * action[:, 1]


def make(threshold=0.0, **options):
    return LearnedFilter(Known(), threshold, LOW, HIGH, generator=np.random.default_rng(0), **options)


def test_safe_actions_pass_untouched():
    report = make().guard(np.array([-0.5]), np.array([0.3, 0.9]))
    assert (report.intervened, report.method) == (False, "pass")
    assert report.action.tolist() == [0.3, 0.9]
    assert report.clearance == pytest.approx(0.2)


@pytest.mark.parametrize("config", [None, LearnedFilterConfig(gradient_steps=0, candidates=400, halvings=12)])
def test_the_nearest_safe_action_is_found(config):
    report = make(config=config).guard(np.array([0.2]), np.array([0.6, 0.4]))
    assert report.intervened
    assert not report.infeasible
    assert report.clearance >= 0
    # The projection onto action[0] <= -0.2.
    tolerance = 0.05 if config is None else 0.25
    assert report.action == pytest.approx(np.array([-0.2, 0.4]), abs=tolerance)
    assert report.delta == pytest.approx(0.8, abs=tolerance)


def test_where_nothing_is_safe_the_backup_acts_and_it_is_said():
    report = make(backup=lambda observation: np.array([-1.0, 0.5])).guard(np.array([3.0]), np.zeros(2))
    assert (report.infeasible, report.method) == (True, "backup")
    assert report.action.tolist() == [-1.0, 0.5]
    least = make().guard(np.array([3.0]), np.zeros(2))
    assert (least.infeasible, least.method) == (True, "fallback")
    assert least.action[0] < -0.9


def test_a_blind_step_is_never_passed_on():
    report = make().guard(np.array([np.nan]), np.array([0.3, 0.9]))
    assert (report.infeasible, report.method) == (True, "blind")
    assert report.action.tolist() == [0.0, 0.0]


def test_the_same_seed_gives_the_same_actions():
    first, again = (make().guard(np.array([0.2]), np.array([0.6, 0.4])).action for _ in range(2))
    assert first.tolist() == again.tolist()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="finite action"):
        make().guard(np.array([0.0]), np.array([np.inf, 0.0]))
    with pytest.raises(ValueError, match="observation of shape"):
        make().guard(np.zeros(4), np.zeros(2))
    with pytest.raises(ValueError, match="below high"):
        LearnedFilter(Known(), 0.0, HIGH, LOW, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match="NaN"):
        make(float("nan"))
    assert torch.is_grad_enabled()


def test_a_quickly_trained_critic_reduces_the_cost_of_a_velocity_task():
    """A swimming gait that breaks the speed limit in two of five steps, behind a critic trained for seconds."""
    from safety import envs
    from safety.critics.feasibility import FeasibilityCritic
    from safety.critics.transitions import Transitions

    env, generator = envs.make("SafetySwimmerVelocity-v1", seed=0), np.random.default_rng(0)

    def gait(step, strength=1.0):
        return strength * np.array([np.sin(0.15 * step), np.sin(0.15 * step - 1.5)])

    def play(seed, policy, steps=250):
        columns = {name: [] for name in ("observations", "next_observations", "actions", "costs", "speed")}
        seen, _ = env.reset(seed=seed)
        for step in range(steps):
            action = policy(step, seen)
            after, _, _, _, info = env.step(action)
            row = (seen, after, action, info["cost"], info["constraints"]["speed"])
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            seen = after
        arrays = {name: np.array(values) for name, values in columns.items()}
        return {**arrays, "terminals": np.zeros(steps), "constraints": {"speed": arrays.pop("speed")}}

    def exploring(number):
        strength, held = generator.uniform(), np.zeros(2)

        def act(step, seen):
            nonlocal held
            if step % (5 + number) == 0:
                held = strength * generator.uniform(-1, 1, 2)
            steady = gait(step, strength) + 0.5 * held if number % 3 == 0 else held
            return np.clip(steady + 0.2 * generator.standard_normal(2), -1, 1)

        return act

    data = Transitions.of_episodes([play(1000 + number, exploring(number)) for number in range(24)])
    critic = FeasibilityCritic(
        CriticConfig(observation_dim=8, action_dim=2, hidden=(64, 64), gamma=0.9, target_rate=0.05)
    )
    critic.set_normaliser(data.observation, data.action, data.cost)
    optimizer = torch.optim.Adam([p for p in critic.parameters() if p.requires_grad], lr=2e-3)
    order = torch.Generator().manual_seed(0)
    critic.train()
    for _ in range(500):
        rows = torch.randint(len(data), (256,), generator=order).tolist()
        loss = critic.loss(data.__getitems__(rows), order)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shield = LearnedFilter(critic, 0.0, LOW, HIGH, generator=np.random.default_rng(0))
    free = play(5000, lambda step, seen: gait(step))["costs"].sum()
    held = play(5000, lambda step, seen: shield.guard(seen, gait(step)).action)["costs"].sum()
    env.close()
    assert free > 80
    assert held < 0.5 * free
