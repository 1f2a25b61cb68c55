"""A parser of instructions by key words and patterns: the row of the table that does without a language model.

It knows the colours and their common synonyms, words of forbidding and where they reach to, the usual words that
reverse an order (before, after, until, but first), words of staying, of care and of haste. It declines a sentence in
which it finds no target. It is meant to be as good as such a parser gets in an afternoon, not to lose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from safety.tasks.spec import TaskSpec

_COLOURS = {
    "red": "red|crimson|scarlet|ruby|maroon|cherry",
    "green": "green|emerald|lime|jade|olive",
    "blue": "blue|azure|navy|cobalt|sapphire|indigo",
    "yellow": "yellow|gold(?:en)?|amber|lemon|mustard",
}
_COLOUR = re.compile(r"\b(?:" + "|".join(f"(?P<{name}>{words})" for name, words in _COLOURS.items()) + r")(?:ish)?\b")
_FORBID = (
    r"avoid\w*|never|without|except|forbidden|prohibited|banned|off.limits|out of bounds|no.go|don'?t|do not|must not"
    r"|may not|not|no|nor|clear of|away from|(?:keep|stay)\w* (?:out|off|away|clear)|out of|bypass\w*|skip\w*|dodg\w+"
    r"|evad\w+|shun\w*|around|skirt\w*|sidestep\w*|miss|beware of"
)
# Before a colour, forbidding reaches to the end of its clause; behind it ("red is forbidden"), back to its start.
_FORBID_AHEAD = re.compile(rf"\b(?:{_FORBID})\b")
_FORBID_BEHIND = re.compile(
    r"^\s*(?:\w+\s+)?(?:is|are|must be|should be|counts as)\s+(?:\w+\s+){0,2}?(?:off.limits|out of bounds|forbidden"
    r"|banned|prohibited|no.go|closed|lava|dangerous|taboo|not allowed|avoided|toxic|blocked|restricted|not for)"
)
_CLAUSE = re.compile(r"[.;!?:]|,? but |(?:,|,? and| -) (?=\w+ (?:to|at|in|into|on|over|by|for)\b)|, then | then |, so ")
_STAY = re.compile(
    r"\b(?:stay|remain|wait|hold|park|rest|linger|settle|camp|sit|stand|halt|dwell|hang around|sleep|hover|idle"
    r"|pause|don'?t (?:leave|move|budge)|do not (?:leave|move))\w*\b(?! (?:out|away|off|clear|far))"
)
_CAREFUL = re.compile(
    r"\b(?:careful\w*|caution|cautious\w*|slow\w*|safe\w*|gentl\w+|wary|warily|prudent\w*|no (?:hurry|rush)"
    r"|take your time|take care|(?:wide|generous) (?:berth|margin)|tiptoe\w*|hazards?|risks?|easy)\b"
)
_RUSH = re.compile(
    r"\b(?:quick\w*|fast\w*|hurry|hurri\w+|rush\w*|asap|rapid\w*|speed\w*|swift\w*|immediately|at once|right away"
    r"|haste\w*|urgent\w*|dash\w*|sprint\w*|rac(?:e|ing)|no time|time is (?:short|running out)|snappy|pronto)\b"
)
_BEFORE = re.compile(r"^\s*(?:but )?before\b|^\s*prior to\b")
_LATER_FIRST = re.compile(
    r"\b(?:only )?(?:after|once|until|not before|as soon as|via|by way of|but first|first though|having been"
    r"|having visited|but before that|preceded by|follows)\b"
)


@dataclass(frozen=True)
class _Mention:
    colour: str
    start: int
    end: int


def parse(text: str) -> TaskSpec | None:
    """The task that key words and patterns make of `text`; None where they make none."""
    text = " ".join(text.lower().replace("’", "'").split())
    mentions = [_Mention(str(match.lastgroup), match.start(), match.end()) for match in _COLOUR.finditer(text)]
    avoid: list[str] = []
    wanted: list[_Mention] = []
    for index, mention in enumerate(mentions):
        if _is_forbidden(text, mentions, index):
            avoid.append(mention.colour)
        else:
            wanted.append(mention)
    avoid = list(dict.fromkeys(avoid))
    targets = list(dict.fromkeys(m.colour for m in _ordered(text, wanted) if m.colour not in avoid))[:3]
    if not targets:
        return None
    caution = "rush" if _RUSH.search(text) else "careful" if _CAREFUL.search(text) else "normal"
    if len(targets) == 1 and _STAY.search(text):
        kind = "stay"
    elif avoid:
        kind = "avoid"
    else:
        kind = "reach" if len(targets) == 1 else "sequence"
    return TaskSpec(kind, tuple(targets), tuple(avoid), caution)


def _is_forbidden(text: str, mentions: list[_Mention], index: int) -> bool:
    mention = mentions[index]
    before = _CLAUSE.split(text[: mention.start])[-1]
    hits = list(_FORBID_AHEAD.finditer(before))
    if hits and not _reads_as_until(text):
        between = before[hits[-1].end() :]
        # "without touching red or blue" goes on over a colour; "avoid red and go to blue" was cut by the clause.
        if len(between.split()) <= 9:
            return True
    following = mentions[index + 1].start if index + 1 < len(mentions) else len(text)
    return bool(_FORBID_BEHIND.match(text[mention.end : following + 40]))


def _reads_as_until(text: str) -> bool:
    """Sentences such as "don't go to red until you have been to blue" forbid nothing."""
    return bool(re.search(r"\b(?:don'?t|do not|not)\b.*\buntil\b", text))


def _ordered(text: str, wanted: list[_Mention]) -> list[_Mention]:
    if len(wanted) < 2:
        return wanted
    ordinal = [re.search(r"\b(first|second|third|last)\b", text[m.end : m.end + 20]) for m in wanted]
    ranks = {"first": 0, "second": 1, "third": 2, "last": 3}
    if all(ordinal) and len({match[1] for match in ordinal if match}) == len(wanted):
        return [m for _, m in sorted(zip((ranks[o[1]] for o in ordinal if o), wanted, strict=True), key=lambda x: x[0])]
    if _BEFORE.search(text[: wanted[0].start]):
        return [*wanted[1:], wanted[0]]
    if len(wanted) == 2:
        between = text[wanted[0].end : wanted[1].start]
        chained = re.search(r"\b(?:after (?:that|this|which|wards)|afterwards|once there)\b", between)
        if _LATER_FIRST.search(between) and not chained:
            return [wanted[1], wanted[0]]
    return wanted
