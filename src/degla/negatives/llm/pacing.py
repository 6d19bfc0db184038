"""How many requests are under way at one server, and when the next may go: learnt from what comes back.

The number grows while more requests bring more answers, by doubling at first and then by one, and is cut where the
server is too busy. Nothing here sleeps or reads a clock: times are given, in seconds of any one clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import Final

_FIRST: Final = 8
"""Requests under way before anything is known."""
_PAYS: Final = 1.2
"""Answers a second must grow by this factor where requests under way double, or growth ends."""
_CUT: Final = 0.7
"""What is left of the number after a rate limit, an overload or a time-out."""
_STRAY: Final = 0.05
"""Share of a window's requests that may meet a busy server without being taken as a sign."""
_SMALLEST: Final = 4
"""Answers in the smallest window."""
_EASED: Final = 0.85
"""What is left of it where answers suddenly take twice as long as usual."""
_TRY_AGAIN: Final = 32
"""Windows after which growth that did not pay is tried again: the server may have been given more to work with."""
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Pace:
    """The number of requests that one server is given at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(most, _FIRST))
        self.outstanding = 0
        self.opens_at = 0.0
        self._doubling = True
        self._before: tuple[float, float] | None = None  # limit and answers a second, one doubling ago
        self._ceiling = float(most)
        self._usual = 0.0  # seconds that an answer takes, averaged over windows
        self._last_cut = 0.0
        self._windows = 0
        self._answers = 0  # of this window, with the time since when they count and the seconds that they took
        self._since = 0.0
        self._latency = 0.0
        self._congestion = 0
        self._full = False

    def has_room(self, now: float) -> bool:
        """Whether one more request may go."""
        return now >= self.opens_at and self.outstanding < int(self.limit)

    def started(self) -> None:
        """A request goes."""
        self.outstanding += 1
        self._full = self._full or self.outstanding >= int(self.limit)

    def finished(self) -> None:
        """A request is over, answered or not."""
        self.outstanding -= 1

    def hold(self, until: float) -> None:
        """Let nothing go before that time."""
        self.opens_at = max(self.opens_at, until)

    def congested(self, *, started: float, now: float) -> None:
        """The server is too busy: cut, once for all requests that were under way together.

        A stray failure among many answers does not count: it would keep a large number small for nothing.
        """
        self._congestion += 1
        if started >= self._last_cut and self._congestion > _STRAY * self._size():
            self._cut(_CUT, now)

    def answered(self, *, started: float, now: float) -> None:
        """An answer came; at the end of a window of answers the number is thought over."""
        self._answers += 1
        size = self._size()
        # After a doubling the first answers of a window were asked for under the number before.
        passed_over = size if self._doubling else 0
        if self._answers <= passed_over:
            self._since = now
            return
        self._latency += now - started
        if self._answers >= passed_over + size:
            counted = self._answers - passed_over
            self._close_window(counted / max(now - self._since, 1e-9), self._latency / counted, now)

    def _size(self) -> int:
        """Answers in a window."""
        return max(_SMALLEST, int(self.limit))

    def _open_window(self) -> None:
        self._answers = 0
        self._since = 0.0
        self._latency = 0.0
        self._congestion = 0
        self._full = False

    def _close_window(self, rate: float, latency: float, now: float) -> None:
        """Think the number over: `rate` answers a second came, after `latency` seconds each."""
        full = self._full
        self._windows += 1
        self._open_window()
        if self._doubling:
            self._usual = latency
            if full:
                self._double(rate)
            return
        if self._usual and latency > 2 * self._usual:
            self._cut(_EASED, now)
        elif full:
            self.limit = min(self._ceiling, self.limit + 1)
        self._usual = 0.9 * self._usual + 0.1 * latency if self._usual else latency
        if self._windows % _TRY_AGAIN == 0 and self._ceiling < self.most:
            self._doubling, self._before = True, None

    def _double(self, rate: float) -> None:
        if self._before and rate < _PAYS * self._before[1]:
            # Twice as many requests bring hardly more answers: they would only wait at the server.
            self.limit = self._ceiling = self._before[0]
            self._doubling = False
        elif self.limit >= self.most:
            self._ceiling = float(self.most)
            self._doubling = False
        else:
            self._before = (self.limit, rate)
            self.limit = min(float(self.most), 2 * self.limit)

    def _cut(self, left: float, now: float) -> None:
        self.limit = max(1.0, self.limit * left)
        self._doubling = False
        self._usual = 0.0
        self._last_cut = now
        self._open_window()


def hold_for(headers: Mapping[str, str], *, tokens: float) -> float:
    """Seconds to wait because the server says that a rate limit is used up; 0 where it is not.

    Args:
        headers: of a response, names in lower case; x-ratelimit-remaining-* and x-ratelimit-reset-* are read.
        tokens: that one request takes.
    """
    longest = 0.0
    for name, needed in (("requests", 1.0), ("tokens", tokens)):
        remaining = headers.get(f"x-ratelimit-remaining-{name}")
        try:
            used_up = remaining is not None and float(remaining) < needed
        except ValueError:
            continue
        if used_up:
            longest = max(longest, read_duration(headers.get(f"x-ratelimit-reset-{name}", "")))
    return longest


def read_duration(text: str) -> float:
    """Seconds of "6m0s", "20ms", "1.5" (seconds); 0 for anything else."""
    text = text.strip()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
        return float(text)
    # Every number has its unit here: were it optional, the time to match would double with each digit.
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        return 0.0
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def back_off(attempt: int, *, base: float, rng: Random) -> float:
    """Seconds before asking again: drawn from 0 to `base` times 2 to the power of `attempt`, at most 60 times `base`.

    Full jitter, so that requests that failed together do not come back together (M. Brooker, "Exponential Backoff And
    Jitter", 2015).
    """
    return rng.uniform(0.0, base * min(60.0, 2.0**attempt))
