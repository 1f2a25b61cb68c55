"""The goal space: separation, round trips, refusals."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from lm_bridge.goals import COLOURS, MODES, TARGETS, GoalSpace, GoalSpaceConfig
from safety.tasks.spec import CAUTIONS

SPACE = GoalSpace()
AVOIDS = [subset for n in range(5) for subset in itertools.combinations(COLOURS, n)]


def test_every_row_decodes_to_its_slots() -> None:
    for target, mode, avoid, caution in itertools.product(TARGETS, MODES, AVOIDS, CAUTIONS):
        (goal,) = SPACE.decode(SPACE.row(target, mode, avoid, caution))
        assert (goal.target, goal.mode, goal.avoid, goal.caution) == (target, mode, avoid, caution)
        assert min(goal.margins.values()) > 0.9


def test_rows_have_unit_rms_and_targets_are_far_apart() -> None:
    rows = np.stack([SPACE.row(target) for target in TARGETS])
    assert np.allclose(np.square(rows).mean(1), 1.0, atol=1e-6)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)[~np.eye(len(TARGETS), dtype=bool)]
    assert distances.min() > 5.0


def test_decoding_survives_noise() -> None:
    rng = np.random.default_rng(0)
    row = SPACE.row("blue", "stay", ("red",), "rush")
    for _ in range(50):
        (goal,) = SPACE.decode(row + rng.normal(0.0, 0.2, row.shape))
        assert (goal.target, goal.mode, goal.avoid, goal.caution) == ("blue", "stay", ("red",), "rush")


def test_encode_gives_one_row_per_target_in_order() -> None:
    spec = SimpleNamespace(kind="sequence", targets=("green", "red"), avoid=("blue",), caution="careful")
    rows = SPACE.encode(spec)
    assert rows.shape == (2, 32)
    assert rows.dtype == np.float32
    assert [g.target for g in SPACE.decode(rows)] == ["green", "red"]
    assert SPACE.encode_goal().shape == (1, 32)
    assert SPACE.decode(SPACE.encode_goal())[0].target == "goal"


def test_fingerprint_is_stable_and_tells_spaces_apart() -> None:
    other = GoalSpace(GoalSpaceConfig(target_share=0.4, mode_share=0.3))
    assert GoalSpace.from_json(SPACE.to_json()).fingerprint == SPACE.fingerprint
    assert other.fingerprint != SPACE.fingerprint
    with pytest.raises(ValueError, match="my planner"):
        SPACE.check_fingerprint(other.fingerprint, "my planner")


@pytest.mark.parametrize("shape", [(3, 31), (2, 2, 32)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="32"):
        SPACE.decode(np.zeros(shape))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="purple"):
        SPACE.row("purple")
    with pytest.raises(ValueError, match="avoid"):
        SPACE.row("red", avoid=("goal",))
    with pytest.raises(ValueError, match="finite"):
        SPACE.decode(np.full(32, np.nan))
    with pytest.raises(ValueError, match="sum to 1"):
        GoalSpaceConfig(target_share=0.9)
    with pytest.raises(ValueError, match="goal_space"):
        GoalSpace.from_json("{}")
