"""Bradley-Terry losses, networks, training, calibration, judging and use of reward models."""

import gymnasium
import numpy as np
import pytest
import torch
from reward_samples import WEIGHTS, episode, episodes, labelled

from diffdecide.train import TrainConfig
from reward_models import bradley_terry, judging
from reward_models.batches import PairBatches
from reward_models.calibration import brier, calibration_error, fit_temperature, log_loss
from reward_models.config import RewardConfig
from reward_models.model import RewardModel
from reward_models.preference_files import MappedPreferences, write_preferences
from reward_models.relabel import relabel, step_rewards
from reward_models.train import accuracy, deltas, train_reward
from reward_models.wrapper import LearnedReward


def settings(**changes):
    options = {
        "steps": 100,
        "batch_size": 64,
        "learning_rate": 5e-2,
        "ema_decay": 0.9,
        "warmup_steps": 5,
        "eval_every": 25,
        "checkpoint_every": 0,
        "tracker": None,
        "progress": False,
        "device": "cpu",
    }
    return TrainConfig(**(options | changes))


def config(**changes):
    options = {"observation_dim": 4, "action_dim": 2, "hidden": 16, "depth": 1, "members": 2}
    return RewardConfig(**(options | changes))


def test_losses_agree_with_their_definitions():
    delta, label = torch.tensor([0.7, -1.2]), torch.tensor([1.0, 0.3])
    p = torch.sigmoid(delta)
    plain = -(label * p.log() + (1 - label) * (1 - p).log())
    assert torch.allclose(bradley_terry.bradley_terry_loss(delta, label), plain)
    floor = bradley_terry.probability(delta, noise_floor=0.2)
    assert torch.allclose(floor, 0.8 * p + 0.1)
    margin = bradley_terry.bradley_terry_loss(delta, torch.ones(2), margin=torch.tensor([0.7, 0.0]))
    assert torch.allclose(margin, torch.stack([torch.tensor(2.0).log(), -p[1].log()]))
    half = bradley_terry.bradley_terry_loss(delta, label, smoothing=1.0 - 1e-9)
    assert torch.allclose(half, -0.5 * (p.log() + (1 - p).log()))


@pytest.mark.parametrize("model", [bradley_terry.rao_kupper, bradley_terry.davidson])
def test_tie_models_are_distributions_and_symmetric(model):
    delta = torch.linspace(-3, 3, 7, dtype=torch.float64)
    logs = model(delta, torch.tensor(0.4, dtype=torch.float64))
    assert torch.allclose(sum(log.exp() for log in logs), torch.ones(7, dtype=torch.float64))
    turned = model(-delta, torch.tensor(0.4, dtype=torch.float64))
    assert torch.allclose(logs[0], turned[2])
    assert int(logs[1].argmax()) == 3  # ties are likeliest between equals
    loss = bradley_terry.tie_loss(logs, torch.full((7,), 0.5, dtype=torch.float64))
    assert torch.allclose(loss, -logs[1])


def test_rao_kupper_without_width_is_bradley_terry():
    delta = torch.linspace(-3, 3, 7)
    assert torch.allclose(bradley_terry.rao_kupper(delta, 0.0)[0].exp(), torch.sigmoid(delta))


def batch(model, length=6, rows=5):
    data = labelled(rows, length=length).data
    made = PairBatches(data, members=model.config.members, costs=model.config.cost_head).__getitems__(range(rows))
    if model.config.prompt_dim:
        made["prompt"] = torch.ones(rows, model.config.prompt_dim)
    return made


VARIANTS = [
    {"network": "linear"},
    {"network": "transformer", "hidden": 16, "heads": 2},
    {"cost_head": True},
    {"prompt_dim": 3},
    {"ties": "rao_kupper"},
    {"ties": "davidson", "length": "mean"},
    {"noise_floor": 0.1, "smoothing": 0.1, "bootstrap": False},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda value: "-".join(map(str, value.values())))
def test_every_variant_learns_saves_and_ignores_padding(changes, tmp_path):
    model = RewardModel(config(**changes))
    given = batch(model)
    parts = model.loss(given, torch.Generator())
    parts["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval().save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path)
    prompt = given.get("prompt")
    options = {"prompt": prompt}
    ours = model.predict(given["obs_1"], given["act_1"], given["mask_1"], **options)
    theirs = again.predict(given["obs_1"], given["act_1"], given["mask_1"], **options)
    assert torch.equal(ours.reward, theirs.reward)
    assert ours.std.min() >= 0
    assert (ours.cost is not None) == model.config.cost_head
    assert ours.cost is None or ours.cost.min() >= 0
    # Steps behind the end of a segment must not matter.
    longer = {name: torch.cat([given[name], torch.ones_like(given[name][:, :2])], 1) for name in ("obs_1", "act_1")}
    mask = torch.cat([given["mask_1"], torch.zeros(5, 2, dtype=torch.bool)], 1)
    padded = model.predict(longer["obs_1"], longer["act_1"], mask, **options)
    assert torch.allclose(padded.reward[:, :6], ours.reward, atol=1e-5)
    assert not padded.reward[:, 6:].any()


def test_transformer_weights_and_limits():
    model = RewardModel(config(network="transformer", heads=2, longest=6))
    with pytest.raises(ValueError, match="at most 6 steps"):
        model.predict(torch.zeros(1, 7, 4), torch.zeros(1, 7, 2))


def test_pessimism_takes_the_spread_off():
    given = batch(RewardModel(config()))
    plain, careful = (RewardModel(config(members=3, pessimism=k)).eval() for k in (0.0, 2.0))
    one, two = (m.predict(given["obs_1"], given["act_1"]) for m in (plain, careful))
    assert torch.allclose(two.reward, one.reward - 2 * one.std, atol=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    train, held_out = labelled(800).data, labelled(150, first=50, seed=1).data
    return train_reward(
        config(network="linear", env_id="Test-v0"), train, held_out, output_dir=folder, settings=settings()
    ), folder


def test_training_finds_the_reward_and_writes_a_card(trained):
    result, folder = trained
    test = labelled(1500, first=100, seed=2)
    figures = judging.judge_accuracy(result.model, test)
    assert figures["regret"] < 0.02
    assert figures["accuracy"]["low"] < figures["bayes_accuracy"] + 0.01
    ours = judging.segment_scores(result.model, test.data.first)
    assert judging.correlation(ours, test.score_1).spearman > 0.97
    card = (folder / "README.md").read_text()
    assert result.model.meta["data"] in card
    assert "Test-v0" in card
    again = RewardModel.from_pretrained(folder)
    assert float(again.temperature) == pytest.approx(result.figures["temperature"])
    assert again.meta["comparisons"] == 800


def test_early_stopping_keeps_the_best_weights(tmp_path):
    train, held_out = labelled(12).data, labelled(60, first=50, seed=1).data
    result = train_reward(
        config(hidden=64, members=1),
        train,
        held_out,
        output_dir=tmp_path,
        settings=settings(steps=400, eval_every=10, ema_decay=0.0),
        patience=3,
    )
    assert result.stopped_early
    assert result.best_step < result.steps < 400
    delta, label = deltas(result.model, PairBatches(held_out))
    assert log_loss(delta, label) == pytest.approx(result.figures["log_loss_raw"], rel=1e-4)


def test_a_killed_run_resumes_to_the_same_model(tmp_path):
    train, held_out = labelled(100).data, labelled(30, first=50, seed=1).data
    options = {"settings": settings(steps=20, checkpoint_every=10)}
    whole = train_reward(config(), train, held_out, output_dir=tmp_path / "whole", **options)
    from reward_models import train as module

    class Killed(Exception):
        pass

    original = RewardModel.loss
    calls = iter(range(1000))

    def failing(self, *given):
        if next(calls) == 13:
            raise Killed
        return original(self, *given)

    RewardModel.loss = failing
    try:
        with pytest.raises(Killed):
            module.train_reward(config(), train, held_out, output_dir=tmp_path / "killed", **options)
    finally:
        RewardModel.loss = original
    resumed = train_reward(config(), train, held_out, output_dir=tmp_path / "killed", resume=True, **options)
    theirs = whole.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in resumed.model.state_dict().items())


def test_bootstrap_and_prepared_inputs_do_not_depend_on_the_batch(tmp_path):
    model = RewardModel(config())
    data = labelled(40).data
    plain, ready = PairBatches(data, members=2, seed=3), PairBatches(data, members=2, seed=3, inputs=model.inputs)
    one, two = plain.__getitems__([5, 9]), ready.__getitems__([9])
    assert torch.equal(one["bootstrap"][1], two["bootstrap"][0])
    assert float(plain.__getitems__(range(40))["bootstrap"].mean()) == pytest.approx(1, abs=0.4)
    ours, theirs = model.delta(one)[0][:, 1], model.delta(two)[0][:, 0]
    assert torch.allclose(ours, theirs, atol=1e-6)
    path = write_preferences(data, tmp_path / "data.parquet")
    mapped = PairBatches(MappedPreferences(path, cache=str(tmp_path / "cache")), members=2, seed=3)
    assert torch.equal(mapped.__getitems__([5, 9])["obs_1"], one["obs_1"])


def test_temperature_makes_probabilities_honest():
    rng = np.random.default_rng(0)
    delta = rng.normal(size=20_000) * 2
    label = (rng.uniform(size=20_000) < 1 / (1 + np.exp(-delta))).astype(float)
    assert fit_temperature(3 * delta, label) == pytest.approx(3, rel=0.05)
    p = lambda t: 1 / (1 + np.exp(-3 * delta / t))  # noqa: E731
    assert calibration_error(p(3), label) < 0.02 < calibration_error(p(1), label)
    assert brier(p(3), label) < brier(p(1), label)


def test_a_model_refuses_other_environments_and_damaged_files(trained, tmp_path):
    model = trained[0].model
    with pytest.raises(ValueError, match="trained for Test-v0"):
        model.require_env("Other-v0")
    with pytest.raises(ValueError, match="observations of length 4"):
        model.require_env("Test-v0", 7)
    with pytest.raises(ValueError, match="no reward model"):
        RewardModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="damaged"):
        RewardModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"observations must have shape \[B, T, 4\]"):
        model.predict(torch.zeros(1, 2, 5), torch.zeros(1, 2, 2))
    for bad in ({"members": 0}, {"network": "cnn"}, {"ties": "no"}, {"smoothing": 1.0}, {"rings": ((3, 9),)}):
        with pytest.raises(ValueError, match="RewardConfig"):
            config(**bad)


def test_relabelled_episodes_keep_their_costs(trained):
    model = trained[0].model
    made = episodes(2)
    new = list(relabel(made, model))
    assert np.array_equal(new[0].costs, made[0].costs)
    assert np.corrcoef(new[0].rewards, made[0].rewards)[0, 1] > 0.97
    assert new[0].metadata["true_return"] == pytest.approx(made[0].total_return)
    with pytest.raises(ValueError, match="cannot judge Other-v0"):
        step_rewards(model, episode(0, env_id="Other-v0"))


class Walk(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    env_id = "Test-v0"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=4).astype(np.float32)
        return self.state, {}

    def step(self, action):
        self.state = self.np_random.normal(size=4).astype(np.float32)
        return self.state, 7.0, False, False, {"cost": 1.0}


def test_the_wrapper_pays_the_learned_reward(trained):
    model = trained[0].model
    env = LearnedReward(Walk(), model)
    before, _ = env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(2))
    wanted = model.predict(torch.from_numpy(before)[None, None], torch.zeros(1, 1, 2)).reward.item()
    assert reward == pytest.approx(wanted)
    assert info == {"cost": 1.0, "task_reward": 7.0}


def test_epic_distance_ignores_scale_and_offset():
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(400, 4)), rng.normal(size=(400, 2))
    one = lambda o, a: a @ np.array([1.0, 2.0]) + o[:, 0] * a[:, 0]  # noqa: E731
    distance = lambda other: judging.epic_distance(  # noqa: E731
        one, other, observations, actions, rng=np.random.default_rng(1)
    )
    assert distance(lambda o, a: 3 * one(o, a) + 5) == pytest.approx(0, abs=1e-6)
    assert distance(lambda o, a: -one(o, a)) == pytest.approx(1, abs=1e-6)
    assert 0.2 < distance(lambda o, a: a[:, 0] - a[:, 1]) < 1


def test_best_of_n_is_the_exact_expectation():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=30)
    learned = truth + rng.normal(size=30)
    curve = judging.best_of(learned, truth, [1, 3, 30])
    assert curve[0]["true"] == pytest.approx(truth.mean())
    assert curve[2]["true"] == pytest.approx(truth[learned.argmax()])
    draws = np.array([rng.permutation(30)[:3] for _ in range(20_000)])
    picked = draws[np.arange(len(draws)), learned[draws].argmax(1)]
    assert curve[1]["true"] == pytest.approx(truth[picked].mean(), abs=0.02)
    steered = judging.over_optimisation(lambda s: (1 - s**2, s), [0.0, 1.0])
    assert steered[1] == {"strength": 1.0, "true": 0.0, "learned": 1.0}


def test_accuracy_leaves_ties_out():
    assert accuracy(np.array([1.0, -1.0, 2.0]), np.array([1.0, 0.5, 0.0])) == 0.5
    assert WEIGHTS.shape == (4,)


def test_a_pretrained_backbone_learns_by_adapters_and_saves_its_heads(tmp_path):
    options = {"rank": 2, "layers": [0], "targets": ["query"]}
    model = RewardModel(config(network="lora", members=1, longest=16, lora=options))
    given = batch(model)
    model.loss(given, torch.Generator())["loss"].backward()
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("lora_" in name for name in learned)
    assert all("lora_" in name for name in learned if ".backbone." in name)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in learned:
                parameter.add_(0.05)
    model.eval().save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 1_000_000  # the backbone stays in its package
    again = RewardModel.from_pretrained(tmp_path)
    ours, theirs = (m.predict(given["obs_1"], given["act_1"], given["mask_1"]).reward for m in (model, again))
    assert torch.allclose(ours, theirs, atol=1e-5)
