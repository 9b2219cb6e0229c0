"""Every refusal, by who must act.

    LiveroomError
    ├── Refused      the person: choose otherwise (sold_out, muted, price_changed …)
    ├── Invalid      the client's developer: mend the request (bad_frame, not_found …)
    ├── Denied       sign in, or ask for the right (unauthenticated, forbidden …)
    └── Unavailable  nobody: try again (overloaded, rebuilding, store_down …)

    InvariantBroken  stands outside: a fault of ours, raised by `ensure()`.

A code is one word in five places: what Lua returns, the error's code here, the code on the
wire, the metric's label and the heading in the docs. Codes never change within v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple


class Code(NamedTuple):
    """What is fixed about one refusal: its HTTP status and the words a client may show."""

    http: int
    message: str


REFUSED: Final = {
    "sold_out": Code(409, "Not enough are left."),
    "limit_reached": Code(409, "The limit for each buyer is reached."),
    "not_open": Code(409, "This is not open now."),
    "sale_paused": Code(409, "The host has paused sales."),
    "hold_expired": Code(409, "The hold has ended; the units are on sale again."),
    "price_changed": Code(409, "The price has changed."),
    "already_claimed": Code(409, "This was claimed before."),
    "outbid": Code(409, "Somebody has bid more."),
    "payment_declined": Code(402, "The payment was declined."),
    "muted": Code(403, "You are muted in this room."),
    "banned": Code(403, "You are banned from this room."),
    "slow_mode": Code(429, "Slow mode is on; wait a little."),
    "blocked_words": Code(409, "The message holds blocked words."),
}
INVALID: Final = {
    "bad_frame": Code(400, "The frame cannot be read as {id, cmd, data}."),
    "unknown_command": Code(400, "There is no such command."),
    "bad_argument": Code(422, "The data does not fit the command."),
    "not_found": Code(404, "There is no such thing here."),
    "illegal_transition": Code(409, "That cannot follow the present state."),
    "id_reused": Code(409, "This id was used before with other content."),
}
DENIED: Final = {
    "unauthenticated": Code(401, "Sign in first."),
    "token_expired": Code(401, "The token has expired."),
    "forbidden": Code(403, "You do not have the right to do this."),
}
UNAVAILABLE: Final = {
    "overloaded": Code(503, "The server is busy; try again."),
    "rate_limited": Code(429, "Too many requests; try again a little later."),
    "rebuilding": Code(503, "Stock is being rebuilt; try again."),
    "store_down": Code(503, "A store is away; try again."),
    "shutting_down": Code(503, "The server is about to stop; connect again."),
    "internal": Code(500, "Something failed on our side; try again."),
}


class LiveroomError(Exception):
    """A refusal with a stable code.

    `data` is told to the client as it is; `retry_after_ms` is a hint, never a promise.
    """

    codes: ClassVar[dict[str, Code]] = {}
    retry = False

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        data: dict[str, Any] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        ensure(code in self.codes, f"{code} is no code of {type(self).__name__}")
        self.code = code
        self.message = message or self.codes[code].message
        self.http = self.codes[code].http
        self.data = data
        self.retry_after_ms = retry_after_ms
        super().__init__(f"{code}: {self.message}")

    def on_wire(self) -> dict[str, Any]:
        """The error object of a reply: `{code, message, retry, retry_after_ms?, data?}`."""
        wire: dict[str, Any] = {"code": self.code, "message": self.message, "retry": self.retry}
        if self.retry_after_ms is not None:
            wire["retry_after_ms"] = self.retry_after_ms
        if self.data is not None:
            wire["data"] = self.data
        return wire


class Refused(LiveroomError):
    """The person must choose otherwise; repeating the same request changes nothing."""

    codes = REFUSED

    @property
    def retry(self) -> bool:  # type: ignore[override]
        """Slow mode alone passes by itself."""
        return self.code == "slow_mode"


class Invalid(LiveroomError):
    """The client's developer must mend the request."""

    codes = INVALID


class Denied(LiveroomError):
    """The caller must sign in, or be given the right."""

    codes = DENIED


class Unavailable(LiveroomError):
    """Nobody must act: the same request may succeed a little later."""

    codes = UNAVAILABLE
    retry = True


class InvariantBroken(Exception):
    """Something that must be true is not: a fault of ours, never of the caller."""


FAMILIES: Final[tuple[type[LiveroomError], ...]] = (Refused, Invalid, Denied, Unavailable)


def error(code: str, message: str | None = None, **extra: Any) -> LiveroomError:
    """The error of this code in its family, for codes that arrive as words (from Lua, SQL)."""
    for family in FAMILIES:
        if code in family.codes:
            return family(code, message, **extra)
    raise InvariantBroken(f"unknown code {code!r}")


def ensure(fact: object, what: str) -> None:
    """Raise `InvariantBroken` unless `fact` holds (`python -O` would strip an assert)."""
    if not fact:
        raise InvariantBroken(what)


PROBLEM: Final = "application/problem+json"


def problem(status: int, wire: Mapping[str, Any]) -> dict[str, Any]:
    """What HTTP tells of a refusal: its form on the wire, and the members of RFC 9457."""
    return {
        "type": f"/docs#{wire['code']}",
        "title": wire["message"],
        "status": status,
        "detail": wire["message"],
        **wire,
    }
