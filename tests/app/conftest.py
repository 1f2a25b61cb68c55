"""Small real models for the tests of the roof: how they drive is not asked, so they are not trained."""

import pytest
import torch

ENVIRONMENTS = ("SafetyPointGoal1-v0", "SafetyPointZones1-v0")


@pytest.fixture(scope="session")
def small_planner(tmp_path_factory):
    """Folder of an untrained diffusion planner for the Point's tasks."""
    from diffdecide.data.windows import WindowStatistics
    from diffdecide.diffusion import TrajectoryDiffusion
    from diffdecide.features import FeatureConfig
    from diffdecide.plan import PlanRows
    from diffdecide.planner import Planner
    from diffdecide.planner_config import PlannerConfig
    from lm_bridge.goals import GoalSpace

    torch.manual_seed(0)
    rows = PlanRows(dense=4, strided=2, stride=4)
    model = TrajectoryDiffusion(
        horizon=rows.rows,
        dim=2,
        ego_dim=15,
        token_dim=22,
        goal_dim=32,
        context_dim=16,
        denoiser_options={"width": 32, "blocks": 1},
        tokens_options={"width": 16, "pointer_features": [10, 22]},
    )
    config = PlannerConfig(
        agent="point",
        environments=ENVIRONMENTS,
        goal_space=GoalSpace().fingerprint,
        rows=rows,
        features=FeatureConfig(),
        candidates=4,
        steps=2,
        return_target=None,
        budget=None,
    )
    folder = tmp_path_factory.mktemp("planner")
    Planner(model, config, WindowStatistics(2)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_cloned(tmp_path_factory):
    """Folder of an untrained cloned policy for the Point's tasks."""
    from diffdecide.cloning import BehaviourCloning, CloningConfig, CloningPlanner
    from diffdecide.plan import PlanRows
    from lm_bridge.goals import GoalSpace

    torch.manual_seed(0)
    rows = PlanRows(dense=4, strided=2, stride=4)
    model = BehaviourCloning(
        horizon=rows.rows, dim=2, ego_dim=15, token_dim=22, goal_dim=32, context_dim=16, width=16, layers=1
    )
    config = CloningConfig(agent="point", environments=ENVIRONMENTS, goal_space=GoalSpace().fingerprint, rows=rows)
    folder = tmp_path_factory.mktemp("cloned")
    CloningPlanner(model, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bridge():
    """The embedded language bridge."""
    from diffdecide.app.embedded import bridge_folder
    from lm_bridge.bridge import Bridge

    if not (bridge_folder("default") / "bridge.safetensors").is_file():
        pytest.skip("this checkout has no embedded language bridge yet")
    return Bridge.from_pretrained(bridge_folder("default"))


@pytest.fixture
def bridge_once(bridge, monkeypatch):
    """Loading the embedded bridge again gives the one that is loaded already: a second saved per test."""
    from diffdecide.app.embedded import bridge_folder
    from lm_bridge.bridge import Bridge

    load = Bridge.from_pretrained
    embedded = bridge_folder("default")
    monkeypatch.setattr(Bridge, "from_pretrained", lambda folder: bridge if folder == embedded else load(folder))
    return bridge
