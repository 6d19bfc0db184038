"""The review page in the browser: one draft at a time, keyboard-driven, served to this machine only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from html import escape
from threading import Lock, RLock, Thread
from time import monotonic_ns
from typing import Any, Final, Literal, NamedTuple

from degla.app.serving import guarded, mount, open_gradio, open_port, serve_at
from degla.errors import DeglaError, InputError
from degla.negatives.checks import REASONS, Verdict
from degla.negatives.differences import TextPiece, mark_words
from degla.negatives.grammar.phrases import parse_one
from degla.negatives.review import MOST_CHARACTERS, Action, Decision, Draft, Review, draft_key, judge_text

PageAction = Action | Literal["next", "previous"]
"""Actions of the buttons."""

_HELP: Final = (
    "Keys: <kbd>a</kbd> accept, <kbd>e</kbd> edit, <kbd>r</kbd> reject, <kbd>u</kbd> undo, <kbd>←</kbd> <kbd>→</kbd> "
    "browse. While editing: <kbd>Ctrl</kbd>+<kbd>Enter</kbd> accepts, <kbd>Esc</kbd> leaves the text field."
)


class Shown(NamedTuple):
    """What the page shows, in the order of its widgets.

    Attributes:
        progress: HTML.
        texts: caption and negative as HTML.
        verdict: verdict or complaint as HTML.
        text: content of the text field.
        key: key of the draft, and after a space the decision on it, if any.
    """

    progress: str
    texts: str
    verdict: str
    text: str
    key: str


class ReviewPage:
    """Content and actions of the page; the widgets of `build` only pass its answers on.

    Attributes:
        review: the open review.
    """

    def __init__(self, review: Review) -> None:
        self.review = review
        self._lock, self._judging = RLock(), Lock()
        self._made: dict[int, tuple[int, int]] = {}
        """Tab and time of the n-th decision in effect; those of earlier runs are missing."""

    def act(self, action: PageAction, key: str, text: str, tab: int = 0) -> Shown:
        """Apply a button's action to the draft that the browser shows, and return the updated page.

        Args:
            action: "accept", "reject", "undo", "next" or "previous".
            key: `Shown.key` in the browser; another tab may have moved on. An unknown key changes nothing.
            text: content of the text field.
            tab: when the browser's tab was opened, in nanoseconds of `monotonic_ns`, which also identifies it.

        Raises:
            InputError: the text cannot be accepted, another tab has decided the draft or made the last decision
                meanwhile, or a file cannot be written.
            DeglaError: the disk is full.
        """
        key, _, seen = key.partition(" ")
        with self._lock:
            if self.review.state.find(key) is None:  # a tab that is older than this server
                message = "Nothing was decided: that draft is not in this review. The current draft is shown instead."
                return self.show()._replace(verdict=_complaint(message))
            self.review.state.show(key)
            if action == "next":
                self.review.state.move(1)
            elif action == "previous":
                self.review.state.move(-1)
            else:
                choice = self.review.state.choice(key)
                wanted = {"accept": f"accept {' '.join(text.split())}", "reject": "reject "}.get(action)
                if choice is not None and wanted not in (None, _summary(choice)) and seen != _summary(choice):
                    as_text = f" as “{choice.negative}”" if choice.negative else ""
                    raise InputError(
                        f"another tab has {choice.action}ed this draft{as_text} meanwhile. Press again to replace that."
                    )
                number = len(self.review.state.history)
                if action == "undo":
                    maker, time = self._made.get(number, (tab, 0))
                    if tab != maker and tab < time:
                        raise InputError(
                            "another tab made the last decision. Undo it there, or show its draft and decide again."
                        )
                else:
                    self._made[number + 1] = tab, monotonic_ns()
                self.review.act(action, text)
            return self.show()

    def show(self) -> Shown:
        """Return the page of the current draft."""
        with self._lock:
            state = self.review.state
            texts, verdict = self.judge(state.key, state.text())
            choice = state.choice(state.key)
            key = state.key if choice is None else f"{state.key} {_summary(choice)}"
            return Shown(self._progress(), texts, verdict, state.text(), key)

    def judge(self, key: str, text: str) -> tuple[str, str]:
        """Return the two texts with their differences, and the verdict on a text that is being edited, as HTML."""
        key = key.partition(" ")[0]
        with self._lock:
            state = self.review.state
            draft = state.find(key) or state.draft
            choice = state.choice(key)
        if len(text) > MOST_CHARACTERS:
            complaint = f"longer than {MOST_CHARACTERS:,} characters. Use a single sentence."
            return _texts(draft, draft.negative), _complaint(complaint)
        with nullcontext() if text == draft.negative else self._judging:  # no wait for what was judged before
            verdict = judge_text(draft, text)
        return _texts(draft, text), _verdict(verdict, "" if choice is None else choice.action)

    def warm_up(self) -> None:
        """Load the tagger in advance, so that the first edit does not wait for it."""
        with self._judging:
            parse_one(self.review.state.draft.caption)

    def _progress(self) -> str:
        state = self.review.state
        total, accepted = len(state.drafts), len(state.accepted)
        counts = f"{state.decided:,} of {total:,} decided: {accepted:,} accepted, {state.decided - accepted:,} rejected"
        done = ""
        if state.is_done:
            files = ", ".join(f"<code>{escape(str(self.review.file(rule)))}</code>" for rule in self.review.rules)
            done = f'<p class="done">All drafts are decided. The accepted ones are in {files}.</p>'
        return (
            f'<div class="counts" role="status"><span>{counts}</span><span>draft {state.position + 1}</span></div>'
            f'<progress max="{total}" value="{state.decided}" aria-label="Drafts decided"></progress>{done}'
        )


def serve(review: Review, *, port: int = 7860) -> None:
    """Serve the page on 127.0.0.1 until the process is stopped (Ctrl-C); every decision is saved at once.

    Args:
        review: the open review.
        port: TCP port; 0 picks a free one.

    Raises:
        InputError: gradio is not installed, or the port cannot be used.
    """
    page = ReviewPage(review)
    application = build(page)
    with open_port(port) as listener:
        Thread(target=page.warm_up, daemon=True).start()
        serve_at(listener, application, title="Review", note="stop with Ctrl-C; all decisions are saved")


def build(page: ReviewPage) -> Any:
    """Build the web application (ASGI) of a page.

    Raises:
        InputError: gradio is not installed.
    """
    gradio = open_gradio("Or omit --page to review in the terminal.")
    return mount(gradio, guarded(), _lay_out(gradio, page), css="review_page.css", js="review_page.js")


def _lay_out(gradio: Any, page: ReviewPage) -> Any:
    with gradio.Blocks(analytics_enabled=False, title="degla: review of examples") as blocks:
        progress = gradio.HTML(elem_id="review-progress")
        texts = gradio.HTML(elem_id="review-texts")
        verdict = gradio.HTML(elem_id="review-verdict")
        text = gradio.Textbox(label="Negative, as it will be accepted", elem_id="review-text", lines=2, max_lines=6)
        key = gradio.Textbox(elem_id="review-key", visible="hidden")
        shown = [progress, texts, verdict, text, key]
        tab = gradio.Textbox(elem_id="review-tab", visible="hidden")
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        def button(action: PageAction, label: str, **look: str) -> None:
            control = gradio.Button(label, elem_id=f"review-{action}", min_width=120, **look)
            answered = control.click(_handler(page, action), [key, text, tab], shown, **quiet)
            answered.then(None, [key], js="(key) => window.deglaReview.done(key)")

        with gradio.Row(elem_id="review-decide"):
            button("accept", "Accept (a)", variant="primary")
            edit = gradio.Button("Edit (e)", elem_id="review-edit", min_width=120)
            edit.click(None, js="() => window.deglaReview.edit()")
            button("reject", "Reject (r)", variant="stop")
            button("undo", "Undo (u)")
        with gradio.Row(elem_id="review-move"):
            button("previous", "← Previous", size="sm")
            button("next", "Next →", size="sm")
        gradio.HTML(f"<p>{_HELP}</p>", elem_id="review-help")
        text.input(page.judge, [key, text], [texts, verdict], trigger_mode="always_last", **quiet)
        blocks.load(lambda: (*page.show(), str(monotonic_ns())), None, [*shown, tab], **quiet)
    return blocks


def _handler(page: ReviewPage, action: PageAction) -> Callable[[str, str, str], Shown]:
    def handle(key: str, text: str, tab: str) -> Shown:
        try:
            return page.act(action, key, text, int(tab or 0))  # "" until the page has loaded
        except DeglaError as error:
            shown = page.show()._replace(verdict=_complaint(str(error)))
            if shown.key.partition(" ")[0] != key.partition(" ")[0]:  # The text is of the draft before.
                return shown
            texts, _ = page.judge(shown.key, text)
            return shown._replace(texts=texts, text=text)

    return handle


def _summary(decision: Decision) -> str:
    return f"{decision.action} {decision.negative}"


def _complaint(message: str) -> str:
    return f'<p role="alert"><span class="refused">{escape(message)}</span></p>'


def _texts(draft: Draft, text: str) -> str:
    old, new = mark_words(draft.caption, text)
    source = f" by {escape(draft.source)}" if draft.source else ""
    return (
        f'<h1 data-key="{draft_key(draft)}">{escape(draft.rule)}<small>{source}</small></h1>'
        f'<dl><dt>Caption</dt><dd dir="auto">{_marked(old, "old")}</dd>'
        f'<dt>Negative</dt><dd dir="auto">{_marked(new, "new")}</dd></dl>'
    )


def _marked(pieces: list[TextPiece], name: str) -> str:
    return "".join(
        f'<mark class="{name}">{escape(piece)}</mark>' if changed else escape(piece) for piece, changed in pieces
    )


def _verdict(verdict: Verdict, action: str) -> str:
    decided = f'<span class="decided {action}">{action}ed</span>' if action else '<span class="decided">open</span>'
    if verdict.accepted:
        return f'<p role="status"><span class="passed">✓ checks passed</span> {decided}</p>'
    why = escape(REASONS.get(verdict.reason, verdict.reason))
    name = escape(verdict.reason)
    return f'<p role="status"><span class="refused">✗ {name}</span> <span>{why}</span> {decided}</p>'
