"""The Hugging Face hub: whether downloads are allowed, whether it is reachable, and loading offline."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from degla.errors import InputError

ALLOWED = "DEGLA_ALLOW_DOWNLOAD"
"""Environment variable set by `--allow-download`, so that it also applies to child processes."""

_SECONDS = 4.0


def downloads_allowed() -> bool:
    """Whether missing files of a local folder may be fetched from the hub."""
    return os.environ.get(ALLOWED, "") not in ("", "0")


def why_unreachable(*, seconds: float = _SECONDS) -> str | None:
    """Return why the hub is unreachable, within the given seconds; None if a connection can be opened."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    host, port = _gate(str(constants.ENDPOINT))
    answers: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            answers.append(None)
        except OSError as error:
            answers.append(error.strerror or str(error) or type(error).__name__)

    # In a separate thread: name resolution has no timeout.
    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(seconds)
    answer = answers[0] if answers else f"no answer in {seconds:g} seconds"
    return None if answer is None else f"no connection to {host}: {answer}"


def _gate(endpoint: str) -> tuple[str, int]:
    """Host and port that a request to the hub connects to: the hub's own or a proxy's."""
    address = urllib.parse.urlsplit(endpoint)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        address = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return address.hostname or "", address.port or (80 if address.scheme == "http" else 443)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Restrict huggingface_hub and transformers to local files inside the block."""
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


_LOADING = threading.RLock()
"""Held while transformers' functions are replaced: loads in threads that overlap would put back each other's."""


class NeedsCodeError(InputError, ValueError):
    """A model's tokenizer or tower requires code from the model's folder. transformers catches a ValueError, and then
    loads a class of its own if it has one."""


@contextlib.contextmanager
def refusing_code(name: str) -> Iterator[None]:
    """Refuse code that a model's tokenizer or tower needs. transformers would ask at the terminal whether to run it,
    and what is piped into the command could answer yes."""

    def refuse(*_: object, **__: object) -> None:
        raise NeedsCodeError(f"{name}: needs code of its own ('auto_map'), which is not run. Use a model without it.")

    import open_clip  # noqa: F401  # Imports transformers, if that is installed.

    asking: Any = sys.modules.get("transformers.dynamic_module_utils")
    # The last runs it, as a configuration at the hub may say ("trust_remote_code").
    changes = {"TIME_OUT_REMOTE_CODE": 0, "_raise_timeout_error": refuse, "get_class_in_module": refuse}
    with _LOADING, ExitStack() as settings:
        for changed, value in changes.items() if asking else ():
            settings.callback(setattr, asking, changed, getattr(asking, changed))
            setattr(asking, changed, value)
        yield


def _forget_connections() -> None:
    """Close open sessions: huggingface_hub before 1.0 reads the setting only when it opens one."""
    import huggingface_hub.utils as utilities

    for name in ("reset_sessions", "close_session"):
        if hasattr(utilities, name):
            getattr(utilities, name)()
            return
