"""What may be asked, and when it counts as done."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.tasks.spec import CAUTIONS, ZONES, TaskJudge, TaskSpec


def run(spec, presence, **options):
    """Judge a list of (zone or None, steps)."""
    judge = TaskJudge(spec, **options)
    verdict = judge.verdict
    for zone, steps in presence:
        for _ in range(steps):
            verdict = judge.update({zone} if zone else set())
    return verdict


@st.composite
def specs(draw):
    kind = draw(st.sampled_from(["reach", "sequence", "avoid", "stay"]))
    order = draw(st.permutations(ZONES))
    count = {"reach": 1, "stay": 1, "sequence": draw(st.integers(2, 3)), "avoid": draw(st.integers(1, 3))}[kind]
    avoid = order[count : count + draw(st.integers(1, 4 - count))] if kind == "avoid" else ()
    return TaskSpec(kind, tuple(order[:count]), tuple(avoid), draw(st.sampled_from(CAUTIONS)))


@given(specs())
def test_json_round_trip(spec):
    assert TaskSpec.from_json(spec.to_json()) == spec
    assert TaskSpec.from_json(json.loads(spec.to_json())) == spec


def test_json_has_the_documented_form():
    text = '{"kind": "sequence", "targets": ["green", "red"], "avoid": [], "caution": "careful"}'
    spec = TaskSpec.from_json(text)
    assert spec == TaskSpec("sequence", ("green", "red"), (), "careful")
    assert json.loads(spec.to_json()) == json.loads(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "fly", "targets": ["red"]}, "kind must be one of"),
        ({"kind": "reach", "targets": ["purple"]}, "unknown zone 'purple'"),
        ({"kind": "reach", "targets": "red"}, "must be a list of zones"),
        ({"kind": "reach", "targets": []}, "takes 1 targets"),
        ({"kind": "reach", "targets": ["red", "green"]}, "takes 1 targets"),
        ({"kind": "sequence", "targets": ["red"]}, "takes 2 to 3 targets"),
        ({"kind": "sequence", "targets": ["red", "red"]}, "twice in a row"),
        ({"kind": "avoid", "targets": ["red"]}, "at least one zone in avoid"),
        ({"kind": "avoid", "targets": ["red"], "avoid": ["red"]}, "contradicts itself: red"),
        ({"kind": "reach", "targets": ["red"], "avoid": ["red"]}, "contradicts itself: red"),
        ({"kind": "avoid", "targets": ["red"], "avoid": ["blue", "blue"]}, "names a zone twice"),
        ({"kind": "reach", "targets": ["red"], "caution": "brave"}, "caution must be one of"),
        ({"targets": ["red"]}, "lacks kind"),
        ({"kind": "reach", "targets": ["red"], "speed": 3}, "unknown keys speed"),
    ],
)
def test_bad_specs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TaskSpec.from_json(arguments)


@pytest.mark.parametrize("text", ["{", "[]", '"red"', "null"])
def test_bad_json_is_refused(text):
    with pytest.raises(ValueError, match="TaskSpec"):
        TaskSpec.from_json(text)


def test_a_visit_takes_25_consecutive_steps():
    reach = TaskSpec("reach", ("red",))
    assert not run(reach, [("red", 24)]).succeeded
    assert not run(reach, [("red", 24), (None, 1), ("red", 24)]).succeeded
    verdict = run(reach, [("red", 24), (None, 1), ("red", 25)])
    assert verdict.succeeded
    assert verdict.visited == ("red",)


def test_passing_through_another_zone_is_allowed_and_visiting_it_is_not():
    reach = TaskSpec("reach", ("red",))
    assert run(reach, [("blue", 24), ("red", 25)]).succeeded
    verdict = run(reach, [("blue", 25), ("red", 25)])
    assert verdict.failed
    assert not verdict.succeeded
    assert "blue" in verdict.reason


def test_a_sequence_is_judged_in_order():
    spec = TaskSpec("sequence", ("green", "red", "blue"))
    judge = TaskJudge(spec)
    currents = []
    for zone in spec.targets:
        for _ in range(25):
            verdict = judge.update({zone})
        currents.append(verdict.current)
        judge.update(set())
    assert currents == [1, 2, 2]
    assert verdict.succeeded
    assert verdict.visited == spec.targets
    assert run(spec, [("red", 25)]).failed
    assert run(spec, [("green", 25), ("blue", 25)]).failed


def test_one_continuous_presence_is_one_visit_and_coming_back_is_another():
    spec = TaskSpec("sequence", ("green", "red"))
    assert run(spec, [("green", 200), (None, 3), ("red", 25)]).succeeded
    assert run(spec, [("green", 25), (None, 1), ("green", 25)]).failed
    again = TaskSpec("sequence", ("green", "red", "green"))
    assert run(again, [("green", 25), ("red", 25), ("green", 25)]).succeeded


def test_a_single_step_in_a_forbidden_zone_fails():
    spec = TaskSpec("avoid", ("green",), ("red", "blue"))
    verdict = run(spec, [("green", 24), ("red", 1), ("green", 30)])
    assert verdict.failed
    assert verdict.reason == "entered the forbidden red zone"
    assert run(spec, [("yellow", 10), ("green", 25)]).succeeded


def test_stay_takes_100_consecutive_steps():
    spec = TaskSpec("stay", ("blue",))
    assert not run(spec, [("blue", 99)]).succeeded
    assert run(spec, [("blue", 60), (None, 1), ("blue", 100)]).succeeded
    assert not run(spec, [("blue", 60), (None, 1), ("blue", 99)]).failed
    assert run(spec, [("red", 25)]).failed


@pytest.mark.parametrize("ending", [[("red", 25)], [("blue", 25)]])
def test_a_verdict_is_final(ending):
    before = run(TaskSpec("reach", ("red",)), ending)
    after = run(TaskSpec("reach", ("red",)), [*ending, ("blue", 30), ("red", 30)])
    assert before == after


def test_reset_forgets():
    judge = TaskJudge(TaskSpec("reach", ("red",)), visit_steps=2)
    judge.update({"red"})
    judge.reset()
    assert not judge.update({"red"}).succeeded
    assert judge.update({"red"}).succeeded


def test_unknown_presence_is_refused():
    with pytest.raises(ValueError, match="unknown zones"):
        TaskJudge(TaskSpec("reach", ("red",))).update({"red_zone"})
    with pytest.raises(ValueError, match="visit_steps"):
        TaskJudge(TaskSpec("reach", ("red",)), visit_steps=0)


@given(specs(), st.lists(st.tuples(st.sampled_from([None, *ZONES]), st.integers(1, 120)), max_size=8))
def test_success_means_the_visits_equal_the_targets(spec, presence):
    verdict = run(spec, presence)
    assert not (verdict.succeeded and verdict.failed)
    assert 0 <= verdict.current < len(spec.targets)
    if verdict.succeeded:
        assert verdict.visited == spec.targets
    if any(zone in spec.avoid for zone, _ in presence) and not verdict.succeeded:
        assert verdict.failed


def test_the_module_needs_no_simulator():
    code = "import sys, safety.tasks.spec; sys.exit(any(m in sys.modules for m in ('mujoco', 'torch', 'gymnasium')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
