"""Ids: text made by clients or by us, never by a sequence of the database."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
import uuid_utils

# Python's $ also matches before a last line feed, which the lookahead forbids.
ID_PATTERN: Final = r"^[A-Za-z0-9_.\-]{1,64}$(?!\n)"
Id = Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
"""1-64 characters of `A-Z a-z 0-9 _ - .` (protocol v1)."""

_ID = re.compile(ID_PATTERN)


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): unique, and sorted by the time it was made."""
    return str(uuid_utils.uuid7())


def is_id(text: object) -> bool:
    """Whether `text` may serve as an id on the wire."""
    return isinstance(text, str) and _ID.search(text) is not None
