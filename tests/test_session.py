"""One conversation: what may follow what, and how often."""

from __future__ import annotations

import random

import orjson
import pytest

from liveroom.errors import Denied, Invalid, Refused, Unavailable, error
from liveroom.ids import new_id
from liveroom.wire.codec import Format
from liveroom.wire.session import BAD_FRAME, REMEMBERED_MAX, Session, close_code_of_join


def frame(number: int, cmd: str = "message.post", **data: object) -> str:
    return orjson.dumps({"id": number, "cmd": cmd, "data": data}).decode()


def told(answer: bytes | None) -> dict:
    assert answer is not None
    return orjson.loads(answer[answer.index(b"[") :])[0]


def joined(**options: float) -> Session:
    session = Session(Format.JSON, **options)
    session.joined = True
    return session


def test_the_first_frame_must_be_the_join():
    """A first frame that is no room.join is bad_frame."""
    session = Session(Format.JSON)
    assert told(session.receive(frame(3), 0).answer)["error"]["code"] == "bad_frame"
    step = session.receive(frame(4, "room.join"), 0)
    assert step.command is not None
    assert step.answer is None


def test_a_second_join_changes_nothing():
    """The seat stays; the answer is illegal_transition."""
    step = joined().receive(frame(9, "room.join"), 0)
    assert (told(step.answer)["re"], step.command, step.close) == (9, None, None)
    assert told(step.answer)["error"]["code"] == "illegal_transition"


def test_the_tenth_bad_frame_in_a_minute_ends_it():
    """Ten in a minute close the socket (4500)."""
    session = joined()
    assert [session.receive("?", i).close for i in range(10)] == [None] * 9 + [BAD_FRAME]


def test_bad_frames_that_are_far_apart_are_only_answered():
    """Nine in a minute are forgiven for ever."""
    session = joined()
    assert {session.receive("?", i * 7).close for i in range(50)} == {None}


def test_an_id_repeated_with_the_same_content_gets_the_first_answer():
    """What was done is told again, not done again."""
    session = joined()
    command = session.receive(frame(1, text="hi"), 0).command
    assert command is not None
    first = session.answer(command, {"message": {"n": 1}})
    again = session.receive(frame(1, text="hi"), 1)
    assert (again.answer, again.command) == (first, None)


def test_an_id_repeated_with_other_content_is_refused():
    """One id is one command."""
    session = joined()
    command = session.receive(frame(1, text="hi"), 0).command
    session.answer(command, {})
    step = session.receive(frame(1, text="ho"), 0)
    assert told(step.answer)["error"]["code"] == "id_reused"
    assert step.command is None


def test_a_refusal_binds_nothing():
    """The same id may try again after a refusal."""
    session = joined()
    command = session.receive(frame(1, text="hi"), 0).command
    assert told(session.refuse(command, Refused("muted")))["re"] == 1
    assert session.receive(frame(1, text="ho"), 0).command is not None


def test_the_last_64_ids_are_remembered():
    """Older ids are forgotten, so that a seat's memory is bounded."""
    session = joined()
    for number in range(REMEMBERED_MAX + 1):
        session.answer(session.receive(frame(number), 0).command, {})
    assert session.receive(frame(0), 0).command is not None
    assert session.receive(frame(1), 0).answer is not None


def test_the_last_64_answers_may_be_large_carts():
    """An id that is repeated after 63 answers with 50 lines each gets the first answer, whole."""
    session = joined()
    answers = []
    for number in range(REMEMBERED_MAX):
        lines = [
            {"hold": new_id(), "sku": f"sku-{at}", "qty": 1, "price_minor": 19_900, "until": at}
            for at in range(50)
        ]
        command = session.receive(frame(number), 0).command
        answers.append(session.answer(command, {"cart": {"lines": lines}}))
    assert [session.receive(frame(number), 0).answer for number in range(REMEMBERED_MAX)] == answers


def test_large_answers_are_bounded_together():
    """A seat keeps at most 192 KiB of answers, and always the last."""
    session = joined()
    for number in range(10):
        answer = random.Random(number).randbytes(30_000).hex()
        session.answer(session.receive(frame(number), 0).command, answer)
    assert session.receive(frame(3), 0).command is not None
    assert session.receive(frame(9), 0).answer is not None
    answer = random.Random(10).randbytes(300_000).hex()
    session.answer(session.receive(frame(10), 0).command, answer)
    assert session.receive(frame(10), 0).answer is not None


def test_commands_above_the_rate_are_told_to_wait():
    """A flood on one connection is refused with its ids, and passes with time."""
    session = joined(message_rate_max=2)
    steps = [session.receive(frame(i), 0.0) for i in range(3)]
    assert [step.command is not None for step in steps] == [True, True, False]
    refused = told(steps[2].answer)
    assert (refused["re"], refused["error"]["code"]) == (2, "rate_limited")
    assert 0 < refused["error"]["retry_after_ms"] <= 501
    assert session.receive(frame(3), 0.51).command is not None


def test_bad_frames_above_the_rate_still_count_as_bad():
    """A flood of noise ends the conversation however fast it is."""
    session = joined(message_rate_max=2)
    assert BAD_FRAME in {session.receive("?", 0.0).close for _ in range(12)}


@pytest.mark.parametrize(
    ("refusal", "close"),
    [
        (Denied("unauthenticated"), 4501),
        (Denied("forbidden"), 4501),
        (Denied("token_expired"), 4003),
        (Refused("banned"), 4502),
        (Invalid("not_found"), 4503),
        (Invalid("bad_argument"), None),
        (Unavailable("store_down"), None),
        (error("rebuilding"), None),
    ],
)
def test_a_refused_join_closes_where_trying_again_is_no_use(refusal, close):
    """4501, 4502 and 4003 follow the answer; a store that is away does not close."""
    assert close_code_of_join(refusal) == close
