"""The guard under an environment, and in front of any policy."""

import numpy as np
import pytest

from safety import envs
from safety.guard import GeometricGuard
from safety.wrappers import INFO_KEYS, FilterLog, SafeActionWrapper, SafePolicy

ENV = "SafetyPointGoal1-v0"


@pytest.fixture(scope="module")
def spec():
    return envs.spec(ENV)


def test_a_wrapped_environment_stays_safe_under_an_adversary(spec):
    from safety import truth
    from safety.check_policies import adversarial_action
    from safety.dynamics import dynamics_for

    env = SafeActionWrapper(envs.make(ENV, seed=5), GeometricGuard(spec))
    env.reset(seed=5)
    for _ in range(250):
        action = adversarial_action(dynamics_for("point"), truth.scene(env.env), ("hazards",), walls=False)
        *_, info = env.step(action)
        assert info["cost"] == 0
    summary = env.log.summary()
    assert set(info["filter"]) == set(INFO_KEYS)
    assert summary["interventions"] > 20
    assert summary["cost"] == 0
    env.close()


def test_what_the_filter_did_is_told_and_penalised(spec):
    class Always:
        def reset(self):
            self.count = 0

        def guard(self, observation, action):
            from safety.filters import FilterReport

            self.count += 1
            return FilterReport(np.zeros(2), True, False, 0.5, 0.1, 0.0, "candidate")

    plain, penalised = (SafeActionWrapper(envs.make(ENV, seed=1), Always(), penalty=p) for p in (0.0, 2.0))
    rewards = []
    for env in (plain, penalised):
        env.reset(seed=1)
        _, reward, *_, info = env.step(np.array([1.0, 0.0]))
        rewards.append(reward)
        assert info["executed_action"].tolist() == [0.0, 0.0]
        env.close()
    assert rewards[0] - rewards[1] == pytest.approx(1.0)


def test_blind_steps_brake_and_say_so(spec):
    guard = GeometricGuard(spec)
    env = envs.make(ENV, seed=2)
    observation, _ = env.reset(seed=2)
    guard.reset()
    guard.guard(observation, np.array([0.05, 0.0]))
    report = guard.guard(np.full_like(observation, np.nan), np.array([0.05, 0.0]))
    assert (report.method, report.infeasible, report.intervened) == ("blind", True, True)
    assert np.isfinite(report.action).all()
    again = guard.guard(observation, np.array([0.0, 0.0]))
    assert again.method != "blind"
    env.close()


def test_ground_truth_goes_through_the_same_filter(spec):
    env = envs.make("SafetyPointCircle1-v0", seed=3)
    guard = GeometricGuard(envs.spec("SafetyPointCircle1-v0"), env=env)
    observation, _ = env.reset(seed=3)
    guard.reset()
    report = guard.guard(observation, np.zeros(2))
    assert np.isfinite(report.action).all()
    assert guard.scene is not None
    env.close()


def test_any_callable_can_be_guarded(spec):
    env = envs.make(ENV, seed=4)
    observation, _ = env.reset(seed=4)
    policy = SafePolicy(lambda seen: np.array([0.05, 0.0]), GeometricGuard(spec))
    policy.reset()
    assert policy(observation).action.shape == (2,)
    env.close()


def test_the_log_counts_and_survives_json():
    import json

    from diffdecide.files import jsonable
    from safety.filters import FilterReport

    log = FilterLog()
    log.add(FilterReport(np.zeros(2), False, False, 0.0, float("inf"), 0.0, "pass"), 0.0)
    log.add(FilterReport(np.zeros(2), True, True, 0.4, -0.1, 0.2, "fallback"), 1.0)
    log.end_episode()
    log.end_episode()
    summary = log.summary()
    assert summary["episodes"] == 1
    assert summary["methods"] == {"fallback": 1, "pass": 1}
    assert (summary["interventions"], summary["infeasible"], summary["cost"]) == (1, 1, 1.0)
    json.dumps(jsonable(log.to_dict()), allow_nan=False)


def test_bad_input_is_named(spec):
    env = SafeActionWrapper(envs.make(ENV, seed=0), GeometricGuard(spec))
    with pytest.raises(ValueError, match="call reset"):
        env.step(np.zeros(2))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite action"):
        env.step(np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match="penalty"):
        SafeActionWrapper(env, GeometricGuard(spec), penalty=-1)
    with pytest.raises(ValueError, match="learned filter"):
        GeometricGuard(envs.spec("SafetyHopperVelocity-v1"))
    with pytest.raises(ValueError, match="callable"):
        SafePolicy(3, GeometricGuard(spec))
    env.close()
