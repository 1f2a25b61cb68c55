"""Behaviour cloning: it learns what it is shown, masks count, and it survives being saved."""

import numpy as np
import pytest
import torch
from planner_samples import ENV, GOAL, ROWS, scene, tokens

from diffdecide.cloning import BehaviourCloning, CloningConfig, CloningPlanner


def network(**options):
    torch.manual_seed(0)
    sizes = {"horizon": ROWS.rows, "dim": 2, "ego_dim": 15, "token_dim": 22, "goal_dim": 32}
    return BehaviourCloning(**sizes, **({"context_dim": 16, "width": 32, "layers": 2} | options))


def batch(size=6):
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(size, 12, dtype=torch.bool)
    mask[:, 5:] = False
    return {
        "trajectory": torch.rand(size, ROWS.rows, 2, generator=generator) * 2 - 1,
        "mask": torch.ones(size, ROWS.rows, dtype=torch.bool),
        "ego": torch.randn(size, 15, generator=generator),
        "tokens": torch.randn(size, 12, 22, generator=generator),
        "token_mask": mask,
        "goal": torch.randn(size, 32, generator=generator),
        "target_index": torch.tensor([0, 1, 2, 3, 4, -1])[:size],
    }


def cloned(**options):
    config = CloningConfig(agent="point", environments=(ENV,), goal_space="x", rows=ROWS)
    return CloningPlanner(network(**options), config)


def test_it_learns_what_it_is_shown():
    model, data = network(width=128).train(), batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(data)
        loss["loss"].backward()
        optimizer.step()
    assert float(loss["error"]) < 0.02
    with torch.no_grad():
        _, logits = model(data["ego"], data["tokens"], data["token_mask"], data["goal"])
    assert (logits.argmax(1)[:5] == data["target_index"][:5]).all()


def test_rows_that_do_not_count_teach_nothing():
    model, data = network(), batch()
    data["mask"][:, 3:] = False
    before = model.loss(data)["loss"]
    data["trajectory"][:, 3:] = 1e3
    torch.testing.assert_close(model.loss(data)["loss"], before)


def test_absent_targets_teach_nothing():
    model, data = network(), batch()
    assert float(model.loss(data)["target"]) > 0
    data["target_index"][:] = 8  # not present
    assert float(model.loss(data)["target"]) == 0


def test_bad_batches_are_named():
    model, data = network(), batch()
    with pytest.raises(ValueError, match="lacks goal; it has"):
        model.loss({key: value for key, value in data.items() if key != "goal"})
    data["trajectory"] = data["trajectory"][:, :3]
    with pytest.raises(ValueError, match=r"trajectory must have shape \[B, 8, 2\]"):
        model.loss(data)


def test_the_plan_is_executable_and_the_same_every_time():
    planner, now = cloned(), scene()
    planner.reset(seed=1)
    plan = planner.plan(now, tokens(now), GOAL, margin=0.03)
    again = planner.plan(now, tokens(now), GOAL, margin=0.03)
    np.testing.assert_array_equal(plan.actions, again.actions)
    assert plan.actions.shape == (ROWS.span, 2)
    np.testing.assert_allclose(plan.states, planner.dynamics.rollout(now.state, plan.actions), atol=1e-4)
    gap = np.linalg.norm(plan.states[:, :2] - now.positions[1], axis=1) - 0.2
    np.testing.assert_allclose(plan.clearance, gap, atol=1e-4)
    assert plan.candidates.shape == (1, ROWS.span, 2)
    empty = scene(hazards=())
    assert np.isinf(planner.plan(empty, tokens(empty), GOAL, margin=0.03).clearance).all()


def test_what_is_saved_is_what_is_loaded(tmp_path):
    planner, now = cloned(), scene()
    planner.save_pretrained(tmp_path, card="# card\n")
    again = CloningPlanner.from_pretrained(tmp_path)
    assert again.config == planner.config
    first = planner.plan(now, tokens(now), GOAL, margin=0.03)
    second = again.plan(now, tokens(now), GOAL, margin=0.03)
    # Memory that lies elsewhere may be summed in another order.
    np.testing.assert_allclose(second.actions, first.actions, atol=1e-6)
    assert (tmp_path / "README.md").read_text() == "# card\n"


def test_strangers_and_damage_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no cloned policy"):
        CloningPlanner.from_pretrained(tmp_path)
    cloned().save_pretrained(tmp_path)
    (tmp_path / "network" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x00" * 32)
    with pytest.raises(ValueError, match="is damaged"):
        CloningPlanner.from_pretrained(tmp_path)
    (tmp_path / "cloning.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        CloningPlanner.from_pretrained(tmp_path)


@pytest.mark.parametrize("wrong", [{"replan": 0}, {"replan": 21}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="replan"):
        CloningConfig(agent="point", environments=(ENV,), goal_space="x", rows=ROWS, **wrong)
