"""The contract's examples, on the server's codec and on the Python SDK."""

import copy
import json
from pathlib import Path

import pytest

from liveroom.errors import Invalid
from liveroom.wire import codec
from liveroom_client.codec import Format, decode, encode
from liveroom_client.errors import LiveroomError
from liveroom_client.reconnect import after_close
from liveroom_client.session import Position, Session

VECTORS = Path(__file__).parent / "vectors"
CONTRACT = json.loads((VECTORS / "contract.json").read_text())
CLOSES = json.loads((VECTORS / "closes.json").read_text())
FRAMES = json.loads((VECTORS / "frames.json").read_text())


def named(vectors, key="name"):
    return pytest.mark.parametrize("vector", vectors, ids=[str(one[key]) for one in vectors])


def play(vector):
    """A session that has sent and received what the vector says; its answers and events."""
    session = Session()
    if since := vector["expect"].get("since"):
        session.position = Position(**since)
    answers, events, gap = {}, [], False
    sent = [session.join(**{k: v for k, v in vector["sent"][0]["data"].items() if k != "since"})]
    sent += [session.command(one["cmd"], one["data"], one.get("key")) for one in vector["sent"][1:]]
    for frame in copy.deepcopy(vector["received"]):
        received = session.receive(frame)
        answers |= received.answers
        events += received.events
        gap = gap or received.gap
    return session, [one.on_wire() for one in sent], answers, events, gap


SEEN = {
    "position": lambda session: session.position._asdict(),
    "you": lambda session: session.you["id"],
    "shelf": lambda session: [one["id"] for one in session.state.shelf],
    "pinned": lambda session: [one["id"] for one in session.state.pinned],
    "messages": lambda session: [one["text"] for one in session.state.messages],
    "unshown": lambda session: session.state.unshown,
    "viewers": lambda session: session.state.viewers,
    "reactions": lambda session: session.state.reactions,
    "cart": lambda session: {one["sku"]: one["qty"] for one in session.state.cart["lines"]},
    "orders": lambda session: {key: one["state"] for key, one in session.state.orders.items()},
    "waiting": lambda session: {sku: one["qty"] for sku, one in session.state.waiting.items()},
    "entries": lambda session: {
        key: one.get("admitted") for key, one in session.state.entries.items()
    },
    "drops": lambda session: {key: one["state"] for key, one in session.state.drops.items()},
    "notice": lambda session: session.state.notice,
}
PARTS = {
    "stock": lambda session: {key: one["left"] for key, one in session.state.stock.items()},
    "room": lambda session: session.state.room,
    "prices": lambda session: prices(session.state.shelf),
    "pinned_prices": lambda session: prices(session.state.pinned),
}
ELSEWHERE = {"replies", "events", "gap", "since"}


def prices(products):
    return {sku["id"]: sku["price_minor"] for product in products for sku in product["skus"]}


@named(CONTRACT)
def test_client_follows_the_contract(vector):
    """What a client is told, it knows; and nothing older, and nothing twice."""
    session, _, answers, events, gap = play(vector)
    expect = vector["expect"]
    assert set(expect) <= {*SEEN, *PARTS, *ELSEWHERE}
    for what in set(expect) & set(SEEN):
        assert SEEN[what](session) == expect[what], what
    for what in set(expect) & set(PARTS):
        seen = PARTS[what](session)
        assert {key: seen.get(key) for key in expect[what]} == expect[what], what
    if "events" in expect:
        assert [[event.name, event.seq] for event in events] == expect["events"]
    assert gap is expect.get("gap", False)
    for command, reply in expect.get("replies", {}).items():
        answered(answers[int(command)], reply)


def answered(answer, reply):
    if "error" in reply:
        assert isinstance(answer, LiveroomError)
        seen = {
            "code": answer.code,
            "family": type(answer).__name__,
            "retry": answer.retry,
            "retry_after_ms": answer.retry_after_ms,
            "data": answer.data,
        }
        assert {key: seen[key] for key in reply["error"]} == reply["error"]
    elif reply["ok"] is True:
        assert isinstance(answer, dict)
    else:
        assert answer == reply["ok"]


@named(CONTRACT)
def test_client_sends_the_contract(vector):
    """The client's frames are the contract's, with the ids and keys it was given."""
    _, sent, *_ = play(vector)
    for ours, theirs in zip(sent, vector["sent"], strict=True):
        if "key" not in theirs:
            ours.pop("key", None)
        assert ours == theirs


@pytest.mark.parametrize("client_format", list(Format), ids=[one.name for one in Format])
@named(CONTRACT)
def test_server_reads_and_writes_the_contract(vector, client_format):
    """The server reads what the client sends and the client reads what the server sends."""
    server_format = codec.Format(client_format.value)
    for frame in vector["sent"]:
        command = codec.decode_command(encode(frame, client_format), server_format)
        assert command.id == frame["id"]
        assert command.cmd == frame["cmd"]
        assert command.data == frame["data"]
        assert command.key == frame.get("key")
    for frame in vector["received"]:
        parts = [codec.encode(message, server_format) for message in frame]
        assert decode(codec.join(parts, server_format), client_format) == frame


@named(FRAMES)
def test_server_refuses_frames_it_cannot_read(vector):
    """A frame that is no `{id, cmd, data}` is bad_frame, with the id where there is one."""
    with pytest.raises(Invalid) as refused:
        codec.decode_command(vector["text"], codec.Format.JSON)
    assert refused.value.code == vector["error"]


@named(CLOSES, "code")
def test_client_knows_what_a_close_code_asks(vector):
    """Below 4500 a client comes back, when it is asked to; from 4500 on it stays away."""
    rule = after_close(vector["code"], vector["reason"])
    assert rule._asdict() == {key: vector[key] for key in ("reconnect", "after_ms", "repeat")}


def test_resume_names_the_position():
    """A client that knows a position joins with it, so that nothing is missed."""
    session = Session()
    session.position = Position("e1", 41)
    assert session.join().on_wire()["data"] == {"since": {"epoch": "e1", "seq": 41}}


def test_commands_that_are_not_safe_to_repeat_carry_a_key():
    """A retry of a keyed command is the same command; orders have their id instead."""
    session = Session()
    assert session.command("cart.add", {"sku": "s1", "qty": 1}).key is not None
    assert session.command("order.place", {"order": "o1", "lines": []}).key is None
    assert not session.command("reaction.send", {"kind": "heart", "count": 1}).repeatable
