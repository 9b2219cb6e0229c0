"""What a sale is owed to, beside its room: its bucket, as one text.

The server stamps it on a hold that is made; it goes with the hold to the order's line and on
to the takings, and never changes. Nobody stamps what the house holds, and no release before
this one stamped anything: that is `UNATTRIBUTED`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import msgspec

from liveroom.ids import Id

UNATTRIBUTED: Final = "unattributed"


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What brought the viewer here, as the client says; `id` is not looked up."""

    kind: Literal["note", "share", "search", "follow"]
    id: Id | None = None


class Bucket(NamedTuple):
    """The parts of a bucket; what is not known is empty.

    The room's host; the roles that the host held then, sorted, a + between them; the position
    `<epoch>:<seq>` of the pin that showed the product then; the source, `<kind>` or
    `<kind>.<id>`.
    """

    host: str = ""
    roles: str = ""
    pin: str = ""
    source: str = ""


def stamp(host: str, roles: Iterable[str], pin: str, source: Source | None) -> str:
    """The bucket of what is held now: its parts with a slash between them, which no id holds."""
    said = "" if source is None else ".".join(filter(None, (source.kind, source.id)))
    return f"{host}/{'+'.join(roles)}/{pin}/{said}"


def parts(bucket: str) -> Bucket:
    """The parts of a bucket; of `UNATTRIBUTED` none is known."""
    return Bucket() if bucket == UNATTRIBUTED else Bucket(*bucket.split("/"))
