"""room_publish.lua by tables: before, call, word, after; on a real Valkey."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from liveroom.errors import LiveroomError
from liveroom.events import Event
from liveroom.store import backplane, items, keys, scripts
from liveroom.store.backplane import Item

ROOM, AT = "r1", 1_790_000_000_000


def event(name: str, **data: object) -> Event:
    return Event(name, data, AT)


def notice(text: str, **more: object) -> Item:
    return Item(event("notice.posted", text=text), **more)


def message(text: str, **more: object) -> Item:
    return Item(event("message.posted", text=text), **more)


def pin(product: str) -> Item:
    return Item(event("product.pinned", product={"id": product}), pin=product)


def unpin(product: str) -> Item:
    return Item(event("product.unpinned", product=product), unpin=product)


def shelf(without: str) -> Item:
    return Item(event("shelf.changed", shelf=[]), unpin=without)


def titled(v: int, title: str) -> Item:
    room = {"v": v, "title": title}
    return Item(event("room.changed", room=room), set={"room": (v, room)})


def priced(v: int) -> Item:
    priced_event = event("price.changed", sku="s1", price_minor=v)
    return Item(priced_event, set={"shelf": (v, [{"price": v}])})


def remove(n: int, epoch: str = "{epoch}") -> Item:
    """A removal of message `n`; the epoch is filled in where the table is played."""
    return Item(event("message.removed", message=f"{epoch}-{n}"), remove=f"{epoch}-{n}")


def react(**counts: int) -> Item:
    return Item(event("reactions.counted"), react=counts)


def watch(node: str, viewers: int) -> Item:
    return Item(event("viewers.counted"), watch=(node, viewers))


class Case(NamedTuple):
    """`words`: for each item of `call` a refusal, or its events as `name:seq` / `name#n`."""

    rule: str
    before: list[Item]
    call: list[Item]
    words: list[str]
    after: dict[str, object]


CASES = [
    Case(
        "logged events take the next seq, without a gap, over calls and within one",
        [notice("a")],
        [notice("b"), notice("c")],
        ["notice.posted:2", "notice.posted:3"],
        {"seq": 3, "n": 0},
    ),
    Case(
        "messages take the next n and no seq",
        [notice("a"), message("one")],
        [message("two"), notice("b"), message("three")],
        ["message.posted#2", "notice.posted:2", "message.posted#3"],
        {"seq": 2, "n": 3, "texts": ["one", "two", "three"]},
    ),
    Case(
        "a pin is last on the list",
        [pin("a")],
        [pin("b")],
        ["product.pinned:2"],
        {"pins": [("a", 1), ("b", 2)]},
    ),
    Case(
        "over three pins the oldest leaves, with an event of its own before the pin's",
        [pin("a"), pin("b"), pin("c")],
        [pin("d")],
        ["product.unpinned:4 product.pinned:5"],
        {"pins": [("b", 2), ("c", 3), ("d", 5)], "seq": 5},
    ),
    Case(
        "a product that is pinned again moves to the end; nothing leaves",
        [pin("a"), pin("b"), pin("c")],
        [pin("a")],
        ["product.pinned:4"],
        {"pins": [("b", 2), ("c", 3), ("a", 4)]},
    ),
    Case(
        "only what is pinned can be unpinned",
        [pin("a"), pin("ab")],
        [unpin("b"), unpin("a"), unpin("a")],
        ["not_found", "product.unpinned:3", "not_found"],
        {"pins": [("ab", 2)], "seq": 3},
    ),
    Case(
        "another event that takes a product off the shelf unpins it first",
        [pin("a"), pin("b")],
        [shelf("a"), shelf("a")],
        ["product.unpinned:3 shelf.changed:4", "shelf.changed:5"],
        {"pins": [("b", 2)]},
    ),
    Case(
        "the higher version stays, and an older event tells the newest value",
        [titled(5, "new")],
        [titled(4, "old"), titled(5, "same"), titled(6, "newer")],
        ["room.changed:2", "room.changed:3", "room.changed:4"],
        {"fields": {"room": (6, {"v": 6, "title": "newer"})}, "titles": ["new"] * 3 + ["newer"]},
    ),
    Case(
        "a field the event does not tell is kept beside it",
        [priced(7)],
        [priced(3)],
        ["price.changed:2"],
        {"fields": {"shelf": (7, [{"price": 7}])}},
    ),
    Case(
        "a removed message is gone, and cannot be removed twice",
        [message("one"), message("two")],
        [remove(1), remove(1), remove(3), remove(2, "other")],
        ["message.removed:1", "not_found", "not_found", "not_found"],
        {"texts": ["two"], "seq": 1},
    ),
    Case(
        "a message that newer ones pushed out can still be removed",
        [message(str(n)) for n in range(400)],
        [remove(1)],
        ["message.removed:1"],
        {"seq": 1, "n": 400},
    ),
    Case(
        "reactions add up, and tell all kinds with a growing v",
        [react(like=2)],
        [react(wow=1), react(like=3)],
        ["reactions.counted", "reactions.counted"],
        {"reactions": ({"like": 5, "wow": 1}, AT + 2), "seq": 0},
    ),
    Case(
        "viewers are the sum over nodes; the same sum is no event; a node at 0 is forgotten",
        [watch("n1", 5)],
        [watch("n2", 6), watch("n2", 6), watch("n1", 0)],
        ["viewers.counted", "", "viewers.counted"],
        {"viewers": (6, AT + 2)},
    ),
    Case(
        "what has an operation's id is published once, and answers the same again",
        [message("one", once="op1")],
        [message("one", once="op1"), message("one", once="op2"), message("x", once="op2")],
        ["message.posted#1", "message.posted#2", "message.posted#2"],
        {"n": 2, "texts": ["one", "one"]},
    ),
    Case(
        "a removal that is repeated with its operation's id is answered, not refused",
        [message("one"), remove(1)],
        [Item(event("notice.posted", text="n"), once="op"), remove(1)],
        ["notice.posted:2", "not_found"],
        {"seq": 2},
    ),
    Case(
        "a refusal stops no other item of the batch and binds nothing",
        [],
        [unpin("a"), notice("a"), remove(9), message("m")],
        ["not_found", "notice.posted:1", "not_found", "message.posted#1"],
        {"seq": 1, "n": 1, "pins": []},
    ),
]


def word(answer: list[Event] | Exception) -> str:
    if isinstance(answer, LiveroomError):
        return answer.code
    assert isinstance(answer, list), answer
    places = {True: lambda e: f":{e.seq}", False: lambda e: f"#{e.n}" if e.n else ""}
    return " ".join(e.name + places[e.seq is not None](e) for e in answer)


async def play(client, script, batch: list[Item], epoch: str) -> list[list[Event] | Exception]:
    for item in batch:
        if item.remove is not None:
            item.remove = item.remove.replace("{epoch}", epoch)
    call_keys, args = backplane._call(ROOM, batch, AT)
    return items.answers_of(await script(client, call_keys, args), len(batch))


@pytest.mark.parametrize("case", CASES, ids=[case.rule for case in CASES])
def test_table(case, redis_url, run, manual_backplane):
    """Each row of the table, with its own rule."""

    async def row():
        client = scripts.connect(redis_url)
        plane, script = manual_backplane(client), scripts.Script("room_publish")
        epoch = (await plane.room_state(ROOM)).position.epoch
        for item in case.before:
            await play(client, script, [item], epoch)
        answers = await play(client, script, case.call, epoch)
        state = await plane.room_state(ROOM)
        log = await plane.read(ROOM, state.position._replace(seq=0))
        await client.aclose()
        return [word(answer) for answer in answers], state, log

    words, state, log = run(row())
    assert words == case.words
    assert [e.seq for e in log] == list(range(1, state.position.seq + 1))
    found = {
        "seq": state.position.seq,
        "pins": list(state.pinned.items()),
        "texts": [m["text"] for m in state.messages],
        "titles": [e.data["room"]["title"] for e in log if e.name == "room.changed"],
        **state._asdict(),
    }
    assert {name: found[name] for name in case.after} == case.after


def test_one_message_a_batch(redis_url, run):
    """All events of a batch leave together, in order, on the partition's channel."""

    async def listen():
        client = scripts.connect(redis_url)
        pubsub = scripts.connect(redis_url).pubsub()
        await pubsub.ssubscribe(keys.room_channel(keys.partition(ROOM)))
        await pubsub.parse_response()
        await play(
            client, scripts.Script("room_publish"), [notice("a"), unpin("x"), message("m")], ""
        )
        await play(client, scripts.Script("room_publish"), [unpin("x")], "")
        await play(client, scripts.Script("room_publish"), [notice("b")], "")
        got = [scripts.unpack_raw((await pubsub.parse_response())[2]) for _ in range(2)]
        await pubsub.aclose()
        await pubsub.connection_pool.disconnect()
        await client.aclose()
        return [
            (room, [e.name for e in items.events_of(epoch.decode(), rows)])
            for room, epoch, rows in got
        ]

    assert run(listen()) == [
        (b"r1", ["notice.posted", "message.posted"]),
        (b"r1", ["notice.posted"]),
    ]


def test_values_lua_cannot_tell_apart_arrive_unharmed(redis_url, run, manual_backplane):
    """Empty lists and maps, null, floats, big integers, zero bytes: data are never opened."""
    data = {"a": [], "b": {}, "c": None, "d": 1.5, "e": 2**53, "f": "\0ü", "g": [None, False]}

    async def there_and_back():
        client = scripts.connect(redis_url)
        plane = manual_backplane(client)
        item = Item(Event("notice.posted", dict(data), AT), set={"c": (1, None), "x": (2, {})})
        (told,) = await plane.publish(ROOM, item)
        (read,) = await plane.read(ROOM, (await plane.room_state(ROOM)).position._replace(seq=0))
        fields = (await plane.room_state(ROOM)).fields
        await client.aclose()
        return told, read, fields

    told, read, fields = run(there_and_back())
    assert told.data == read.data == data
    assert fields == {"c": (1, None), "x": (2, {})}


def test_the_log_keeps_a_thousand_events(redis_url, run, manual_backplane):
    """Resume reaches back at least 1,000 logged events; what lies far behind is let go."""

    async def fill():
        client = scripts.connect(redis_url)
        plane = manual_backplane(client)
        await asyncio.gather(*(plane.publish(ROOM, notice("x")) for _ in range(3000)))
        end = (await plane.room_state(ROOM)).position
        reach = await plane.read(ROOM, end._replace(seq=2000))
        beyond = await plane.read(ROOM, end._replace(seq=100))
        kept = await client.xlen(keys.room_events(ROOM))
        await client.aclose()
        return end.seq, len(reach), beyond, kept

    seq, reach, beyond, kept = run(fill())
    assert (seq, reach, beyond) == (3000, 1000, None)
    assert 1000 <= kept < 1500
