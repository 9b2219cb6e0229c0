"""The door: who may connect, judged before a connection costs anything.

One door serves all connections of a process. It counts and compares; it never awaits, and
reads no clock but the monotonic one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

# Its own name is private; the rules of X-Forwarded-For are not ours to write again.
from uvicorn.middleware.proxy_headers import _TrustedHosts as _Hosts

from liveroom.errors import UNAVAILABLE
from liveroom.wire.codec import choose_format
from liveroom.wire.outbox import HIGH_WATER, LOW_WATER
from liveroom.wire.pulse import Pulse

OVERFLOW_MAX: Final = 256
"""Connections beyond the cap that still get their 503; those beyond are cut."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a door lets through; 0 means no limit. Plain values, so that it can be pickled.

    `allowed_origins` are whole origins (`https://shop.example`), compared exactly. Who comes
    through one of the `trusted_proxies` counts at the address that it was forwarded for.
    """

    connections_max: int = 0
    connections_per_address_max: int = 0
    handshakes_per_s_max: float = 0
    header_timeout_s: float = 10.0
    header_bytes_max: int = 64 * 1024
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    high_water: int = HIGH_WATER
    low_water: int = LOW_WATER
    fragments_max: int = 64
    control_frames_per_s_max: int = 10
    close_within_s: float = 5.0
    return_within_ms: int = 5000
    command_within_s: float = 10.0


class Refusal(NamedTuple):
    """An HTTP answer in place of what was asked for; its code is one of the wire's."""

    status: int
    code: str
    text: str
    retry_after_s: int | None = None


class Door:
    """Counts connections and handshakes of this process, and refuses what is too much.

    `on_full` is called when the last connection that it lets through has come.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.draining = False
        self.on_full: Callable[[], None] | None = None
        self.pulse: Pulse | None = None
        self.connections = 0
        self.refused: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._handshakes = max(1.0, limits.handshakes_per_s_max)
        self._filled_s = 0.0
        self._origins = {origin.lower().rstrip("/") for origin in limits.allowed_origins}
        self._proxies = _Hosts(list(limits.trusted_proxies))

    def enter(self, address: str) -> Refusal | None:
        """Count a connection from an address; a refusal when there are too many."""
        self.connections += 1
        self._addresses[address] += 1
        if self.connections == self.limits.connections_max and self.on_full is not None:
            self.on_full()
        return self._crowded(address)

    def address_behind(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """For whom a trusted proxy sends this request; None where it does not say, or is none."""
        if peer not in self._proxies:
            return None
        said = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        address = self._proxies.get_trusted_client_address(", ".join(said))[0] if said else ""
        return address or None

    def move(self, before: str, address: str) -> Refusal | None:
        """Count a connection at another address from now on; a refusal as from `enter`."""
        self._discount(before)
        self._addresses[address] += 1
        return self._crowded(address)

    def is_flooded(self, address: str) -> bool:
        """Whether there are so many connections that not even a 503 is owed."""
        limits = self.limits
        total, cap = limits.connections_max, limits.connections_per_address_max
        if total and self.connections > total + OVERFLOW_MAX:
            return True
        many = bool(address and cap and self._addresses[address] > cap + OVERFLOW_MAX)
        return many and address not in self._proxies  # whose requests say for whom they are

    def leave(self, address: str) -> None:
        """A connection that entered has ended."""
        self.connections -= 1
        self._discount(address)

    def judge(self, headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
        """Whether a WebSocket handshake with these headers is refused, and how."""
        if self.draining:
            return self._busy("draining")
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            found.setdefault(name.lower(), []).append(value)
        host = b"".join(found.get(b"host", [])[:1]).decode("latin-1")
        for origin in found.get(b"origin", []):
            if not self.is_own(origin.decode("latin-1"), host):
                self.refused["origin"] += 1
                return Refusal(403, "forbidden", "This origin may not connect.")
        offered = b",".join(found.get(b"sec-websocket-protocol", [])).decode("latin-1")
        if choose_format([name.strip() for name in offered.split(",") if name.strip()]) is None:
            self.refused["subprotocol"] += 1
            return Refusal(400, "bad_frame", "None of these subprotocols is known.")
        return self._spend()

    def is_own(self, origin: str, host: str) -> bool:
        """Whether pages of an origin may connect: those of this host, and the allowed ones.

        Host and port are compared; the scheme is not, since a proxy that ends TLS changes it.
        """
        if origin.lower() in self._origins:
            return True
        try:
            there, here = urlsplit(origin), urlsplit(f"//{host}")
            port = {"https": 443, "http": 80}.get(there.scheme)
            if port is None or not there.hostname or there.hostname != here.hostname:
                return False
            return here.port in {there.port or port, there.port}
        except ValueError:
            return False

    def after_ms(self) -> int:
        """A moment within `return_within_ms` for one client to return at, at random."""
        return random.randrange(max(1, self.limits.return_within_ms))

    def _crowded(self, address: str) -> Refusal | None:
        limits = self.limits
        if limits.connections_max and self.connections > limits.connections_max:
            return self._busy("connections_max")
        cap = limits.connections_per_address_max
        if address and cap and self._addresses[address] > cap:
            return self._busy("connections_per_address_max")
        return None

    def _discount(self, address: str) -> None:
        self._addresses[address] -= 1
        if self._addresses[address] <= 0:
            del self._addresses[address]

    def _spend(self) -> Refusal | None:
        rate = self.limits.handshakes_per_s_max
        if not rate:
            return None
        now_s = monotonic()
        gained = (now_s - self._filled_s) * rate if self._filled_s else 0.0
        self._filled_s = now_s
        self._handshakes = min(max(1.0, rate), self._handshakes + gained)
        if self._handshakes < 1:
            return self._busy("handshakes_per_s_max")
        self._handshakes -= 1
        return None

    def _busy(self, why: str) -> Refusal:
        self.refused[why] += 1
        code = "shutting_down" if self.draining else "overloaded"
        return Refusal(503, code, UNAVAILABLE[code].message, random.randint(1, 3))
