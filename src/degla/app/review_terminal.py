"""The review in a terminal, with one key per decision, or through a pipe, with one line per decision."""

from __future__ import annotations

import sys
from functools import partial
from typing import TextIO

from rich.console import Console
from rich.text import Text

from degla.errors import DeglaError, InputError
from degla.negatives.checks import REASONS, Verdict
from degla.negatives.differences import mark_words
from degla.negatives.review import Action, Review, judge_text
from degla.pages.words import printable

_ACTIONS: dict[str, Action] = {"a": "accept", "r": "reject", "u": "undo"}
_KEYS = "a accept   e edit   r reject   u undo   s skip   b back   q quit"


def review_in_terminal(review: Review, *, keys: TextIO | None = None, console: Console | None = None) -> None:
    """Show one draft after another and read a key for each, until all are decided or the user quits.

    Args:
        review: the open review; every decision is saved before the next draft is shown.
        keys: input stream, stdin by default. On a terminal, single keys are read; otherwise each line begins with a
            key, and the text for "e" is the rest of its line or the next line.
        console: where drafts are shown.
    """
    keys = sys.stdin if keys is None else keys
    console = Console(highlight=False, markup=False) if console is None else console
    read = _read_key if keys.isatty() else _read_line
    console.print(_KEYS, style="dim")
    shown = ""
    while not review.state.is_done:
        if shown != review.state.key:
            _show(review, console)
            shown = review.state.key
        command = read(keys)
        if command is None or command[0] in "qQ":
            break
        try:
            _obey(review, command, keys, console)
            shown = ""
        except DeglaError as error:
            console.print(f"{error}", style="red")
    state = review.state
    console.print(
        f"{state.decided} of {len(state.drafts)} decided, {len(state.accepted)} accepted: "
        + ", ".join(str(review.file(rule)) for rule in review.rules),
        soft_wrap=True,
    )


def _obey(review: Review, command: str, keys: TextIO, console: Console) -> None:
    """Carry out a command."""
    state, key = review.state, command[0].lower()
    if key in _ACTIONS:
        review.act(_ACTIONS[key], state.text())
    elif key == "e":
        text = command[1:].strip() or _read_text(keys, state.text())
        if text:
            decision = state.accept(text)
            verdict = judge_text(state.draft, text)
            if not verdict.accepted:
                console.print(_verdict(verdict))
            review.decide(decision)
    elif key == "s":
        state.skip()
    elif key == "b":
        state.move(-1)
    else:
        raise InputError(f"unknown key {key!r}. Keys: {_KEYS}")


def _show(review: Review, console: Console) -> None:
    state = review.state
    draft, text = state.draft, state.text()
    console.rule(f"{state.position + 1}/{len(state.drafts)}  {draft.rule}  ({len(state.accepted)} accepted)")
    for label, pieces in zip(("caption ", "negative"), mark_words(draft.caption, text), strict=True):
        line = Text(f"{label}  ", style="dim")
        for piece, changed in pieces:
            line.append(printable(piece), style="bold reverse" if changed else "not dim")
        console.print(line, soft_wrap=True)
    console.print(_verdict(judge_text(draft, text)))
    choice = state.choice(state.key)
    if choice:
        console.print(Text(f"decided   {choice.action}ed", style="dim"))


def _verdict(verdict: Verdict) -> Text:
    if verdict.accepted:
        return Text("checks    passed", style="green")
    return Text(f"checks    {printable(verdict.reason)}: {REASONS.get(verdict.reason, 'refused')}", style="yellow")


def _read_line(keys: TextIO) -> str | None:
    """Read the next non-blank line; None at the end."""
    for line in iter(keys.readline, ""):
        if line.strip():
            return line.strip()
    return None


def _read_key(keys: TextIO) -> str | None:
    """Read one key from a terminal, without Enter; on Windows, which has no `termios`, a line."""
    if sys.platform == "win32":
        return _read_line(keys)
    else:
        import termios
        import tty

        before = termios.tcgetattr(keys)
        try:
            tty.setcbreak(keys)
            key = keys.read(1)
            if key == "\x1b" and (key := keys.read(1)) in ("[", "O"):
                # An arrow key: the letter that ends its sequence is not a command.
                while (last := keys.read(1)) and not "@" <= last <= "~":
                    pass
                key = "\x1b"
        finally:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)
        return None if key in ("", "\x04") else key


def _read_text(keys: TextIO, text: str) -> str:
    """Read a new text: on a terminal by editing the old one, otherwise from the next line."""
    if sys.platform != "win32" and keys.isatty():
        import readline

        readline.set_startup_hook(partial(readline.insert_text, text))
        try:
            return input("negative  ").strip()
        except EOFError:
            return ""
        finally:
            readline.set_startup_hook()
    return keys.readline().strip()
