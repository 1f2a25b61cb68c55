"""Training from the command's point of view: a tiny run, its card, and its continuation."""

import json
from pathlib import Path

import pytest
import torch

from lm_bridge.bridge import Bridge
from lm_bridge.encoder import EncoderConfig
from lm_bridge.train import TrainBridgeConfig, train_bridge

SMALL = EncoderConfig(lora_rank=2, lora_layers=(5,), width=32, depth=1, heads=2)


def _config(checkpoint_every: int) -> TrainBridgeConfig:
    return TrainBridgeConfig(
        steps=4, batch_size=4, warmup_steps=1, eval_every=0, eval_sentences=16, checkpoint_every=checkpoint_every,
        device="cpu", mixed_precision="no", progress=False, encoder=SMALL,
    )  # fmt: skip


def test_a_run_leaves_a_bridge_with_card_and_figures_and_resumes_exactly(tmp_path: Path) -> None:
    result, figures = train_bridge(_config(2), tmp_path / "whole")
    assert result.steps == 4
    assert 0.0 <= figures["full"] <= 1.0
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "diffdecide train bridge --steps 4 --batch-size 4 --seed 0" in card
    assert json.loads((tmp_path / "whole" / "figures.json").read_text())["sentences"] == 16
    bridge = Bridge.from_pretrained(tmp_path / "whole")
    assert bridge.training_record["steps"] == 4

    # As if the run had been killed after step 2.
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "checkpoints").mkdir()
    early = tmp_path / "whole" / "checkpoints" / "step_00000002.safetensors"
    (tmp_path / "cut" / "checkpoints" / early.name).write_bytes(early.read_bytes())
    again, _ = train_bridge(_config(2), tmp_path / "cut", resume=True)
    assert again.resumed_from == 2
    state = Bridge.from_pretrained(tmp_path / "cut").model.trained_state()
    for name, tensor in bridge.model.trained_state().items():
        assert torch.equal(tensor, state[name]), name


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="min_confidence"):
        TrainBridgeConfig(min_confidence=1.0)
