"""Inverse dynamics on a linear system whose actions are known."""

import pytest
import torch

from diffdecide import noise
from diffdecide.nets.inverse_dynamics import InverseDynamics
from diffdecide.train import TrainConfig, fit

A = torch.tensor([[0.9, 0.2], [-0.1, 0.8]])
B = torch.tensor([[0.1, 0.0], [0.05, 0.2]])


class Linear:
    """Windows of s' = A s + B a: one past row, two future ones; the observation is the state itself."""

    def __init__(self, size=2000, seed=0):
        source = torch.Generator().manual_seed(seed)
        state = torch.rand(size, 2, generator=source) * 2 - 1
        self.first = state
        rows = [torch.cat((state, torch.zeros(size, 2)), -1)]
        for _ in range(2):
            action = torch.rand(size, 2, generator=source) * 2 - 1
            state = state @ A.T + action @ B.T
            rows.append(torch.cat((state, action), -1))
        self.trajectory = torch.stack(rows, 1)
        self.mask = torch.ones(size, 3, dtype=torch.bool)

    def __len__(self):
        return len(self.trajectory)

    def __getitems__(self, indices):
        return {
            "trajectory": self.trajectory[indices],
            "mask": self.mask[indices],
            "ego": torch.zeros(len(indices), 1),
            "tokens": self.first[indices][:, None],
        }


def build(**options):
    with noise.seeded(0):
        return InverseDynamics(1, 2, 2, 2, **({"rows": 2, "width": 64} | options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data, module = Linear(), build()
    module.set_normaliser(data.trajectory, data.mask)
    config = TrainConfig(
        steps=400, batch_size=128, learning_rate=5e-3, warmup_steps=20, ema_decay=0.98,
        device="cpu", tracker=None, progress=False,
    )  # fmt: skip
    fit(module, data, config, output_dir=tmp_path_factory.mktemp("inverse"))
    return module


def test_recovers_the_actions_of_a_linear_system(trained):
    batch = Linear(size=500, seed=1).__getitems__(torch.arange(500))
    with torch.no_grad():
        read = trained.read(batch["ego"], batch["tokens"], batch["trajectory"])
    wanted = batch["trajectory"][:, 1:, 2:]
    assert read.shape == wanted.shape
    assert (read - wanted).square().mean() < 0.02 * wanted.square().mean()


def test_does_not_look_at_the_actions_that_it_shall_find(trained):
    batch = Linear(size=5).__getitems__(torch.arange(5))
    hidden = batch["trajectory"].clone()
    hidden[:, 1:, 2:] = 7.0
    with torch.no_grad():
        seen, unseen = (trained.read(batch["ego"], batch["tokens"], rows) for rows in (batch["trajectory"], hidden))
    assert torch.equal(seen, unseen)


def test_saves_its_normaliser_with_its_weights(trained, tmp_path):
    trained.save_pretrained(tmp_path)
    loaded = InverseDynamics.from_pretrained(tmp_path)
    batch = Linear(size=5).__getitems__(torch.arange(5))
    assert torch.equal(loaded.step_scale, trained.step_scale)
    assert not torch.equal(loaded.step_scale, torch.ones(2, 2))
    with torch.no_grad():
        assert torch.equal(
            *(module.read(batch["ego"], batch["tokens"], batch["trajectory"]) for module in (loaded, trained))
        )


def test_samples_behind_the_end_of_an_episode_do_not_count():
    module, data = build(), Linear(size=8)
    batch = data.__getitems__(torch.arange(8))
    batch["mask"] = batch["mask"].clone()
    batch["mask"][4:, 2] = False
    changed = {**batch, "trajectory": batch["trajectory"].clone()}
    changed["trajectory"][4:] = 100.0
    source = torch.Generator()
    assert torch.equal(module.loss(batch, source)["loss"], module.loss(changed, source)["loss"])


def test_noise_on_the_wanted_states_follows_the_generator():
    module = build(state_noise=0.5)
    batch = Linear(size=8).__getitems__(torch.arange(8))
    losses = [module.loss(batch, torch.Generator().manual_seed(seed))["loss"].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_a_state_that_never_moves_gets_scale_one():
    module = build()
    module.set_normaliser(torch.zeros(4, 3, 4), torch.ones(4, 3, dtype=torch.bool))
    assert torch.equal(module.step_scale, torch.ones(2, 2))


@pytest.mark.parametrize("options", [{"rows": 0}, {"history": 0}, {"width": 0}, {"state_noise": -1.0}])
def test_refuses_bad_sizes(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        build(**options)


def test_names_what_does_not_fit():
    module, batch = build(), Linear(size=4).__getitems__(torch.arange(4))
    source = torch.Generator()
    with pytest.raises(ValueError, match="lacks tokens"):
        module.loss({name: value for name, value in batch.items() if name != "tokens"}, source)
    with pytest.raises(ValueError, match=r"H >= 3, 4\], got \(4, 2, 4\)"):
        module.loss({**batch, "trajectory": batch["trajectory"][:, :2], "mask": batch["mask"][:, :2]}, source)
    with pytest.raises(ValueError, match="tokens must hold 2 values per sample, got 5"):
        module.read(batch["ego"], torch.zeros(4, 1, 5), batch["trajectory"])
    with pytest.raises(ValueError, match="no window with 2 whole rows"):
        module.set_normaliser(batch["trajectory"], torch.zeros(4, 3, dtype=torch.bool))
