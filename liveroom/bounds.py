"""What the values of settings must be, beyond their types.

Each check raises ValueError, whose text completes the refusal of the setting.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final
from urllib.parse import urlsplit

_REDIS_SCHEMES: Final = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+cluster://",
    "rediss+cluster://",
)
_ORIGIN: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^\s/?#@,:\[\]]+)(:\d+)?", re.IGNORECASE
)


def redis_url(_type: Any, value: str | None) -> None:
    """A Redis, or a cluster of them."""
    if value is None:
        return
    if not value.startswith(_REDIS_SCHEMES):
        raise ValueError(f"Must start with one of {', '.join(_REDIS_SCHEMES)}.")
    hosts = urlsplit(value).netloc.rpartition("@")[2]
    for host in hosts.split(","):  # a cluster's URL names several
        _ = urlsplit(f"//{host}").port  # raises ValueError where it is none


def database_url(_type: Any, value: str | None) -> None:
    """SQLite or PostgreSQL."""
    if value is not None and not value.startswith(("sqlite:///", "postgresql://", "postgresql+")):
        raise ValueError("Must start with sqlite:/// or postgresql://.")


def http_url(_type: Any, value: str | None) -> None:
    """Something at a host that speaks HTTP; empty as if it was not set."""
    if not value:
        return
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("Must be http://host or https://host, with or without a path.")


def origins(_type: Any, values: tuple[str, ...]) -> None:
    """Origins as a browser sends them (RFC 6454, section 6.2); apps have schemes of their own."""
    for value in values:
        if not _ORIGIN.fullmatch(value):
            raise ValueError(f"{value!r} must be scheme://host or scheme://host:port.")


def addresses(_type: Any, values: tuple[str, ...]) -> None:
    """Addresses and networks, or a single * for all."""
    for value in values:
        if values != ("*",):
            ipaddress.ip_network(value)  # raises ValueError, with its reason
