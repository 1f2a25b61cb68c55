"""The baseline without a language model: a decent parser, and what it is known to miss."""

import pytest

from diffdecide.app.regex_parser import parse
from lm_bridge.instructions import InstructionConfig
from lm_bridge.validation import validation_examples
from safety.tasks.spec import TaskSpec


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Go to the red zone.", TaskSpec("reach", ("red",))),
        ("go to the green zone, then the red one", TaskSpec("sequence", ("green", "red"))),
        ("before you visit red, touch green", TaskSpec("sequence", ("green", "red"))),
        ("go to red after green", TaskSpec("sequence", ("green", "red"))),
        ("red second, blue first", TaskSpec("sequence", ("blue", "red"))),
        ("quickly go to azure but avoid crimson", TaskSpec("avoid", ("blue",), ("red",), "rush")),
        ("yellow is off limits; go to green carefully", TaskSpec("avoid", ("green",), ("yellow",), "careful")),
        ("go to blue and stay there", TaskSpec("stay", ("blue",))),
    ],
)
def test_plain_sentences(text: str, task: TaskSpec) -> None:
    assert parse(text) == task


@pytest.mark.parametrize("text", ["", "hello", "go to the purple zone", "avoid red"])
def test_no_target_is_declined(text: str) -> None:
    assert parse(text) is None


def test_it_reads_most_generated_sentences_and_far_from_all() -> None:
    examples = [e for e in validation_examples(500, InstructionConfig()) if e.intent == "ok" and e.slots]
    right = 0
    for example in examples:
        task, slots = parse(example.text), example.slots
        assert slots is not None
        if task is not None:
            right += (task.kind, task.targets, set(task.avoid)) == (slots.kind, slots.targets, set(slots.avoid))
    assert 0.5 < right / len(examples) < 0.9
