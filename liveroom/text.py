"""Text that people write, made fit to be shown to other people.

Everything here is a pure function. Scripts and emoji pass unharmed; what only serves to
deceive the eye or to break a line (controls, bidi overrides, runs of invisible or combining
characters) does not.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MESSAGE_MAX: Final = 500
NAME_MAX: Final = 40
COMBINING_MAX: Final = 4

# Controls, surrogates and private characters; bidi embeddings, overrides and isolates, which
# reorder the text of others; what is invisible and has no part in any script. ZWNJ and ZWJ
# stay: Persian, Indic scripts and emoji use them.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\U000f0000-\U0010ffff"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\uffff\U000e0000-\U000e001f]"
)
_JOINERS = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]+|(?<=[\u200c\u200d])[\u200c\u200d]+")
_SPACES = re.compile("[\\s\u2800]+")


def clean(text: str) -> str:
    """`text` in NFC, on one line, without characters that only deceive; may be empty."""
    if text.isascii() and text.isprintable():  # only its spaces can need mending
        return " ".join(text.split())
    text = unicodedata.normalize("NFC", text)
    text = _SPACES.sub(" ", text)
    text = _HIDDEN.sub("", text)
    text = _JOINERS.sub("", text)
    return _cap_combining(text).strip()


def clean_name(text: str) -> str:
    """A name fit to stand beside a message; may be empty."""
    return clean(text[: 4 * NAME_MAX])[:NAME_MAX].strip()


def _cap_combining(text: str) -> str:
    if not any(map(unicodedata.combining, text)):  # as most text: worth not looping over
        return text
    kept: list[str] = []
    run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= COMBINING_MAX:
            kept.append(character)
    return "".join(kept)
