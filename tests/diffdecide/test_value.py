"""Critics: learning, units, saving."""

import pytest
import torch

from diffdecide.guidance import apply_guide, value_guide
from diffdecide.noise import seeded
from diffdecide.value import StateValue, TrajectoryValue

H, D, E, F, G, K = 4, 2, 3, 5, 4, 3


def build(kind):
    with seeded(0):
        if kind is StateValue:
            return StateValue(E, F, G, 16, 32, {"width": 16})
        return TrajectoryValue(H, D, E, F, G, 16, 32, {"width": 16})


def batch(rows=64):
    source = torch.Generator().manual_seed(0)
    data = {
        "trajectory": torch.rand(rows, H, D, generator=source) * 2 - 1,
        "ego": torch.randn(rows, E, generator=source),
    }
    data |= {"tokens": torch.randn(rows, K, F, generator=source), "token_mask": torch.ones(rows, K, dtype=torch.bool)}
    data["goal"] = torch.randn(rows, G, generator=source)
    data["value_target"] = 20 + 5 * data["ego"][:, 0] + 3 * data["trajectory"].mean((1, 2))
    data["cost_target"] = (10 * data["ego"][:, 1]).clamp_min(0)
    return data


def arguments(kind, data):
    names = ["ego", "tokens", "token_mask", "goal"]
    return [data[name] for name in (["trajectory", *names] if kind is TrajectoryValue else names)]


@pytest.mark.parametrize("kind", [StateValue, TrajectoryValue])
def test_critic_learns_in_the_units_of_the_data(kind):
    critic, data = build(kind), batch()
    critic.set_normaliser(data["value_target"], data["cost_target"])
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        critic.loss(data, torch.Generator())["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        estimate = critic.predict(*arguments(kind, data))
    assert (estimate.value - data["value_target"]).abs().mean() < 1.5
    assert (estimate.cost - data["cost_target"]).abs().mean() < 1.5
    assert (estimate.cost >= 0).all()


@pytest.mark.parametrize("kind", [StateValue, TrajectoryValue])
def test_critic_takes_its_normaliser_along(kind, tmp_path):
    critic, data = build(kind), batch()
    critic.set_normaliser(data["value_target"], data["cost_target"])
    critic.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    before, after = critic.predict(*arguments(kind, data)), loaded.predict(*arguments(kind, data))
    torch.testing.assert_close(before.value, after.value)
    torch.testing.assert_close(before.cost, after.cost)
    assert loaded.target_mean[0].item() == pytest.approx(data["value_target"].mean().item(), rel=1e-4)


def test_constant_targets_are_no_division_by_zero():
    critic, data = build(StateValue), batch()
    data["cost_target"] = torch.zeros(64)
    critic.set_normaliser(data["value_target"], data["cost_target"])
    assert critic.loss(data, torch.Generator())["loss"].isfinite()


def test_one_state_serves_many_plans():
    critic, data = build(TrajectoryValue), batch()
    one = [data[name][:1] for name in ("ego", "tokens", "token_mask", "goal")]
    many = [tensor.expand(64, *tensor.shape[1:]) for tensor in one]
    torch.testing.assert_close(
        critic.predict(data["trajectory"], *one).value, critic.predict(data["trajectory"], *many).value
    )


def test_rows_outside_the_mask_do_not_count():
    critic, data = build(TrajectoryValue), batch()
    mask = torch.ones(64, H, dtype=torch.bool)
    mask[:, -1] = False
    spoilt = data["trajectory"].clone()
    spoilt[:, -1] = 7
    state = arguments(StateValue, data)
    torch.testing.assert_close(critic(spoilt, *state, mask=mask), critic(data["trajectory"], *state, mask=mask))


def test_a_critic_guides_plans():
    critic, data = build(TrajectoryValue), batch(8)
    context = critic.encode(*arguments(StateValue, data)).detach()

    def value(plan):
        return critic.judge(plan, context)[:, 0]

    moved = apply_guide(value_guide(value, 0.05), data["trajectory"], 0, 1.0)
    assert (value(moved) > value(data["trajectory"])).all()


def test_bad_input_is_named():
    critic, data = build(TrajectoryValue), batch()
    with pytest.raises(ValueError, match="trajectory must be"):
        critic.judge(torch.zeros(2, H, D + 1), torch.zeros(1, 16))
    with pytest.raises(ValueError, match="context must have"):
        critic.judge(torch.zeros(2, H, D), torch.zeros(3, 16))
    with pytest.raises(ValueError, match="lacks 'cost_target'"):
        critic.loss({name: tensor for name, tensor in data.items() if name != "cost_target"}, torch.Generator())
    with pytest.raises(ValueError, match="must be finite"):
        critic.set_normaliser(torch.tensor([float("nan")]), torch.zeros(1))
    with pytest.raises(ValueError, match="N > 0"):
        critic.set_normaliser(torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match="hidden must be at least 1"):
        StateValue(E, F, G, hidden=0)
