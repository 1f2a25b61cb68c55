"""A small real planner and scenes for it."""

import numpy as np
import torch

from diffdecide.data.windows import WindowStatistics
from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.features import FeatureConfig, SceneEncoder
from diffdecide.plan import PlanRows
from diffdecide.planner import Planner
from diffdecide.planner_config import PlannerConfig
from safety.envs import spec
from safety.scene import KIND_ID, Scene

ENV = "SafetyPointGoal1-v0"
ROWS = PlanRows(dense=4, strided=4, stride=4)
GOAL = np.zeros(32, dtype=np.float32)


def scene(goal=(1.2, 0.0), hazards=((0.6, 0.05),), state=(0, 0, 0, 0, 0, 0)):
    positions = np.array([goal, *hazards], dtype=float)
    count = len(positions)
    return Scene(
        state=np.array(state, dtype=float),
        positions=positions,
        velocities=np.zeros((count, 2)),
        kinds=np.array([KIND_ID["goal"]] + [KIND_ID["hazards"]] * (count - 1)),
        radii=np.array([0.3] + [0.2] * (count - 1)),
        sigma=np.zeros(count),
    )


def tokens(of):
    return SceneEncoder(spec(ENV), FeatureConfig()).encode(of, np.zeros(2))


def planner(**settings):
    torch.manual_seed(0)
    model = TrajectoryDiffusion(
        horizon=ROWS.rows,
        dim=2,
        ego_dim=15,
        token_dim=22,
        goal_dim=32,
        context_dim=16,
        denoiser_options={"width": 32, "blocks": 1},
        tokens_options={"width": 16, "pointer_features": [10, 22]},
    )
    defaults = {"candidates": 8, "steps": 2, "return_target": None, "budget": None} | settings
    config = PlannerConfig(agent="point", environments=(ENV,), goal_space="x", rows=ROWS, **defaults)
    return Planner(model, config, WindowStatistics(2))
