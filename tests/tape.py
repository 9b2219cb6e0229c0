"""A link that keeps what it is sent, and a room's log and picture in plain Python, for tests."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from liveroom.clock import ManualClock
from liveroom.events import Event, Position
from liveroom.wire.codec import Format, decode
from liveroom.wire.direct import NOWHERE
from liveroom.wire.hub import Hub
from liveroom.wire.outbox import Owner, Seat


class Tape:
    """A connection whose peer reads when told to, in its own format."""

    def __init__(self, fmt: Format = Format.STREAM) -> None:
        self.format = fmt
        self.owner: Owner | None = None
        self.paused = False
        self.buffered = 0
        self.frames: list[bytes] = []
        self.full_after = 1 << 62  # so many frames, and its buffer is full
        self.closed: tuple[int, str] | None = None
        self.descriptor = NOWHERE

    def write(self, frame: bytes, _taken: int = 0) -> None:
        assert self.closed is None, "written after a close"
        self.frames.append(frame)
        if len(self.frames) >= self.full_after and not self.paused:
            self.pause()

    write_frame = write

    def close(self, code: int, reason: str = "") -> None:
        if self.closed is not None:
            return
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.on_lost()
        self.closed = (code, reason)

    def pause(self) -> None:
        self.paused = True
        assert self.owner is not None
        self.owner.on_pause()

    def resume(self) -> None:
        self.paused = False
        assert self.owner is not None
        self.owner.on_resume()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Every message of every frame, in order."""
        return [one for frame in self.frames for one in read(frame, self.format)]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events among the messages."""
        return [one for one in self.messages if "ev" in one]

    @property
    def seqs(self) -> list[int]:
        return [one["seq"] for one in self.events if "seq" in one]

    @property
    def ns(self) -> list[int]:
        return [one["n"] for one in self.events if "n" in one]

    @property
    def names(self) -> set[str]:
        return {one["ev"] for one in self.events}

    @property
    def stock(self) -> dict[str, int]:
        """How many are left of each SKU, by the last event."""
        told = [one["data"] for one in self.events if one["ev"] == "stock.changed"]
        return {one["sku"]: one["left"] for one in told}

    @property
    def ok(self) -> dict[str, Any]:
        """The answer to the first command."""
        return next(one["ok"] for one in self.messages if "re" in one)


def read(frame: bytes, fmt: Format) -> list[dict[str, Any]]:
    """The messages in a frame, which must be whole and of this format."""
    if fmt is Format.STREAM:
        assert (frame[:6], frame[-2:]) == (b"data: ", b"\n\n")
        return orjson.loads(frame[6:-2])
    assert frame[0] == {Format.JSON: 0x81, Format.MSGPACK: 0x82}[fmt]
    wide = {126: 2, 127: 8}.get(frame[1], 0)
    payload = frame[2 + wide :]
    assert len(payload) == (int.from_bytes(frame[2 : 2 + wide]) if wide else frame[1])
    return decode(payload, fmt)


class Who:
    def __init__(self, name: str) -> None:
        self.id = name


class Folded:
    """A picture that keeps its log, so that a test can compare."""

    def __init__(self, position: Position, n: int, budget: int) -> None:
        self.epoch, self.seq = position
        self.n = n
        self.chat_per_s_max = budget
        self.stock: dict[str, Any] = {}

    def apply(self, event: Event) -> None:
        if event.seq is not None:
            assert event.seq == self.seq + 1
            self.seq = event.seq
        if event.n is not None:
            self.n = event.n
        if event.name == "stock.changed":
            self.stock[event.data["sku"]] = event.data

    def snapshot(self) -> dict[str, Any]:
        return {"seq": self.seq, "n": self.n, "stock": self.stock}

    def now(self) -> dict[str, Any]:
        return {"n": self.n, "stock": self.stock}


class Store:
    """The log of every room, and what a hub is handed to reach it."""

    def __init__(self, *, budget: int = 0) -> None:
        self.epoch = "e1"
        self.logged: list[Event] = []
        self.n = 0
        self.v = 0
        self.budget = budget
        self.reads: list[int] = []
        self.pictures = 0
        self.subscribed: list[str] = []
        self.unsubscribed: list[str] = []
        self.gate: asyncio.Event | None = None

    @property
    def position(self) -> Position:
        return Position(self.epoch, len(self.logged))

    def notice(self, text: str = "") -> Event:
        event = Event("notice.posted", {"text": text}, 1, seq=len(self.logged) + 1)
        self.logged.append(event)
        return event

    def says(self, member: str, text: str = "") -> Event:
        self.n += 1
        data = {"id": f"e1-{self.n}", "n": self.n, "member": member, "text": text}
        return Event("message.posted", data, 1, n=self.n)

    def stock(self, left: int, sku: str = "s1") -> Event:
        self.v += 1
        return Event("stock.changed", {"sku": sku, "left": left, "v": self.v}, 1)

    async def _wait(self) -> None:
        if self.gate is not None:
            await self.gate.wait()

    async def read(self, _room: str, since: Position, limit: int) -> list[Event] | None:
        self.reads.append(since.seq)
        await self._wait()
        if since.epoch != self.epoch or since.seq > len(self.logged):
            return None
        missing = self.logged[since.seq :]
        return None if len(missing) >= limit else missing

    async def picture(self, _room: str) -> Folded:
        self.pictures += 1
        folded = Folded(self.position, self.n, self.budget)
        await self._wait()
        return folded

    async def positions(self, rooms: list[str]) -> dict[str, Position]:
        return dict.fromkeys(rooms, self.position)

    async def subscribe(self, room: str) -> None:
        self.subscribed.append(room)

    async def unsubscribe(self, room: str) -> None:
        self.unsubscribed.append(room)

    def hub(self, **options: Any) -> Hub:
        return Hub(
            log=self.read,
            picture=self.picture,
            positions=self.positions,
            subscribe=self.subscribe,
            unsubscribe=self.unsubscribe,
            clock=ManualClock(),
            node="here",
            **options,
        )


async def nothing() -> dict[str, Any]:
    return {}


async def join(
    hub: Hub,
    name: str = "ann",
    *,
    since: Position | None = None,
    crew: bool = False,
    own: Any = nothing,
    tape: Tape | None = None,
    room: str = "r1",
) -> Tape:
    tape = tape or Tape()
    seat = Seat(tape, tape.format, member=Who(name), crew=crew)
    await hub.join(room, seat, re=1, since=since, you={"id": name}, own=own)
    return tape


async def until(fact: Any, what: str = "this never became true") -> None:
    """Wait for a fact, for at most 5 s."""
    for _ in range(1000):
        if fact():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(what)
