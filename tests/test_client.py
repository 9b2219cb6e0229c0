"""The Python SDK against a WebSocket server that says what each test has written down."""

import asyncio
import contextlib
import json

import msgpack
import orjson
import pytest
from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from liveroom_client import (
    ConnectionLost,
    Denied,
    Format,
    Invalid,
    Refused,
    RoomClosed,
    connect,
    features,
)
from liveroom_client.codec import encode
from liveroom_client.reconnect import Backoff

SNAPSHOT = {
    "room": {"id": "r1", "title": "Friday night", "host": "c1", "state": "live", "v": 1},
    "shelf": [],
    "pinned": [],
    "drops": [],
    "stock": {"s1": {"left": 5, "v": 1}},
    "messages": [],
    "viewers": 1,
    "reactions": {},
    "coupons": [],
    "auction": None,
    "cart": None,
}
NOW = {"stock": {}, "drops": [], "viewers": 1, "reactions": {}, "messages": [], "orders": []}


class Seat:
    """The server's side of one connection: reads commands, says what it is told."""

    def __init__(self, socket):
        self.socket = socket
        self.binary = socket.subprotocol == Format.MSGPACK

    async def read(self):
        frame = await self.socket.recv()
        if self.binary:
            return msgpack.unpackb(frame)
        return json.loads(frame)

    async def say(self, *messages):
        content = list(messages)
        format_ = Format.MSGPACK if self.binary else Format.JSON
        await self.socket.send(encode(content, format_))

    async def ok(self, command, **ok):
        await self.say({"re": command["id"], "ok": ok})

    async def refuse(self, command, code, **more):
        error = {"code": code, "message": "no", "retry": False, **more}
        await self.say({"re": command["id"], "error": error})

    async def snapshot(self, seq=10, epoch="e1"):
        join = await self.read()
        await self.ok(
            join,
            you={"id": "u1", "name": "Ann", "roles": []},
            epoch=epoch,
            seq=seq,
            time_ms=1,
            node="n1",
            mode="snapshot",
            snapshot=SNAPSHOT,
        )
        return join

    async def resumed(self, seq, *events, **now):
        join = await self.read()
        await self.ok(
            join,
            you={"id": "u1", "name": "Ann", "roles": []},
            epoch="e1",
            seq=seq,
            time_ms=1,
            node="n1",
            mode="resumed",
            events=list(events),
            now={**NOW, **now},
        )
        return join


def notice(seq, text="…"):
    return {"ev": "notice.posted", "seq": seq, "at": 1, "data": {"text": text}}


@contextlib.asynccontextmanager
async def room_of(*conversations, **options):
    """A client of a server that holds each conversation once, in order; the last for ever."""
    left = list(conversations)

    async def handle(socket):
        seat = Seat(socket)
        talk = left.pop(0) if len(left) > 1 else left[0]
        await talk(seat)
        with contextlib.suppress(Exception):
            await socket.wait_closed()

    formats = [one.value for one in Format]
    async with serve(handle, "127.0.0.1", 0, subprotocols=formats) as server:
        port = server.sockets[0].getsockname()[1]
        yield connect(f"http://127.0.0.1:{port}", "r1", **options)


async def until(fact):
    """Wait until `fact()` holds, at most ten seconds."""
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110 - a test looks, it is not told
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("wire_format", list(Format))
def test_join_events_and_commands(run, wire_format):
    """A client joins, sees what happens, and gets the answers to its commands."""

    async def talk(seat):
        join = await seat.snapshot()
        assert join["data"] == {"token": "tok", "name": "Ann"}
        await seat.say(notice(11, "hello"))
        command = await seat.read()
        assert command["cmd"] == "message.post"
        assert len(command["key"]) == 36
        await seat.ok(command, message={"id": "e1-1", "n": 1, "text": command["data"]["text"]})

    async def story():
        async with (
            room_of(talk, token="tok", name="Ann", format=wire_format) as room,
            room.events() as events,
            room,
        ):
            assert room.you["id"] == "u1"
            assert room.state.left("s1") == 5
            message = await room.messages.post("还有吗?")
            assert message["text"] == "还有吗?"
            await until(lambda: room.state.notice == "hello")
            assert (await anext(events)).name == "local.joined"
            assert (await anext(events)).name == "notice.posted"
            assert room.position == ("e1", 11)

    run(story())


def test_what_brought_the_viewer_is_told_with_what_is_bought(run):
    """Said once to the client, it goes with holds, orders and waiting, and with nothing else."""
    source, told = {"kind": "note", "id": "n1"}, []

    async def talk(seat):
        await seat.snapshot()
        for _ in range(4):
            command = await seat.read()
            told.append((command["cmd"], command["data"].get("source")))
            await seat.ok(command, cart={}, order={}, waiting={})

    async def story():
        async with room_of(talk, source=source) as room, room:
            await room.cart.add("s1")
            lines = [{"sku": "s1", "qty": 1}]
            await room.command("order.place", order="o1", lines=lines, source={"kind": "search"})
            await room.waitlist.join("s1")
            await room.cart.show()

    run(story())
    assert told == [
        ("cart.add", source),
        ("order.place", {"kind": "search"}),
        ("waitlist.join", source),
        ("cart.show", None),
    ]


def test_refusals_are_typed(run):
    """A refusal is raised as its family, with its code and data."""

    async def talk(seat):
        await seat.snapshot()
        await seat.refuse(await seat.read(), "sold_out", data={"sku": "s1", "left": 0})
        await seat.refuse(await seat.read(), "unauthenticated")
        await seat.refuse(await seat.read(), "bad_argument")

    async def story():
        async with room_of(talk) as room, room:
            with pytest.raises(Refused) as refused:
                await room.orders.place([{"sku": "s1", "qty": 1}])
            assert (refused.value.code, refused.value.data["left"]) == ("sold_out", 0)
            with pytest.raises(Denied):
                await room.cart.add("s1")
            with pytest.raises(Invalid):
                await room.cart.add("s1", 0)

    run(story())


def test_a_client_that_drops_off_comes_back_and_misses_nothing(run):
    """After a cut the client joins with its position and gets what it has missed."""

    async def first(seat):
        await seat.snapshot()
        await seat.say(notice(11))
        await seat.socket.close(4000, '{"after_ms": 5}')

    async def second(seat):
        join = await seat.resumed(12, notice(12, "missed"))
        assert join["data"]["since"] == {"epoch": "e1", "seq": 11}
        await seat.say(notice(13, "live"))

    async def story():
        async with room_of(first, second) as room:
            stream = room.events()
            async with room:
                names = []
                async for event in stream:
                    names.append((event.name, event.seq))
                    if event.seq == 13:
                        break
        assert names == [
            ("local.joined", None),
            ("notice.posted", 11),
            ("local.lost", None),
            ("local.joined", None),
            ("notice.posted", 12),
            ("notice.posted", 13),
        ]

    run(story())


def test_a_gap_makes_the_client_resume(run):
    """A missing seq is not skipped: the client connects again from where it was."""

    async def first(seat):
        await seat.snapshot()
        await seat.say(notice(12, "too early"))

    async def second(seat):
        await seat.resumed(12, notice(11, "one"), notice(12, "two"))

    async def story():
        async with room_of(first, second) as room, room:
            await until(lambda: room.state.notice == "two")
            assert room.position == ("e1", 12)

    run(story())


def test_a_command_without_an_answer_goes_out_again_with_the_same_key(run):
    """A retry after a cut is the same command to the server, so nothing is done twice."""
    keys = []

    async def first(seat):
        await seat.snapshot()
        keys.append((await seat.read())["key"])
        await seat.socket.close(1012)

    async def second(seat):
        await seat.resumed(10)
        command = await seat.read()
        keys.append(command["key"])
        await seat.ok(command, cart={"lines": [], "total_minor": 0})

    async def story():
        async with room_of(first, second) as room, room:
            assert await room.cart.add("s1") == {"lines": [], "total_minor": 0}
        assert keys[0] == keys[1] is not None

    run(story())


def test_reactions_are_never_sent_twice(run):
    """A reaction without an answer is lost, not doubled."""

    async def first(seat):
        await seat.snapshot()
        await seat.read()
        await seat.socket.close(1012)

    async def second(seat):
        await seat.resumed(10)

    async def story():
        async with room_of(first, second) as room, room:
            with pytest.raises(ConnectionLost) as lost:
                await room.reactions.send("heart", 3)
            assert lost.value.retry

    run(story())


def test_a_close_that_is_given_up_leaves_nothing_behind(run):
    """Whoever does not wait for the last taps is out of the room all the same."""

    async def talk(seat):
        await seat.snapshot()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await seat.read()

    async def story():
        async with room_of(talk) as room:
            await room.open()
            room.reactions.tap()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await room.close()
            assert not room.connected
            await asyncio.sleep(0)
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert not [name for name in names if name.startswith("liveroom ")]

    run(story())


def test_taps_are_summed(run, monkeypatch):
    """Taps of a moment are one command, the next waits for its answer, the last go with the close."""
    monkeypatch.setattr(features, "TAPS_SUMMED_S", 0.01)
    seen, tapped = [], asyncio.Event()

    async def talk(seat):
        await seat.snapshot()
        seen.extend([await seat.read(), await seat.read()])
        await tapped.wait()
        await seat.ok(seen[0])
        await seat.refuse(seen[1], "bad_argument")
        for _ in range(2):
            seen.append(await seat.read())
            await seat.ok(seen[-1])

    async def story():
        async with room_of(talk) as room, room:
            for kind in ("heart", "star", "heart"):
                room.reactions.tap(kind)
            await until(lambda: len(seen) == 2)
            for _ in range(150):
                room.reactions.tap()
            tapped.set()
            await until(lambda: len(seen) == 3)
            room.reactions.tap("star")

    run(story())
    assert {one["cmd"] for one in seen} == {"reaction.send"}
    sums = [{"kind": "heart", "count": 2}, {"kind": "star", "count": 1}]
    assert [one["data"] for one in seen] == [*sums, {"kind": "heart", "count": 100}, sums[1]]


def test_an_order_is_tried_again_with_the_same_id(run):
    """While stock is rebuilt, buy now tries again by itself, as the same order."""
    orders = []

    async def talk(seat):
        await seat.snapshot()
        for _ in range(2):
            command = await seat.read()
            orders.append(command["data"]["order"])
            await seat.refuse(command, "rebuilding", retry=True, retry_after_ms=1)
        command = await seat.read()
        orders.append(command["data"]["order"])
        await seat.ok(command, order={"id": command["data"]["order"], "state": "placed"})

    async def story():
        async with room_of(talk) as room, room:
            order = await room.orders.place([{"sku": "s1", "qty": 1}])
        assert orders == [order["id"]] * 3

    run(story())


def test_a_final_close_code_ends_the_room(run):
    """From 4500 on the client stays away: readers and commands get the reason."""

    async def talk(seat):
        await seat.snapshot()
        await seat.socket.close(4502)

    async def story():
        async with room_of(talk) as room, room:
            with pytest.raises(RoomClosed) as closed:
                async for _ in room.events():
                    pass
            assert closed.value.code == "banned"
            with pytest.raises(RoomClosed):
                await room.cart.show()

    run(story())


def test_a_refused_join_is_raised_where_the_room_is_opened(run):
    """A bad token is told to whoever opens the room, once."""

    async def talk(seat):
        await seat.refuse(await seat.read(), "unauthenticated")
        await seat.socket.close(4501)

    async def story():
        async with room_of(talk, token="forged") as room:
            with pytest.raises(Denied):
                await room.open()

    run(story())


def test_a_token_function_is_asked_again_when_its_token_has_expired(run):
    """With a function for a token, an expired one is replaced without the caller's help."""
    tokens = iter(["old", "new"])

    async def first(seat):
        await seat.refuse(await seat.read(), "token_expired")
        await seat.socket.close(4003, '{"after_ms": 0}')

    async def second(seat):
        join = await seat.snapshot()
        assert join["data"]["token"] == "new"

    async def story():
        async with room_of(first, second, token=lambda: next(tokens)) as room, room:
            assert room.connected

    run(story())


def test_an_unknown_room_is_not_found(run):
    """HTTP 404 before the upgrade is not_found, and is not tried again."""

    def refuse(connection, request):
        return Response(404, "Not Found", Headers())

    async def story():
        async with serve(lambda _: None, "127.0.0.1", 0, process_request=refuse) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Invalid) as refused:
                await connect(f"ws://127.0.0.1:{port}", "r1").open()
            assert refused.value.code == "not_found"

    run(story())


def test_a_busy_node_is_tried_again(run):
    """HTTP 503 with Retry-After before the upgrade is waited out."""
    refusals = [503]

    def refuse(connection, request):
        if refusals:
            return Response(refusals.pop(), "Busy", Headers({"Retry-After": "0"}))
        return None

    async def story():
        async def handle(socket):
            await Seat(socket).snapshot()
            await socket.wait_closed()

        async with serve(handle, "127.0.0.1", 0, process_request=refuse) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}", "r1") as room:
                assert room.connected

    run(story())


def test_a_slow_reader_is_told_what_it_missed(run):
    """A reader that falls behind loses the oldest events, is told how many, and no more."""

    async def talk(seat):
        await seat.snapshot()
        await seat.read()
        await seat.say(*[notice(11 + i) for i in range(20)])

    async def story():
        async with room_of(talk) as room, room:
            events = room.events(queue_max=5)
            with contextlib.suppress(ConnectionLost):
                asyncio.get_running_loop().create_task(room.command("cart.show"))
            await until(lambda: room.position.seq == 30)
            got = [await anext(events) for _ in range(6)]
            assert (got[0].name, got[0].data) == ("local.lagged", {"missed": 15})
            assert [event.seq for event in got[1:]] == [26, 27, 28, 29, 30]

    run(story())


def test_waiting_times_grow_and_are_drawn_from_the_whole_range():
    """Full jitter: each wait lies between zero and a bound that doubles up to its limit."""
    backoff = Backoff(first_s=1, longest_s=4)
    for bound in (1, 2, 4, 4, 4):
        assert 0 <= backoff.next_s() <= bound
    backoff.reset()
    assert backoff.next_s(after_ms=1500) == 1.5


def test_a_frame_that_cannot_be_read_brings_a_new_connection(run):
    """A broken frame is not guessed at: the client closes 1007 and joins again."""

    async def first(seat):
        await seat.snapshot()
        await seat.socket.send(orjson.dumps({"no": "array"}).decode())

    async def second(seat):
        await seat.resumed(11, notice(11, "again"))

    async def story():
        async with room_of(first, second) as room, room:
            await until(lambda: room.state.notice == "again")

    run(story())
