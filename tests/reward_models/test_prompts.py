"""Rewards that depend on what was asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from reward_samples import WEIGHTS, episodes, labelled

from diffdecide.app.cli.main import main
from diffdecide.data.readers import read
from diffdecide.data.writers import write_hdf5
from reward_models.config import RewardConfig
from reward_models.model import RewardModel
from reward_models.preference_files import write_preferences
from reward_models.preferences import PreferenceError
from reward_models.prompts import PromptEncoder

FAST, CALM = "hurry up, as fast as you can", "take it easy and stay calm"


def asked(pairs, **options):
    """Half the comparisons ask for the reward, the other half for its opposite."""
    data = labelled(pairs, length=4, **options).data
    calm = np.arange(pairs) % 2 == 1
    prompts = np.where(calm, CALM, FAST).astype(object)
    return replace(data, prompt=prompts, label=np.where(calm, 1 - data.label, data.label))


@pytest.fixture(scope="module")
def encoder():
    return PromptEncoder()


def test_embeddings_are_unit_vectors_that_do_not_depend_on_the_batch(encoder):
    alone = encoder([CALM])
    together = PromptEncoder()([FAST, CALM, FAST, "a much longer text " * 20])
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(alone[0], together[1], atol=1e-5)
    assert np.array_equal(together[0], together[2])
    assert alone[0] @ together[0] < 0.95
    with pytest.raises(PreferenceError, match="prompt: .*row 1"):
        encoder([FAST, " "])


def test_the_command_trains_a_reward_that_follows_its_prompt(tmp_path, capsys):
    data = write_preferences(asked(400), tmp_path / "data.parquet")
    held_out = write_preferences(asked(80, first=50, seed=1), tmp_path / "held_out.parquet")
    folder = tmp_path / "reward"
    words = ["train", "reward", str(data), "--held-out", str(held_out), "--out", str(folder), "--prompts", "minilm"]
    words += ["--members", "1", "--hidden", "32", "--depth", "1", "--steps", "250", "--eval-every", "125"]
    words += ["--batch-size", "64", "--learning-rate", "0.02", "--weight-decay", "0", "--patience", "0"]
    words += ["--no-progress", "--tracker", "None", "--device", "cpu"]
    assert main(words) == 0
    model = RewardModel.from_pretrained(folder)
    assert (model.config.prompt_encoder, model.config.prompt_dim) == ("minilm", 384)
    assert "384 numbers from minilm" in (folder / "README.md").read_text()
    observations = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 300, 4)).astype(np.float32))
    truth = observations[0].numpy() @ WEIGHTS
    for text, sign in ((FAST, 1), (CALM, -1)):
        with torch.no_grad():
            ours = model.predict(observations, torch.zeros(1, 300, 2), prompt=model.embed(text)).reward[0].numpy()
        assert sign * np.corrcoef(ours, truth)[0, 1] > 0.6, text

    # Relabelling needs to be told what was asked for.
    capsys.readouterr()
    source, out = write_hdf5(tmp_path / "episodes.hdf5", episodes(2)), tmp_path / "new.hdf5"
    relabel = ["label", "rewards", str(source), "--reward", str(folder), "--out", str(out)]
    assert main(relabel) == 2
    assert "needs a --prompt" in capsys.readouterr().err
    assert not out.exists()
    assert main([*relabel, "--prompt", CALM]) == 0
    assert np.corrcoef(read(out)[0].rewards, episodes(1)[0].rewards)[0, 1] < -0.5


def test_prompts_that_cannot_work_are_refused():
    options = {"observation_dim": 4, "action_dim": 2}
    with pytest.raises(ValueError, match="linear reward cannot depend on a prompt"):
        RewardConfig(network="linear", prompt_dim=3, **options)
    with pytest.raises(ValueError, match="needs prompt_dim"):
        RewardConfig(prompt_encoder="minilm", **options)
    with pytest.raises(ValueError, match="embeddings of your own"):
        RewardModel(RewardConfig(prompt_dim=3, members=1, **options)).embed("go")
    assert RewardModel(RewardConfig(members=1, **options)).embed("go") is None
