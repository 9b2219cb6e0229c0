"""Every refusal, by who must act.

    LiveroomError
    ├── Refused         the person: choose otherwise (sold_out, muted, price_changed …)
    ├── Invalid         the developer: mend the request (bad_argument, not_found …)
    ├── Denied          sign in, or ask for the right (unauthenticated, forbidden …)
    ├── Unavailable     nobody: try again (overloaded, rebuilding, store_down …)
    ├── ConnectionLost  nobody: the answer is not known; try again with the same id
    └── RoomClosed      the server has ended the connection for good

A code this client has never heard of is a plain `LiveroomError`: servers may add codes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

_REFUSED: Final = frozenset(
    [
        "sold_out",
        "limit_reached",
        "not_open",
        "sale_paused",
        "hold_expired",
        "price_changed",
        "already_claimed",
        "outbid",
        "payment_declined",
        "muted",
        "banned",
        "slow_mode",
        "blocked_words",
    ]
)
_INVALID: Final = frozenset(
    ["bad_frame", "unknown_command", "bad_argument", "not_found", "illegal_transition", "id_reused"]
)
_DENIED: Final = frozenset(["unauthenticated", "token_expired", "forbidden"])
_UNAVAILABLE: Final = frozenset(
    ["overloaded", "rate_limited", "rebuilding", "store_down", "shutting_down", "internal"]
)


class LiveroomError(Exception):
    """A refusal with a stable code.

    `retry` tells whether the same request may succeed later, `retry_after_ms` how much
    later (a hint); `data` holds what the code is about, such as `{"sku", "left"}`.
    """

    codes: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        retry: bool = False,
        retry_after_ms: int | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.retry = retry
        self.retry_after_ms = retry_after_ms
        self.data = data or {}
        super().__init__(f"{code}: {message}" if message else code)


class Refused(LiveroomError):
    """The person must choose otherwise."""

    codes = _REFUSED


class Invalid(LiveroomError):
    """The developer must mend the request."""

    codes = _INVALID


class Denied(LiveroomError):
    """The caller must sign in, or be given the right."""

    codes = _DENIED


class Unavailable(LiveroomError):
    """Nobody must act: the same request may succeed a little later."""

    codes = _UNAVAILABLE


class ConnectionLost(LiveroomError):
    """The connection broke, or no answer came in time; whether it was done is not known."""

    def __init__(self, message: str = "The connection broke before the answer came.") -> None:
        super().__init__("connection_lost", message, retry=True)


class RoomClosed(LiveroomError):
    """The server has closed the connection and does not want it back (4500-4999)."""


def from_wire(error: dict[str, Any]) -> LiveroomError:
    """The error of a reply's `error` object, or of an HTTP answer's problem+json."""
    code = str(error.get("code", "internal"))
    kind = next(
        (one for one in (Refused, Invalid, Denied, Unavailable) if code in one.codes), LiveroomError
    )
    return kind(
        code,
        str(error.get("message") or error.get("detail") or ""),
        retry=bool(error.get("retry", False)),
        retry_after_ms=error.get("retry_after_ms"),
        data=error.get("data"),
    )
