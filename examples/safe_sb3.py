"""Put the safety filter under a learner: PPO of Stable-Baselines3 explores, and what it tries costs nothing.

    pip install "stable-baselines3>=2.4,<3" --no-deps
    python examples/safe_sb3.py --steps 2000

The wrapper executes the nearest safe action, reports what it changed, and with `penalty` tells the learner to stay
away from the filter. Nothing of it is special to PPO: any agent that speaks Gymnasium, a language model that names
actions or a person with a joystick can sit in its place.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safety import envs
from safety.guard import GeometricGuard
from safety.wrappers import SafeActionWrapper


def main(argv: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="SafetyPointGoal1-v0")
    parser.add_argument("--steps", type=int, default=2000, help="environment steps of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="filter log, a JSON file for `diffdecide plot`")
    options = parser.parse_args(argv)
    try:
        from stable_baselines3 import PPO
    except ImportError:
        raise SystemExit(
            "this example needs Stable-Baselines3: pip install 'stable-baselines3>=2.4,<3' --no-deps"
        ) from None

    spec = envs.spec(options.env)
    env = SafeActionWrapper(envs.make(options.env, seed=options.seed), GeometricGuard(spec), penalty=0.01)
    learner = PPO("MlpPolicy", env, n_steps=512, batch_size=128, seed=options.seed, device="cpu", verbose=0)
    learner.learn(total_timesteps=options.steps)
    env.log.end_episode()

    summary = env.log.summary()
    print(json.dumps(summary, indent=2))
    if options.out is not None:
        from diffdecide.files import write_json

        write_json(options.out, env.log.to_dict())
    return summary


if __name__ == "__main__":
    main()
