"""The goal space: the fixed code that language and the planner share.

A sub-goal is one row of ``G = 32`` numbers made of four blocks, each a code from the rows of a Hadamard matrix, which
are exactly orthogonal and need no random numbers:

====== ======= =========================================================
dims   block   code
====== ======= =========================================================
0-15   target  one of red, green, blue, yellow, goal
16-19  mode    visit or stay
20-27  avoid   sum over the four zones of ±(code of the zone), + if forbidden
28-31  caution careful, normal, rush
====== ======= =========================================================

Every block has a constant norm, and a row has norm √32 (an RMS of one per number), the scale that networks like.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safety.tasks.spec import CAUTIONS, ZONES

if TYPE_CHECKING:
    from safety.tasks.spec import TaskSpec

COLOURS = ZONES
TARGETS = (*COLOURS, "goal")
MODES = ("visit", "stay")

TARGET_BLOCK = slice(0, 16)
MODE_BLOCK = slice(16, 20)
AVOID_BLOCK = slice(20, 28)
CAUTION_BLOCK = slice(28, 32)
GOAL_DIM = 32


def _hadamard(size: int) -> np.ndarray:
    """Sylvester's Hadamard matrix with unit rows, [size, size]; `size` is a power of two."""
    matrix = np.ones((1, 1))
    while matrix.shape[0] < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(size)


@dataclass(frozen=True)
class GoalSpaceConfig:
    """How the blocks share the squared norm of a row; the shares sum to one.

    The target gets the most because the planner's pointer has to read it; the other blocks only modulate.
    """

    target_share: float = 0.55
    mode_share: float = 0.15
    avoid_share: float = 0.15
    caution_share: float = 0.15
    version: int = 1

    def __post_init__(self) -> None:
        shares = (self.target_share, self.mode_share, self.avoid_share, self.caution_share)
        if any(not isinstance(s, (int, float)) or not 0.0 < s < 1.0 for s in shares):
            raise ValueError(f"goal space: every share must lie in (0, 1), got {shares}")
        if abs(sum(shares) - 1.0) > 1e-9:
            raise ValueError(f"goal space: shares must sum to 1, got {sum(shares)} from {shares}")
        if self.version != 1:
            raise ValueError(f"goal space: this code knows version 1, got {self.version=}")


@dataclass(frozen=True)
class DecodedGoal:
    """The nearest slots to one embedding row.

    `margins` holds per slot how much better the best code fits than the second best, as a cosine difference within
    the block (for `avoid`: the smallest |score| of the four signs).
    """

    target: str
    mode: str
    avoid: tuple[str, ...]
    caution: str
    margins: dict[str, float]


class GoalSpace:
    """Encodes what is asked as embedding rows that the planner is trained with, and reads them back."""

    dim = GOAL_DIM

    def __init__(self, config: GoalSpaceConfig = GoalSpaceConfig()) -> None:
        self.config = config
        norm = float(GOAL_DIM)
        self.target_codes = _hadamard(16)[1:6] * np.sqrt(norm * config.target_share)  # [5, 16]
        self.mode_codes = _hadamard(4)[1:3] * np.sqrt(norm * config.mode_share)  # [2, 4]
        self.avoid_codes = _hadamard(8)[1:5] / 2.0 * np.sqrt(norm * config.avoid_share)  # [4, 8]
        self.caution_codes = _hadamard(4)[1:4] * np.sqrt(norm * config.caution_share)  # [3, 4]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any number of the code book."""
        digest = hashlib.sha256(self.to_json().encode())
        for codes in (self.target_codes, self.mode_codes, self.avoid_codes, self.caution_codes):
            digest.update(np.round(codes * 1e4).astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def row(self, target: str, mode: str = "visit", avoid: Iterable[str] = (), caution: str = "normal") -> np.ndarray:
        """One sub-goal, float32 [32]. Unknown words raise ValueError."""
        forbidden = tuple(avoid)
        signs = np.array([1.0 if colour in forbidden else -1.0 for colour in COLOURS])
        for colour in forbidden:
            _index("avoid", colour, COLOURS)
        out = np.empty(GOAL_DIM)
        out[TARGET_BLOCK] = self.target_codes[_index("target", target, TARGETS)]
        out[MODE_BLOCK] = self.mode_codes[_index("mode", mode, MODES)]
        out[AVOID_BLOCK] = signs @ self.avoid_codes
        out[CAUTION_BLOCK] = self.caution_codes[_index("caution", caution, CAUTIONS)]
        return out.astype(np.float32)

    def encode(self, spec: TaskSpec) -> np.ndarray:
        """`spec` as float32 [S, 32]: one row per target, in the order in which they are to be visited."""
        mode = "stay" if spec.kind == "stay" else "visit"
        return np.stack([self.row(target, mode, spec.avoid, spec.caution) for target in spec.targets])

    def encode_goal(self, caution: str = "normal") -> np.ndarray:
        """The one sub-goal of the built-in tasks (SafetyPointGoal1-v0 …): reach the goal; float32 [1, 32]."""
        return self.row("goal", caution=caution)[None]

    def zero(self) -> np.ndarray:
        """The embedding that says nothing, float32 [1, 32] (the "embedding zeroed" row of the tables)."""
        return np.zeros((1, GOAL_DIM), np.float32)

    def decode(self, embedding: np.ndarray) -> list[DecodedGoal]:
        """The nearest slots for every row of `embedding` [S, 32] (or [32], read as one row)."""
        rows = np.atleast_2d(np.asarray(embedding, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != GOAL_DIM:
            raise ValueError(f"goal embedding: expected [S, {GOAL_DIM}], got shape {np.shape(embedding)}")
        if not np.isfinite(rows).all():
            raise ValueError("goal embedding: expected finite numbers, got NaN or infinity")
        return [self._decode_row(row) for row in rows]

    def _decode_row(self, row: np.ndarray) -> DecodedGoal:
        margins: dict[str, float] = {}

        def nearest(name: str, block: slice, codes: np.ndarray, words: Sequence[str]) -> str:
            scores = codes @ row[block] / np.square(codes).sum(1)
            order = np.argsort(-scores, kind="stable")
            margins[name] = float(scores[order[0]] - scores[order[1]])
            return words[int(order[0])]

        target = nearest("target", TARGET_BLOCK, self.target_codes, TARGETS)
        mode = nearest("mode", MODE_BLOCK, self.mode_codes, MODES)
        caution = nearest("caution", CAUTION_BLOCK, self.caution_codes, CAUTIONS)
        signs = self.avoid_codes @ row[AVOID_BLOCK] / np.square(self.avoid_codes).sum(1)
        margins["avoid"] = float(np.abs(signs).min())
        avoid = tuple(colour for colour, sign in zip(COLOURS, signs, strict=True) if sign > 0.0)
        return DecodedGoal(target, mode, avoid, caution, margins)

    def to_json(self) -> str:
        return json.dumps({"goal_space": asdict(self.config)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> GoalSpace:
        """Inverse of `to_json`; anything else raises ValueError."""
        try:
            fields: dict[str, Any] = json.loads(text)["goal_space"]
            return cls(GoalSpaceConfig(**fields))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"goal space: expected JSON with a 'goal_space' of known fields, got {text!r}") from error

    def check_fingerprint(self, fingerprint: str, owner: str) -> None:
        """Refuse parts trained for another code: ValueError naming `owner` and both fingerprints."""
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"{owner} was trained for goal space {fingerprint}, but this is goal space {self.fingerprint}: "
                "the embeddings would mean nothing to it"
            )


def _index(slot: str, word: str, words: Sequence[str]) -> int:
    if word not in words:
        raise ValueError(f"goal space: {slot} must be one of {', '.join(words)}, got {word!r}")
    return words.index(word)
