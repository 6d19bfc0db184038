"""The command line: find the verb on its shelf and run it; turn errors into one line and an exit status."""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TextIO

from degla.errors import DeglaError, InputError, error_of_compiler, error_of_memory, error_of_system
from degla.pages.words import printable
from degla.parse import with_short_words
from degla.processes import first_process, parsed_once, reported_once, started_processes
from degla.remote import address_of, at_home, check_address, in_addresses
from degla.shelf import VERBS, did_you_mean, own_errors
from degla.verbs._arguments import Parser, parse_words, require_least
from degla.version import __version__

_DOWNLOAD = "--allow-download"
_HYPHENATED = frozenset({"fetch_data"})
"""Commands whose underscore is written as a hyphen; in all others it separates words."""
_OF_SEVERAL_PROCESSES = frozenset({"doctor", "evaluate", "train"})
"""Commands that can run under torchrun."""
_CONTINUE_A_FOLDER = frozenset({"continual", "demo", "draw", "examples_review", "study", "system"})
"""Commands whose --out must be a local path, because they go on with what they find in that folder."""

_ABOUT = """Fine-tune CLIP-like models for compositional understanding without forgetting what they already know.

  degla demo [--photos CAPTIONS --images FOLDER]  run the whole pipeline on the embedded world or your own photographs
  degla negatives CAPTIONS --out FILE          generate hard negatives [--llm embedded | openai --base-url URL]
  degla negatives report FILE --captions FILE  see what they contain, how hard they are, and samples
  degla train RECIPE --data.captions FILE --data.images FOLDER --data.negatives FILE --out RUN
  degla train --config FILE                    the same from a file; degla train --resume RUN resumes a run
  degla doctor RECIPE [FLAGS OF degla train]   find problems that would stop a run, and what limits its speed
  degla ls, degla explain NAME, degla choose   list what is available; explain it; choose a method and settings
  degla look IMAGE... --captions TEXT... --models BASE TUNED  compare how models rank texts for an image [--negatives]
  degla app --models BASE TUNED [--results RESULTS... --root DATA] [--folder IMAGES]  the same in the browser, and more
  degla evaluate MODEL... --benchmarks NAME... --root DATA --out results.json; degla report RESULTS... --out report.html
  degla export MODEL --to transformers --out FOLDER  or onnx, open_clip; degla publish MODEL --to OWNER/NAME: to the hub
  degla study PLAN --out FOLDER                recipes x settings x seeds; degla continual: tasks in sequence

See degla COMMAND --help; degla train RECIPE --help all lists every flag. Start with docs/quick-start.md, docs/index.md.
A model named by a tag or a hub id is downloaded on first use; with --allow-download also what a local folder lacks.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 wrong usage or input."""
    return exit_status_of(lambda: _start(arguments))


def _start(arguments: Sequence[str] | None) -> int:
    _open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if _DOWNLOAD in words:
        # Set in the environment so that child processes see it too.
        os.environ["DEGLA_ALLOW_DOWNLOAD"] = "1"
        words = [word for word in words if word != _DOWNLOAD]
    # Read once, when torch is imported. OpenMP threads that spin while they wait take CPU time from others; threads
    # that sleep at once wake too late for a step's many small operations. So libgomp's threads spin for a moment.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Pillow's two-line warning; such images are rejected with a one-line error anyway.
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
    lines = logging.StreamHandler()
    lines.setFormatter(_Printable())
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    # All processes of a job would warn of the same.
    logging.getLogger("degla").setLevel(logging.INFO if first_process() else logging.ERROR)
    # torchrun ends the processes of a job whose first error one of them has reported.
    with nullcontext() if "WORLD_SIZE" in os.environ else _announced_sigterm():
        return _run(words)


@contextmanager
def _announced_sigterm() -> Iterator[None]:
    """Inside the ``with`` block, SIGTERM still ends the process, but first writes a line: not every shell or batch
    system does. Where work is saved first, `degla.stopping.Interruption` takes its place."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    _spare_forked_children()
    signal.signal(signal.SIGTERM, _announce_and_end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _announce_and_end(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"\n" * os.isatty(2) + b"degla: stopped by SIGTERM.\n")  # Below a bar that may be there.
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # Process 1 of a container: the kernel ignores the signal for it.


@cache
def _spare_forked_children() -> None:
    """Let SIGTERM end children that are forked from now on at once, without a line: a pool ends its own like this.

    A handler in Python would not do. It runs between two instructions, so that a signal that comes just before a
    system call has no effect until the call returns, in a worker that waits for its next task never.
    """

    def restore() -> None:
        if signal.getsignal(signal.SIGTERM) is _announce_and_end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    if sys.platform != "win32":
        os.register_at_fork(after_in_child=restore)


def _run(words: list[str]) -> int:
    odd = next((word for word in words if word.encode(errors="replace").decode() != word), None)
    if odd is not None:
        raise InputError(f"{odd}: not UTF-8, so no result could name it. Rename the file, or use a UTF-8 locale.")
    # A shell replaces "~" only where a word begins with it, unquoted: --out=~/runs made a folder of that name.
    words = [re.sub(r"^(--[^=]+=|)(~[^/]*)(?=/|$)", lambda match: match[1] + at_home(match[2]), word) for word in words]
    for word in words:
        check_address(word.partition("=")[2] if word.startswith("--") else word)
    if not words or words[0].startswith("-"):
        _top().parse_args(words)
        _top().print_help()
        return 0
    try:
        Path.cwd()
    except FileNotFoundError:  # PyTorch's libraries could not be loaded either, and end the process.
        raise InputError("the working folder was deleted. Change to another one (cd).") from None
    with reported_once(), own_errors():
        name, rest = _verb(words)
        # Launchers such as torchrun set LOCAL_RANK; on a cluster WORLD_SIZE may only count the machines.
        several = "LOCAL_RANK" in os.environ and started_processes() > 1
        if several and name not in _OF_SEVERAL_PROCESSES:
            raise InputError(f"degla {spoken(name)} runs in a single process. Start it without torchrun.")
        module = VERBS.load(name)
        if hasattr(module, "run_words"):
            return int(module.run_words(rest))
        with parsed_once():
            arguments = parse_words(parser(name), rest, far=name not in _CONTINUE_A_FOLDER)
        if hasattr(arguments, "seed"):
            require_least(arguments, "seed", least=0)
        with _out_here(arguments):
            return int(module.run(arguments) or 0)


@contextmanager
def _out_here(arguments: argparse.Namespace) -> Iterator[None]:
    """Give a command that writes to an address a local path to write to, whose content is copied there.

    Raises:
        InputError: the command also reads this address; see also `written_to`.
    """
    out = address_of(vars(arguments).get("out") or "")
    if out is None or not first_process():  # Others write nothing.
        yield
        return
    from degla.mirror import check_output, written_to

    for name, value in vars(arguments).items():
        if name != "out" and out in map(address_of, map(str, value if isinstance(value, list) else [value])):
            raise InputError(f"{out}: this command reads it and would overwrite it. Choose another --out.")
    if vars(arguments).get("dry_run"):
        check_output(out)
        yield
        return
    with written_to(out) as arguments.out:
        yield


def exit_status_of(call: Callable[[], int | None]) -> int:
    """Return the exit status of a call: 0 done, 1 failed, 2 wrong usage or input. Errors that a user can cause are
    printed as one line."""
    try:
        return call() or 0
    except DeglaError as error:
        if not error.reported:
            _tell(str(error))
        return error.exit_status
    except BrokenPipeError:
        if _is_read(sys.stdout) and _is_read(sys.stderr):
            _tell("a process that this command started, or a server, has ended (broken pipe).")
            return 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _tell(str(error_of_system(error)))
        return 1
    except (MemoryError, RuntimeError) as error:
        if (converted := error_of_memory(error) or error_of_compiler(error)) is None:
            raise
        _tell(str(converted))
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("degla: stopped.\n")
        return 130


def _is_read(stream: TextIO) -> bool:
    """Whether a stream is not a pipe whose reader has ended. (On Windows, writing to one is no BrokenPipeError.)"""
    if sys.platform == "win32":
        return True
    else:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _open_streams() -> None:
    """Make output work where a stream is closed, and escape characters that its encoding lacks."""
    # Else the next file that is opened gets the number, and what libraries and signal handlers write to stderr.
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and (stream.errors == "strict" or stream.encoding != "utf-8"):
            stream.reconfigure(errors="backslashreplace")


def _tell(message: str) -> None:
    sys.stderr.write(f"degla: {printable(with_short_words(in_addresses(message)))}\n")


class _Printable(logging.Formatter):
    """The message alone. It may name what a file says, which a terminal must not obey."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(in_addresses(super().format(record)))


def spoken(name: str) -> str:
    """Return a command as users type it, from its name on the shelf."""
    return name.replace("_", "-" if name in _HYPHENATED else " ")


def parser(name: str) -> argparse.ArgumentParser:
    """Build the parser of a verb that has `describe`, from its name on the shelf."""
    summary = VERBS.summary(name)
    verb = Parser(
        prog=f"degla {spoken(name)}",
        description=summary[:1].upper() + summary[1:] + ".",
        epilog="Defaults are in parentheses.\n"
        + "\n".join(
            f"also: degla {spoken(other)} - {VERBS.summary(other)}"
            for other in VERBS.names()
            if other.startswith(name + "_")
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    VERBS.load(name).describe(verb)
    return verb


def _verb(words: list[str]) -> tuple[str, list[str]]:
    """Return the verb that the first one or two words name, and the remaining words."""
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
        got = f" {words[1]!r}" if len(words) > 1 else " none"
        raise InputError(f"degla {words[0]} needs one of {', '.join(actions)}; got{got}. See degla --help.")
    raise InputError(f"unknown command {words[0]!r}.{did_you_mean(words[0], map(spoken, names))} See degla --help.")


def _top() -> argparse.ArgumentParser:
    listed = {spoken(name): VERBS.summary(name) for name in VERBS.names()}
    width = max(len(name) for name in listed)
    top = Parser(
        prog="degla",
        usage="degla COMMAND ... | --help | --version",
        add_help=False,
        description=_ABOUT,
        epilog="commands:\n" + "\n".join(f"  {name:<{width}}  {summary}" for name, summary in listed.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # A section of options would take four lines of a screen to say what the usage says.
    top.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    top.add_argument("--version", action="version", version=f"degla {__version__}", help=argparse.SUPPRESS)
    return top


if __name__ == "__main__":
    raise SystemExit(main())
