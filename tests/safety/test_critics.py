"""Critics on small worlds whose values are known."""

import numpy as np
import pytest
import torch

from safety.critics.base import CriticConfig
from safety.critics.expected import ExpectedCostCritic
from safety.critics.feasibility import FeasibilityCritic
from safety.critics.quantile import QuantileCostCritic
from safety.critics.storage import CRITICS, critic_class, load_critic
from safety.critics.transitions import Transitions

GAMMA = 0.8


def config(**options):
    return CriticConfig(
        **({"observation_dim": 1, "action_dim": 1, "hidden": (32,), "gamma": GAMMA, "target_rate": 0.1} | options)
    )


def train(critic, data, steps=500, rate=5e-3):
    critic.set_normaliser(data.observation, data.action, data.cost)
    optimizer = torch.optim.Adam([p for p in critic.parameters() if p.requires_grad], lr=rate)
    order = torch.Generator().manual_seed(0)
    critic.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps) + 1e-5
        rows = torch.randint(len(data), (64,), generator=order).tolist()
        loss = critic.loss(data.__getitems__(rows), order)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return critic.eval()


def episode(states, actions, costs, *, terminal=False, constraints=None):
    flags = np.zeros(len(actions))
    flags[-1] = terminal
    return {
        "observations": np.asarray(states[:-1], dtype=np.float32)[:, None],
        "next_observations": np.asarray(states[1:], dtype=np.float32)[:, None],
        "actions": np.asarray(actions, dtype=np.float32)[:, None],
        "costs": np.asarray(costs, dtype=np.float32),
        "terminals": flags,
        **({} if constraints is None else {"constraints": constraints}),
    }


def at(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_a_timeout_is_bootstrapped_and_a_terminal_is_not():
    # World 0 pays 1 for ever and is cut by the clock; world 1 pays 1 once and ends.
    endless = [episode([0] * 6, [0] * 5, [1] * 5) for _ in range(8)]
    ending = [episode([1, 1], [0], [1], terminal=True) for _ in range(40)]
    critic = train(ExpectedCostCritic(config()), Transitions.of_episodes(endless + ending))
    values = critic.risk(at(0, 1), at(0, 0))
    assert values.tolist() == pytest.approx([1 / (1 - GAMMA), 1.0], abs=0.15)
    assert critic.state_risk(at(0, 1)).tolist() == pytest.approx([1 / (1 - GAMMA), 1.0], abs=0.15)


def test_quantiles_are_those_of_a_coin():
    generator = np.random.default_rng(0)
    coins = [episode([0, 0], [0], [float(10 * (generator.random() < 0.3))], terminal=True) for _ in range(2000)]
    critic = train(QuantileCostCritic(config(quantiles=20)), Transitions.of_episodes(coins), steps=800)
    quantiles = critic.quantiles(at(0), at(0))[0].detach()
    assert float(quantiles[:12].abs().max()) < 1.0  # 70 % of the mass at 0
    assert float(quantiles[16:].min()) > 8.5  # 30 % at 10
    assert float(critic.cvar(at(0), at(0), share=1.0)) == pytest.approx(3.0, abs=0.6)
    assert float(critic.cvar(at(0), at(0), share=0.1)) == pytest.approx(10.0, abs=0.7)
    with pytest.raises(ValueError, match="share"):
        critic.cvar(at(0), share=0.0)


def cliff_episodes(count=400, *, binary=False):
    """A walker on a line at speed 0.1 per step, left or right; x > 1 is forbidden, and from 0.9 on it slides."""
    generator = np.random.default_rng(1)
    episodes = []
    for _ in range(count):
        x, states, actions = float(generator.uniform(-1, 1.1)), [], []
        states.append(x)
        for _ in range(10):
            action = float(generator.choice([-1.0, 1.0]))
            x = min(x + 0.1, 1.5) if x > 0.9 else max(x + 0.1 * action, -1.5)
            states.append(x)
            actions.append(action)
        clearance = 1.0 - np.array(states[1:])
        extra = None if binary else {"cliff": clearance}
        episodes.append(episode(states, actions, (clearance < 0).astype(float), constraints=extra))
    return Transitions.of_episodes(episodes)


def test_feasibility_knows_the_point_of_no_return():
    data = cliff_episodes()
    assert data.continuous
    critic = train(FeasibilityCritic(config(gamma=0.95, hidden=(64,), expectile=0.95)), data, steps=1200)
    risk = critic.state_risk(at(-0.5, 0.5, 1.05))
    assert float(risk[0]) < -0.5
    assert float(risk[1]) < -0.1  # it can still turn round, though the data often did not
    assert float(risk[2]) > 0.1
    # At 0.85 one more step to the right is one too many.
    right, left = critic.risk(at(0.85, 0.85), at(1.0, -1.0)).tolist()
    assert right > left
    assert left < 0


def test_without_clearances_the_binary_cost_stands_in():
    data = cliff_episodes(50, binary=True)
    assert not data.continuous
    assert set(data.constraint.tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("kind", sorted(CRITICS))
def test_saved_and_loaded_critics_agree(kind, tmp_path):
    critic = critic_class(kind)(config(observation_dim=3, action_dim=2), seed=3).eval()
    critic.set_normaliser(torch.randn(50, 3), torch.randn(50, 2), torch.ones(50))
    critic.save_pretrained(tmp_path)
    again = load_critic(tmp_path)
    state, action = torch.randn(4, 3), torch.randn(4, 2)
    assert torch.equal(critic.risk(state, action), again.risk(state, action))
    assert again.config == critic.config
    action.requires_grad_(True)
    again.risk(state, action).sum().backward()
    assert bool((action.grad.abs().sum(1) > 0).all())


def test_damaged_and_missing_critics_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no critic"):
        load_critic(tmp_path)
    critic_class("expected")(config()).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="damaged"):
        load_critic(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe a critic"):
        load_critic(tmp_path)
    with pytest.raises(ValueError, match="must be one of"):
        critic_class("oracle")


def test_target_networks_move_in_training_only():
    critic = ExpectedCostCritic(config())
    data = cliff_episodes(2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        critic.state_net.bias1.add_(1.0)
    before = [tensor.clone() for tensor in critic.target_net.tensors()]
    critic.eval().loss(data.__getitems__([0, 1]), generator)
    assert all(torch.equal(a, b) for a, b in zip(before, critic.target_net.tensors(), strict=True))
    critic.train().loss(data.__getitems__([0, 1]), generator)
    assert float((critic.target_net.bias1 - before[3]).mean()) == pytest.approx(0.1, abs=1e-6)


def test_bad_input_is_named():
    good = episode([0, 1], [0], [0])
    with pytest.raises(ValueError, match="at least one episode"):
        Transitions.of_episodes([])
    with pytest.raises(ValueError, match="lacks 'costs'"):
        Transitions.of_episodes([{key: value for key, value in good.items() if key != "costs"}])
    with pytest.raises(ValueError, match="episode 1: actions holds NaN"):
        Transitions.of_episodes([good, good | {"actions": np.array([[np.nan]])}])
    with pytest.raises(ValueError, match="constraint 'c'"):
        Transitions.of_episodes([good | {"constraints": {"c": np.zeros(3)}}])
    with pytest.raises(ValueError, match="gamma"):
        config(gamma=1.0)
    with pytest.raises(ValueError, match=r"observation must be \[B, 1\]"):
        ExpectedCostCritic(config()).risk(torch.zeros(2, 3), torch.zeros(2, 1))
    batch = Transitions.of_episodes([good]).__getitems__([0])
    batch.pop("terminal")
    with pytest.raises(ValueError, match="lacks \\['terminal'\\]"):
        ExpectedCostCritic(config()).loss(batch, torch.Generator())
