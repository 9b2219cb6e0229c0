"""The HTTP routes, in process: what each answers, and to whom."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re

import msgspec
import pytest
from house import (
    ADMIN,
    ANN,
    BO,
    GUEST,
    HOST,
    MERCHANT,
    OTHER_HOST,
    OTHER_MERCHANT,
    House,
)
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from starlette.routing import Route

from liveroom.arguments import fitting
from liveroom.auth import Member
from liveroom.errors import Unavailable
from liveroom.ids import new_id
from liveroom.rooms import NewRoom
from liveroom.store.database import Database
from liveroom.text import MESSAGE_MAX
from liveroom.web.pages import POLICY
from liveroom.web.rates import Rates
from liveroom.wire.http import CUT


@pytest.fixture
def house(db, redis_url):
    return lambda: House(db, redis_url)


PRODUCT = {
    "id": "p9",
    "shop": "s1",
    "title": "Lamp",
    "currency": "CNY",
    "skus": [{"id": "z", "price_minor": 500, "stock": 7}],
}

# Who gets what from each route that is not for everybody: (method, path, body) and, in the
# order of PEOPLE, the statuses. The owner is Ann for orders, the merchant of s1 for goods.
PEOPLE = [GUEST, ANN, BO, HOST, OTHER_HOST, MERCHANT, OTHER_MERCHANT, ADMIN]
MATRIX = [
    ("POST", "/v1/shops", {"id": "s1", "name": "x"}, [401, 403, 403, 403, 403, 409, 403, 409]),
    ("PATCH", "/v1/shops/s1", {"name": "x"}, [401, 403, 403, 403, 403, 200, 403, 200]),
    ("POST", "/v1/products", PRODUCT | {"id": "p1"}, [401, 403, 403, 403, 403, 409, 403, 409]),
    ("PATCH", "/v1/products/p1", {"title": "x"}, [401, 403, 403, 403, 403, 200, 403, 200]),
    ("POST", "/v1/creators", {"id": "c1", "name": "x"}, [401, 403, 403, 409, 403, 403, 403, 409]),
    ("PATCH", "/v1/creators/c1", {"name": "x"}, [401, 403, 403, 200, 403, 403, 403, 200]),
    (
        "POST",
        "/v1/notes",
        {"id": "n1", "creator": "c1", "title": "t", "text": "x"},
        [401, 403, 403, 409, 403, 403, 403, 409],
    ),
    ("PATCH", "/v1/notes/n1", {"title": "t"}, [401, 403, 403, 200, 403, 403, 403, 200]),
    (
        "POST",
        "/v1/rooms",
        {"id": "r1", "title": "x", "host": "c1", "shop": "s1"},
        [401, 403, 403, 403, 403, 409, 403, 409],
    ),
    ("PATCH", "/v1/rooms/r1", {"title": "x"}, [401, 403, 403, 200, 403, 403, 403, 200]),
    (
        "POST",
        "/v1/rooms/r1/commands",
        {"cmd": "room.set", "data": {}},
        [401, 403, 403, 200, 403, 403, 403, 200],
    ),
    ("GET", "/v1/orders", None, [401, 200, 200, 200, 200, 200, 200, 200]),
    ("GET", "/v1/orders/o1", None, [401, 200, 404, 200, 404, 200, 404, 200]),
    ("POST", "/v1/orders/o1/refunds", {}, [401, 403, 404, 409, 404, 409, 404, 409]),
    ("GET", "/v1/shops/s1/attribution", None, [401, 403, 403, 403, 403, 200, 403, 200]),
    ("GET", "/v1/skus/a/ledger", None, [401, 403, 403, 403, 403, 200, 404, 200]),
    ("GET", "/v1/audit", None, [401, 403, 403, 403, 403, 403, 403, 200]),
    (
        "POST",
        "/v1/sandbox/payments/{payment}/fail",
        None,
        [401, 200, 404, 404, 404, 404, 404, 200],
    ),
    (
        "POST",
        "/v1/sandbox/payments/{payment}/succeed",
        None,
        [401, 200, 404, 404, 404, 404, 404, 200],
    ),
]
OPEN = {
    ("GET", "/v1/shops"),
    ("GET", "/v1/shops/{shop}"),
    ("GET", "/v1/products"),
    ("GET", "/v1/products/{product}"),
    ("GET", "/v1/creators"),
    ("GET", "/v1/creators/{creator}"),
    ("GET", "/v1/notes"),
    ("GET", "/v1/notes/{note}"),
    ("GET", "/v1/rooms"),
    ("GET", "/v1/rooms/{room}"),
    ("GET", "/v1/rooms/{room}/events"),
    ("GET", "/v1/rooms/{room}/stream"),
    ("POST", "/v1/sandbox/tokens"),
    ("GET", "/v1/payments/providers"),
    ("POST", "/v1/payments/webhooks/{provider}"),  # open, and signed
}


async def with_order(h):
    """An order of Ann's with an open payment; its payment's id."""
    await h.do(ANN, "order.place", order="o1", lines=[{"sku": "a", "qty": 1}])
    payment = (await h.do(ANN, "payment.start", order="o1"))["payment"]["id"]
    note = {"id": "n1", "creator": "c1", "title": "t", "text": "x"}
    assert (await h.ask("POST", "/v1/notes", ADMIN, note)).status_code == 201
    return payment


def test_each_route_tells_each_person_what_is_theirs(run, house):
    """A matrix of routes and people: the owner, others of the same kind, viewer, nobody."""

    async def story():
        async with house() as h:
            payment = await with_order(h)
            for method, path, body, statuses in MATRIX:
                at = path.format(payment=payment)
                told = [(await h.ask(method, at, person, body)).status_code for person in PEOPLE]
                assert told == statuses, (method, path)

    run(story())


def test_every_route_has_its_row(run, house):
    """A route that is in no row of the matrix, and not open to all, is forgotten."""

    async def story():
        async with house() as h:
            listed = {
                (method, route.path)
                for route in h.app.routes
                if isinstance(route, Route) and route.path.startswith("/v1")
                for method in route.methods - {"HEAD"}
            }
            named = {"s1": "{shop}", "p1": "{product}", "c1": "{creator}", "r1": "{room}"}
            named |= {"o1": "{order}", "a": "{sku}", "n1": "{note}"}
            rows = {
                (method, "/".join(named.get(part, part) for part in path.split("/")))
                for method, path, _, _ in MATRIX
            }
            assert listed == rows | OPEN

    run(story())


def test_merchant_lists_orders_with_own_goods(run, house):
    """A buyer lists the own orders, a merchant those with the shop's goods, an admin all."""

    async def story():
        async with house() as h:
            await h.do(ANN, "order.place", order="o1", lines=[{"sku": "a", "qty": 1}])
            await h.do(BO, "order.place", order="o2", lines=[{"sku": "c", "qty": 1}])

            async def listed(member, query=""):
                page = (await h.ask("GET", f"/v1/orders{query}", member)).json()
                return {order["id"] for order in page["items"]}

            assert await listed(ANN) == {"o1"}
            assert await listed(BO) == {"o2"}
            assert await listed(MERCHANT) == {"o1"}
            assert await listed(OTHER_MERCHANT) == {"o2"}
            assert await listed(ADMIN) == {"o1", "o2"}
            assert await listed(HOST) == set()
            assert await listed(HOST, "?room=r1") == {"o1", "o2"}
            assert await listed(OTHER_HOST, "?room=r1") == set()

    run(story())


def test_creates_answer_201_with_the_thing_itself(run, house):
    """What was created is answered, and shown and listed as the same thing."""

    async def story():
        async with house() as h:
            for noun, body in {
                "shops": {"name": "New"},
                "products": PRODUCT,
                "creators": {"id": "c9", "name": "New", "roles": ["buyer"]},
                "rooms": {"id": "r9", "title": "New", "host": "c9", "shelf": ["p1"]},
                "notes": {"creator": "c1", "title": "t", "text": "x"},
            }.items():
                made = await h.ask("POST", f"/v1/{noun}", ADMIN, body)
                assert made.status_code == 201, made.text
                thing = made.json()
                shown = await h.ask("GET", f"/v1/{noun}/{thing['id']}")
                assert shown.status_code == 200
                assert shown.json().items() >= thing.items()
                listed = (await h.ask("GET", f"/v1/{noun}?limit=100")).json()
                assert thing in listed["items"]
                assert listed["next"] is None

    run(story())


def test_new_product_can_be_bought_at_once(run, house):
    """The stock of a new product is open as soon as its creation is answered."""

    async def story():
        async with house() as h:
            told = await h.ask("POST", "/v1/products", MERCHANT, PRODUCT)
            assert told.status_code == 201
            [inspected] = await h.inventory.inspect()
            assert "sku:z" in inspected.gates
            await h.do(HOST, "shelf.put", product="p9")
            cart = (await h.do(ANN, "cart.add", sku="z", qty=7))["cart"]
            assert cart["lines"][0]["qty"] == 7
            room = (await h.ask("GET", "/v1/rooms/r1")).json()
            assert room["stock"]["z"]["left"] == 0

    run(story())


def test_rooms_that_have_closed_cost_a_changed_product_nothing(run, house):
    """However many had it on their shelf, for a title as for a price."""

    async def story():
        async with house() as h:
            asked: list[str] = []
            for engine in (h.db._reader, h.db._writer):
                event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))

            async def changed() -> tuple[int, int]:
                asked.clear()
                told = await h.ask("PATCH", "/v1/products/p1", MERCHANT, {"title": new_id()})
                assert told.status_code == 200
                title = len(asked)
                await h.rooms.set_price("a", 1 + title)
                await h.rooms.tell_price("a")
                return title, len(asked)

            before = await changed()
            for number in range(3):
                shelf = {"id": f"then{number}", "title": "Then", "host": "c1", "shelf": ["p1"]}
                await h.rooms.create(fitting(shelf, NewRoom))
                await h.rooms.open(f"then{number}")
                await h.rooms.close(f"then{number}")
            assert await changed() == before

    run(story())


def test_a_product_that_is_as_it_was_is_told_nobody(run, house):
    """Nothing named, or nothing new: answered with the product, while rooms hear and count none."""

    async def story():
        async with house() as h:
            given = {"title": "Robe", "needs": ["long"], "picture": "/robe.svg"}
            path = "/v1/products/p1"
            changed = (await h.ask("PATCH", path, MERCHANT, given)).json()
            room = (await h.ask("GET", "/v1/rooms/r1")).json()
            for same in ({}, {"title": "Robe"}, given):
                told = await h.ask("PATCH", path, MERCHANT, same)
                assert (told.status_code, told.json()) == (200, changed)
            after = (await h.ask("GET", "/v1/rooms/r1")).json()
            assert (after["seq"], after["v"]) == (room["seq"], room["v"])
            await h.ask("PATCH", path, MERCHANT, {"picture": None})
            assert (await h.ask("GET", "/v1/rooms/r1")).json()["seq"] == room["seq"] + 1

    run(story())


@pytest.mark.parametrize(
    ("path", "member", "field"),
    [("/v1/products/p1", MERCHANT, "title"), ("/v1/creators/c1", HOST, "name")],
)
def test_a_change_that_cannot_be_told_now_is_a_change(run, house, path, member, field):
    """What is committed is answered as done, though SQL goes away before the rooms are told."""

    async def story():
        async with house() as h:

            def fail(_conn, _cursor, statement: str, *_more: object) -> None:
                if "FROM rooms" in statement:
                    raise OperationalError(statement, None, Exception("disk I/O error"))

            event.listen(h.db._reader, "before_cursor_execute", fail)
            told = await h.ask("PATCH", path, member, {field: "New"})
            assert (told.status_code, told.json()[field]) == (200, "New")
            event.remove(h.db._reader, "before_cursor_execute", fail)

    run(story())


def test_lists_go_by_cursor(run, house):
    """`next` leads through a list; a limit or cursor that is none is a bad argument."""

    async def story():
        async with house() as h:
            seen, after = [], ""
            while after is not None:
                page = (
                    await h.ask("GET", f"/v1/products?limit=3{after and '&after=' + after}")
                ).json()
                seen += [one["id"] for one in page["items"]]
                after = page["next"]
            assert sorted(seen) == ["p1", "p2", "p3", "p4"]
            limits = ("limit=0", "limit=101", "limit=x", "limit=-1", "limit=1e3")
            hidden = ("limit=0000019999", "limit=000001" + "9" * 30, "shop=%00", "after=1.%00")
            for query in (*limits, *hidden, "after=x", "after=" + "9" * 30 + ".p1"):
                told = await h.ask("GET", f"/v1/products?{query}")
                assert (told.status_code, told.json()["code"]) == (422, "bad_argument"), query

    run(story())


BAD_BODIES = [
    (b"", 400, "bad_frame"),
    (b"{", 400, "bad_frame"),
    (b"[]", 400, "bad_frame"),
    (b"7", 400, "bad_frame"),
    (b"\xff\xfe", 400, "bad_frame"),
    (b'{"name": NaN}', 400, "bad_frame"),
    (b"[" * 100_000, 400, "bad_frame"),
    (b'{"name": "' + b"x" * 300_000 + b'"}', 400, "bad_frame"),
    (b'{"name": 7}', 422, "bad_argument"),
    (b'{"name": ""}', 422, "bad_argument"),
    (b'{"id": "a b", "name": "x"}', 422, "bad_argument"),
    (b'{"id": "../x", "name": "x"}', 422, "bad_argument"),
    (b"{}", 422, "bad_argument"),
    (b'{"name": "first", "name": 7}', 422, "bad_argument"),  # a doubled key: the last counts
]


def test_bad_bodies_get_their_code(run, house):
    """What is no JSON object is a bad frame, what does not fit a bad argument; nothing is made."""

    async def story():
        async with house() as h:
            before = (await h.ask("GET", "/v1/shops")).json()
            for body, status, code in BAD_BODIES:
                told = await h.ask("POST", "/v1/shops", ADMIN, body)
                assert (told.status_code, told.json()["code"]) == (status, code), body[:40]
            assert (await h.ask("GET", "/v1/shops")).json() == before

    run(story())


def test_refusals_are_problem_json(run, house):
    """A refusal says its code, who must act by its status, and when to try again."""

    async def story():
        async with house() as h:
            told = await h.ask("GET", "/v1/rooms/nowhere")
            assert told.headers["content-type"] == "application/problem+json"
            problem = told.json()
            assert (problem["status"], problem["code"], problem["retry"]) == (
                404,
                "not_found",
                False,
            )
            assert problem["data"] == {"room": "nowhere"}
            assert {"type", "title", "detail", "message"} <= problem.keys()
            told = await h.ask("GET", "/v1/orders")
            assert told.headers["www-authenticate"] == "Bearer"
            for header in ("Basic x", "Bearer", "Bearer x.y.z", "x"):
                told = await h.ask("GET", "/v1/orders", authorization=header)
                assert (told.status_code, told.json()["code"]) == (401, "unauthenticated"), header
            for method, path, status in (
                ("GET", "/v1/nothing", 404),
                ("DELETE", "/v1/shops", 405),
                ("GET", "/v1/rooms/%2e%2e", 404),
                ("GET", "/v1/shops/a%20b", 404),
            ):
                told = await h.ask(method, path)
                assert (told.status_code, told.json()["code"]) == (status, "not_found"), path

    run(story())


def test_commands_over_http(run, house):
    """The same table over HTTP: `ok` is the answer, refusals have their status, keys count."""

    async def story():
        async with house() as h:
            path = "/v1/rooms/r1/commands"

            async def send(member, cmd, **data):
                told = await h.ask("POST", path, member, {"cmd": cmd, "data": data})
                return told.status_code, told.json()

            status, ok = await send(ANN, "cart.add", sku="a", qty=1)
            assert (status, ok["cart"]["total_minor"]) == (200, 100)
            for (wanted, code), call in {
                (401, "unauthenticated"): send(GUEST, "cart.add", sku="a", qty=1),
                (403, "forbidden"): send(ANN, "room.close"),
                (400, "unknown_command"): send(ANN, "coupon.claim", coupon="x"),
                (422, "bad_argument"): send(ANN, "cart.add", sku="a", qty=0),
                (404, "not_found"): send(ANN, "cart.add", sku="nothing", qty=1),
                (409, "sold_out"): send(ANN, "cart.add", sku="b", qty=2),
                (409, "illegal_transition"): send(ANN, "room.join"),
            }.items():
                status, problem = await call
                assert (status, problem["code"]) == (wanted, code)
            for body in ({}, {"cmd": 7}, {"cmd": "cart.show", "data": []}):
                told = await h.ask("POST", path, ANN, body)
                assert (told.status_code, told.json()["code"]) == (400, "bad_frame"), body
            told = await h.ask("POST", "/v1/rooms/nowhere/commands", ANN, {"cmd": "cart.show"})
            assert told.status_code == 404
            body = {"cmd": "message.post", "data": {"text": "once"}}
            first = await h.ask("POST", path, ANN, body, idempotency_key="k1")
            again = await h.ask("POST", path, ANN, body, idempotency_key="k1")
            assert (first.status_code, first.json()) == (200, again.json())

    run(story())


@pytest.mark.postgres
def test_a_path_that_no_column_takes_is_not_found(run, postgres_url, redis_url):
    """PostgreSQL takes no NUL in a text: a path with one names nothing, on every route."""

    async def story():
        db = Database(postgres_url)
        db.upgrade()
        async with House(db, redis_url) as h:
            routes = [one for one in h.app.routes if isinstance(one, Route)]
            asked = [
                (method, re.sub(r"{\w+}", "a%00b", one.path), {"cmd": "cart.show", "data": {}})
                for one in routes
                for method in one.methods or ()
                if one.path.startswith("/v1/") and "{" in one.path
            ]
            told = {
                (method, path): (await h.ask(method, path, ADMIN, body)).status_code
                for method, path, body in asked
            }
            assert told.pop(("POST", "/v1/rooms/a%00b/commands")) == 404
            assert set(told.values()) <= {404, 422}, told
        await db.close()

    run(story())


def test_snapshot_is_the_room_and_what_a_joiner_sees(run, house):
    """GET of a room answers its own fields beside the shelf, stock, pins and messages."""

    async def story():
        async with house() as h:
            await h.do(HOST, "product.pin", product="p2")
            await h.do(ANN, "message.post", text="hello")
            room = (await h.ask("GET", "/v1/rooms/r1")).json()
            assert (room["id"], room["state"], room["host_name"]) == ("r1", "live", "Lin")
            assert room["room"]["id"] == "r1"
            assert [p["id"] for p in room["pinned"]] == ["p2"]
            assert [m["text"] for m in room["messages"]] == ["hello"]
            assert room["stock"]["b"]["left"] == 1
            assert room["seq"] == 2
            assert room.keys() >= {"epoch", "drops", "viewers", "reactions", "coupons", "auction"}
            assert "cart" not in room

    run(story())


def test_events_are_read_from_a_position(run, house):
    """Logged events after a position, in order; a position of another log is not found."""

    async def story():
        async with house() as h:
            room = (await h.ask("GET", "/v1/rooms/r1")).json()
            since = f"{room['epoch']}:{room['seq']}"
            for product in ("p1", "p2"):
                await h.do(HOST, "product.pin", product=product)
            page = (await h.ask("GET", f"/v1/rooms/r1/events?since={since}")).json()
            assert [(e["ev"], e["seq"]) for e in page["items"]] == [
                ("product.pinned", 2),
                ("product.pinned", 3),
            ]
            assert (page["next"], page["position"]) == (None, f"{room['epoch']}:3")
            page = (await h.ask("GET", f"/v1/rooms/r1/events?since={page['position']}")).json()
            assert page["items"] == []
            for since, status in {
                "other:1": 404,
                f"{room['epoch']}:99": 404,
                "x": 422,
                "": 422,
            }.items():
                told = await h.ask("GET", f"/v1/rooms/r1/events?since={since}")
                assert told.status_code == status, since
            assert (await h.ask("GET", "/v1/rooms/nowhere/events?since=a:1")).status_code == 404

    run(story())


class Reader:
    """Reads an event stream straight from the app, since a test client waits for its end."""

    def __init__(self, h, path, member=GUEST):
        path, _, query = path.partition("?")
        headers = [(k.encode(), v.encode()) for k, v in h.token(member).items()]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode()}
        scope |= {"headers": headers, "http_version": "1.1", "scheme": "http", "root_path": ""}
        self.sent: asyncio.Queue[dict] = asyncio.Queue()
        self.gone = asyncio.Event()
        scope["extensions"] = {CUT: self.gone.set}
        self.asked = False
        self.task = asyncio.create_task(h.app(scope, self.receive, self.sent.put))

    async def receive(self):
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def start(self):
        return (await self.sent.get())["status"]

    async def messages(self):
        """The messages of the next event that holds any."""
        while True:
            body = (await self.sent.get())["body"]
            if body.startswith(b"data: "):
                assert body.endswith(b"\n\n")
                return json.loads(body.removeprefix(b"data: "))


def test_stream_is_a_seat_without_a_websocket(run, house):
    """The first event answers the join, then the room's events follow; leaving leaves the room."""

    async def story():
        async with house() as h:
            reader = Reader(h, "/v1/rooms/r1/stream", ANN)
            assert await reader.start() == 200
            (join,) = await reader.messages()
            assert (join["re"], join["ok"]["mode"], join["ok"]["you"]["id"]) == (
                0,
                "snapshot",
                "u1",
            )
            assert join["ok"]["snapshot"]["cart"] == {"lines": [], "total_minor": 0}
            assert join["ok"]["snapshot"]["orders"] == []
            await h.do(HOST, "product.pin", product="p1")
            told = await reader.messages()
            assert told[0]["ev"] == "product.pinned"
            assert told[0]["seq"] == join["ok"]["seq"] + 1
            await h.do(ANN, "order.place", order="o1", lines=[{"sku": "a", "qty": 1}])
            heard = []
            while "order.placed" not in heard or "stock.changed" not in heard:
                heard += [one["ev"] for one in await reader.messages()]
            assert h.hub.viewers("r1") == 1
            reader.gone.set()
            await reader.task
            assert h.hub.viewers("r1") == 0

            since = f"{join['ok']['epoch']}:{join['ok']['seq']}"
            back = Reader(h, f"/v1/rooms/r1/stream?since={since}", ANN)
            await back.start()
            (join,) = await back.messages()
            assert (join["ok"]["mode"], len(join["ok"]["events"])) == ("resumed", 1)
            assert [order["id"] for order in join["ok"]["now"]["orders"]] == ["o1"]
            h.app.state.close_streams()
            await back.task
            said = b""
            while not back.sent.empty():
                said += (await back.sent.get())["body"]
            assert re.fullmatch(rb'retry: \d{1,4}\nevent: closed\ndata: {"code":4000}\n\n', said)

    run(story())


def test_stream_tells_a_returner_however_much_it_lacks(run, house):
    """An answer of any size is told: first what the log has since, then what goes on."""

    async def story():
        async with house() as h:
            first = Reader(h, "/v1/rooms/r1/stream", ANN)
            assert await first.start() == 200
            (join,) = await first.messages()
            for number in range(800):
                await h.do(HOST, "notice.post", text=str(number).ljust(MESSAGE_MAX, "x"))
            since = f"{join['ok']['epoch']}:{join['ok']['seq']}"
            back = Reader(h, f"/v1/rooms/r1/stream?since={since}", ANN)
            assert await back.start() == 200
            (told,) = await back.messages()
            assert told["ok"]["mode"] == "resumed"
            # The last ones may still wait for their tick; then they follow as all others do.
            heard = [one["seq"] for one in told["ok"]["events"]]
            assert len(heard) > 700
            await h.do(HOST, "notice.post", text="and on")
            while len(heard) < 801:
                heard += [one["seq"] for one in await back.messages() if "seq" in one]
            assert heard == list(range(join["ok"]["seq"] + 1, join["ok"]["seq"] + 802))
            h.app.state.close_streams()
            await asyncio.gather(first.task, back.task)

    run(story())


def test_stream_refuses_as_http_does(run, house):
    """No room, a bad token, or a room for members only: the status says so."""

    async def story():
        async with house() as h:
            assert (await h.ask("GET", "/v1/rooms/nowhere/stream")).status_code == 404
            told = await h.ask("GET", "/v1/rooms/r1/stream", authorization="Bearer x")
            assert told.status_code == 401
            await h.do(HOST, "room.set", guests=False)
            assert (await h.ask("GET", "/v1/rooms/r1/stream")).status_code == 401
            assert h.hub.viewers("r1") == 0

    run(story())


def test_of_an_order_over_two_shops_each_merchant_gives_its_own_back(run, house):
    """Lines of the own shop, and no more than they cost; all else is for who runs both shops."""

    async def story():
        async with house() as h:
            lines = [{"sku": "a", "qty": 2}, {"sku": "c", "qty": 1}]
            await h.do(ANN, "order.place", order="o9", lines=lines)
            payment = (await h.do(ANN, "payment.start", order="o9"))["payment"]["id"]
            assert (await h.ask("POST", f"/v1/sandbox/payments/{payment}/succeed", ANN)).is_success
            own, other = {"sku": "a", "qty": 1, "restock": True}, {"sku": "c", "qty": 1}
            both = Member("b3", "Wu", ("merchant:s1", "merchant:s2"))
            for who, body, status in (
                (MERCHANT, {}, 403),
                (MERCHANT, {"amount_minor": 1}, 403),
                (MERCHANT, {"lines": [other]}, 403),
                (MERCHANT, {"lines": [own, other]}, 403),
                (MERCHANT, {"lines": [own], "amount_minor": 101}, 403),
                (MERCHANT, {"lines": [{"sku": "a", "qty": 3}]}, 422),
                (MERCHANT, {"lines": [{"sku": "b", "qty": 1}]}, 422),
                (MERCHANT, {"lines": [own]}, 201),
                (MERCHANT, {"lines": [own], "amount_minor": 100}, 201),
                (MERCHANT, {"lines": [own]}, 422),
                (OTHER_MERCHANT, {"lines": [other], "amount_minor": 60}, 201),
                (both, {}, 201),
            ):
                told = await h.ask("POST", "/v1/orders/o9/refunds", who, body)
                assert told.status_code == status, (who, body, told.text)
                if status == 403:
                    beyond = "lines" in body and "amount_minor" in body
                    assert ("beyond what these lines cost" in told.text) == beyond
            refunds = (await h.ask("GET", "/v1/orders/o9", ANN)).json()["refunds"]
            assert [one["amount_minor"] for one in refunds] == [100, 100, 60, 40]

    run(story())


def test_a_room_without_guests_shows_nothing_without_a_token(run, house):
    """Snapshot and events ask for a token as the join does; the list goes on naming the room."""

    async def story():
        async with house() as h:
            end = (await h.backplane.position(["r1"]))["r1"]
            paths = ["/v1/rooms/r1", f"/v1/rooms/r1/events?since={end.epoch}:{end.seq}"]
            bad = {"authorization": "Bearer x"}
            for path in paths:
                assert (await h.ask("GET", path, GUEST, **bad)).status_code == 200
            await h.do(HOST, "room.set", guests=False)
            for path in paths:
                told = await h.ask("GET", path)
                assert (told.status_code, told.json()["code"]) == (401, "unauthenticated")
                assert (await h.ask("GET", path, GUEST, **bad)).status_code == 401
                assert (await h.ask("GET", path, ANN)).status_code == 200
            listed = (await h.ask("GET", "/v1/rooms")).json()["items"]
            assert [(room["id"], room.get("guests", True)) for room in listed] == [
                ("r1", False),
                ("r2", True),
            ]

    run(story())


def test_guests_on_a_stream_are_turned_out(run, house):
    """A room that is for members from now on ends the streams of its guests, and theirs alone."""

    async def story():
        async with house() as h:
            guest, ann = (Reader(h, "/v1/rooms/r1/stream", who) for who in (GUEST, ANN))
            for one in (guest, ann):
                assert await one.start() == 200
                await one.messages()
            await h.do(HOST, "room.set", guests=False)
            await h.do(HOST, "notice.post", text="for members")
            await guest.task
            assert h.hub.viewers("r1") == 1
            left = [guest.sent.get_nowait()["body"] for _ in range(guest.sent.qsize())]
            assert b"for members" not in b"".join(left)
            assert b"".join(left).endswith(b'event: closed\ndata: {"code":4501}\n\n')
            heard = []
            while "notice.posted" not in heard:
                heard += [one["ev"] for one in await ann.messages()]
            h.app.state.close_streams()
            await ann.task

    run(story())


def test_sandbox_sells_without_money(run, house):
    """A token for whoever asks, an order, a payment, the button: the order is paid."""

    async def story():
        async with house() as h:
            ways = (await h.ask("GET", "/v1/payments/providers", GUEST)).json()
            assert ways == {"items": ["sandbox"], "next": None}
            told = await h.ask("POST", "/v1/sandbox/tokens", GUEST, {"name": "Mia"})
            assert told.status_code == 201
            mia = {"authorization": f"Bearer {told.json()['token']}"}
            path = "/v1/rooms/r1/commands"

            async def send(cmd, **data):
                told = await h.ask("POST", path, GUEST, {"cmd": cmd, "data": data}, **mia)
                assert told.status_code == 200, told.text
                return told.json()

            await send("order.place", order="o1", lines=[{"sku": "b", "qty": 1}])
            payment = (await send("payment.start", order="o1"))["payment"]["id"]
            pressed = await h.ask("POST", f"/v1/sandbox/payments/{payment}/succeed", GUEST, **mia)
            assert pressed.json()["payment"]["state"] == "succeeded"
            assert (await h.ask("GET", "/v1/orders/o1", GUEST, **mia)).json()["state"] == "paid"
            assert (await h.ask("POST", "/v1/sandbox/tokens", GUEST, {})).status_code == 422

    run(story())


def test_unsigned_webhook_changes_nothing(run, house):
    """A webhook without a fitting signature is unauthenticated, for a provider that is known."""

    async def story():
        async with house() as h:
            payment = await with_order(h)
            body = {"type": "payment.succeeded", "reference": f"sandbox_{payment}"}
            body |= {"amount_minor": 100, "currency": "CNY"}
            told = await h.ask("POST", "/v1/payments/webhooks/sandbox", GUEST, body)
            assert (told.status_code, told.json()["code"]) == (401, "unauthenticated")
            told = await h.ask("POST", "/v1/payments/webhooks/nobody", GUEST, body)
            assert told.status_code == 404
            signed = await h.services.payments.succeed(payment)
            headers = {name.replace("-", "_"): value for name, value in signed.headers.items()}
            told = await h.ask(
                "POST", "/v1/payments/webhooks/sandbox", GUEST, signed.body, **headers
            )
            assert told.status_code == 200
            assert (await h.ask("GET", "/v1/orders/o1", ANN)).json()["state"] == "paid"

    run(story())


def test_ledger_shows_every_movement_with_its_sums(run, house):
    """The ledger of a SKU names each movement, and its sums agree."""

    async def story():
        async with house() as h:
            await h.do(HOST, "stock.restock", sku="a", qty=3)
            await h.do(ANN, "order.place", order="o1", lines=[{"sku": "a", "qty": 2}])
            page = (await h.ask("GET", "/v1/skus/a/ledger", MERCHANT)).json()
            assert [row["kind"] for row in page["items"]] == ["restock", "reserve"]
            assert [row["available_after"] for row in page["items"]] == [8, 6]
            assert page["next"] is None
            assert (await h.ask("GET", "/v1/skus/nothing/ledger", ADMIN)).status_code == 404
            for forged in ("x", "sku:a:" + "9" * 30, "sku:a:-1"):
                told = await h.ask("GET", f"/v1/skus/a/ledger?after={forged}", ADMIN)
                assert (told.status_code, told.json()["code"]) == (422, "bad_argument"), forged

    run(story())


def test_health_follows_the_checks(run, house):
    """Alive is always yes; ready is yes when every check is ok, and tells which is not."""

    async def story():
        async with house() as h:
            for path in ("/livez", "/readyz", "/healthz", "/metrics"):
                assert (await h.ask("GET", path)).status_code == 200, path
            h.checks["redis"] = "away"
            assert (await h.ask("GET", "/livez")).status_code == 200
            told = await h.ask("GET", "/readyz?verbose")
            assert (told.status_code, told.json()["checks"]["redis"]) == (503, "away")
            assert b"liveroom_refusals" in (await h.ask("GET", "/metrics")).content

    run(story())


def test_pages_and_answers_are_under_a_strict_policy(run, house):
    """Every answer has the policy, and no page of ours holds anything inline."""

    async def story():
        async with house() as h:
            assert "unsafe" not in POLICY
            for path in ("/", "/room/r1", "/console/r1", "/docs", "/v1/rooms", "/nowhere/at/all"):
                told = await h.ask("GET", path)
                assert told.headers["content-security-policy"] == POLICY, path
                assert told.headers["x-content-type-options"] == "nosniff"
                if path != "/nowhere/at/all":
                    assert told.status_code == 200, path
                assert "<script>" not in told.text
                assert "style=" not in told.text

    run(story())


def test_fault_of_ours_is_internal_and_says_nothing(run, house):
    """What we did not foresee is answered 500 `internal`, retry true, without a word of it."""

    async def story():
        async with house() as h:

            async def broken():
                raise RuntimeError("the secret is " + hashlib.sha256(b"x").hexdigest())

            h._audit = broken
            told = await h.ask("GET", "/v1/audit", ADMIN)
            assert (told.status_code, told.json()["code"]) == (500, "internal")
            assert told.json()["retry"] is True
            assert "secret" not in told.text
            assert told.headers["content-security-policy"] == POLICY

    run(story())


def test_message_rate_is_bounded_where_set(run, house):
    """With a rate set, a burst passes and what comes beyond it waits."""

    async def story():
        async with house() as h:
            rates = Rates(h.clock, 2.0)

            class Asked:
                client = None

            def take(member):
                try:
                    rates.take(Asked(), member)
                except Unavailable as refusal:
                    return msgspec.json.encode(refusal.on_wire())
                return b"ok"

            told = [take(ANN) for _ in range(5)]
            assert told[:4] == [b"ok"] * 4
            assert b"rate_limited" in told[4]
            assert b"retry_after_ms" in told[4]
            assert take(BO) == b"ok"
            h.clock.advance(500)
            assert take(ANN) == b"ok"

    run(story())
