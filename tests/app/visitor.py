"""A served page, a visitor in a browser, and the browser's errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from degla.app.serving import open_port

# Logged by gradio's browser code when it closes the stream for upload progress.
_GRADIOS = "Method not implemented."


@contextmanager
def served_here(application: Any) -> Iterator[str]:
    """Serve an application in a thread of this process, and yield its address."""
    with open_port(0) as listener:
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


class Visitor:
    """A tab of its own.

    Attributes:
        tab: of playwright.
        troubles: errors and warnings of the console, requests that failed and requests to anywhere else.
    """

    def __init__(self, browser: Any, address: str, *, until: str, **context: Any) -> None:
        self.tab = browser.new_context(**context).new_page()
        self.tab.set_default_timeout(60_000)  # the machine may be busy with other tests
        self.troubles: list[str] = []
        self.tab.on(
            "console",
            lambda message: self._note(
                message.type in ("error", "warning") and message.text != _GRADIOS, f"console: {message.text}"
            ),
        )
        self.tab.on("pageerror", lambda error: self._note(True, f"error: {error}"))
        self.tab.on("requestfailed", lambda request: self._note(True, f"failed: {request.url}"))
        self.tab.on(
            "request", lambda request: self._note(not request.url.startswith((address, "data:", "blob:")), request.url)
        )
        self.tab.goto(address)
        self.tab.wait_for_selector(until)

    def _note(self, wrong: bool, text: str) -> None:
        if wrong:
            self.troubles.append(text)

    def press(self, key: str) -> None:
        """Press a key of the review and wait for the page to have answered."""
        self.tab.keyboard.press(key)
        self.tab.wait_for_function("!window.deglaReview.isBusy()")

    def expect(self, selector: str, text: str) -> None:
        """Wait until an element says something."""
        self.tab.wait_for_function(
            "([selector, text]) => document.querySelector(selector)?.innerText.includes(text)",
            arg=[selector, text],
        )
