"""The Hugging Face hub: whether it may be asked, whether it can be reached, and loading without it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

ALLOWED = "DEGLA_ALLOW_DOWNLOAD"
"""Variable that `--allow-download` sets, for the processes that a command starts too."""

_SECONDS = 4.0


def downloads_allowed() -> bool:
    """Whether a local folder may have what it lacks fetched from the hub."""
    return os.environ.get(ALLOWED, "") not in ("", "0")


def why_unreachable(*, seconds: float = _SECONDS) -> str | None:
    """Why the hub cannot be asked, found out in at most the given seconds; None where a connection to it opens."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    host, port = _gate(str(constants.ENDPOINT))
    told: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            told.append(None)
        except OSError as error:
            told.append(error.strerror or str(error) or type(error).__name__)

    # In a thread of its own: the look-up of a name has no time limit.
    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(seconds)
    answer = told[0] if told else f"no answer in {seconds:g} seconds"
    return None if answer is None else f"no connection to {host}: {answer}"


def _gate(endpoint: str) -> tuple[str, int]:
    """Host and port that a request to the hub goes to first: its own, or a proxy's."""
    address = urllib.parse.urlsplit(endpoint)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        address = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return address.hostname or "", address.port or (80 if address.scheme == "http" else 443)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Let huggingface_hub and transformers read nothing but files that are here, for the length of the block."""
    from huggingface_hub import constants

    places: list[tuple[Any, str]] = [(constants, "HF_HUB_OFFLINE")]
    # transformers 4 copies the setting when it is imported.
    copied = sys.modules.get("transformers.utils.hub")
    if hasattr(copied, "_is_offline_mode"):
        places.append((copied, "_is_offline_mode"))
    before = [getattr(place, name) for place, name in places]
    for place, name in places:
        setattr(place, name, True)
    _forget_connections()
    try:
        yield
    finally:
        for (place, name), value in zip(places, before, strict=True):
            setattr(place, name, value)
        _forget_connections()


def _forget_connections() -> None:
    """huggingface_hub before 1.0 looks at the setting only when it opens a session."""
    import huggingface_hub.utils as utilities

    for name in ("reset_sessions", "close_session"):
        if hasattr(utilities, name):
            getattr(utilities, name)()
            return
