"""Payments: signatures, the sandbox's buttons, and the one open payment of an order."""

from __future__ import annotations

import msgspec
import pytest

from liveroom.clock import ManualClock
from liveroom.errors import LiveroomError
from liveroom.payments import WINDOW_S, Sandbox, Signed, check_signature, sign

SECRET, OTHER = b"first secret", b"second secret"
NOW_S = 1_790_000_000


def code_of(call, *args, **kwargs) -> str:
    with pytest.raises(LiveroomError) as refusal:
        call(*args, **kwargs)
    return refusal.value.code


def sandbox(*secrets: bytes) -> tuple[Sandbox, ManualClock]:
    clock = ManualClock(NOW_S * 1000)
    return Sandbox(secrets or (SECRET,), clock), clock


def press(box: Sandbox, kind: str = "payment.succeeded", amount: int = 500) -> Signed:
    return box.press(kind, reference="sandbox_p1", amount_minor=amount, currency="EUR")


def test_a_signed_webhook_says_what_was_pressed() -> None:
    """What the button sends is what the handler reads."""
    box, _ = sandbox()
    said = box.verify(*press(box))
    assert (said.kind, said.reference, said.amount_minor, said.currency) == (
        "payment.succeeded",
        "sandbox_p1",
        500,
        "EUR",
    )


def test_a_button_pressed_twice_is_one_event() -> None:
    """The second press is the same event, so that it counts once."""
    box, clock = sandbox()
    first = box.verify(*press(box))
    clock.advance(5_000)
    assert box.verify(*press(box)).event == first.event


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("webhook-id", "another"),
        ("webhook-timestamp", str(NOW_S - 1)),
        ("webhook-timestamp", "-1"),
        ("webhook-timestamp", "1.5"),
        ("webhook-timestamp", "٣"),
        ("webhook-timestamp", "9" * 40),
        ("webhook-timestamp", ""),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,AAAA"),
        ("webhook-signature", "v1,é"),
        ("webhook-id", ""),
    ],
)
def test_a_changed_header_is_refused(part: str, value: str) -> None:
    """Id, time and signature belong together; none can be exchanged."""
    box, _ = sandbox()
    headers, body = press(box)
    assert code_of(box.verify, headers | {part: value}, body) == "unauthenticated"


def test_a_changed_body_is_refused() -> None:
    """A cent less in the raw body breaks the signature."""
    box, _ = sandbox()
    headers, body = press(box)
    assert code_of(box.verify, headers, body.replace(b"500", b"499")) == "unauthenticated"


def test_an_old_webhook_is_refused() -> None:
    """Inside the window it counts, a second later it does not; nor from the future."""
    box, clock = sandbox()
    signed = press(box)
    clock.advance(WINDOW_S * 1000)
    assert box.verify(*signed).amount_minor == 500
    clock.advance(1000)
    assert code_of(box.verify, *signed) == "unauthenticated"
    clock.advance(-2 * (WINDOW_S + 1) * 1000)
    assert code_of(box.verify, *signed) == "unauthenticated"


def test_a_secret_can_be_rotated() -> None:
    """While both secrets are valid either signs; a secret taken away signs no more."""
    old, _ = sandbox(OTHER)
    both, _ = sandbox(SECRET, OTHER)
    new, _ = sandbox(SECRET)
    signed = press(old)
    assert both.verify(*signed).amount_minor == 500
    assert code_of(new.verify, *signed) == "unauthenticated"


def test_one_good_signature_among_several_is_enough() -> None:
    """A sender that rotates its secret sends two signatures in one header."""
    headers, body = sign(SECRET, event="e", at_s=NOW_S, body=b"{}")
    doubled = headers | {"webhook-signature": "v1,AAAA " + headers["webhook-signature"]}
    assert check_signature([SECRET], doubled, body, now_s=NOW_S) == "e"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        msgspec.json.encode({"type": "payment.succeeded"}),
        msgspec.json.encode(
            {"type": "no.such", "reference": "p", "amount_minor": 1, "currency": "EUR"}
        ),
        msgspec.json.encode(
            {"type": "payment.succeeded", "reference": "p", "amount_minor": 1.5, "currency": "EUR"}
        ),
        msgspec.json.encode(
            {"type": "payment.succeeded", "reference": "p", "amount_minor": -1, "currency": "EUR"}
        ),
        msgspec.json.encode(
            {"type": "payment.succeeded", "reference": "p", "amount_minor": 1, "currency": "eur"}
        ),
    ],
)
def test_a_signed_body_must_make_sense(said: bytes) -> None:
    """A right signature under a wrong body is bad_argument, never an event."""
    box, _ = sandbox()
    assert code_of(box.verify, *sign(SECRET, event="e", at_s=NOW_S, body=said)) == "bad_argument"


def test_closing_a_captured_payment_answers_the_capture(run) -> None:
    """Who closes a payment too late learns what was captured."""
    box, _ = sandbox()
    assert run(box.close(payment="p1", reference="sandbox_p1")) is None
    press(box, "payment.failed")
    assert run(box.close(payment="p1", reference="sandbox_p1")) is None
    press(box)
    captured = run(box.close(payment="p1", reference="sandbox_p1"))
    assert captured is not None
    assert captured.amount_minor == 500


def test_the_sandbox_remembers_a_bounded_number_of_captures(run) -> None:
    """The oldest capture is forgotten; its webhook alone tells of it then."""
    box = Sandbox([SECRET], ManualClock(), remembered_max=2)
    for name in ("a", "b", "c"):
        box.press("payment.succeeded", reference=name, amount_minor=1, currency="EUR")
    assert run(box.close(payment="", reference="a")) is None
    assert run(box.close(payment="", reference="c")) is not None
