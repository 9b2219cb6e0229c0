"""Text of people: scripts pass unharmed, tricks do not."""

from __future__ import annotations

import pytest

from liveroom.text import clean, clean_name

UNHARMED = [
    "is it see-through?",
    "还有M码吗？",
    "한국어 메시지",
    "สวัสดีครับ น้ำใจ",
    "السلام عليكم",
    "नमस्ते क्षत्रिय",
    "می‌خواهم",  # Persian with its zero-width non-joiner
    "👩‍👩‍👧 👍🏽 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️",
    "Ångström, naïve, Việt Nam",
    "<script>alert(1)</script> & <b>",  # shown as text by pages, so it stays text here
]


@pytest.mark.parametrize("said", UNHARMED)
def test_scripts_and_emoji_pass_unharmed(said):
    """What people write in any script arrives as they wrote it."""
    assert clean(said) == said


TRICKS = {
    "a\u202eb": "ab",
    "\u2066hidden\u2069": "hidden",
    "b\u200ba\u200bd": "bad",
    "b\u200da\u200dd": "bad",
    "one\ntwo\r\n\tthree": "one two three",
    "bell\x07 and\x00 nul": "bell and nul",
    "e\u0301": "é",
    "z" + "\u0335" * 40: "z" + "\u0335" * 4,
    "\u3164\u2800 ": "",
    "  spaced   out  ": "spaced out",
    "\ufeffmark\u2028line": "mark line",
    "\u200b\u200b": "",
}


@pytest.mark.parametrize("said", TRICKS)
def test_tricks_are_taken_out(said):
    """Controls, bidi overrides, invisible characters and piles of marks do not pass."""
    assert clean(said) == TRICKS[said]


def test_names_are_short():
    """A name beside a message is at most forty characters, whatever was sent."""
    assert len(clean_name("x" * 10_000)) == 40
