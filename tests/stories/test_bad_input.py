"""Bad input of every kind gets its code, and disturbs nobody else."""

from __future__ import annotations

import json
import time

import jwt
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from liveroom.ids import new_id
from liveroom.settings import secret_in
from tests.live import Said, Seat

ORDER = "0198c0de-0000-7000-8000-000000000001"

BAD_FRAMES = {
    "no JSON": "{",
    "no object": "[]",
    "null": "null",
    "empty": "",
    "no id": json.dumps({"cmd": "cart.show", "data": {}}),
    "id is text": json.dumps({"id": "1", "cmd": "cart.show", "data": {}}),
    "id is a fraction": json.dumps({"id": 1.5, "cmd": "cart.show", "data": {}}),
    "no command": json.dumps({"id": 1, "data": {}}),
    "command is a number": json.dumps({"id": 1, "cmd": 5, "data": {}}),
    "data is a list": json.dumps({"id": 1, "cmd": "cart.show", "data": []}),
    "over 16 KiB": json.dumps({"id": 1, "cmd": "message.post", "data": {"text": "x" * 17_000}}),
    "wrong kind of frame": b"\x83\xa2id\x01",
}

QUANTITIES = [0, -1, 1001, 2**31, 2**63, 1.5, "1", None, True, [1]]

BAD_DATA = [
    ("message.post", {}),
    ("message.post", {"text": 5}),
    ("message.post", {"text": ""}),
    ("message.post", {"text": "   "}),
    ("message.post", {"text": "x" * 10_000}),
    ("reaction.send", {"kind": "heart", "count": 0}),
    ("reaction.send", {"kind": "heart", "count": -3}),
    ("cart.add", {"sku": "s1"}),
    ("cart.add", {"qty": 1}),
    ("cart.add", {"sku": "not an id!", "qty": 1}),
    ("order.place", {"order": ORDER}),
    ("order.place", {"order": ORDER, "lines": []}),
    ("order.place", {"order": "bad id", "lines": [{"sku": "s1", "qty": 1}]}),
    ("order.place", {"order": ORDER, "lines": [{"sku": "s1", "qty": 1, "price_minor": -1}]}),
    ("order.place", {"order": ORDER, "lines": [{"sku": "s1", "qty": 1, "price_minor": 1.5}]}),
    ("order.show", {}),
]


@pytest.fixture
def ann(enter):
    return enter("ann")


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_bad_frame(ann, kind):
    """A frame that is no {id, cmd, data} gets `bad_frame`, and the seat goes on."""
    ann.send(BAD_FRAMES[kind])
    with pytest.raises(Said) as refused:
        _any_reply(ann)
    assert refused.value.code == "bad_frame"
    assert ann.do("cart.show")["cart"]["total_minor"] == 0


def _any_reply(seat: Seat) -> None:
    while True:
        for message in seat._frame():
            if "error" in message:
                raise Said(message["error"])


@pytest.mark.parametrize("qty", QUANTITIES, ids=repr)
@pytest.mark.parametrize("cmd", ["cart.add", "order.place"])
def test_quantities(ann, cmd, qty):
    """A quantity is an integer from 1 to 1000, and nothing else."""
    line = {"sku": "s1", "qty": qty}
    data = line if cmd == "cart.add" else {"order": new_id(), "lines": [line]}
    assert ann.refusal(cmd, **data) == "bad_argument"


@pytest.mark.parametrize(("cmd", "data"), BAD_DATA, ids=[f"{c} {d}"[:60] for c, d in BAD_DATA])
def test_bad_argument(ann, cmd, data):
    """Data that does not fit its command gets `bad_argument`."""
    assert ann.refusal(cmd, **data) == "bad_argument"


@pytest.mark.parametrize(
    ("cmd", "data", "code"),
    [
        ("shop.rob", {}, "unknown_command"),
        ("", {}, "unknown_command"),
        ("auction.bid", {"auction": "a", "amount_minor": 1}, "unknown_command"),
        ("cart.add", {"sku": "nowhere", "qty": 1}, "not_found"),
        ("order.place", {"order": ORDER, "lines": [{"sku": "nowhere", "qty": 1}]}, "not_found"),
        (
            "order.place",
            {"order": ORDER, "lines": [{"sku": "s1", "qty": 1}], "coupon": "nowhere"},
            "not_found",
        ),
        ("cart.checkout", {"order": ORDER, "coupon": "nowhere"}, "not_found"),
        ("order.show", {"order": "nowhere"}, "not_found"),
        ("creator.follow", {"creator": "nowhere"}, "not_found"),
        ("room.join", {}, "illegal_transition"),
    ],
)
def test_other_refusals(ann, cmd, data, code):
    """What is unknown or cannot follow gets its own code."""
    assert ann.refusal(cmd, **data) == code


def test_a_doubled_key_counts_last_and_is_validated(ann):
    """Of a key written twice the last one counts, and must fit."""
    ann.send('{"id": 77, "cmd": "cart.add", "data": {"sku": "s1", "qty": 1, "qty": -1}}')
    with pytest.raises(Said) as refused:
        ann.reply(77)
    assert refused.value.code == "bad_argument"


def test_a_command_id_used_twice(ann):
    """The same id with the same content gets the first answer, with other content id_reused."""
    command = {"id": 500, "cmd": "message.post", "data": {"text": "once"}}
    ann.send(command)
    first = ann.reply(500)
    ann.send(command)
    assert ann.reply(500) == first
    ann.send({**command, "data": {"text": "twice"}})
    with pytest.raises(Said) as refused:
        ann.reply(500)
    assert refused.value.code == "id_reused"


def test_first_frame_must_join(server):
    """A first frame that is no room.join is a bad frame."""
    seat = Seat(server)
    assert seat.refusal("cart.show") == "bad_frame"
    seat.leave()


def test_ten_bad_frames_close_the_seat(ann, enter):
    """Ten bad frames within a minute close 4500; the neighbour notices nothing."""
    neighbour = enter("bob")
    for _ in range(10):
        ann.send("{")
    assert ann.closed() == 4500
    neighbour.do("message.post", text="still here")


def test_a_frame_over_64_kib_closes(ann):
    """A frame over 64 KiB closes 1009."""
    ann.send("x" * 70_000)
    assert ann.closed() == 1009


def _forged(server, **claims: object) -> str:
    whole = {"sub": "ann", "name": "Ann", "exp": int(time.time()) + 60, **claims}
    return jwt.encode(whole, secret_in(server.data), algorithm="HS256")


@pytest.mark.parametrize(
    ("make", "code", "close"),
    [
        (lambda _: "nonsense", "unauthenticated", 4501),
        (
            lambda _: jwt.encode({"sub": "ann", "exp": 2**31}, "another secret " * 4, "HS256"),
            "unauthenticated",
            4501,
        ),
        (
            lambda _: jwt.encode({"sub": "ann"}, None, algorithm="none"),
            "unauthenticated",
            4501,
        ),
        (lambda server: _forged(server, exp=int(time.time()) - 3600), "token_expired", 4003),
        (lambda server: _forged(server, sub=5), "unauthenticated", 4501),
        (lambda server: _forged(server, roles="admin"), "unauthenticated", 4501),
    ],
    ids=["nonsense", "other secret", "none", "expired", "sub is a number", "roles is text"],
)
def test_bad_tokens_are_refused_and_closed(server, make, code, close):
    """A join with a bad token is answered with its code and then closed."""
    seat = Seat(server)
    assert seat.refusal("room.join", token=make(server)) == code
    assert seat.closed() == close


@pytest.mark.parametrize(
    ("room", "more", "status"),
    [
        ("nowhere", {}, 404),
        ("nowhere/else", {}, 404),
        ("r1", {"origin": "https://evil.example"}, 403),
        ("r1", {"origin": "null"}, 403),
        ("r1", {"subprotocols": ["chat"]}, 400),
    ],
)
def test_refused_before_the_upgrade(server, room, more, status):
    """An unknown room, a foreign origin and an unknown subprotocol never get a socket."""
    url = server.url.replace("http", "ws", 1) + f"/ws/{room}"
    with pytest.raises(InvalidStatus) as refused, connect(url, **more):
        pass
    assert refused.value.response.status_code == status


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/rooms/r1/commands", b"{", (400, "bad_frame")),
        (
            "POST",
            "/v1/rooms/r1/commands",
            b'{"cmd": "shop.rob", "data": {}}',
            (400, "unknown_command"),
        ),
        (
            "POST",
            "/v1/rooms/r1/commands",
            b'{"cmd": "cart.add", "data": {}}',
            (422, "bad_argument"),
        ),
        ("POST", "/v1/rooms/no/commands", b'{"cmd": "cart.show", "data": {}}', (404, "not_found")),
        ("POST", "/v1/products", b'{"title": 5}', (422, "bad_argument")),
        ("POST", "/v1/shops", b'{"name": "   "}', (422, "bad_argument")),
        ("POST", "/v1/shops", rb'{"name": "a\u0000b"}', (422, "bad_argument")),
        (
            "POST",
            "/v1/notes",
            rb'{"creator": "c1", "title": "t", "text": "a\u0000b"}',
            (422, "bad_argument"),
        ),
        ("GET", "/v1/rooms/nowhere", None, (404, "not_found")),
        ("GET", "/v1/orders/nowhere", None, (404, "not_found")),
        ("GET", "/v1/nowhere", None, (404, "not_found")),
    ],
)
def test_http_refusals(server, method, path, body, expected):
    """HTTP answers carry the same codes in problem+json, with their status."""
    with server.http(server.token("root", "admin")) as http:
        answer = http.request(method, path, content=body)
    assert (answer.status_code, answer.json()["code"]) == expected
    assert answer.headers["content-type"] == "application/problem+json"


def test_unsigned_webhook_changes_nothing(server, enter):
    """A webhook without a right signature is refused, and the order stays as it was."""
    ann = enter("ann")
    order = ann.do("order.place", order=new_id(), lines=[{"sku": "s5", "qty": 1}])["order"]["id"]
    with server.http() as http:
        answer = http.post("/v1/payments/webhooks/sandbox", json={"order": order})
    assert answer.status_code in {400, 401, 403}
    assert ann.do("order.show", order=order)["order"]["state"] == "placed"


def test_nothing_was_lost(server):
    """After all of this every sum agrees, and nothing failed on our side."""
    assert server.audit()["ok"]
    assert "Traceback" not in server.log()
