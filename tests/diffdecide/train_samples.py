"""A tiny real data set and module for the tests of the training loop."""

import torch

from diffdecide import noise
from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.train import TrainConfig

H, D, E, F, G, K = 4, 2, 3, 5, 4, 3


class Plans:
    """Random plans and scenes; `fail_at` raises at that fetch, as a kill would end a run."""

    def __init__(self, size=37, fail_at=None):
        source = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.randn(size, *shape, generator=source)

        self.columns = {
            "trajectory": draw(H, D).clamp(-1, 1),
            "mask": torch.rand(size, H, generator=source) > 0.2,
            "ego": draw(E),
            "tokens": draw(K, F),
            "token_mask": torch.rand(size, K, generator=source) > 0.3,
            "goal": draw(G),
            "target_index": torch.randint(-1, K, (size,), generator=source),
            "return_to_go": draw(),
            "cost_budget": draw(),
            "index": torch.arange(size),
        }
        self.fail_at, self.fetched = fail_at, []

    def __len__(self):
        return len(self.columns["mask"])

    def __getitems__(self, indices):
        if len(self.fetched) == self.fail_at:
            raise InterruptedError("killed")
        self.fetched.append(indices)
        return {name: column[indices] for name, column in self.columns.items()}


class PlansOneByOne:
    """The same data without the fast path."""

    def __init__(self, size=37):
        self.plans = Plans(size)

    def __len__(self):
        return len(self.plans)

    def __getitem__(self, index):
        return {name: column[index] for name, column in self.plans.columns.items()}


def build():
    with noise.seeded(0):
        return TrajectoryDiffusion(
            H, D, E, F, G, 16, "mlp", {"width": 32, "blocks": 1}, {"width": 16}, drop_goal=0.3, target_weight=0.5
        )


def config(**options):
    quiet = {"device": "cpu", "tracker": None, "progress": False}
    return TrainConfig(**({"steps": 12, "batch_size": 8, "warmup_steps": 3, "checkpoint_every": 5} | quiet | options))
