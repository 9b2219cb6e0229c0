"""One connection's conversation, without I/O: what may follow what, and how often.

    waiting --room.join answered--> joined

Rules: the first frame is room.join; ten bad frames in a minute end the conversation; a
command id repeated with the same content gets the first answer, with other content
`id_reused`; a refusal binds nothing. Time comes in, in monotonic seconds.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, deque
from typing import Any, Final, NamedTuple

from liveroom.errors import Denied, Invalid, LiveroomError, Unavailable
from liveroom.wire import codec
from liveroom.wire.codec import BadFrame, Command, Format

JOIN: Final = "room.join"
JOIN_WITHIN_S: Final = 10.0
JOIN_TIMEOUT: Final = 4005

BAD_FRAMES_MAX: Final = 10
BAD_FRAMES_WINDOW_S: Final = 60.0
BAD_FRAME: Final = 4500

REMEMBERED_MAX: Final = 64
REMEMBERED_BYTES_MAX: Final = 192 * 1024
"""What the last answers of a connection may weigh; 64 carts of 50 lines have room in it."""
PACKED_FROM_BYTES: Final = 1024
"""From this size on an answer is kept compressed: a large cart names the same things again."""

_ZLIB_FIRST: Final = 0x78

TOKEN_EXPIRED: Final = 4003
UNAUTHENTICATED: Final = 4501
BANNED: Final = 4502
ROOM_GONE: Final = 4503

_CLOSES: Final = {"token_expired": TOKEN_EXPIRED, "banned": BANNED, "not_found": ROOM_GONE}


def close_code_of_join(error: LiveroomError) -> int | None:
    """The close code that follows a refused join; None where the client may try again here."""
    if error.code in _CLOSES:
        return _CLOSES[error.code]
    return UNAUTHENTICATED if isinstance(error, Denied) else None


class Step(NamedTuple):
    """What to do about one frame: run its command, or write an answer and perhaps close."""

    command: Command | None = None
    answer: bytes | None = None
    close: int | None = None


class Session:
    """The state of one conversation.

    `message_rate_max` is commands a second on this connection, with a burst of one second's
    worth; 0 means no limit.
    """

    __slots__ = (
        "_allowance",
        "_bad_s",
        "_first",
        "_first_bytes",
        "_format",
        "_rate",
        "_seen_s",
        "joined",
    )

    def __init__(self, fmt: Format, *, message_rate_max: float = 0) -> None:
        self.joined = False
        self._format = fmt
        self._rate = message_rate_max
        self._allowance = max(1.0, message_rate_max)
        self._seen_s: float | None = None
        self._bad_s: deque[float] | None = None
        self._first: OrderedDict[int, tuple[bytes, bytes]] | None = None
        self._first_bytes = 0

    def receive(self, frame: str | bytes, now_s: float) -> Step:
        """What to do about a frame that came in at `now_s`."""
        try:
            command = codec.decode_command(frame, self._format)
            self._spend(now_s)
            return self._judge(command)
        except BadFrame as error:
            return self._bad(error, now_s)
        except Unavailable as error:
            return Step(answer=self._refusal(command.id, error))

    def answer(self, command: Command, ok: Any) -> bytes:
        """The frame that answers a command with what it did, remembered for a repetition."""
        frame = codec.reply_ok(command.id, ok, self._format)
        if command.cmd != JOIN:
            self._remember(command, frame)
        return frame

    def refuse(self, command: Command, error: LiveroomError) -> bytes:
        """The frame that answers a command with its refusal; the id may be used again."""
        return self._refusal(command.id, error)

    def _judge(self, command: Command) -> Step:
        if not self.joined:
            if command.cmd != JOIN:
                raise BadFrame("The first frame must be room.join.", command.id)
            return Step(command=command)
        if command.cmd == JOIN:
            taken = Invalid("illegal_transition", "This seat has joined already.")
            return Step(answer=self._refusal(command.id, taken))
        known = self._first.get(command.id) if self._first is not None else None
        if known is None:
            return Step(command=command)
        content, kept = known
        if content != command.content:
            return Step(answer=self._refusal(command.id, Invalid("id_reused")))
        return Step(answer=zlib.decompress(kept) if _is_packed(kept) else kept)

    def _bad(self, error: BadFrame, now_s: float) -> Step:
        bad_s = self._bad_s
        if bad_s is None:
            bad_s = self._bad_s = deque(maxlen=BAD_FRAMES_MAX)
        bad_s.append(now_s)
        full = len(bad_s) == BAD_FRAMES_MAX and now_s - bad_s[0] < BAD_FRAMES_WINDOW_S
        return Step(answer=self._refusal(error.re, error), close=BAD_FRAME if full else None)

    def _spend(self, now_s: float) -> None:
        """Take one command from the connection's allowance, or refuse it."""
        if not self._rate:
            return
        gained = (now_s - self._seen_s) * self._rate if self._seen_s is not None else 0.0
        self._seen_s = now_s
        self._allowance = min(max(1.0, self._rate), self._allowance + gained)
        if self._allowance < 1:
            wait_ms = int((1 - self._allowance) / self._rate * 1000) + 1
            raise Unavailable("rate_limited", retry_after_ms=wait_ms)
        self._allowance -= 1

    def _refusal(self, re: int | None, error: LiveroomError) -> bytes:
        return codec.reply_error(re, error, self._format)

    def _remember(self, command: Command, frame: bytes) -> None:
        if self._first is None:
            self._first = OrderedDict()
        kept = frame if len(frame) < PACKED_FROM_BYTES else zlib.compress(frame, 1)
        self._first[command.id] = (command.content, kept)
        self._first_bytes += len(kept)
        while len(self._first) > REMEMBERED_MAX or (
            self._first_bytes > REMEMBERED_BYTES_MAX and len(self._first) > 1
        ):
            _, (_, gone) = self._first.popitem(last=False)
            self._first_bytes -= len(gone)


def _is_packed(kept: bytes) -> bool:
    """Whether it is no frame: those begin with the final bit and an opcode, zlib with 0x78."""
    return kept[0] == _ZLIB_FIRST
