"""Frames of clients: whole messages come out however the bytes are torn; the rest is `Broken`."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveroom.wire.frames import Broken, Frames, Opcode, answer_to_close, close_frame, unmasked

MASK = b"\x01\x02\xf3\x04"


def frames(bytes_max=64 * 1024, fragments_max=64):
    return Frames(
        message_bytes_max=bytes_max, fragments_max=fragments_max, control_frames_per_s_max=10
    )


def sent(opcode, payload, *, fin=True, mask=MASK):
    first, size = (0x80 if fin else 0) | opcode, len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + mask + unmasked(payload, mask)


messages = st.lists(
    st.tuples(
        st.sampled_from([Opcode.TEXT, Opcode.BINARY]),
        st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    ),
    max_size=6,
)


@given(messages, st.integers(1, 700), st.binary(min_size=4, max_size=4))
def test_messages_come_whole_however_they_are_torn(said, cut, mask):
    """Any fragments, any lengths, any mask, any reads: the same messages in the same order."""
    stream = b""
    for opcode, parts in said:
        for at, part in enumerate(parts):
            kind = opcode if at == 0 else Opcode.CONT
            stream += sent(kind, part, fin=at == len(parts) - 1, mask=mask)
    parser, found = frames(), []
    for at in range(0, len(stream), cut):
        found += parser.feed(stream[at : at + cut])
    assert found == [(opcode, b"".join(parts)) for opcode, parts in said]


def test_control_frames_come_between_fragments():
    """A ping inside a message is told at once and does not harm it."""
    stream = sent(1, b"a", fin=False) + sent(9, b"?") + sent(0, b"b")
    assert frames().feed(stream) == [(Opcode.PING, b"?"), (Opcode.TEXT, b"ab")]


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\xc1\x80" + MASK, 1002),  # a reserved bit
        (b"\x83\x80" + MASK, 1002),  # an unknown opcode
        (sent(9, b"", fin=False), 1002),  # half a ping
        (b"\x89\xfe", 1002),  # a ping over 125 bytes, before it is there
        (sent(0, b"x"), 1002),  # nothing to continue
        (sent(1, b"x", fin=False) + sent(1, b"y"), 1002),  # a message in a message
        (b"\x81\xff" + (1 << 20).to_bytes(8, "big"), 1009),  # too long, before it is there
        (sent(1, b"x" * 60_000, fin=False) + sent(0, b"x" * 6000), 1009),
        (sent(1, b"", fin=False) + sent(0, b"", fin=False) * 64, 1009),
        (sent(9, b"") * 11, 1002),
    ],
)
def test_what_breaks_the_protocol_is_told_with_its_code(stream, code):
    """A frame is refused at the first byte that makes it wrong."""
    with pytest.raises(Broken) as broken:
        frames().feed(stream)
    assert broken.value.code == code


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b"", b"\x88\x00"),
        (b"\x03\xe8bye", b"\x88\x05\x03\xe8bye"),
        (b"\x0f\xa0", b"\x88\x02\x0f\xa0"),
        (b"\x03", close_frame(1002, "invalid close code")),
        (b"\x03\xed", close_frame(1002, "invalid close code")),  # 1005 is never sent
        (b"\x13\x88", close_frame(1002, "invalid close code")),  # 5000
        (b"\x03\xe8\xff", close_frame(1007, "invalid UTF-8")),
    ],
)
def test_a_close_is_answered_with_its_own_code(payload, answer):
    """Or with what is wrong with it."""
    assert answer_to_close(payload) == answer


def test_a_long_reason_is_cut_between_characters():
    """A control frame holds 125 bytes, two of them the code."""
    frame = close_frame(4000, "é" * 100)
    assert frame[1] == len(frame) - 2 <= 125
    assert frame[4:].decode() == "é" * 61
