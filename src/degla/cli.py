"""The command line: finds the verb on its shelf and runs it; errors become one line and an exit status."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from degla.errors import DeglaError, InputError, error_of_system
from degla.evaluation.processes import first_process, parsed_once, reported_once, started_processes
from degla.parse import with_short_words
from degla.shelf import VERBS, did_you_mean
from degla.verbs._arguments import Parser, parse_words, require_least
from degla.version import __version__

_DOWNLOAD = "--allow-download"
_HYPHENATED = frozenset({"fetch_data"})
"""Commands that are one word with a hyphen; others are as many words as their file's name has."""
_OF_SEVERAL_PROCESSES = frozenset({"doctor", "evaluate", "train"})
"""Commands that torchrun may start."""

_ABOUT = """Teach CLIP-like models composition without making them forget what they knew.

  degla demo [--photos CAPTIONS --images DIR]  the whole pipeline on the embedded world, or on your own photographs
  degla negatives CAPTIONS --out FILE          make hard negative captions [--llm embedded | openai --base-url URL]
  degla negatives report FILE --captions FILE  what is in them, how hard they are, samples to read
  degla train RECIPE --data.captions FILE --data.images FOLDER --data.negatives FILE --out RUN
  degla train --config FILE                    the same by a file; degla train --resume RUN: go on where RUN stopped
  degla doctor RECIPE [FLAGS OF degla train]   what stands in the way of a run, and what limits its speed
  degla ls, degla explain NAME, degla choose   what there is; what one is; which method and settings to use
  degla look PICTURE... --captions TEXT... --models BASE TUNED  how each ranks texts for a picture [--negatives]
  degla app --models BASE TUNED [--results RESULTS... --root DATA] [--folder PICTURES]  the same on a page, and more
  degla evaluate MODEL... --benchmarks NAME... --root DATA --out results.json; degla report RESULTS... --out report.html
  degla export MODEL --to transformers --out DIR  or onnx, open_clip; degla publish MODEL --to OWNER/NAME: to the hub
  degla study PLAN --out DIR                   recipes x settings x seeds; degla continual: tasks one after another

degla COMMAND --help tells more, degla train RECIPE --help all every flag; docs/quick-start.md, docs/index.md lead on.
With --allow-download any command may fetch what a model's folder names on the Hugging Face hub; without it none does.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0 done, 1 failed, 2 wrong usage or input."""
    _open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if _DOWNLOAD in words:
        # In the environment, so that the processes that a command starts know of it.
        os.environ["DEGLA_ALLOW_DOWNLOAD"] = "1"
        words = [word for word in words if word != _DOWNLOAD]
    # Read once, when torch is imported. OpenMP threads that spin while they wait take the processor from others, and
    # those that sleep at once are late for the next of a step's many small operations: libgomp's spin for a moment.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Pillow says so, in two lines, of pictures that are refused in one.
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("degla").setLevel(logging.INFO if first_process() else logging.WARNING)
    return exit_status_of(lambda: _run(words))


def _run(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        _top().parse_args(words)
        _top().print_help()
        return 0
    with reported_once():
        name, rest = _verb(words)
        # Launchers such as torchrun set LOCAL_RANK; a cluster may number its machines by WORLD_SIZE alone.
        several = "LOCAL_RANK" in os.environ and started_processes() > 1
        if several and name not in _OF_SEVERAL_PROCESSES:
            raise InputError(f"degla {spoken(name)} runs in one process; start it without torchrun.")
        module = VERBS.load(name)
        if hasattr(module, "run_words"):
            return int(module.run_words(rest))
        with parsed_once():
            given = parse_words(parser(name), rest)
        if hasattr(given, "seed"):
            require_least(given, "seed", least=0)
        return int(module.run(given) or 0)


def exit_status_of(call: Callable[[], int | None]) -> int:
    """The exit status of a call, of which errors that a user can cause print one line: 0 done, 1 failed, 2 wrong usage
    or input."""
    try:
        return call() or 0
    except DeglaError as error:
        if not error.reported:
            _tell(str(error))
        return error.exit_status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _tell(str(error_of_system(error)))
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("degla: stopped.\n")
        return 130


def _open_streams() -> None:
    """Make output possible where a stream is closed, or its encoding lacks a sign, which is then escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and (stream.errors == "strict" or stream.encoding != "utf-8"):
            stream.reconfigure(errors="backslashreplace")


def _tell(message: str) -> None:
    sys.stderr.write(f"degla: {with_short_words(message)}\n")


def spoken(name: str) -> str:
    """A command as people write it, by its name on the shelf."""
    return name.replace("_", "-" if name in _HYPHENATED else " ")


def parser(name: str) -> argparse.ArgumentParser:
    """The parser of one verb that has `describe`, by its name on the shelf."""
    summary = VERBS.summary(name)
    made = Parser(
        prog=f"degla {spoken(name)}",
        description=summary[:1].upper() + summary[1:] + ".",
        epilog="\n".join(
            f"also: degla {spoken(other)} - {VERBS.summary(other)}"
            for other in VERBS.names()
            if other.startswith(name + "_")
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    VERBS.load(name).describe(made)
    return made


def _verb(words: list[str]) -> tuple[str, list[str]]:
    """The verb that the first one or two words name, and the words that follow it."""
    names = VERBS.names()
    if (hyphenated := words[0].replace("-", "_")) in _HYPHENATED:
        return hyphenated, words[1:]
    if "_".join(words[:2]) in names and len(words) > 1:
        return "_".join(words[:2]), words[2:]
    if words[0] in names and "_" not in words[0]:
        return words[0], words[1:]
    actions = [name.partition("_")[2] for name in names if name.startswith(words[0] + "_")]
    if actions:
        if words[1:] in (["-h"], ["--help"]):
            listed = (f"  degla {words[0]} {action}: {VERBS.summary(f'{words[0]}_{action}')}" for action in actions)
            sys.stdout.write("\n".join((f"usage: degla {words[0]} ACTION ...", "", *listed, "")))
            raise SystemExit(0)
        given = f" {words[1]!r}" if len(words) > 1 else " none"
        raise InputError(f"degla {words[0]} needs one of: {', '.join(actions)}; got{given}. See degla --help.")
    raise InputError(f"unknown command {words[0]!r}.{did_you_mean(words[0], map(spoken, names))} See degla --help.")


def _top() -> argparse.ArgumentParser:
    listed = {spoken(name): VERBS.summary(name) for name in VERBS.names()}
    width = max(len(name) for name in listed)
    made = Parser(
        prog="degla",
        usage="degla COMMAND ...",
        description=_ABOUT,
        epilog="commands:\n" + "\n".join(f"  {name:<{width}}  {summary}" for name, summary in listed.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"degla {__version__}")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
