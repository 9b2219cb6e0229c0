"""room_publish.lua against a plain model, by random batches on a real Valkey."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liveroom.errors import LiveroomError
from liveroom.events import Event, Position
from liveroom.store import backplane, items, scripts
from liveroom.store.backplane import Item

ROOM, AT = "r1", 1_790_000_000_000
PRODUCTS, VERSIONS = st.sampled_from("abcde"), st.integers(1, 9)


@dataclass
class Model:
    """What a room's log should be, in the plainest words."""

    seq: int = 0
    n: int = 0
    pinned: dict[str, int] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)
    fields: dict[str, tuple[int, object]] = field(default_factory=dict)
    reactions: dict[str, int] = field(default_factory=dict)
    once: dict[str, list[tuple]] = field(default_factory=dict)

    def logged(self, name: str, data: dict) -> tuple:
        self.seq += 1
        return (name, self.seq, None, data)

    def unpinned(self, product: str) -> tuple:
        return self.logged("product.unpinned", {"product": product})

    def publish(self, item: Item) -> str | list[tuple]:
        if item.once in self.once:
            return self.once[item.once]
        answer = self.carry_out(item)
        if item.once and not isinstance(answer, str):
            self.once[item.once] = answer
        return answer

    def carry_out(self, item: Item) -> str | list[tuple]:
        if item.remove is not None and int(item.remove.rpartition("-")[2]) not in self.messages:
            return "not_found"
        if item.event.name == "product.unpinned" and item.unpin not in self.pinned:
            return "not_found"
        if item.remove is not None:
            del self.messages[int(item.remove.rpartition("-")[2])]
        told = self.pins(item)
        data = self.newest(item)
        if item.react is not None:
            for kind, count in item.react.items():
                self.reactions[kind] = self.reactions.get(kind, 0) + count
            told.append((item.event.name, None, None, dict(self.reactions)))
        elif item.event.name == "message.posted":
            self.n += 1
            self.messages[self.n] = data["text"]
            told.append((item.event.name, None, self.n, data["text"]))
        else:
            told.append(self.logged(item.event.name, data))
        if item.pin is not None:
            self.pinned[item.pin] = self.seq
        return told

    def pins(self, item: Item) -> list[tuple]:
        left = []
        if item.unpin in self.pinned:
            del self.pinned[item.unpin]
            left = [item.unpin] if item.event.name != "product.unpinned" else []
        if item.pin is not None:
            kept = [*(p for p in self.pinned if p != item.pin), item.pin]
            left += kept[:-3]
            self.pinned = {product: self.pinned.get(product, 0) for product in kept[-3:]}
        return [self.unpinned(product) for product in left]

    def newest(self, item: Item) -> dict:
        data = dict(item.event.data)
        for key, (v, value) in (item.set or {}).items():
            if key not in self.fields or self.fields[key][0] < v:
                self.fields[key] = (v, value)
            if key in data:
                data[key] = self.fields[key][1]
        return data


def _item(name: str, data: dict, **more: object) -> Item:
    return Item(Event(name, data, AT), **more)


ONCE = st.sampled_from([None, None, None, "op1", "op2", "op3"])
ITEMS = st.one_of(
    st.builds(lambda once: _item("notice.posted", {"text": "x"}, once=once), ONCE),
    st.builds(lambda t, once: _item("message.posted", {"text": t}, once=once), st.text(), ONCE),
    *[st.builds(lambda p: _item("product.pinned", {"product": {"id": p}}, pin=p), PRODUCTS)] * 3,
    st.builds(lambda p: _item("product.unpinned", {"product": p}, unpin=p), PRODUCTS),
    st.builds(
        lambda p, v: _item("shelf.changed", {"shelf": [v]}, unpin=p, set={"shelf": (v, [v])}),
        PRODUCTS,
        VERSIONS,
    ),
    st.builds(
        lambda v: _item("price.changed", {"sku": "s"}, set={"shelf": (v, {}), "s": (v, None)}),
        VERSIONS,
    ),
    st.builds(
        lambda n: _item("message.removed", {"message": f"?-{n}"}, remove=f"?-{n}"),
        st.integers(0, 8),
    ),
    st.builds(
        lambda kind, count: _item("reactions.counted", {}, react={kind: count}),
        st.sampled_from(["like", "wow"]),
        st.integers(1, 50),
    ),
)


def _plain(answer: list[Event] | Exception) -> str | list[tuple]:
    if isinstance(answer, LiveroomError):
        return answer.code
    assert isinstance(answer, list), answer
    return [_plain_event(event) for event in answer]


def _plain_event(event: Event) -> tuple:
    data: object = event.data
    if event.name == "message.posted":
        data = event.data["text"]
    elif event.name == "reactions.counted":
        data = event.data["reactions"]
    return (event.name, event.seq, event.n, data)


async def _compare(url: str, batches: list[list[Item]]) -> None:
    client = scripts.connect(url)
    try:
        await client.flushall()
        await _compare_on(client, batches)
    finally:
        await client.aclose()


async def _compare_on(client, batches: list[list[Item]]) -> None:
    plane = backplane.Backplane(client, client, _Still())
    script, model, log = scripts.Script("room_publish"), Model(), []
    epoch = (await plane.room_state(ROOM)).position.epoch
    for batch in batches:
        for item in batch:
            if item.remove is not None:
                item.remove = item.remove.replace("?", epoch)
        keys, args = backplane._call(ROOM, batch, AT)
        found = items.answers_of(await script(client, keys, args), len(batch))
        before = set(model.once)
        for item, answer in zip(batch, found, strict=True):
            told = model.publish(item)
            assert _plain(answer) == told
            if not isinstance(told, str) and item.once not in before:
                log += [event for event in told if event[1] is not None]
            before |= {item.once} if item.once else set()
    state = await plane.room_state(ROOM)
    read = await plane.read(ROOM, Position(epoch, 0))
    assert state.position == Position(epoch, model.seq)
    assert (state.n, state.fields) == (model.n, model.fields)
    assert list(state.pinned.items()) == list(model.pinned.items())
    assert state.reactions[0] == model.reactions
    assert {m["n"]: m["text"] for m in state.messages} == model.messages
    assert [_plain_event(event) for event in read] == log


class _Still:
    def now_ms(self) -> int:
        return AT


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(st.lists(ITEMS, min_size=1, max_size=8), min_size=2, max_size=12))
def test_the_script_does_what_the_model_does(valkey, batches):
    """Any batches give the model's answers, its state, and its log without a gap."""
    asyncio.run(_compare(valkey, batches))
