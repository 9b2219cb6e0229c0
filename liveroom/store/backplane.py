"""The backplane: a room's events in order, from any node to every node.

`publish` is one script call for each room and batch: it takes the room's next `seq`, stores
the event and sends it, in one step. Publishing is batched while busy over all rooms of the
node, one round trip for a batch; messages wait in a queue of their own, so that a flood of
them neither delays a pin nor takes its place. What an item is and how it crosses Lua is in
`items.py`.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from liveroom.batching import Batcher
from liveroom.clock import Clock
from liveroom.events import Delivery, Event, Position
from liveroom.metrics import counters
from liveroom.store import items, keys, scripts
from liveroom.store.items import Batch, Item, RoomState
from liveroom.store.listener import Listener
from liveroom.store.scripts import Call, Client, Script, pack, unpack, unpack_raw

BATCH_MAX: Final = 256
WAITING_MAX: Final = 20_000
MESSAGES_SHOWN: Final = 50
READ_MAX: Final = 1001
READ_BYTES_MAX: Final = 1024 * 1024
"""After so many bytes of a log one call reads no more of it: nothing else runs meanwhile."""
ANSWER_TTL_S: Final = 24 * 3600
ROOMS_REMEMBERED: Final = 4096

__all__ = ["Backplane", "Batch", "Item", "RoomState"]


class Backplane:
    """One node's way to all nodes. Made with a command client and a listening client.

    Errors everywhere: `Unavailable` `store_down` where the store is away. A publication that
    ends so may or may not have happened; an item with `once` can be given again.
    """

    def __init__(self, client: Client, subscriber: Client, clock: Clock) -> None:
        self._client: Any = client  # its methods are typed for sync and async at once
        self._clock = clock
        self._publish = Script("room_publish")
        self._read = Script("room_read")
        self._message = Script("room_message")
        self._position = Script("room_position")
        self._positions = Script("room_positions")
        self._adopt = Script("room_adopt")
        self._events: Batcher[tuple[str, Item], list[Event]] = Batcher(
            self._publish_batch, size_max=BATCH_MAX, waiting_max=WAITING_MAX
        )
        self._chat: Batcher[tuple[str, Item], list[Event]] = Batcher(
            self._publish_batch, size_max=BATCH_MAX, waiting_max=WAITING_MAX
        )
        self._directs: Batcher[Sequence[Event], None] = Batcher(
            self._direct_batch, size_max=BATCH_MAX, waiting_max=WAITING_MAX
        )
        self._rooms: Counter[str] = Counter()
        self._partitions: Counter[int] = Counter()
        self._listener = Listener(scripts.ways(subscriber), heed=self._heed, on_reset=self._reset)

    # ── listening ─────────────────────────────────────────────────────────────────────────

    async def start(
        self,
        on_batch: Callable[[Batch], None],
        on_direct: Callable[[list[Event]], None],
        on_stock: Callable[[list[tuple[str, int, int]]], None],
        on_reset: Callable[[], None],
        *,
        stock_partitions: int = 1,
        is_seated: Callable[[str], bool] = lambda _member: True,
    ) -> None:
        """Hear direct events and stock from now on, and the rooms that are subscribed to.

        Args:
            on_batch: called with each batch of a subscribed room.
            on_direct: called with direct events for any member.
            on_stock: called with `(pool, left, v)` of each gate that changed.
            on_reset: called when messages may have been lost: compare positions.
            stock_partitions: how many stock channels there are.
            is_seated: whether a member sits on this node. Every node hears every direct
                event; those of other members are not even unpacked.
        """
        self._on_batch, self._on_direct, self._is_seated = on_batch, on_direct, is_seated
        self._on_stock, self._on_reset = on_stock, on_reset
        self._stock_channels = {keys.stock_channel(part) for part in range(stock_partitions)}
        await self._listener.start([keys.direct_channel(), *sorted(self._stock_channels)])

    async def subscribe(self, room: str) -> None:
        """Hear the room: what is published after this returns will come. Calls are counted."""
        part = keys.partition(room)
        self._rooms[room] += 1
        self._partitions[part] += 1
        try:
            await self._listener.add(keys.room_channel(part))
        except BaseException:
            await self.unsubscribe(room)
            raise

    async def unsubscribe(self, room: str) -> None:
        """Take one subscription back; its partition is left with the last room of it."""
        part = keys.partition(room)
        self._rooms[room] -= 1
        self._partitions[part] -= 1
        if not self._rooms[room]:
            del self._rooms[room]
        if not self._partitions[part]:
            await self._listener.remove(keys.room_channel(part))

    def _reset(self) -> None:
        self._on_reset()

    def _heed(self, channel: str, payload: bytes) -> None:
        if channel in self._stock_channels:
            self._on_stock([(pool, left, v) for pool, left, v in unpack(payload)])
        elif channel == keys.direct_channel():
            rows = ((to.decode(), blob) for to, blob in unpack_raw(payload))
            self._on_direct([items.direct_of(*row) for row in rows if self._is_seated(row[0])])
        else:
            self._heed_room(payload)

    def _heed_room(self, payload: bytes) -> None:
        room, epoch, rows = unpack_raw(payload)
        name = room.decode()
        if self._rooms[name]:
            events = items.events_of(epoch.decode(), rows)
            lag_s = max(0, self._clock.now_ms() - events[-1].at) / 1000
            counters.publish_lag_seconds.observe(lag_s)
            self._on_batch(Batch(name, epoch.decode(), events))

    # ── publishing ────────────────────────────────────────────────────────────────────────

    async def publish(self, room: str, item: Item) -> list[Event]:
        """The events the item became, with their seq or n; the store's own come first.

        Raises:
            Invalid: `not_found`, see `Item`.
            Unavailable: `store_down`, or `overloaded` when too many wait.
        """
        is_chat = item.event.delivery is Delivery.CHAT
        return await (self._chat if is_chat else self._events).submit((room, item))

    async def direct(self, events: Iterable[Event]) -> None:
        """Send events with `to` to their members' connections, on whatever node."""
        await self._directs.submit(list(events))

    async def count_viewers(self, room: str, node: str, viewers: int) -> None:
        """Tell this node's viewers of a room; lapses after 7 s unless told again.

        Where the sum over all nodes changed, viewers.counted goes out.
        """
        event = Event("viewers.counted", {}, self._clock.now_ms())
        await self.publish(room, Item(event, watch=(node, viewers)))

    async def _publish_batch(
        self, batch: Sequence[tuple[str, Item]]
    ) -> list[list[Event] | Exception]:
        rooms: dict[str, list[int]] = {}
        for at, (room, _) in enumerate(batch):
            rooms.setdefault(room, []).append(at)
        now_ms = self._clock.now_ms()
        replies = await self._publish.each(
            self._client,
            [_call(room, [batch[at][1] for at in ats], now_ms) for room, ats in rooms.items()],
        )
        counters.publish_batches += len(rooms)
        counters.events_published += len(batch)
        answers: dict[int, list[Event] | Exception] = {}
        for ats, reply in zip(rooms.values(), replies, strict=True):
            answers.update(zip(ats, items.answers_of(reply, len(ats)), strict=True))
        return [answers[at] for at in range(len(batch))]

    async def _direct_batch(self, batch: Sequence[Sequence[Event]]) -> list[None]:
        rows = [
            [event.to, items.as_blob(event, event.data)] for events in batch for event in events
        ]
        for first in range(0, len(rows), BATCH_MAX):
            payload = pack(rows[first : first + BATCH_MAX])
            with scripts.store_errors():
                await self._client.execute_command("SPUBLISH", keys.direct_channel(), payload)
        return [None] * len(batch)

    # ── reading ───────────────────────────────────────────────────────────────────────────

    async def position(self, rooms: Sequence[str]) -> dict[str, Position]:
        """Where each room's log stands, one call a partition; a lost log begins anew by it.

        Rooms that cannot be read are left out, unless none of them can.
        """
        parts: dict[int, list[str]] = {}
        for room in rooms:
            parts.setdefault(keys.partition(room), []).append(room)
        calls = [_positions_call(part, among) for part, among in parts.items()]
        found: dict[str, Position] = {}
        fault: Exception | None = None
        for among, reply in zip(
            parts.values(), await self._positions.each(self._client, calls), strict=True
        ):
            if isinstance(reply, Exception):
                fault = reply
                continue
            rows = zip(among, reply[::2], reply[1::2], strict=True)
            found.update({room: Position(epoch.decode(), seq) for room, epoch, seq in rows})
        if fault is not None and not found:
            raise fault
        return found

    async def read(self, room: str, since: Position, limit: int = READ_MAX) -> list[Event] | None:
        """The next logged events after `since`, oldest first, at most `limit`.

        Fewer, though at least one, where they are large: the others follow the last of them.
        None where the epoch differs, `since` is ahead of the log, or one of them is gone.
        """
        epoch, seq, rows, is_cut = await self._position(
            self._client, *_position_call(room, since, limit)
        )
        if epoch.decode() != since.epoch or since.seq > seq:
            return None
        events = [items.logged_of(entry, fields) for entry, fields in rows]
        count = len(events) if is_cut else min(limit, seq - since.seq)
        expected = range(since.seq + 1, since.seq + 1 + count)
        return events if [event.seq for event in events] == list(expected) else None

    async def room_state(self, room: str) -> RoomState:
        """The room's state and position, in one step; a lost log begins anew by it."""
        epoch, seq, n, flat, messages, reactions = await self._read(
            self._client, _room_keys(room), [_fresh_epoch(), MESSAGES_SHOWN]
        )
        log = items.pairs(flat)
        fields = {
            name[2:].decode(): (int(v), unpack(log[b"f:" + name[2:]]))
            for name, v in log.items()
            if name.startswith(b"v:")
        }
        pinned = [product for product in log.get(b"pinned", b"").split(b",") if product]
        return RoomState(
            position=Position(epoch.decode(), seq),
            n=n,
            fields=fields,
            pinned={p.decode(): int(log.get(b"p:" + p, 0)) for p in pinned},
            messages=[items.message_of(entry, row).data for entry, row in reversed(messages)],
            reactions=(
                {kind.decode(): int(count) for kind, count in items.pairs(reactions).items()},
                int(log.get(b"reactions_v", 0)),
            ),
            viewers=(int(log.get(b"viewers", 0)), int(log.get(b"viewers_v", 0))),
        )

    async def message(self, room: str, message: str) -> dict[str, Any] | None:
        """One of the room's last 200 messages; None for one that newer ones have pushed out.

        Raises:
            Invalid: `not_found`: it was removed, or never was.
        """
        names = [*_room_keys(room)[:4], keys.room_once(room, removal(message))]
        row = await self._message(self._client, names, [_fresh_epoch(), message])
        return None if row is None else items.message_of(*row).data

    # ── first answers ─────────────────────────────────────────────────────────────────────

    async def remember(self, member: str, key: str, content: str, answer: Any) -> None:
        """Keep the first answer to a member's command with an idempotency key for 24 h."""
        with scripts.store_errors():
            await self._client.set(
                keys.first_answer(member, key), pack([content, answer]), ex=ANSWER_TTL_S, nx=True
            )

    async def recall(self, member: str, key: str) -> tuple[str, Any] | None:
        """The content and first answer kept for this member and key, or None."""
        with scripts.store_errors():
            first = await self._client.get(keys.first_answer(member, key))
        return None if first is None else tuple(unpack(first))

    # ── life ──────────────────────────────────────────────────────────────────────────────

    async def run_id(self) -> str:
        """The store's run id, to be kept with the mark of a planned stop."""
        return await scripts.run_id(self._client)

    async def adopt(self, before: str) -> None:
        """Let the logs of the run `before` go on, which ended as planned: nothing was lost."""
        calls = [([keys.partition_run(part)], [before]) for part in range(keys.ROOM_PARTITIONS)]
        for reply in await self._adopt.each(self._client, calls):
            if isinstance(reply, Exception):
                raise reply

    async def close(self) -> None:
        """Answer what was submitted, then end the listening. The clients stay the caller's."""
        await self._chat.close()
        await self._events.close()
        await self._directs.close()
        await self._listener.close()


def removal(message: str) -> str:
    """The operation of taking this message away; no member's has such a name."""
    return f"!remove/{message}"


def _fresh_epoch() -> str:
    return secrets.token_hex(4)


@lru_cache(maxsize=ROOMS_REMEMBERED)
def _room_keys(room: str) -> tuple[str, ...]:
    names = (
        keys.room_log,
        keys.room_events,
        keys.room_messages,
        keys.room_reactions,
        keys.room_viewers,
    )
    return (keys.partition_run(keys.partition(room)), *(name(room) for name in names))


def _position_call(room: str, since: Position, limit: int) -> Call:
    wanted = [since.epoch, since.seq, limit, READ_BYTES_MAX]
    return _room_keys(room)[:3], [_fresh_epoch(), *wanted]


def _positions_call(part: int, rooms: Sequence[str]) -> Call:
    logs = [name(room) for room in rooms for name in (keys.room_log, keys.room_events)]
    return [keys.partition_run(part), *logs], [_fresh_epoch() for _ in rooms]


def _call(room: str, batch: Sequence[Item], now_ms: int) -> Call:
    once: list[str] = []
    told = [items.as_told(item, once) for item in batch]
    names = [*_room_keys(room), keys.room_channel(keys.partition(room))]
    names += [keys.room_once(room, operation) for operation in once]
    return names, [room, _fresh_epoch(), now_ms, pack(told)]
