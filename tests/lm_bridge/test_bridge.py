"""The bridge as a network and as a saved thing: loss, saving, loading, refusals that need no training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffdecide.nets.language_backbone import BackboneError, LoraSettings, add_lora, load_backbone
from lm_bridge.bridge import Bridge, BridgeError
from lm_bridge.encoder import EncoderConfig
from lm_bridge.instructions import InstructionConfig
from lm_bridge.train import InstructionDataset, TrainBridgeConfig, collate
from lm_bridge.validation import score, validation_examples

SMALL = EncoderConfig(lora_rank=2, lora_layers=(5,), width=32, depth=1, heads=2)


@pytest.fixture(scope="module")
def bridge() -> Bridge:
    return Bridge.untrained(SMALL, seed=3)


def _batch(bridge: Bridge, size: int = 8) -> dict[str, torch.Tensor]:
    return InstructionDataset(100, bridge.tokenizer, bridge.space).__getitems__(list(range(size)))


def test_a_few_steps_on_one_batch_lower_every_part_of_the_loss() -> None:
    bridge = Bridge.untrained(SMALL).train()
    batch = _batch(bridge, 4)
    parameters = [p for p in bridge.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    first = bridge.loss(batch)
    for _ in range(12):
        optimizer.zero_grad()
        bridge.loss(batch)["loss"].backward()
        optimizer.step()
    last = bridge.loss(batch)
    assert last["loss"] < 0.7 * first["loss"]
    assert last["embedding"] < first["embedding"]
    assert last["order"] < first["order"]


def test_only_adapter_and_heads_are_trained(bridge: Bridge) -> None:
    names = set(bridge.model.trained_state())
    assert any("lora_A" in name for name in names)
    assert any(name.startswith("heads.") for name in names)
    assert all("lora_" in name or name.startswith("heads.") for name in names)


def test_loss_does_not_depend_on_the_company_in_the_batch(bridge: Bridge) -> None:
    """Sorting by length and padding change nothing."""
    texts = ["go to red", "first go to the green zone and then, when you are there, to the yellow one, carefully"]
    together = bridge.predict(texts)
    for text, logits in zip(texts, together, strict=True):
        (alone,) = bridge.predict([text])
        np.testing.assert_allclose(alone.targets, logits.targets, atol=1e-4)
    batch = _batch(bridge)
    rows = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    shuffled = {name: value[rows] for name, value in batch.items()}
    assert torch.allclose(bridge.loss(batch)["loss"], bridge.loss(shuffled)["loss"], atol=1e-4)


def test_saved_and_loaded_bridges_answer_alike(bridge: Bridge, tmp_path: Path) -> None:
    """The heads travel with the adapter: nothing falls back to fresh weights."""
    with torch.no_grad():
        for parameter in bridge.model.trained_state().values():
            parameter.add_(0.05)  # away from every initial value
    bridge.save_pretrained(tmp_path / "a")
    loaded = Bridge.from_pretrained(tmp_path / "a")
    state = bridge.model.trained_state()
    for name, tensor in loaded.model.trained_state().items():
        assert torch.equal(tensor, state[name].half().float()), name
    loaded.save_pretrained(tmp_path / "b")
    again = Bridge.from_pretrained(tmp_path / "b")
    texts = ["go to red", "stay in the blue zone, never enter green"]
    for one, two, three in zip(*(b.predict(texts) for b in (bridge, loaded, again)), strict=True):
        np.testing.assert_array_equal(two.targets, three.targets)
        np.testing.assert_allclose(one.targets, two.targets, atol=0.05)
    assert loaded.fingerprint == bridge.fingerprint
    first, second = ((tmp_path / name / "bridge.safetensors").read_bytes() for name in "ab")
    assert first == second


def test_broken_folders_are_refused(bridge: Bridge, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(BridgeError, match=r"no config\.json"):
        Bridge.from_pretrained(tmp_path / "nothing")
    folder = tmp_path / "x"
    bridge.save_pretrained(folder)
    weights = folder / "bridge.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BridgeError, match="cannot be used"):
        Bridge.from_pretrained(folder)
    weights.write_bytes(whole)
    state = load_file(weights)
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("heads.kind")}, weights)
    with pytest.raises(BridgeError, match=r"missing heads\.kind"):
        Bridge.from_pretrained(folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace(bridge.fingerprint, "0" * 16))
    with pytest.raises(ValueError, match="goal space"):
        Bridge.from_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        ("  \n\t ", "empty"),
        ("?!... 123", "off_topic"),
        ("go to red " * 200, "too_long"),
        ("a" * 1_000_000, "too_long"),
        ("иди в красную зону", "foreign"),
        ("去红色区域", "foreign"),
    ],
)
def test_refusals_without_a_model(bridge: Bridge, text: str, code: str) -> None:
    said = bridge.understand(text)
    assert said.refused
    assert said.code == code
    assert said.reason
    assert said.spec is None
    assert said.embedding is None
    assert not said.is_goal


def test_wrong_types_raise(bridge: Bridge) -> None:
    with pytest.raises(ValueError, match="NoneType"):
        bridge.understand(None)  # type: ignore[arg-type]


def test_untrained_bridges_decline(bridge: Bridge) -> None:
    assert Bridge.untrained(SMALL).understand("go to red").refused


def test_labels_of_a_batch(bridge: Bridge) -> None:
    examples = validation_examples(40, InstructionConfig())
    batch = collate(examples, bridge.tokenizer, bridge.space)
    for i, example in enumerate(examples):
        if example.intent != "ok" or example.slots is None:
            continue
        rows = batch["rows"][i][batch["row_mask"][i]].numpy()
        goals = bridge.space.decode(rows)
        assert tuple(goal.target for goal in goals) == example.slots.targets
        assert all(set(goal.avoid) == set(example.slots.avoid) for goal in goals)
    assert score(examples, bridge.predict([e.text for e in examples]))["task"] < 0.9


def test_backbone_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="does not exist"):
        load_backbone("/no/such/folder")
    with pytest.raises(BackboneError, match="complete Hugging Face folder"):
        load_backbone(str(tmp_path))
    with pytest.raises(ValueError, match="rank"):
        LoraSettings(rank=0)
    with pytest.raises(ValueError, match="layers 0 to 5"):
        add_lora(load_backbone().model, LoraSettings(layers=(6,)))


def test_bad_training_settings() -> None:
    with pytest.raises(ValueError, match="steps"):
        TrainBridgeConfig(steps=0)
    with pytest.raises(ValueError, match="multiple of heads"):
        EncoderConfig(width=30, heads=4)
