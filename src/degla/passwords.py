"""Passwords in addresses, which no message and no file but a run's own configuration shows."""

from __future__ import annotations

import re
from typing import Final

SECRET: Final = r"(?:key|token|secret|password|auth|authorization|credentials?|sig|signature)"
"""How the names of fields with secrets end."""
_IN_FRONT: Final = re.compile(r"(?<=://)[^\s/:@]*:[^\s/]*@|(?:(?<=http://)|(?<=https://))[^\s/?#@]+@")
_IN_A_QUERY: Final = re.compile(rf"([?&][\w.-]*{SECRET}=)[^\s&]*[^\s&:,.;)'\"]", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Return a text with the addresses in it, `sftp://user:password@host/x?token=...`, without passwords and users.

    Servers also take a token in the place of a user: `https://token@host`.
    """
    return _IN_A_QUERY.sub(r"\1...", _IN_FRONT.sub("", text))
