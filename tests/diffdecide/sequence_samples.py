"""A point on a line with known answers, for the tests of sequence planning."""

import numpy as np

from diffdecide.data.episode import Episode
from diffdecide.sequence_format import SequenceFormat
from safety.layout import EnvSpec

STEP = 0.1  # how far a full action moves the point
LIMIT = 0.5  # an action of a larger size costs 1
LENGTH = 40
SPEC = EnvSpec("ToyPoint-v0", "toy", 0.1, LENGTH, 1, 2)


def form(**options):
    return SequenceFormat(**({"spec": SPEC, "dense": 4, "strided": 2, "stride": 2, "horizon": 20} | options))


def observe(x):
    """Position, and a constant that carries nothing."""
    return np.array([x, 1.0], dtype=np.float32)


def move(x, action):
    return x + STEP * float(action)


def episode(seed):
    """Drives to the right or left with a taste of its own; the reward is the way to the right."""
    rng = np.random.default_rng(seed)
    taste, x = rng.uniform(-1, 1), rng.uniform(-2, 2)
    actions = np.clip(taste + 0.2 * rng.normal(size=(LENGTH, 1)), -1, 1).astype(np.float32)
    places = [x]
    for action in actions:
        places.append(move(places[-1], action[0]))
    seen = np.stack([observe(place) for place in places])
    last = np.arange(LENGTH) == LENGTH - 1
    return Episode(
        observations=seen[:-1],
        next_observations=seen[1:],
        actions=actions,
        rewards=actions[:, 0],
        costs=(np.abs(actions[:, 0]) > LIMIT).astype(np.float32),
        terminals=np.zeros(LENGTH, dtype=bool),
        timeouts=last,
        metadata={"seed": seed},
    )


def play(planner, *, seed=0, budget=None, steps=LENGTH):
    """Return and cost of an episode of `steps` steps."""
    planner.reset(seed=seed)
    x, seen, done = 0.0, [], []
    total, cost = 0.0, 0.0
    plan, used = None, 0
    for step in range(steps):
        seen.append(observe(x))
        if plan is None or used == planner.config.replan:
            left = None if budget is None else budget - cost
            past = np.array(done, np.float32).reshape(-1, 1)
            plan = planner.plan(np.stack(seen), past, elapsed=used or None, budget=left, steps_left=steps - step)
            used = 0
        action = plan.actions[used]
        used += 1
        x = move(x, action[0])
        total += float(action[0])
        cost += abs(action[0]) > LIMIT
        done.append(action)
    return total, cost
