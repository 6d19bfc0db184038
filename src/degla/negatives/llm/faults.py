"""Failures of a request: transient, caused by the request itself, or fatal for the run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from degla.errors import InputError
from degla.negatives.llm import ReplyStatus
from degla.parse import parse_json
from degla.passwords import SECRET

Nature = Literal["transient", "request", "fatal"]
"""transient: a retry may succeed. request: the server rejects this request as invalid. fatal: no request can succeed,
as the key or the model's name is wrong."""

_TOO_LONG: Final = re.compile(
    r"context[ _](?:length|window|size)|maximum (?:context|prompt)|max_model_len|(?:input|prompt).{0,30}too long"
    r"|too many (?:input )?tokens|exceeds? the (?:model|available|maximum|limit).{0,40}(?:token|context|length)"
    r"|`inputs` (?:tokens|must)",
    re.IGNORECASE,
)
_UNKNOWN_MODEL: Final = re.compile(
    r"model.{0,120}(?:does not exist|not found|not exist|not available|is unknown|not supported by|could not be found)"
    r"|(?:unknown|invalid|no such|unrecognized) model|model_not_found|not a valid model",
    re.IGNORECASE | re.DOTALL,
)
# Not "billing": rate limits of Groq and OpenAI link to a page of that name.
_NO_CREDIT: Final = re.compile(
    r"insufficient_quota|exceeded_current_quota|exceeded your current quota|insufficient (?:credit|balance)"
    r"|credit balance is too low|billing[ _]hard[ _]limit|spending limit|budget has been exceeded|budget_exceeded",
    re.IGNORECASE,
)
_WRONG_KEY: Final = re.compile(
    r"api[ _-]?key (?:not valid|expired)|(?:invalid|incorrect) api[ _-]?key|invalid authorization header", re.IGNORECASE
)
_FILTERED: Final = re.compile(
    r"content_filter|content management policy|content_policy|\bflagged\b|content exists risk|data_inspection_failed",
    re.IGNORECASE,
)
_ADDRESS: Final = re.compile(r"\b\w+://\S+|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b")
_KEY: Final = re.compile(r"\b(?:sk|key|pk)-[\w*.-]+", re.IGNORECASE)
_SECRET: Final = re.compile(rf"{SECRET}$", re.IGNORECASE)
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS: Final = {"milli": "ms", "sec": "s", "min": "m", "hour": "h", "hr": "h", "day": "d"}
"""How the words of units begin, to their abbreviations."""
_TRY_AGAIN: Final = re.compile(
    rf"(?:retry|try again) (?:in|after) ((?:[0-9]+(?:\.[0-9]+)? ?(?:{'|'.join(_UNITS)}|(?:ms|[smhd])(?![a-z])))+"
    r"|[0-9]+(?:\.[0-9]+)?)",
    re.IGNORECASE,
)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_EPOCH: Final = 1e9
"""A reset of more seconds is a moment since the epoch, as some gateways give it."""
NO_CHOICES: Final = "no choices"
"""Kind of an answer without choices: some servers send it when a filter blocks the prompt, others transiently."""
LONGEST_WAIT: Final = 300.0
"""Longest wait in seconds that a server may ask for; if all ask for more (daily quota used up), the run ends."""


@dataclass(eq=False)
class Fault(Exception):  # noqa: N818 - not every one is an error, most are transient
    """A request without an answer.

    Attributes:
        kind: category in the counts: "429", "500", "timeout", "connection", "half reply", "bad body", ...
        nature: whether to retry.
        message: the server's message, without addresses and keys.
        outcome: outcome of the request if it is not retried.
        wait: seconds that the server asks to wait; None if it does not.
        status: the HTTP status, or the one that servers usually give for this (401 for a wrong key, 402 if there is no
            credit left); None if there was none.
    """

    kind: str
    nature: Nature
    message: str
    outcome: ReplyStatus = "unreachable"
    wait: float | None = None
    status: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    @property
    def congestion(self) -> bool:
        """Whether it means that there are too many concurrent requests."""
        return self.kind in ("429", "503", "529", "timeout")


def fault_of_status(
    status: int, body: str, headers: Mapping[str, str], *, now: float, secrets: tuple[str, ...]
) -> Fault:
    """Interpret an HTTP status of 300 or more. Redirects are not followed.

    Args:
        status: the status.
        body: the response's body, in any format.
        headers: the response's headers, names in lower case.
        now: seconds since the epoch, for a Retry-After that is a date.
        secrets: texts that no message may show.
    """
    message, code = _read_message(body)
    display = conceal(message or f"HTTP status {status}", secrets=secrets)
    both = f"{code} {message}"

    def fault(nature: Nature, outcome: ReplyStatus = "unreachable", wait: float | None = None) -> Fault:
        return Fault(str(status), nature, display, outcome=outcome, wait=wait, status=status)

    if 300 <= status < 400:
        return Fault(str(status), "fatal", _target(headers.get("location", "")), status=status)
    wait = retry_after(headers, message, now=now)
    if status == 403 and _FILTERED.search(both):
        return fault("request", "refused")
    if status in (401, 403, 402):
        return fault("fatal")
    if status == 400 and _WRONG_KEY.search(both):
        return replace(fault("fatal"), status=401)
    if status in (400, 412, 429) and _NO_CREDIT.search(both) and (wait is None or "insufficient_quota" in code):
        return replace(fault("fatal"), status=402)
    if status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(both)):
        return fault("request", "too_long")
    if status in (404, 405) or (status in (400, 422) and _UNKNOWN_MODEL.search(both)):
        return fault("fatal")
    if status in (408, 409, 424, 425, 429) or status >= 500:
        return fault("fatal" if wait is not None and wait > LONGEST_WAIT else "transient", wait=wait)
    return fault("request", "refused" if _FILTERED.search(both) else "rejected")


def retry_after(headers: Mapping[str, str], message: str = "", *, now: float) -> float | None:
    """Return the seconds to wait, else None.

    Args:
        headers: response headers, names in lower case; retry-after-ms and Retry-After (seconds or a date) are read.
        message: the server's message, read if they are missing: "try again in 1m2.5s".
        now: seconds since the epoch.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) / unit)
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - now)
        except (TypeError, ValueError, IndexError, OverflowError):
            pass
    match = _TRY_AGAIN.search(message)
    if match is None:
        return None
    text = match.group(1).casefold().replace(" ", "")
    for word, short in _UNITS.items():
        text = text.replace(word, short)
    return read_duration(text)


def reset_in(headers: Mapping[str, str], *, tokens: int, now: float) -> float:
    """Return the seconds until a used-up rate limit is reset; 0 if it is not used up.

    Args:
        headers: response headers, names in lower case; x-ratelimit-remaining-* and x-ratelimit-reset-* are read.
        tokens: tokens per request.
        now: seconds since the epoch, for a reset that is a moment.
    """
    longest = 0.0
    for name, needed in (("requests", 1), ("tokens", tokens)):
        remaining = headers.get(f"x-ratelimit-remaining-{name}")
        try:
            used_up = remaining is not None and float(remaining) < needed
        except ValueError:
            continue
        if used_up:
            reset = read_duration(headers.get(f"x-ratelimit-reset-{name}", ""))
            longest = max(longest, reset - now if reset > _EPOCH else reset)
    return longest


def read_duration(text: str) -> float:
    """Parse a duration such as "6m0s", "20ms" or "1.5" (seconds) into seconds; 0 for anything else."""
    text = text.strip()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
        return float(text)
    # Every number needs a unit here: if it were optional, matching time would double with each digit.
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        return 0.0
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def conceal(message: str, *, secrets: tuple[str, ...]) -> str:
    """Return the message on one line, without keys and addresses, truncated to a readable length."""
    for secret in secrets:
        if secret:
            message = message.replace(secret, "[hidden]")
    message = _KEY.sub("[key]", _ADDRESS.sub("[address]", message))
    message = " ".join("".join(letter if letter.isprintable() else " " for letter in message[:4000]).split())
    return message if len(message) <= 400 else message[:400] + "..."


def take_secrets(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a request without those named like keys ("api_key", "auth_token"), and these values.

    Numbers and switches are settings, whatever their names: hidden, every 0 of a message would be.
    """
    public: dict[str, Any] = {}
    secrets: list[str] = []
    for name, value in fields.items():
        if _SECRET.search(name) and not isinstance(value, int | float | None):
            secrets += _texts_in(value)
        elif isinstance(value, dict):
            public[name], more = take_secrets(value)
            secrets += more
        elif isinstance(value, list):
            entries = [take_secrets({"": entry}) for entry in value]  # each as a field that is not named like a key
            public[name] = [entry[""] for entry, _ in entries]
            secrets += [secret for _, more in entries for secret in more]
        else:
            public[name] = value
    return public, secrets


def _texts_in(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [text for each in (value.values() if isinstance(value, dict) else value) for text in _texts_in(each)]
    return [value] if isinstance(value, str) else []


def _target(location: str) -> str:
    """Return the base URL of a redirect, without user, password and query."""
    try:
        parts = urlsplit(location)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an invalid address"
    host = f"{parts.scheme or 'http'}://{parts.hostname}{port}" if parts.hostname else ""
    address = f"{host}{parts.path.removesuffix('/chat/completions').removesuffix('/images/generations')}"
    return "".join(letter for letter in address[:200] if letter.isprintable()) or "an unnamed address"


def _read_message(body: str) -> tuple[str, str]:
    """Return the message and the code of an error body, in any of the formats that servers use."""
    try:
        value: Any = parse_json(body, where="the body")
    except InputError:
        return body.strip(), ""
    if isinstance(value, list) and len(value) == 1:  # Gemini
        value = value[0]
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        value = value["error"]
    if not isinstance(value, dict):
        return body.strip(), ""
    code = f"{value.get('code') or ''} {value.get('type') or ''}"
    metadata = value.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None  # OpenRouter: what the provider said
    for name in ("message", "error", "detail"):
        if message := value.get(name):
            message = message if isinstance(message, str) else json.dumps(message)
            return f"{message}: {raw}" if isinstance(raw, str) else message, code
    return body.strip(), code
