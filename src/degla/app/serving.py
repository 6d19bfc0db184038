"""What the pages share: gradio without its calls home, one application behind the guard, one socket on this machine."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any, Final

from degla.app.local_only import LocalOnly
from degla.errors import InputError

_FONTS: Final = ("system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
_HERE: Final = Path(__file__).parent


def open_gradio(instead: str) -> Any:
    """Import gradio, with nothing that it would tell others switched on.

    Args:
        instead: what can be used without it, a sentence.

    Raises:
        InputError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError:
        raise InputError(f"the page needs gradio: pip install 'degla[app]'. {instead}") from None
    return gradio


def guarded(*, upload_bytes: int = 0) -> Any:
    """An application that only this machine's own browser may speak to.

    Args:
        upload_bytes: largest file that it takes; 0: it takes none.
    """
    from fastapi import FastAPI

    application = FastAPI(openapi_url=None)
    application.add_middleware(LocalOnly, upload_bytes=upload_bytes)
    return application


def mount(gradio: Any, application: Any, blocks: Any, *, css: str, js: str | None = None) -> Any:
    """Put a page of gradio into an application; `css` and `js` name files beside this one."""
    return gradio.mount_gradio_app(
        application,
        blocks,
        path="/",
        server_name="127.0.0.1",
        theme=gradio.themes.Base(font=_FONTS, font_mono=("ui-monospace", "Consolas", "monospace")),
        css=(_HERE / css).read_text(encoding="utf-8"),
        js=None if js is None else (_HERE / js).read_text(encoding="utf-8"),
        footer_links=[],
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
    )


def open_port(port: int) -> socket.socket:
    """Listen on 127.0.0.1: from here on who opens the address waits, and is not refused, until the page answers.

    Args:
        port: TCP port; 0 takes a free one.

    Raises:
        InputError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or "no such port"
        raise InputError(f"port {port} cannot be used: {why}. Give another --port; 0 finds one.") from None
    listener.listen()
    return listener


def serve_at(listener: socket.socket, application: Any, *, title: str, note: str) -> None:
    """Say where the page is, and answer until the process is stopped (Ctrl-C)."""
    import uvicorn

    sys.stdout.write(f"{title} at http://127.0.0.1:{listener.getsockname()[1]}  ({note})\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(application, log_level="warning")).run(sockets=[listener])
