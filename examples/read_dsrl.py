"""Read an offline data set (DSRL, D4RL with costs, Minari or OmniSafe, told apart by content) and look at it.

Without an argument it reads the sample episodes that come with the package.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from diffdecide.app.sample_data import sample_file
from diffdecide.data.ego_motion import poses
from diffdecide.data.readers import read
from safety import envs
from safety.costs import SCORE_RANGES, cvar, normalised_cost, normalised_score


def main(
    path: Annotated[Path | None, tyro.conf.Positional] = None, env: str = "SafetyPointGoal1-v0", limit: float = 25.0
) -> None:
    """Print each episode's return and cost, and the path that the agent's own sensors say it drove.

    Args:
        path: the data set; the sample episodes of ENV where none is given.
        env: the environment that the observations are from.
        limit: cost per episode that counts as safe.
    """
    episodes = read(sample_file(env) if path is None else path)
    spec = envs.spec(env)
    for number, episode in enumerate(episodes):
        total, cost = episode.total_return, episode.total_cost
        line = f"episode {number}: {len(episode)} steps, return {total:6.2f}, cost {cost:g}"
        if spec.layout is not None:
            # No simulator state is in such a file: velocimeter and gyro or magnetometer give the poses.
            track = poses(episode, spec.layout, spec.dt)
            line += f", {np.linalg.norm(np.diff(track[:, :2], axis=0), axis=1).sum():.1f} m driven"
        print(line + f", {'cut off' if episode.is_open else 'timed out' if episode.timeouts[-1] else 'terminated'}")
    returns = np.array([episode.total_return for episode in episodes])
    costs = np.array([episode.total_cost for episode in episodes])
    print(f"mean return {returns.mean():.2f}; cost: mean {costs.mean():.2f}, worst tenth {cvar(costs, 0.1):.2f}")
    print(f"normalised cost at limit {limit:g}: {normalised_cost(costs, limit).mean():.2f} (safe: at most 1)")
    if env.removeprefix("Safety").split("-")[0] in SCORE_RANGES:
        print(f"normalised return, by the constants of DSRL: {normalised_score(env, returns).mean():.2f}")


if __name__ == "__main__":
    tyro.cli(main)
