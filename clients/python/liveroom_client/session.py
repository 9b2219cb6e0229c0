"""One seat in one room, without its socket: positions, replies, events, commands.

Rules: a logged event is shown once and in order, or the session asks to resume; a command
goes out again on a new connection only when repeating it is safe. Nothing here awaits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import uuid_utils

from liveroom_client.errors import LiveroomError, from_wire
from liveroom_client.picture import Event, Picture

KEYED: Final = frozenset(
    [
        "auction.bid",
        "auction.start",
        "cart.add",
        "coupon.claim",
        "coupon.issue",
        "drop.schedule",
        "giveaway.start",
        "message.post",
        "notice.post",
        "order.refund",
        "payment.start",
        "room.close",
        "room.open",
        "stock.adjust",
        "stock.restock",
        "waitlist.join",
    ]
)
"""Commands that are sent with an idempotency key, because they are not safe to repeat."""

ONCE: Final = frozenset(["member.report", "product.ask", "reaction.send"])
"""Commands that are never sent again: losing one is better than doubling it."""


SOURCED: Final = frozenset(["cart.add", "order.place", "waitlist.join"])
"""Commands that tell what brought the viewer here."""


def new_id() -> str:
    """A UUID of version 7: for orders, and for idempotency keys."""
    return str(uuid_utils.uuid7())


class Position(NamedTuple):
    """A place in a room's log; positions of different epochs do not compare."""

    epoch: str
    seq: int


@dataclass(slots=True)
class Command:
    """One command: what is sent, and whether it may be sent again on another connection."""

    id: int
    cmd: str
    data: dict[str, Any]
    key: str | None = None

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.cmd not in ONCE

    def on_wire(self) -> dict[str, Any]:
        """The frame: `{id, cmd, data, key?}`."""
        frame: dict[str, Any] = {"id": self.id, "cmd": self.cmd, "data": self.data}
        if self.key is not None:
            frame["key"] = self.key
        return frame


@dataclass(slots=True)
class Received:
    """What one frame brought: answers by command id, events in order, and how the join went."""

    answers: dict[int, dict[str, Any] | LiveroomError] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    joined: str | None = None
    """`resumed` or `snapshot`, when the frame held the answer to the join."""
    refused: LiveroomError | None = None
    """Why the join was refused, when it was."""
    gap: bool = False
    """A logged event is missing: connect again and resume."""


class Session:
    """Turns commands into frames and frames into answers, events and a picture.

    `source` is what brought the viewer here: `{"kind", "id"?}`.
    """

    def __init__(self, source: dict[str, str] | None = None) -> None:
        self.state = Picture()
        self.position: Position | None = None
        self.you: dict[str, Any] = {}
        self.time_offset_ms = 0
        self._source = source
        self._last_id = 0
        self._join_id: int | None = None

    def command(self, cmd: str, data: dict[str, Any], key: str | None = None) -> Command:
        """A new command; it gets a key if it needs one and has none, and the source it lacks."""
        self._last_id += 1
        if self._source is not None and cmd in SOURCED:
            data = {"source": self._source} | data
        if key is None and cmd in KEYED:
            key = new_id()
        return Command(self._last_id, cmd, data, key)

    def join(self, token: str | None = None, name: str | None = None) -> Command:
        """The first frame of a connection; resumes if a position is known."""
        data: dict[str, Any] = {}
        if token is not None:
            data["token"] = token
        if name is not None:
            data["name"] = name
        if self.position is not None:
            data["since"] = self.position._asdict()
        command = self.command("room.join", data)
        self._join_id = command.id
        return command

    def receive(self, messages: list[dict[str, Any]]) -> Received:
        """Take the messages of one frame; after a gap the rest of the frame is left alone."""
        received = Received()
        for message in messages:
            if "re" in message:
                self._answer(message, received)
            elif "ev" in message:
                self._event(message, received)
            if received.gap:
                break
        return received

    def _answer(self, message: dict[str, Any], received: Received) -> None:
        command = message["re"]
        error = from_wire(message["error"]) if "error" in message else None
        if command is not None and command == self._join_id:
            self._join_id = None
            if error is None:
                self._joined(message["ok"], received)
            received.refused = error
        ok = message.get("ok", {})
        if "cart" in ok:
            self.state.cart = ok["cart"]
        if command is not None:
            received.answers[command] = ok if error is None else error

    def _joined(self, ok: dict[str, Any], received: Received) -> None:
        self.you = ok["you"]
        received.joined = ok["mode"]
        if ok["mode"] == "resumed":
            for event in ok["events"]:
                self._event(event, received)
            self.state.take_now(ok["now"])
        else:
            self.state.replace(ok["snapshot"])
        self.position = Position(ok["epoch"], ok["seq"])

    def _event(self, message: dict[str, Any], received: Received) -> None:
        seq = message.get("seq")
        if seq is not None and self.position is not None:
            if seq <= self.position.seq:
                return
            if seq > self.position.seq + 1:
                received.gap = True
                return
            self.position = self.position._replace(seq=seq)
        event = Event(message["ev"], message.get("data", {}), message["at"], seq, message.get("n"))
        self.state.fold(event)
        received.events.append(event)
