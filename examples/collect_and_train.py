"""Collect episodes, train a planner on them, drive with it. Tiny, so that it takes a minute on one core.

The network learns little in so few steps (the ranking of its candidates does most of the driving), but everything
around it is what a real run does.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from diffdecide.app.agent import AgentConfig
from diffdecide.app.agent_policy import PolicyConfig, agent_policy
from diffdecide.app.training import ModelConfig, planner_data, train_planner
from diffdecide.data.collect import CollectConfig, collect
from diffdecide.evaluate import evaluate
from diffdecide.features import FeatureConfig
from diffdecide.plan import PlanRows
from diffdecide.train import TrainConfig
from lm_bridge.goals import GoalSpace


def run(folder: Path, env: str, episodes: int, steps: int, drive: int) -> None:
    """Collect, train and evaluate, everything in `folder`."""
    # 1. A sampling MPC drives on ground truth, with noise, and leaves its plans as labels.
    data = collect(CollectConfig(env=env, out=folder / "episodes.hdf5", episodes=episodes, candidates=150))

    # 2. Observations become scenes and tokens, exactly as the agent will see them; plans become the rows to denoise.
    rows, features, goals = PlanRows(), FeatureConfig(), GoalSpace()
    windows = planner_data([data], rows=rows, features=features, goals=goals)
    print(f"{windows.episodes} episodes, {windows.steps} steps, {len(windows.windows)} windows")

    # 3. One loop trains everything that owns a loss.
    _, result = train_planner(
        windows,
        out=folder / "planner",
        rows=rows,
        features=features,
        goals=goals,
        model=ModelConfig(denoiser="mlp"),
        train=TrainConfig(steps=steps, batch_size=64, warmup_steps=min(20, steps), device="cpu", tracker=None),
    )
    print(f"trained {result.steps} steps in {result.seconds:.0f} s, last loss {result.metrics['loss']:.3f}")

    # 4. The saved planner, with the filter behind it, on a layout that it has not seen.
    config = PolicyConfig(planner=str(folder / "planner"), agent=AgentConfig(margin=0.03))
    outcome = evaluate(env, partial(agent_policy, config), episodes=1, seed=5000, max_steps=drive)
    for record in outcome.episodes:
        print(f"seed {record.seed}: return {record.return_:.1f}, cost {record.cost:g} in {record.length} steps, "
              f"{record.interventions} actions corrected, {record.plan_ms:.1f} ms a plan")  # fmt: skip


def main(
    out: Annotated[Path | None, tyro.conf.Positional] = None,
    env: str = "SafetyPointGoal1-v0",
    episodes: int = 3,
    steps: int = 200,
    drive: int = 300,
) -> None:
    """Collect, train, drive.

    Args:
        out: folder to keep everything in; a temporary one otherwise.
        env: a goal task or a zone task, for the Point or the Car.
        episodes: to collect.
        steps: of training.
        drive: control steps to drive at the end.
    """
    if out is not None:
        run(out, env, episodes, steps, drive)
        return
    with TemporaryDirectory() as folder:
        run(Path(folder), env, episodes, steps, drive)


if __name__ == "__main__":
    tyro.cli(main)
