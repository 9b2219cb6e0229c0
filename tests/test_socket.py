"""One connection's conversation with the app, in process: a link that keeps what it is sent."""

from __future__ import annotations

import asyncio
import json

import pytest
from house import ANN, GUEST, HOST, House
from tape import Tape

from liveroom.wire import codec
from liveroom.wire.codec import Format


class Line(Tape):
    """A link whose peer talks back: one message after another, as the protocol gives them."""

    def __init__(self):
        super().__init__()
        self.said: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.conversation = None

    def converse(self, conversation):
        self.conversation = conversation

    async def run(self):
        while (message := await self.said.get()) is not None:
            await self.conversation.take(message)
        self.conversation.on_end()


class Phone:
    """A client in process: the handshake over ASGI, the conversation over a link."""

    def __init__(self, h, room="r1", offered=(), fmt=Format.JSON):
        self.fmt = fmt
        self.tape = Line()
        self.told: list[dict] = []
        extensions = {"liveroom.link": self.tape, "websocket.http.response": {}}
        scope = {"type": "websocket", "path": f"/ws/{room}", "subprotocols": list(offered)}
        scope |= {"headers": [], "query_string": b"", "extensions": extensions, "root_path": ""}
        self.task = asyncio.create_task(self._talk(h, scope))

    async def _talk(self, h, scope):
        await h.app(scope, self._receive, self._send)
        if self.tape.conversation is not None:
            await self.tape.run()

    async def _receive(self):
        return {"type": "websocket.connect"}

    async def _send(self, message):
        self.told.append(message)

    def send(self, frame):
        self.tape.said.put_nowait(frame)

    def cmd(self, number, cmd, **data):
        frame = codec.encode({"id": number, "cmd": cmd, "data": data}, self.fmt)
        self.send(frame.decode() if self.fmt is Format.JSON else frame)

    def heard(self):
        """Every message written so far."""
        return [one for frame in self.tape.frames for one in self._read(frame)]

    def _read(self, frame):
        size = frame[1]
        head = 2 if size < 126 else 4 if size == 126 else 10
        return codec.decode(frame[head:], self.fmt)

    async def reply(self, number):
        """The reply to a command, once it is there."""
        for _ in range(2000):
            for one in self.heard():
                if "ev" not in one and one["re"] == number:
                    return one
            await asyncio.sleep(0.005)
        raise AssertionError(f"no reply to {number}: {self.heard()}")

    async def events(self, count):
        """The first so many logged events, once they are there."""
        for _ in range(2000):
            logged = [one for one in self.heard() if "seq" in one]
            if len(logged) >= count:
                return logged[:count]
            await asyncio.sleep(0.005)
        raise AssertionError(f"not {count} events: {self.heard()}")

    async def closed(self):
        """The close code, once there is one."""
        for _ in range(2000):
            if self.tape.closed is not None:
                return self.tape.closed[0]
            await asyncio.sleep(0.005)
        raise AssertionError("not closed")

    async def leave(self):
        self.tape.said.put_nowait(None)
        await self.task


@pytest.fixture
def house(db, redis_url):
    return lambda: House(db, redis_url)


def token(h, member):
    return h.token(member)["authorization"].removeprefix("Bearer ")


def test_handshake_is_refused_over_http(run, house):
    """An unknown room is 404 and an unknown subprotocol 400, before the upgrade."""

    async def story():
        async with house() as h:
            for phone, status in (
                (Phone(h, room="nowhere"), 404),
                (Phone(h, room="a b"), 404),
                (Phone(h, offered=["soap"]), 400),
            ):
                await phone.task
                assert phone.told[0]["status"] == status
                body = json.loads(phone.told[1]["body"])
                assert body["code"] in {"not_found", "bad_frame"}

    run(story())


@pytest.mark.parametrize("fmt", [Format.JSON, Format.MSGPACK])
def test_member_joins_and_sees_what_is_theirs(run, house, fmt):
    """The join's answer has the snapshot with the member's cart and orders; commands follow."""

    async def story():
        async with house() as h:
            await h.do(ANN, "cart.add", sku="a", qty=2)
            phone = Phone(h, offered=["x", fmt.value], fmt=fmt)
            phone.cmd(1, "room.join", token=token(h, ANN))
            ok = (await phone.reply(1))["ok"]
            assert phone.told[0] == {
                "type": "websocket.accept",
                "subprotocol": fmt.value,
                "headers": [],
            }
            assert ok["you"] == {"id": "u1", "name": "Ann", "roles": []}
            assert (ok["mode"], ok["node"]) == ("snapshot", "n1")
            snapshot = ok["snapshot"]
            assert snapshot.keys() == {
                *("room", "shelf", "pinned", "drops", "stock", "messages", "viewers"),
                *("reactions", "coupons", "auction", "cart", "orders"),
            }
            assert snapshot["cart"]["lines"][0]["qty"] == 2
            phone.cmd(2, "cart.add", sku="b", qty=1)
            assert len((await phone.reply(2))["ok"]["cart"]["lines"]) == 2
            phone.cmd(3, "cart.add", sku="nothing", qty=1)
            assert (await phone.reply(3))["error"]["code"] == "not_found"
            phone.cmd(4, "room.join")
            assert (await phone.reply(4))["error"]["code"] == "illegal_transition"
            await phone.leave()
            assert h.hub.viewers("r1") == 0

    run(story())


def test_returner_gets_what_was_missed(run, house):
    """With a position the answer holds every logged event since, and what is true now."""

    async def story():
        async with house() as h:
            phone = Phone(h)
            phone.cmd(1, "room.join")
            ok = (await phone.reply(1))["ok"]
            assert ok["snapshot"]["cart"] is None, "a guest has no cart"
            await phone.leave()
            await h.do(HOST, "product.pin", product="p1")
            await h.do(HOST, "notice.post", text="soon")
            back = Phone(h)
            back.cmd(7, "room.join", since={"epoch": ok["epoch"], "seq": ok["seq"]}, name="Tom")
            ok = (await back.reply(7))["ok"]
            assert (ok["mode"], ok["you"]["name"]) == ("resumed", "Tom")
            # What this node has not heard yet follows the answer.
            events = ok["events"] + await back.events(2 - len(ok["events"]))
            assert [event["ev"] for event in events] == ["product.pinned", "notice.posted"]
            assert ok["now"].keys() >= {"stock", "drops", "viewers", "reactions", "auction"}
            assert ok["now"].keys() >= {"cart", "orders", "messages"}
            await back.leave()

    run(story())


def test_refused_joins_close_with_their_code(run, house):
    """A forged token and a guest where none may watch close 4501; nobody is left in the room."""

    async def story():
        async with house() as h:
            phone = Phone(h)
            phone.cmd(1, "room.join", token="x.y.z")
            assert (await phone.reply(1))["error"]["code"] == "unauthenticated"
            assert await phone.closed() == 4501
            await phone.leave()
            stale = h.services.auth.issue("u1", name="Ann", roles=[], ttl_s=-60)
            phone = Phone(h)
            phone.cmd(1, "room.join", token=stale)
            assert (await phone.reply(1))["error"]["code"] == "token_expired"
            assert await phone.closed() == 4003
            await phone.leave()
            await h.do(HOST, "room.set", guests=False)
            phone = Phone(h)
            phone.cmd(1, "room.join")
            assert await phone.closed() == 4501
            await phone.leave()
            assert h.hub.viewers("r1") == 0

    run(story())


def test_guests_are_turned_out_of_a_room_for_members(run, house):
    """From the change on they hear nothing, and are closed 4501; members stay."""

    async def story():
        async with house() as h:
            guests, ann = [Phone(h) for _ in range(3)], Phone(h)
            token = h.token(ANN)["authorization"].removeprefix("Bearer ")
            for guest in guests:
                guest.cmd(1, "room.join")
                assert "ok" in await guest.reply(1)
            ann.cmd(1, "room.join", token=token)
            await ann.reply(1)
            await h.do(HOST, "room.set", guests=False)
            await h.do(HOST, "notice.post", text="for members")
            assert [await guest.closed() for guest in guests] == [4501] * 3
            assert len(await ann.events(2)) == 2
            assert [guest.heard()[1:] for guest in guests] == [[]] * 3
            assert h.hub.viewers("r1") == 1
            for phone in (*guests, ann):
                await phone.leave()

    run(story())


def test_a_guest_who_joins_while_guests_are_turned_out(run, house):
    """Who was let in before the change, and sits down after it, is closed all the same."""

    async def story():
        async with house() as h:
            guest = Phone(h)
            guest.cmd(1, "room.join")
            read = h.services.onair.picture

            async def slow_picture(room):
                h.hub._picture = read
                await h.do(HOST, "room.set", guests=False)
                return await read(room)

            h.hub._picture = slow_picture
            assert await guest.closed() == 4501
            assert h.hub.viewers("r1") == 0
            await guest.leave()

    run(story())


def test_bad_first_frames_may_be_mended(run, house):
    """A frame that is no join, or a join that does not fit, is refused; the next may succeed."""

    async def story():
        async with house() as h:
            phone = Phone(h)
            phone.send("hello")
            phone.cmd(1, "cart.show")
            phone.cmd(2, "room.join", since=7)
            phone.cmd(3, "room.join", name="Tom")
            assert (await phone.reply(3))["ok"]["you"]["name"] == "Tom"
            codes = [one["error"]["code"] for one in phone.heard() if "error" in one]
            assert codes == ["bad_frame", "bad_frame", "bad_argument"]
            for _ in range(10):
                phone.send("nonsense")
            assert await phone.closed() == 4500
            await phone.leave()

    run(story())


def test_token_that_ends_closes_the_seat(run, house):
    """When a member's token ends, so does the connection, with 4003: come back with another."""

    async def story():
        async with house() as h:
            auth = h.services.auth
            mine = auth.issue("u1", name="Ann", roles=[], ttl_s=3600)
            left_ms = (await auth.read(mine)).expires_at - h.clock.now_ms()
            h.clock.advance(left_ms + 10_000)
            phone = Phone(h)
            phone.cmd(1, "room.join", token=mine)
            assert (await phone.reply(1))["ok"]["you"]["id"] == "u1"
            assert await phone.closed() == 4003
            await phone.leave()
            assert h.hub.viewers("r1") == 0

    run(story())


def test_fault_of_ours_is_internal_and_the_seat_stays(run, house):
    """What we did not foresee is `internal`, retry true; the conversation goes on."""

    async def story():
        async with house() as h:
            phone = Phone(h)
            phone.cmd(1, "room.join")
            await phone.reply(1)

            async def broken(*_args):
                raise RuntimeError("a secret")

            say, h.rooms.say = h.rooms.say, broken
            phone.cmd(2, "message.post", text="hi")
            error = (await phone.reply(2))["error"]
            assert (error["code"], error["retry"]) == ("internal", True)
            assert "secret" not in str(error)
            h.rooms.say = say
            phone.cmd(3, "message.post", text="hi")
            assert (await phone.reply(3))["ok"]["message"]["member"].startswith(GUEST.id[:5])
            await phone.leave()

    run(story())


def test_repeated_id_gets_the_first_answer(run, house):
    """On one connection an id with the same content is answered again, with other refused."""

    async def story():
        async with house() as h:
            phone = Phone(h)
            phone.cmd(1, "room.join", token=token(h, ANN))
            await phone.reply(1)
            for _ in range(2):
                phone.cmd(2, "message.post", text="once")
            phone.cmd(2, "message.post", text="twice")
            phone.cmd(3, "cart.show")
            await phone.reply(3)
            answers = [one for one in phone.heard() if one.get("re") == 2]
            assert answers[0] == answers[1]
            assert answers[2]["error"]["code"] == "id_reused"
            assert [m["text"] for m in (await h.onair.draw("r1")).messages] == ["once"]
            await phone.leave()

    run(story())


def test_a_renewed_token_keeps_the_seat(run, db, redis_url):
    """Its end and its roles are what counts from then on: whoever hosts is of the crew."""

    async def story():
        async with House(db, redis_url) as h:
            auth = h.services.auth
            mine = auth.issue("u1", name="Ann", roles=[], ttl_s=60)
            newer = auth.issue("u1", name="Ann", roles=["host:r1"], ttl_s=3600)
            plain = auth.issue("u1", name="Ann", roles=[], ttl_s=3600)
            theirs = auth.issue("u2", name="Bo", roles=["host:r1"], ttl_s=3600)
            h.clock.advance((await auth.read(mine)).expires_at - 60_000 - h.clock.now_ms())
            phone = Phone(h)
            phone.cmd(1, "room.join", token=mine)
            assert "ok" in await phone.reply(1)
            for number, token, said in ((2, theirs, "forbidden"), (3, "x", "unauthenticated")):
                phone.cmd(number, "token.renew", token=token)
                assert (await phone.reply(number))["error"]["code"] == said
            phone.cmd(4, "token.renew", token=newer)
            you = {"id": "u1", "name": "Ann", "roles": ["host:r1"]}
            assert (await phone.reply(4))["ok"] == {"you": you}
            h.clock.advance(600_000)  # the first token has ended, as commands judge it
            phone.cmd(5, "notice.post", text="still here")
            assert "ok" in await phone.reply(5)
            assert phone.tape.owner.crew
            phone.cmd(6, "token.renew", token=plain)
            assert "ok" in await phone.reply(6)
            assert not phone.tape.owner.crew
            phone.cmd(7, "token.renew", token=mine)
            assert "ok" in await phone.reply(7)
            assert await phone.closed() == 4003

    run(story())
