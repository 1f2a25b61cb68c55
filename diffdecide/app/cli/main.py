"""`diffdecide`: find the command, parse its options, turn errors into one line and an exit code.

Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 130 interrupted. With `DIFFDECIDE_TRACEBACK=1` errors are
shown whole. Only the module of the command that is asked for is imported, so help and bad names answer at once.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

SUMMARIES: Mapping[str, str] = {
    "run": "one sentence becomes a safe rollout: summary.json, rollout.gif, plan.png",
    "evaluate": "return, cost and its tail, stuck share and latency of a policy over many episodes",
    "collect": "collect episodes with behaviour policies of chosen skill, risk and noise",
    "train": "train a planner, a value critic, a reward or the language bridge",
    "bench": "instructions, latency, denoisers, rewards, table: the figures of the documentation",
    "calibrate": "the filter's margin for a noisy or failing lidar, by split conformal prediction",
    "label": "preference data: scripted teachers, a page for people, imports, relabelling",
    "plot": "figures of filter logs, calibrations and evaluations",
    "pretrained": "make all embedded models again, from nothing",
}


class Command(Protocol):
    """An instance of a command's dataclass, options filled in."""

    def execute(self) -> int | None: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    _no_network_chatter()
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"diffdecide {version('diffdecide')}")
        return 0
    if words[0] not in SUMMARIES:
        return _unknown("command", words[0], SUMMARIES, "diffdecide --help")
    try:
        return _dispatch(words[0], words[1:])
    except SystemExit as stop:  # tyro: 0 after help, 2 after a wrong option, its message printed
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("DIFFDECIDE_TRACEBACK"):
            raise
        return _report(error)


def _dispatch(name: str, words: list[str]) -> int:
    try:
        module = importlib.import_module(f"diffdecide.app.cli.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"diffdecide.app.cli.{name}":
            raise
        raise RuntimeError(f"this version has no `{name}` command yet") from None
    prog = f"diffdecide {name}"
    if hasattr(module, "COMMAND"):
        return _execute(module.COMMAND, prog, words)
    group: Mapping[str, type[Any]] = module.COMMANDS
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, group))
        print(f"usage: {prog} {{{','.join(group)}}} [options]\n")
        for key, command in group.items():
            print(f"  {key:<{width}}  {_first_line(command)}")
        print(f"\n`{prog} NAME --help` lists the options.")
        return 0 if words else 2
    if words[0] not in group:
        return _unknown(f"{name} command", words[0], group, f"{prog} --help")
    return _execute(group[words[0]], f"{prog} {words[0]}", words[1:])


def _execute(command: type[Any], prog: str, words: list[str]) -> int:
    import tyro

    parsed: Command = tyro.cli(command, prog=prog, args=words)
    return parsed.execute() or 0


def _report(error: Exception) -> int:
    """One line on stderr; 2 where the input is at fault, 1 where the work failed."""
    message = str(error).strip() or type(error).__name__
    if isinstance(error, (ValueError, ImportError)):
        print(f"error: {message}", file=sys.stderr)
        return 2
    if isinstance(error, OSError):
        path = f": {error.filename}" if error.filename is not None else ""
        print(f"error: {error.strerror or message}{path}", file=sys.stderr)
        return 2
    print(f"error: {message} ({type(error).__name__}; DIFFDECIDE_TRACEBACK=1 shows where)", file=sys.stderr)
    return 1


def _overview() -> str:
    width = max(map(len, SUMMARIES))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in SUMMARIES.items()]
    return "\n".join(
        [
            "usage: diffdecide COMMAND [options]",
            "",
            "Diffusion planners that follow instructions and stay inside safety constraints.",
            "",
            *lines,
            "",
            "`diffdecide COMMAND --help` lists the options of a command.",
        ]
    )


def _unknown(what: str, name: str, known: Mapping[str, Any], hint: str) -> int:
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"; did you mean `{close[0]}`?" if close else ""
    print(f"error: unknown {what} {name!r}{guess} (known: {', '.join(known)}; see `{hint}`)", file=sys.stderr)
    return 2


def _first_line(command: type[Any]) -> str:
    return (command.__doc__ or "").strip().partition("\n")[0]


def _no_network_chatter() -> None:
    """The default models are embedded: libraries shall neither greet nor look for news on the network."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


if __name__ == "__main__":
    raise SystemExit(main())
