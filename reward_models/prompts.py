"""Texts to embeddings, for rewards that depend on what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diffdecide.nets.language_backbone import PACKAGED, load_backbone
from reward_models.preferences import PreferenceError, rows_text


class PromptEncoder:
    """Frozen sentence embeddings [N, P] of unit length, each distinct text encoded once.

    Mean over the tokens, then normalised (Reimers and Gurevych 2019, "Sentence-BERT", sec. 3).

    Args:
        name: "minilm" (packaged, offline), a folder in Hugging Face layout, or a hub id.

    Raises:
        ValueError: a model that cannot be loaded.
    """

    def __init__(self, name: str = PACKAGED) -> None:
        self.name = name
        self._backbone = load_backbone(name)
        self.width = self._backbone.hidden_size
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings [N, P] float32; PreferenceError where a text is empty."""
        empty = np.flatnonzero([not text.strip() for text in texts])
        if len(empty):
            raise PreferenceError(f"prompt: expected a text for every comparison, got none in {rows_text(empty)}")
        new = sorted({text for text in texts if text not in self._known})
        for start in range(0, len(new), 32):
            part = new[start : start + 32]
            self._known |= dict(zip(part, self._encode(part), strict=True))
        return np.stack([self._known[text] for text in texts])

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> np.ndarray:
        backbone = self._backbone
        tokens = backbone.tokenizer(
            texts, padding=True, truncation=True, max_length=backbone.max_tokens, return_tensors="pt"
        )
        hidden = backbone.model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).last_hidden_state
        mask = tokens["attention_mask"][..., None].to(hidden)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)
        return torch.nn.functional.normalize(mean, dim=-1).float().numpy()
