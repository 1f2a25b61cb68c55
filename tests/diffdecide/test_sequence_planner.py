"""The planner without geometry, trained for a moment on a point on a line."""

import dataclasses
import json
import math

import numpy as np
import pytest
import sequence_samples as samples

from diffdecide.app.sequence_training import SequenceTraining, read_episodes, sequence_data, train_sequence
from diffdecide.app.training import ModelConfig
from diffdecide.data.episode import DataError
from diffdecide.data.returns import to_go
from diffdecide.data.writers import write_hdf5
from diffdecide.sequence_format import SequenceFormat
from diffdecide.sequence_planner import SequencePlanner, SequencePlannerConfig
from diffdecide.train import TrainConfig
from safety.layout import EnvSpec, ObservationLayout

SMALL = ModelConfig(denoiser_options={"width": 64, "blocks": 1}, tokens_options={"width": 32}, context_dim=32)
QUICK = TrainConfig(
    steps=200, batch_size=64, learning_rate=2e-3, warmup_steps=20, ema_decay=0.98,
    device="cpu", tracker=None, progress=False, checkpoint_every=0,
)  # fmt: skip
# An observation with the sensors of ego-motion: velocimeter x, y, z, gyro x, y, z.
MOVING = EnvSpec("Moving-v0", "toy", 0.1, 50, 2, 6, ObservationLayout({"velocimeter": (0, 3), "gyro": (3, 6)}))


@pytest.fixture(scope="module")
def data():
    return sequence_data([samples.episode(seed) for seed in range(60)], samples.form())


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("sequence")
    parts = SequenceTraining(critic_steps=120, inverse_steps=350, inverse_rows=2, inverse_noise=0.0)
    train_sequence(data, out=out, train=QUICK, model=SMALL, options=parts, replan=2, candidates=8)
    return out


def load(folder, **settings):
    return SequencePlanner.from_pretrained(folder, **settings)


def past(*places):
    """Observations at places, full actions to the right between them."""
    return np.stack([samples.observe(x) for x in places]), np.ones((len(places) - 1, 1), np.float32)


# ---- what is asked for is what comes -------------------------------------------------------------------------------


def test_asking_for_a_high_return_gets_a_higher_one_than_asking_for_a_low_one(folder):
    high, low = (samples.play(load(folder, return_target=target, budget=None))[0] for target in (1.5, -1.5))
    assert high > 20
    assert low < -10


def test_the_diffusion_model_alone_follows_the_wish(folder):
    planner = load(folder, return_target=1.5, budget=None)
    planner.critic = None
    assert samples.play(planner)[0] > 10
    planner.config = dataclasses.replace(planner.config, return_target=-1.5)
    assert samples.play(planner)[0] < -10


def test_a_small_budget_lowers_the_cost(folder):
    planner = load(folder, return_target=1.0, budget=None)
    free, bound = samples.play(planner, budget=1000.0), samples.play(planner, budget=0.0)
    assert free[1] > 20
    assert bound[1] < 0.2 * free[1]
    assert bound[0] > 0


def test_a_large_budget_is_no_wish_to_spend(folder):
    planner = load(folder, budget=-0.5)
    assert planner._wishes(1000.0)["cost_budget"].item() == -0.5
    assert planner._wishes(0.0)["cost_budget"].item() < -0.5
    assert load(folder, budget=None)._wishes(1000.0)["cost_budget"].item() == 5.0  # where the normaliser clips


def test_no_more_return_is_asked_for_than_the_data_reached_within_the_budget(folder):
    frontier = ((-1.0, -0.5), (-0.5, 0.25), (2.0, 1.0))
    planner = load(folder, return_target=1.0, budget=-0.5, frontier=frontier)
    assert planner._wishes(None)["return_to_go"].item() == 0.25
    assert planner._wishes(1000.0)["return_to_go"].item() == 0.25  # the budget asked for stays -0.5
    assert load(folder, return_target=0.1, budget=-0.5, frontier=frontier)._wishes(None)["return_to_go"].item() == (
        pytest.approx(0.1)
    )
    assert load(folder, return_target=1.0, budget=None, frontier=frontier)._wishes(None)["return_to_go"].item() == 1.0
    assert load(folder, return_target=1.0, budget=-3.0, frontier=frontier)._wishes(None)["return_to_go"].item() == -0.5
    again = SequencePlannerConfig.from_dict(json.loads(json.dumps(planner.config.to_dict())))
    assert again == planner.config
    with pytest.raises(ValueError, match="both rising"):
        load(folder, frontier=((0.0, 1.0), (1.0, 0.5)))


def test_training_keeps_the_frontier_of_the_data(folder):
    frontier = load(folder).config.frontier
    assert frontier
    returns = [reached for _, reached in frontier]
    assert returns == sorted(returns)
    assert returns[-1] == pytest.approx(load(folder).config.return_target, abs=1e-5)


def test_the_critic_prefers_what_pays_and_shuns_what_costs(folder):
    plan = load(folder, return_target=None, candidates=32, warm_share=0.0).plan(*past(0.0))
    assert plan.chosen == plan.scores.argmax() == plan.values.argmax()
    strict = load(folder, return_target=None, candidates=32, warm_share=0.0, cost_penalty=100.0)
    plan = strict.plan(*past(0.0), budget=0.0)
    assert plan.costs[plan.chosen] <= np.quantile(plan.costs, 0.2)


def test_guidance_by_the_critic_raises_the_value(folder):
    plain, guided = (
        load(folder, return_target=None, budget=None, critic_guidance=scale).plan(*past(0.0)).values.mean()
        for scale in (0.0, 0.5)
    )
    assert guided > plain


def test_inverse_dynamics_reads_actions_that_reach_the_planned_states(folder):
    planner = load(folder, actions="inverse", return_target=1.5)
    plan = planner.plan(*past(0.0))
    reached = np.cumsum(samples.STEP * plan.actions[:2, 0])
    # The network was trained for seconds: what matters is that the actions belong to these states.
    np.testing.assert_allclose(reached, plan.states[:2, 0], atol=0.1)
    assert not np.array_equal(plan.actions, load(folder, return_target=1.5).plan(*past(0.0)).actions)


# ---- the past is kept, plans move on -------------------------------------------------------------------------------


def test_the_known_past_is_kept_in_every_candidate(folder):
    planner = load(folder)
    planner.plan(*past(0.4, 0.5, 0.6))
    rows = planner._previous
    np.testing.assert_allclose(rows[:2, 0], [0.5, 0.6], atol=1e-5)
    np.testing.assert_allclose(rows[:2, 2], [1.0, 1.0], atol=1e-5)


def test_only_the_recent_past_counts_and_a_short_one_is_filled_with_rest(folder):
    planner = load(folder)
    plans = []
    for places in ((5.0, 0.4, 0.5, 0.6), (0.4, 0.5, 0.6)):
        planner.reset(seed=3)
        plans.append(planner.plan(*past(*places)).actions)
    np.testing.assert_array_equal(*plans)
    seen, done = planner.config.format.past(*past(0.3))
    np.testing.assert_allclose(seen[:, 0], [0.3, 0.3, 0.3])
    np.testing.assert_array_equal(done, np.zeros((2, 1)))


def test_the_same_seed_gives_the_same_plans_and_another_seed_others(folder):
    planner = load(folder)
    first, again, other = (samples.play(planner, seed=seed, steps=10) for seed in (1, 1, 2))
    assert first == again != other


def test_a_plan_moves_on_with_time():
    form = samples.form(history=1, dense=3, strided=2, stride=2)
    # Rows end at steps 0, 1, 2, 3, 5, 7; the position is ten times the step.
    rows = np.array([[10 * end, 1.0, end] for end in (0, 1, 2, 3, 5, 7)])
    moved = form.shifted(rows, 2)
    np.testing.assert_allclose(moved[:, 0], [20, 30, 40, 50, 70, 70])
    np.testing.assert_allclose(moved[:, 2], [2, 3, 5, 5, 7, 7])
    np.testing.assert_allclose(form.shifted(rows, 0), rows)
    np.testing.assert_allclose(form.shifted(rows, 100)[:, 0], 70)


def test_poses_are_seen_from_the_new_first_step():
    form = SequenceFormat(spec=MOVING, history=1, dense=3, strided=0)
    # Along an arc: 0.1 rad and one metre of arc a step.
    yaw = 0.1 * np.arange(1, 5)
    x, y = 10 * np.sin(yaw), 10 * (1 - np.cos(yaw))
    rows = np.column_stack([x, y, np.cos(yaw), np.sin(yaw), np.zeros((4, 2))])
    moved = form.shifted(rows, 1)
    np.testing.assert_allclose(moved[:3], rows[:3], atol=1e-6)


def test_poses_of_the_past_are_those_of_training():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(13, 6)).astype(np.float32)
    item = samples.Episode(
        arrays[:-1], arrays[1:], rng.uniform(-1, 1, (12, 2)), np.zeros(12), np.zeros(12), np.zeros(12), np.zeros(12)
    )
    form = SequenceFormat(spec=MOVING, history=3, dense=4, strided=0)
    data = sequence_data([item], form)
    for step in (0, 1, 7):
        seen, done = form.past(item.observations[: step + 1], item.actions[:step])
        window = data.windows[step]
        known = data.windows.statistics.trajectory.normalize(form.known_rows(seen, done))
        np.testing.assert_allclose(window["trajectory"][:3], known, atol=1e-5)
        told = form.conditions(seen[None], done[None], data.observation)
        for name in ("ego", "tokens"):
            np.testing.assert_allclose(window[name], told[name][0], atol=1e-6)


# ---- training data -------------------------------------------------------------------------------------------------


def test_windows_carry_the_sums_of_the_current_step(data):
    item = samples.episode(0)
    sums = to_go(item, discount=0.99, horizon=20)
    for step in (0, 5, 39):
        window = data.windows[step]
        assert window["value_target"].item() == pytest.approx(sums.return_to_go[step], abs=1e-3)
        assert window["cost_target"].item() == pytest.approx(sums.cost_to_go[step], abs=1e-3)
        assert window["weight"] == 1
    assert data.windows[40]["weight"] == 0  # its current step lies behind the end


def test_a_budget_is_spread_over_the_steps_that_are_left(folder):
    planner = load(folder)
    counted = planner.config.format.counted_steps
    assert counted == pytest.approx(sum(0.99**k for k in range(20)))
    assert planner.plan(*past(0.0), budget=10.0, steps_left=100).allowed == pytest.approx(10 * counted / 100)
    assert planner.plan(*past(0.0), budget=10.0, steps_left=3).allowed == 10.0
    assert planner.plan(*past(0.0), budget=-4.0, steps_left=100).allowed == 0.0
    assert math.isinf(samples.form(conditioning="end").counted_steps)


def test_episodes_name_their_environment_or_the_file_does(tmp_path):
    plain = tmp_path / "some.hdf5"
    write_hdf5(plain, [samples.episode(0)])
    with pytest.raises(DataError, match="give --env"):
        read_episodes([plain])
    named = tmp_path / "SafetyPointGoal1Gymnasium-v0-100-2022.hdf5"
    write_hdf5(named, [samples.episode(0)])
    episodes, spec = read_episodes([named])
    assert (len(episodes), spec.id) == (1, "SafetyPointGoal1-v0")
    with pytest.raises(DataError, match="observations of 60 and actions of 2 values, got 2 and 1"):
        sequence_data(episodes, SequenceFormat(spec=spec))
    told = dataclasses.replace(samples.episode(0), metadata={"sub_goals": [{"index": 0}]})
    write_hdf5(tmp_path / "told.hdf5", [told])
    with pytest.raises(DataError, match="follow instructions"):
        read_episodes([tmp_path / "told.hdf5"], "SafetyPointGoal1-v0")


# ---- saved and loaded, refused -------------------------------------------------------------------------------------


def test_a_saved_planner_plans_the_same(folder, tmp_path):
    planner = load(folder, actions="inverse")
    planner.save_pretrained(tmp_path / "copy", card="# card\n")
    copy = SequencePlanner.from_pretrained(tmp_path / "copy")
    assert copy.config == planner.config
    first, second = (each.plan(*past(0.1, 0.2)) for each in (planner, copy))
    np.testing.assert_array_equal(first.actions, second.actions)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert "ToyPoint" in (folder / "README.md").read_text()


def test_bad_observations_are_named(folder):
    planner = load(folder)
    with pytest.raises(ValueError, match=r"trained for ToyPoint-v0 and expects \[L, 2\].*\(1, 3\)"):
        planner.plan(np.zeros((1, 3)), np.zeros((0, 1)))
    with pytest.raises(ValueError, match=r"actions: expected shape \(1, 1\)"):
        planner.plan(np.zeros((2, 2)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="observations: expected finite values, got nan at row 0, 1"):
        planner.plan(np.array([[0.0, np.nan]]), np.zeros((0, 1)))
    with pytest.raises(ValueError, match="elapsed"):
        planner.plan(*past(0.0), elapsed=0)


def test_bad_folders_and_settings_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match="holds no sequence planner"):
        load(tmp_path)
    with pytest.raises(ValueError, match="unknown settings of a sequence planner: candidate"):
        load(folder, candidate=3)
    planner = load(folder)
    planner.save_pretrained(tmp_path)
    (tmp_path / "statistics.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="missing keys"):
        load(tmp_path)
    planner.save_pretrained(tmp_path)
    (tmp_path / "critic" / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path)


@pytest.mark.parametrize(
    "bad", [{"candidates": 0}, {"replan": 9}, {"warm_share": 1.5}, {"actions": "guess"}, {"cost_penalty": -1.0}]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SequencePlannerConfig(format=samples.form(), **bad)


def test_parts_must_fit_together(folder):
    planner = load(folder)
    parts = (planner.statistics, planner.observation)
    other = dataclasses.replace(planner.config, format=samples.form(dense=6))
    with pytest.raises(ValueError, match="model: expected plans of shape"):
        SequencePlanner(planner.model, other, *parts)
    with pytest.raises(ValueError, match="needs an inverse dynamics model"):
        SequencePlanner(planner.model, dataclasses.replace(planner.config, actions="inverse"), *parts)
    with pytest.raises(ValueError, match="history"):
        samples.form(history=0)
