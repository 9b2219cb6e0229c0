"""What a shop's sales are owed to: rooms, hosts, their roles, sources, pins; and what is not known.

Read from the lines of paid orders, whose buckets never change; a sale counts at the time it
was paid, and what goes back later is taken off there. Nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select

from liveroom import shapes
from liveroom.buckets import Bucket, Source, parts
from liveroom.errors import Invalid
from liveroom.store import tables
from liveroom.store.database import now_ms

RANGE_MS_MAX: Final = 366 * 86_400_000
RANGE_MS: Final = 30 * 86_400_000
SHARES_MAX: Final = 1_000
"""How many shares of each kind are told by name; those that took least are told together."""


class Share(shapes.Shape):
    """What one room, host, role, source or pin took in, in one currency.

    `others`: the sum of all that are not told by name. `unattributed`: who it was is not known.
    """

    currency: str
    units: int
    paid_minor: int
    refunded_minor: int
    room: str | None = None
    host: str | None = None
    roles: list[str] | None = None
    source: Source | None = None
    pin: str | None = None
    product: str | None = None
    unattributed: bool = False
    others: bool = False


class Attribution(shapes.Shape):
    """A shop's sales that were paid in a time; every list comes to the same sums as `total`."""

    shop: str
    since: int = msgspec.field(name="from")
    until: int = msgspec.field(name="to")
    total: list[Share]
    rooms: list[Share]
    hosts: list[Share]
    roles: list[Share]
    sources: list[Share]
    pins: list[Share]


_T = tables
_LINES = (
    select(
        _T.orders.c.room,
        _T.order_lines.c.bucket,
        _T.skus.c.product,
        _T.payments.c.currency,
        func.sum(_T.order_lines.c.qty).label("units"),
        func.sum(_T.order_lines.c.qty * _T.order_lines.c.price_minor).label("paid"),
        func.sum(_T.order_lines.c.refunded_minor).label("back"),
    )
    .join(_T.orders, _T.orders.c.id == _T.payments.c.order)
    .join(_T.order_lines, _T.order_lines.c.order == _T.orders.c.id)
    .join(_T.skus, _T.skus.c.id == _T.order_lines.c.sku)
    .join(_T.products, _T.products.c.id == _T.skus.c.product)
    .group_by(_T.orders.c.room, _T.order_lines.c.bucket, _T.skus.c.product, _T.payments.c.currency)
)


def of_shop(conn: Connection, shop: str, since: int | None, until: int | None) -> Attribution:
    """A shop's paid sales from `since` on and before `until`; the last 30 days unless given.

    Raises:
        Invalid: `bad_argument`: the time is longer than 366 days, or ends before it begins.
    """
    until = now_ms(conn) if until is None else until
    since = max(0, until - RANGE_MS) if since is None else since
    if not 0 <= until - since <= RANGE_MS_MAX:
        raise Invalid("bad_argument", "`from` is before `to`, by 366 days at most.")
    paid_at = _T.payments.c.paid_at
    mine = _LINES.where(_T.products.c.shop == shop, paid_at >= since, paid_at < until)
    rows = conn.execute(mine).all()
    return Attribution(shop=shop, since=since, until=until, **_lists(rows))


Name = tuple[tuple[str, str], ...]
"""What a share is called, as fields of it; empty where it is not known."""


class _Sums:
    """What each name took in, for each currency: units, paid, given back."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, Name], tuple[int, int, int]] = {}

    def add(self, currency: str, name: Name, more: tuple[int, int, int]) -> None:
        units, paid, back = self._of.get((currency, name), (0, 0, 0))
        self._of[currency, name] = units + more[0], paid + more[1], back + more[2]

    def shares(self, **of_nobody: bool) -> list[Share]:
        """By name, most taken first; what is left over and what has no name come last."""
        named = sorted(
            (key for key in self._of if key[1]), key=lambda key: (-self._of[key][1], key)
        )
        others = _Sums()
        for currency, name in named[SHARES_MAX:]:
            others.add(currency, (), self._of[currency, name])
        nameless = sorted(key for key in self._of if not key[1])
        told = [self._share(key, **_told(key[1])) for key in named[:SHARES_MAX]]
        told += [others._share(key, others=True) for key in sorted(others._of)]
        return told + [self._share(key, **of_nobody) for key in nameless]

    def _share(self, key: tuple[str, Name], **told: Any) -> Share:
        units, paid, back = self._of[key]
        return Share(currency=key[0], units=units, paid_minor=paid, refunded_minor=back, **told)


def _lists(rows: Iterable[Any]) -> dict[str, list[Share]]:
    """Every list of shares, each of all the rows."""
    total, sums = _Sums(), {kind: _Sums() for kind in _NAMES}
    for row in rows:
        bucket, more = parts(row.bucket), (int(row.units), int(row.paid), int(row.back))
        total.add(row.currency, (), more)
        for kind, name in _NAMES.items():
            sums[kind].add(row.currency, name(row, bucket), more)
    lists = {kind: found.shares(unattributed=True) for kind, found in sums.items()}
    return lists | {"total": total.shares()}


def _known(**name: str) -> Name:
    return tuple(name.items()) if all(name.values()) else ()


_NAMES: Final[dict[str, Callable[[Any, Bucket], Name]]] = {
    "rooms": lambda row, _: _known(room=row.room),
    "hosts": lambda _, bucket: _known(host=bucket.host),
    "roles": lambda _, bucket: _known(roles=bucket.roles),
    "sources": lambda _, bucket: _known(source=bucket.source),
    "pins": lambda row, bucket: _known(pin=bucket.pin, room=row.room, product=row.product),
}


def _told(name: Name) -> dict[str, Any]:
    """A name as the fields of a share tell it."""
    told: dict[str, Any] = dict(name)
    if "roles" in told:
        told["roles"] = told["roles"].split("+")
    if "source" in told:
        kind, _, source = told["source"].partition(".")
        told["source"] = Source(kind=kind, id=source or None)
    return told
