"""Frames and formats: what is read back is what was written, and bad input has one answer."""

from __future__ import annotations

from contextlib import suppress

import msgpack
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.streams import StreamReader

from liveroom.wire import codec
from liveroom.wire.codec import BadFrame, Format

WIRE = [Format.JSON, Format.MSGPACK]

words = st.text(st.characters(codec="utf-8"), max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(words, plain, max_size=4)
wide = st.dictionaries(words, st.integers(0, 9), min_size=15, max_size=17)


def sent(message: object, fmt: Format) -> str | bytes:
    encoded = codec.encode(message, fmt)
    return encoded if fmt is Format.MSGPACK else encoded.decode()


@pytest.mark.parametrize("fmt", WIRE)
@settings(max_examples=50, deadline=None)
@given(data=objects, number=st.integers(-(2**63), 2**63 - 1))
def test_a_command_is_read_as_it_was_written(fmt, data, number):
    """Either format carries every plain value."""
    command = codec.decode_command(sent({"id": number, "cmd": "a.b", "data": data}, fmt), fmt)
    assert (command.id, command.cmd, command.data, command.key) == (number, "a.b", data, None)


@settings(max_examples=50, deadline=None)
@given(data=objects)
def test_content_is_the_same_in_both_formats_and_whatever_the_order(data):
    """The same command is the same content, however it came."""
    turned = dict(reversed(data.items()))
    one = codec.decode_command(sent({"id": 1, "cmd": "x", "data": data}, Format.JSON), Format.JSON)
    two = codec.decode_command(
        sent({"data": turned, "cmd": "x", "id": 2}, Format.MSGPACK), Format.MSGPACK
    )
    assert one.content == two.content


@pytest.mark.parametrize("fmt", WIRE)
@settings(max_examples=50, deadline=None)
@given(frame=st.binary(max_size=200))
def test_noise_is_a_bad_frame_and_nothing_else(fmt, frame):
    """No input raises anything but bad_frame."""
    with suppress(BadFrame):
        codec.decode_command(frame if fmt is Format.MSGPACK else frame.decode("latin-1"), fmt)


@pytest.mark.parametrize(
    ("frame", "re"),
    [
        ("", None),
        ("null", None),
        ("[]", None),
        ('"room.join"', None),
        ("{", None),
        ('{"id": 1, "cmd": "x", "data": {}} ?', None),
        ('{"cmd": "x", "data": {}}', None),
        ('{"id": "1", "cmd": "x", "data": {}}', None),
        ('{"id": true, "cmd": "x", "data": {}}', None),
        ('{"id": 1.0, "cmd": "x", "data": {}}', None),
        ('{"id": 123456789012345678901234567890, "cmd": "x", "data": {}}', None),
        ('{"id": 1, "data": {}}', 1),
        ('{"id": 1, "cmd": 2, "data": {}}', 1),
        ('{"id": 1, "cmd": "x"}', 1),
        ('{"id": 1, "cmd": "x", "data": []}', 1),
        ('{"id": 1, "cmd": "x", "data": {"a": NaN}}', None),
        ('{"id": 1, "cmd": "x", "data": {"a": "\\ud800"}}', None),
        ('{"id": 1, "cmd": "x", "data": {}, "key": 7}', 1),
        ('{"id": 1, "cmd": "x", "data": {}, "key": ""}', 1),
        ('{"id": 1, "cmd": "x", "data": {}, "key": "%s"}' % ("k" * 65), 1),
        ('{"id": 7, "cmd": "x", "data": {"a": "%s"}}' % ("x" * 16384), 7),
        ('{"id": 7, "cmd": "x", "data": {"a": "%s"}}' % ("é" * 8192), 7),
        ('{"id": 7, "cmd": "x", "data": {"a": %s}}' % ("[" * 300 + "]" * 300), 7),
        ("[" * 10_000, None),
        (b'{"id": 1, "cmd": "x", "data": {}}', None),
    ],
)
def test_a_frame_that_is_no_command_is_bad(frame, re):
    """What cannot be read as {id, cmd, data} gets bad_frame, with its id where there is one."""
    with pytest.raises(BadFrame) as caught:
        codec.decode_command(frame, Format.JSON)
    assert caught.value.re == re


@pytest.mark.parametrize(
    "frame",
    [
        "text",
        msgpack.packb({"id": 1, "cmd": "x", "data": {"a": b"bytes"}}),
        msgpack.packb({"id": 1, "cmd": "x", "data": {"a": msgpack.Timestamp(1)}}),
        msgpack.packb({"id": 1, "cmd": "x", "data": {"a": msgpack.ExtType(4, b"")}}),
        msgpack.packb({"id": 1, "cmd": "x", "data": {b"a": 1}}),
        msgpack.packb({1: 2}),
        b"\x81" * 5000 + b"\xc0",
        b"\xdf\xff\xff\xff\xff",
        b"\x83\xa2id\x01\xa3cmd\xa1x\xa4data\x80\xc0",
    ],
)
def test_msgpack_holds_what_json_could_hold(frame):
    """Both formats carry the same values, so bytes, dates and odd keys are refused."""
    with pytest.raises(BadFrame):
        codec.decode_command(frame, Format.MSGPACK)


def test_of_a_doubled_key_the_last_counts():
    """A doubled JSON key: the last one counts and is validated."""
    frame = '{"id": 1, "cmd": "x", "data": {"qty": 1, "qty": 2}}'
    assert codec.decode_command(frame, Format.JSON).data == {"qty": 2}


@pytest.mark.parametrize("fmt", WIRE)
@settings(max_examples=50, deadline=None)
@given(messages=st.lists(st.integers(0, 9), max_size=17) | st.lists(objects, max_size=3))
def test_joined_messages_are_an_array(fmt, messages):
    """A server frame is an array of messages, in order."""
    parts = [codec.encode(message, fmt) for message in messages]
    assert codec.decode(codec.join(parts, fmt), fmt) == messages


@pytest.mark.parametrize("fmt", WIRE)
@settings(max_examples=50, deadline=None)
@given(maps=st.lists(objects, max_size=3) | st.tuples(wide), value=plain)
def test_maps_are_put_together_without_being_read(fmt, maps, value):
    """Encoded members make the same map as plain ones."""
    named = [{f"{i}{name}": item for name, item in one.items()} for i, one in enumerate(maps)]
    parts = [codec.fields(one, fmt) for one in named]
    parts.append(codec.field("value", codec.encode(value, fmt), fmt))
    expected = {name: item for one in named for name, item in one.items()} | {"value": value}
    assert codec.decode(codec.put_together(parts, fmt), fmt) == expected


@pytest.mark.parametrize("count", [15, 16, 65535, 65536])
def test_large_arrays_and_maps_have_their_heads(count):
    """Heads count in four, sixteen or thirty-two bits."""
    assert len(msgpack.unpackb(codec.join([b"\x01"] * count, Format.MSGPACK))) == count
    part = codec.fields({str(i): i for i in range(count)}, Format.MSGPACK)
    assert len(msgpack.unpackb(codec.put_together([part], Format.MSGPACK))) == count


@pytest.mark.parametrize("fmt", WIRE)
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_frames_are_read_by_a_websocket_parser(fmt, size):
    """Server frames are whole and unmasked (RFC 6455, section 5.2)."""
    reader = StreamReader()
    reader.feed_data(codec.frame(b"x" * size, fmt))
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as stop:
        next(parsing)
    frame = stop.value.value
    assert (frame.fin, frame.data) == (True, b"x" * size)
    assert frame.opcode == (2 if fmt is Format.MSGPACK else 1)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], Format.JSON),
        (["liveroom.v1.msgpack", "liveroom.v1.json"], Format.MSGPACK),
        (["chat", "liveroom.v1.json"], Format.JSON),
        (["chat", "stream"], None),
    ],
)
def test_the_first_known_subprotocol_is_chosen(offered, chosen):
    """None offered is JSON; only unknown ones is none."""
    assert codec.choose_format(offered) is chosen


def test_replies_name_their_command():
    """A reply is an array of one message with `re` and `ok` or `error`."""
    ok = codec.reply_ok(7, {"a": 1}, Format.JSON)
    assert orjson.loads(ok[2:]) == [{"re": 7, "ok": {"a": 1}}]
    refused = codec.reply_error(None, BadFrame("No."), Format.JSON)
    assert orjson.loads(refused[2:])[0]["error"]["code"] == "bad_frame"
