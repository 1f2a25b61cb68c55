"""The environments' interface: five values, constant info, seeds, refusals."""

import pickle
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from safety import envs, truth
from safety._rendering import can_draw
from safety.layout import EnvSpec, ObservationLayout

FAMILIES = ("Point", "Car", "Racecar", "Doggo", "Ant", "Velocity")


def ids_of(family):
    if family == "Velocity":
        return [i for i in envs.available_ids() if "Velocity" in i]
    return [i for i in envs.available_ids() if i.startswith(f"Safety{family}") and "Velocity" not in i]


def structure(info):
    return {key: structure(value) if isinstance(value, dict) else type(value) for key, value in info.items()}


def test_the_families_cover_every_id():
    assert sorted(i for family in FAMILIES for i in ids_of(family)) == list(envs.available_ids())
    assert len(envs.available_ids()) == 122 + 2  # all that are registered without camera or keyboard, and our two


@pytest.mark.parametrize("family", FAMILIES)
def test_every_environment_runs(family):
    for env_id in ids_of(family):
        env = envs.make(env_id, seed=1)
        observation, info = env.reset()
        assert env.observation_space.contains(observation), env_id
        assert info["cost"] == 0.0, env_id
        expected = structure(info)
        env.action_space.seed(0)
        for _ in range(2):
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            assert env.observation_space.contains(observation), env_id
            assert type(reward) is float, env_id
            assert type(terminated) is bool, env_id
            assert type(truncated) is bool, env_id
            assert structure(info) == expected, env_id
            assert type(info["cost"]) is float
            assert all(np.isfinite(list(info["constraints"].values())))
        env.close()


@pytest.mark.parametrize(
    "env_id", ["SafetyPointGoal1-v0", "SafetyCarButton1-v0", "SafetyPointCircle1-v0", "SafetySwimmerVelocity-v1"]
)
def test_seeds_reproduce(env_id):
    def trace(env, **reset):
        generator = np.random.default_rng(0)
        observations = [env.reset(**reset)[0]]
        for _ in range(30):
            action = generator.uniform(env.action_space.low, env.action_space.high)
            observations.append(env.step(action)[0])
        return np.array(observations)

    first = envs.make(env_id, seed=5)
    assert np.array_equal(trace(first), trace(envs.make(env_id), seed=5))
    later = trace(first)
    assert not np.array_equal(later, trace(first, seed=5))
    assert np.array_equal(trace(first), later)  # a seeded reset starts the stream anew: the second layout comes again


def test_seeding_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    envs.make("SafetyPointGoal1-v0").reset()
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_an_unseeded_environment_differs_each_time():
    layouts = [envs.make("SafetyPointGoal1-v0").reset()[0] for _ in range(2)]
    assert not np.array_equal(*layouts)


@pytest.mark.parametrize("env_id", ["SafetyPointGoal1-v0", "SafetyHopperVelocity-v1"])
def test_bad_actions_are_refused(env_id):
    env = envs.make(env_id, seed=0)
    good = np.zeros(env.action_space.shape)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(good)
    env.reset()
    with pytest.raises(ValueError, match="must be finite"):
        env.step(np.full_like(good, np.nan))
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(9))
    env.step(good.tolist())  # anything that converts is taken


def test_an_episode_ends_by_truncation():
    env = envs.make("SafetyPointCircle1-v0", seed=0)
    env.reset()
    ends = [env.step(np.zeros(2))[2:4] for _ in range(500)]
    assert ends[:-1] == [(False, False)] * 499
    assert ends[-1] == (False, True)
    with pytest.raises(RuntimeError, match="over"):
        env.step(np.zeros(2))


def test_unknown_environments_are_refused_with_the_nearest_names():
    with pytest.raises(ValueError, match=r"unknown environment 'SafetyPointGaol1-v0'.*SafetyPointGoal1-v0"):
        envs.make("SafetyPointGaol1-v0")
    for nonsense in ("", "CartPole-v1", "SafetyPointGoal1", "SafetyPointGoal1Gymnasium-v0"):
        with pytest.raises(ValueError, match="unknown environment"):
            envs.make(nonsense)
        with pytest.raises(ValueError, match="unknown environment"):
            envs.spec(nonsense)
    with pytest.raises(ValueError, match="render_mode"):
        envs.make("SafetyPointGoal1-v0", render_mode="ascii")


def test_every_unavailable_id_says_why():
    unavailable = envs.unavailable_ids()
    assert not set(unavailable) & set(envs.available_ids())
    for env_id, reason in unavailable.items():
        with pytest.raises(ValueError, match=env_id):
            envs.make(env_id)
        assert len(reason) > 20
    assert "camera" in unavailable["SafetyPointGoal1Vision-v0"]


@pytest.mark.parametrize(
    ("env_id", "dt", "observation_dim", "lidars"),
    [
        ("SafetyPointGoal1-v0", 0.02, 60, ("goal", "hazards", "vases")),
        ("SafetyCarGoal1-v0", 0.04, 72, ("goal", "hazards", "vases")),
        ("SafetyPointButton1-v0", 0.02, 76, ("buttons", "goal", "hazards", "gremlins")),
        ("SafetyPointPush1-v0", 0.02, 76, ("goal", "hazards", "pillars", "push_box")),
        ("SafetyPointCircle1-v0", 0.02, 28, ("circle",)),
    ],
)
def test_specs(env_id, dt, observation_dim, lidars):
    spec = envs.spec(env_id)
    assert spec.dt == pytest.approx(dt)
    assert spec.observation_dim == observation_dim == spec.layout.size
    assert spec.layout.lidar_kinds == lidars
    assert EnvSpec.from_dict(spec.to_dict()) == spec
    observation, _ = envs.make(env_id, seed=0).reset()
    assert spec.layout.read(observation, "velocimeter").shape == (3,)
    assert np.abs(spec.layout.read(observation, "magnetometer")).sum() > 0
    if "hazards" in lidars:
        assert spec.layout.read(observation, "hazards_lidar").max() > 0
        assert spec.radii["hazards"] == (0.3 if "Push" in env_id else 0.2)
    with pytest.raises(ValueError, match="no sensor 'sonar'"):
        spec.layout["sonar"]
    with pytest.raises(ValueError, match="length"):
        spec.layout.read(observation[:-1], "gyro")


def test_velocity_specs_have_no_layout():
    spec = envs.spec("SafetyHalfCheetahVelocity-v1")
    assert (spec.agent, spec.layout, spec.lidar_max_dist) == ("half_cheetah", None, None)
    assert EnvSpec.from_dict(spec.to_dict()) == spec


def test_bad_layouts_are_refused():
    with pytest.raises(ValueError, match="expected it to start at 3"):
        ObservationLayout({"gyro": (0, 3), "goal_lidar": (4, 20)})
    with pytest.raises(ValueError, match="dt"):
        EnvSpec("x", "point", 0.0, 1, 1, 1)
    with pytest.raises(ValueError, match="layout covers"):
        EnvSpec("x", "point", 0.1, 1, 1, 4, ObservationLayout({"gyro": (0, 3)}))


@pytest.mark.parametrize("workers", [False, True])
def test_vector_environments_match_single_ones(workers):
    vector = envs.make_vector("SafetyPointGoal1-v0", 2, seed=10, workers=workers)
    singles = [envs.make("SafetyPointGoal1-v0", seed=10 + index) for index in range(2)]
    try:
        observations, _ = vector.reset()
        assert np.array_equal(observations, [env.reset()[0] for env in singles])
        actions = np.array([[1.0, 0.2], [-0.5, 1.0]])
        observations, rewards, *_, infos = vector.step(actions)
        steps = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        assert np.array_equal(observations, [step[0] for step in steps])
        assert rewards.tolist() == [step[1] for step in steps]
        assert infos["cost"].tolist() == [step[4]["cost"] for step in steps]
    finally:
        vector.close()


def test_vector_environments_check_their_arguments():
    with pytest.raises(ValueError, match="num_envs"):
        envs.make_vector("SafetyPointGoal1-v0", 0)
    with pytest.raises(ValueError, match="unknown environment"):
        envs.make_vector("SafetyPointGaol1-v0", 2)


@pytest.mark.parametrize("env_id", ["SafetyPointGoal1-v0", "SafetyCarCircle2-v0", "SafetyPointRun0-v0"])
def test_plans_are_drawn_without_graphics(env_id):
    env = envs.make(env_id, seed=0, render_mode="rgb_array")
    with pytest.raises(RuntimeError, match="reset"):
        env.render()
    env.reset()
    picture = env.render()
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    assert (picture.max(axis=-1) < 80).any()  # the agent
    for _ in range(30):
        env.step(np.array([1.0, 0.5]))
    assert not np.array_equal(picture, env.render())


def test_what_cannot_be_drawn_says_so():
    plain = envs.make("SafetyPointGoal1-v0", seed=0)
    plain.reset()
    with pytest.raises(RuntimeError, match="render_mode"):
        plain.render()
    robot = envs.make("SafetyHopperVelocity-v1", render_mode="rgb_array")
    robot.reset()
    if can_draw():
        assert robot.render().ndim == 3
    else:
        with pytest.raises(RuntimeError, match="MUJOCO_GL"):
            robot.render()


def test_the_import_names_one_command_where_the_simulator_is_missing():
    code = "import sys; sys.modules['safety_gymnasium'] = None\nimport safety.envs"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "pip install --no-deps -r requirements-sim.txt" in done.stderr


def test_importing_safety_loads_no_simulator():
    code = "import sys, safety, safety.layout, safety.truth; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_truth_is_the_simulators_state():
    env = envs.make("SafetyPointButton1-v0", seed=0)
    with pytest.raises(ValueError, match="reset"):
        truth.scene(env)
    env.reset()
    for _ in range(40):
        env.step(np.array([1.0, 0.3]))
    scene, task = truth.scene(env), env.unwrapped.task
    assert np.allclose(scene.state[:2], task.agent.pos[:2])
    assert np.allclose(scene.state[3:5], task.agent.vel[:2])
    assert np.linalg.norm(scene.state[3:5]) > 0.1
    assert scene.state[5] == pytest.approx(task.agent.get_sensor("gyro")[2], abs=1e-6)
    assert np.allclose(scene.positions[scene.of_kind("hazards")], np.array(task.hazards.pos)[:, :2])
    gremlins = scene.of_kind("gremlins")
    before = scene.positions[gremlins]
    env.step(np.zeros(2))
    moved = (truth.scene(env).positions[gremlins] - before) / 0.02
    assert np.allclose(moved, scene.velocities[gremlins], atol=0.02)
    assert np.abs(scene.velocities[scene.of_kind("hazards", "buttons")]).max() == 0
    with pytest.raises(ValueError, match="velocity tasks"):
        truth.scene(envs.make("SafetyHopperVelocity-v1"))


def test_clearances_and_costs_agree():
    env = envs.make("SafetyPointGoal1-v0", seed=3)
    env.reset()
    costs = 0
    for _ in range(300):  # straight into a hazard, and about in it
        scene = truth.scene(env)
        away = scene.positions[scene.of_kind("hazards")[4]] - scene.state[:2]
        turn = np.arctan2(away[1], away[0]) - scene.state[2]
        *_, info = env.step(np.array([0.5, np.sin(turn)]))
        assert (min(info["constraints"].values()) < 0) == (info["cost"] > 0)
        assert info["costs"] == {"hazards": info["cost"]}
        costs += info["cost"]
    assert 0 < costs < 300
    scene = truth.scene(env)
    distance = np.linalg.norm(scene.positions[scene.of_kind("hazards")] - scene.state[:2], axis=1)
    assert np.allclose(list(info["constraints"].values()), distance - 0.2)


@pytest.mark.parametrize(
    ("env_id", "name", "kind"),
    [("SafetyPointButton1-v0", "gremlin0", "gremlins"), ("SafetyPointGoal2-v0", "vase0", "vases_contact")],
)
def test_clearances_of_solid_objects_vanish_on_contact(env_id, name, kind):
    env = envs.make(env_id, seed=2)
    _, info = env.reset()
    assert info["constraints"][name] > 0
    task = env.unwrapped.task
    joint = f"{name}obj" if name == "gremlin0" else name
    task.data.joint(joint).qpos[:2] = task.agent.pos[:2] + [0.19, 0.0]
    *_, info = env.step(np.zeros(2))
    assert info["constraints"][name] < 0.02
    assert info["costs"][kind] == 1.0
    assert info["cost"] == 1.0


def test_clearance_of_a_pillar_vanishes_on_contact():
    env = envs.make("SafetyCarPush2-v0", seed=2)
    env.reset()
    task = env.unwrapped.task
    task.data.joint("agent").qpos[:2] = task.data.body("pillar0").xpos[:2] + [0.25, 0.0]
    *_, info = env.step(np.zeros(2))
    assert info["constraints"]["pillar0"] < 0.02
    assert info["costs"]["pillars"] == 1.0


def test_clearance_of_the_boundary():
    env = envs.make("SafetyPointCircle2-v0", seed=0)
    env.reset()
    task = env.unwrapped.task
    for _ in range(150):
        *_, info = env.step(np.array([1.0, 0.0]))
        assert info["constraints"]["boundary"] == pytest.approx(1.125 - np.abs(task.agent.pos[:2]).max())
        assert (info["constraints"]["boundary"] < 0) == (info["cost"] > 0)
    assert info["cost"] == 1.0


FAST = ("Goal2", "Button2", "Push2", "Circle2", "FadingHard2", "Run0", "Race2")


@pytest.mark.parametrize("agent", ["Point", "Car", "Doggo"])
@pytest.mark.parametrize("task_name", FAST)
def test_the_fast_path_computes_what_the_released_code_does(agent, task_name):
    env = envs.make(f"Safety{agent}{task_name}-v0", seed=4)
    observation, info = env.reset()
    task = env.unwrapped.task
    generator = np.random.default_rng(1)
    for step in range(25):
        assert np.allclose(observation, task.obs(), atol=1e-9)
        before = task.calculate_cost()
        released = {key.removeprefix("cost_"): float(value > 0) for key, value in before.items()}
        if step:
            for key, value in info["costs"].items():
                assert value == released.get(key, 0.0), key
            assert info["cost"] == released["sum"]
        if step == 12 and task_name in ("Goal2", "FadingHard2"):  # something to be charged for
            task.data.joint("vase0").qpos[:2] = task.agent.pos[:2] + [0.15, 0.0]
        observation, _, terminated, _, info = env.step(generator.uniform(env.action_space.low, env.action_space.high))
        if terminated or info["goal_met"]:
            break


def test_velocity_clearance_and_cost_agree():
    for env_id in ("SafetySwimmerVelocity-v0", "SafetySwimmerVelocity-v1", "SafetyAntVelocity-v1"):
        env = envs.make(env_id, seed=0)
        env.reset()
        env.action_space.seed(0)
        for _ in range(60):
            _, _, terminated, _, info = env.step(env.action_space.sample())
            if terminated:
                env.reset()
            assert (info["constraints"]["speed"] < 0) == (info["cost"] > 0), env_id


def test_gymnasium_make_knows_our_tasks():
    env = gymnasium.make("SafetyPointZones1-v0")
    assert "inside" in env.reset(seed=0)[1]


def test_an_environment_can_be_pickled():
    env = envs.make("SafetyPointZones1-v0", seed=9)
    copy = pickle.loads(pickle.dumps(env))
    assert np.array_equal(env.reset()[0], copy.reset()[0])


def test_gremlins_circle_as_in_the_released_code():
    env, released = (envs.make("SafetyPointButton1-v0", seed=6) for _ in range(2))
    env.reset()
    released.reset()
    for _ in range(20):
        env.step(np.array([0.3, 0.2]))
        released.unwrapped.task.simulation_forward(np.array([0.3, 0.2]))
    assert np.array_equal(env.unwrapped.task.data.qpos, released.unwrapped.task.data.qpos)
