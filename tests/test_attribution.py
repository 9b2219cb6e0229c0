"""What sales are owed to: stamped on the hold, counted by bucket, refunded from the same one."""

from __future__ import annotations

import csv
import io

import pytest
from house import ADMIN, ANN, BO, HOST, MERCHANT, House
from shopfloor import floor
from sqlalchemy import select, text, update

from liveroom import attribution
from liveroom.audit import audit
from liveroom.buckets import UNATTRIBUTED, Bucket, Source, parts, stamp
from liveroom.creators import CreatorChange
from liveroom.errors import Invalid, LiveroomError
from liveroom.exports import write_orders
from liveroom.orders import LineRequest
from liveroom.store import tables

NOTE = {"kind": "note", "id": "n1"}


@pytest.fixture
def house(db, redis_url):
    return lambda: House(db, redis_url)


async def buckets(h: House, order: str) -> dict[str, str]:
    """The bucket of each SKU of an order."""
    lines = tables.order_lines.c
    mine = select(lines.sku, lines.bucket).where(lines.order == order)
    return {row.sku: row.bucket for row in await h.db.read(lambda conn: conn.execute(mine).all())}


async def buy(h: House, order: str, *skus: str, buyer=ANN, **more) -> dict[str, str]:
    """Buy one of each; the bucket of each."""
    lines = [{"sku": sku, "qty": 1} for sku in skus]
    await h.do(buyer, "order.place", order=order, lines=lines, **more)
    return await buckets(h, order)


# ── the text ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "bucket", "read"),
    [
        (("mia", [], "", None), "mia///", Bucket("mia")),
        (
            ("mia", ["buyer", "clerk"], "e:7", Source(kind="share", id="a.b-c")),
            "mia/buyer+clerk/e:7/share.a.b-c",
            Bucket("mia", "buyer+clerk", "e:7", "share.a.b-c"),
        ),
        (("m", [], "", Source(kind="search")), "m///search", Bucket("m", "", "", "search")),
    ],
)
def test_a_bucket_is_read_as_it_was_stamped(given, bucket, read):
    """Every part comes back, whatever an id holds; what is unattributed has none."""
    assert stamp(*given) == bucket
    assert parts(bucket) == read
    assert parts(UNATTRIBUTED) == Bucket()


# ── the stamp ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("on_air", [True, False])
def test_a_sale_is_owed_to_the_room_as_it_is_then(run, house, on_air):
    """Host, roles, pin and source are those of the moment, each line's pin its own product's."""

    async def story():
        async with house() as h:
            if on_air:
                await h.onair.picture("r1")
            assert await buy(h, "o1", "a") == {"a": "c1///"}
            await h.services.creators.change("c1", CreatorChange(roles=["manager", "buyer"]))
            await h.rooms.host_changed("c1")
            await h.rooms.pin("r1", "p1")
            picture = await h.onair.draw("r1")
            if on_air:
                await h.onair.picture("r1")
            pin = f"{picture.epoch}:{picture.seq}"
            assert await buy(h, "o2", "a", "c", source=NOTE) == {
                "a": f"c1/buyer+manager/{pin}/note.n1",
                "c": "c1/buyer+manager//note.n1",
            }
            await h.rooms.unpin("r1", "p1")
            if on_air:
                await h.onair.picture("r1")
            later = await buy(h, "o3", "a", source={"kind": "follow"})
            assert later == {"a": "c1/buyer+manager//follow"}

    run(story())


def test_a_role_taken_up_on_air_is_in_the_next_stamp(run, house):
    """A node with the room's picture hears of a role with the room's own event."""

    async def story():
        async with house() as h:
            picture = await h.onair.picture("r1")
            changed = await h.ask("PATCH", "/v1/creators/c1", ADMIN, {"roles": ["clerk"]})
            assert changed.status_code == 200
            position = (await h.backplane.room_state("r1")).position
            for event in await h.backplane.read("r1", position._replace(seq=picture.seq)):
                picture.apply(event)
            assert await buy(h, "o1", "a") == {"a": "c1/clerk//"}

    run(story())


def test_a_room_on_air_is_stamped_from_memory(run, house):
    """While a node shows a room, no store is asked what its sales are owed to."""

    async def story():
        async with house() as h:
            await h.onair.picture("r1")
            behind = update(tables.rooms).values(host="somebody else")
            await h.db.write(lambda conn: conn.execute(behind) and None)
            assert (await h.onair.on_sale("r1")).bucket("a", None) == "c1///"
            h.onair.forget("r1")
            assert (await h.onair.on_sale("r1")).bucket("a", None) == "somebody else///"

    run(story())


def test_a_cart_line_keeps_its_first_stamp(run, house):
    """Who adds more of it, or pays later, changes nothing of what the line is owed to."""

    async def story():
        async with house() as h:
            await h.do(ANN, "cart.add", sku="a", qty=1, source=NOTE)
            await h.rooms.pin("r1", "p1")
            await h.do(ANN, "cart.add", sku="a", qty=1, source={"kind": "search"})
            await h.do(ANN, "cart.add", sku="c", qty=1)
            await h.do(ANN, "cart.checkout", order="o1")
            assert await buckets(h, "o1") == {"a": "c1///note.n1", "c": "c1///"}

    run(story())


def test_another_source_is_no_other_order(run, house):
    """A retry that came another way gets the first answer; the first stamp stays."""

    async def story():
        async with house() as h:
            lines = [{"sku": "a", "qty": 1}]
            first = await h.do(ANN, "order.place", order="o1", lines=lines, source=NOTE)
            again = {"kind": "share", "id": "u9"}
            for more in ({}, {"source": again}, {"source": again, "again": True}):
                assert await h.do(ANN, "order.place", order="o1", lines=lines, **more) == first
            assert await buckets(h, "o1") == {"a": "c1///note.n1"}
            first = await h.do(BO, "cart.add", key="k", sku="a", qty=1, source=NOTE)
            assert await h.do(BO, "cart.add", key="k", sku="a", qty=1) == first
            with pytest.raises(Invalid, match="id_reused"):
                await h.do(BO, "cart.add", key="k", sku="a", qty=2, source=NOTE)

    run(story())


@pytest.mark.parametrize(
    "source",
    [
        *("note", 7, [], {}, {"id": "n1"}, {"kind": "advert"}, {"kind": "note", "id": ""}),
        *({"kind": "note", "id": "a/b"}, {"kind": "note", "id": "x" * 65}),
        {"kind": "unattributed"},
    ],
)
@pytest.mark.parametrize("cmd", ["cart.add", "order.place", "waitlist.join"])
def test_a_source_that_is_none_is_a_bad_argument(run, house, cmd, source):
    """Only the four kinds, and an id of the house's form; no field of it can forge a bucket."""

    async def story():
        async with house() as h:
            data = {"sku": "a", "qty": 1}
            if cmd == "order.place":
                data = {"order": "o1", "lines": [data]}
            with pytest.raises(LiveroomError) as refused:
                await h.do(ANN, cmd, **data, source=source)
            assert refused.value.code == "bad_argument"

    run(story())


def test_drops_and_offers_are_stamped(run, house):
    """A drop's line is owed like any other, and an offer to what brought its buyer to the list."""

    async def story():
        async with house() as h:
            drop = (
                await h.do(
                    HOST, "drop.schedule", sku="a", quantity=2, price_minor=50, lasts_ms=60_000
                )
            )["drop"]["id"]
            line = {"sku": "a", "qty": 1, "drop": drop}
            await h.do(ANN, "order.place", order="o1", lines=[line], source=NOTE)
            assert await buckets(h, "o1") == {"a": "c1///note.n1"}
            await h.do(ANN, "cart.add", sku="b", qty=1)
            await h.do(BO, "waitlist.join", sku="b", qty=1, source={"kind": "share", "id": "u9"})
            await h.do(ANN, "cart.remove", sku="b")
            assert await h.services.waitlist.sweep_once() == 1
            await h.do(BO, "cart.checkout", order="o2")
            assert await buckets(h, "o2") == {"b": "c1///share.u9"}

    run(story())


# ── the money ─────────────────────────────────────────────────────────────────────────────


async def order_of_two(shop, order: str = "o1", **but) -> None:
    """3 of s1 (750) by a note and 2 of s2 (500) by nobody: paid."""
    lines = [
        LineRequest(sku="s1", qty=3, bucket="mia///note.n1"),
        LineRequest(sku="s2", qty=2, bucket="mia///"),
    ]
    await shop.orders.place(order=order, buyer="ann", room="r1", lines=lines, content=order, **but)


async def taken(shop) -> dict[str, tuple[int, int, int]]:
    """The takings of each bucket: orders, paid, given back."""
    rows = await shop.rows(tables.takings)
    return {row.bucket: (row.orders, row.paid_minor, row.refunded_minor) for row in rows}


def test_a_sale_is_counted_line_by_line(run, books, redis_url) -> None:
    """Each line's price is in its own bucket; the order counts once, where its first line does."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 9, "s2": 9}) as shop:
            await order_of_two(shop)
            await shop.pay("o1")
            assert await taken(shop) == {"mia///note.n1": (1, 750, 0), "mia///": (0, 500, 0)}
            await shop.check()

    run(story())


def test_a_refund_comes_off_the_bucket_of_its_line(run, books, redis_url) -> None:
    """Named lines first; an amount alone comes off all, in proportion to what they have left."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 9, "s2": 9}) as shop:
            await order_of_two(shop)
            await shop.pay("o1")
            await shop.give_back("o1", {"sku": "s2", "qty": 1})
            await shop.outbox.run_once()
            assert await taken(shop) == {"mia///note.n1": (1, 750, 0), "mia///": (0, 500, 250)}
            await shop.give_back("o1", amount_minor=101)  # 750 and 250 are left: 75.75 and 25.25
            await shop.outbox.run_once()
            assert await taken(shop) == {"mia///note.n1": (1, 750, 76), "mia///": (0, 500, 275)}
            await shop.give_back("o1", {"sku": "s2", "qty": 1}, amount_minor=300)
            await shop.outbox.run_once()  # s2 has 225 left, the other 75 come off s1
            assert await taken(shop) == {"mia///note.n1": (1, 750, 151), "mia///": (0, 500, 500)}
            await shop.check()
            await shop.give_back("o1")
            await shop.outbox.run_once()
            assert await taken(shop) == {"mia///note.n1": (1, 750, 750), "mia///": (0, 500, 500)}
            await shop.check()

    run(story())


def test_money_that_comes_late_goes_where_the_lines_say(run, books, redis_url) -> None:
    """An expired order that is paid after all keeps its buckets, though its holds are new."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 9, "s2": 9}) as shop:
            await order_of_two(shop)
            payment = await shop.orders_payment("o1")
            await shop.overdue("o1")
            await shop.orders.expire_once()
            await shop.settle_down()
            assert await taken(shop) == {}
            await shop.press(payment)
            assert await shop.state("o1") == "paid"
            assert await taken(shop) == {"mia///note.n1": (1, 750, 0), "mia///": (0, 500, 0)}
            await shop.check()

    run(story())


def test_money_that_is_not_owed_is_in_no_bucket(run, books, redis_url) -> None:
    """A capture for which there is no stock any more goes back, and counts nowhere."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 3, "s2": 9}) as shop:
            await order_of_two(shop)
            payment = await shop.orders_payment("o1")
            await shop.overdue("o1")
            await shop.orders.expire_once()
            await shop.orders.end_closing_once()
            await shop.settle_down()
            await shop.put("s1", 3, buyer="bob")
            await shop.press(payment)
            await shop.outbox.run_once()
            assert await shop.state("o1") == "refunded"
            assert await taken(shop) == {}
            await shop.check()

    run(story())


def test_the_export_tells_each_lines_bucket(run, books, redis_url) -> None:
    """Columns for what a line is owed to, and for what went back from it."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 9, "s2": 9}) as shop:
            lines = [
                LineRequest(sku="s1", qty=1, bucket="mia/buyer+clerk/e:7/share.u1"),
                LineRequest(sku="s2", qty=1),
            ]
            await shop.orders.place(order="o1", buyer="ann", room="r1", lines=lines, content="c")
            await shop.pay("o1")
            await shop.give_back("o1", {"sku": "s1", "qty": 1}, amount_minor=200)
            await shop.outbox.run_once()
            out = io.StringIO()
            await books.read(lambda conn: write_orders(conn, out))
            names = ("host", "host_roles", "pin", "source", "line_refunded")
            assert [
                tuple(row[name] for name in names)
                for row in csv.DictReader(io.StringIO(out.getvalue()))
            ] == [("mia", "buyer+clerk", "e:7", "share.u1", "2.00"), ("", "", "", "", "0.00")]

    run(story())


# ── the report ────────────────────────────────────────────────────────────────────────────


def told(shares: list[attribution.Share]) -> list[dict]:
    """Shares as the wire has them, but for the currency."""
    return [{k: v for k, v in one.builtin().items() if k != "currency"} for one in shares]


def sums(units: int, paid: int, back: int = 0) -> dict[str, int]:
    return {"units": units, "paid_minor": paid, "refunded_minor": back}


async def report(db, since=None, until=None, shop="shop") -> attribution.Attribution:
    return await db.read(lambda conn: attribution.of_shop(conn, shop, since, until))


def test_every_list_comes_to_the_same_sums(run, books, redis_url) -> None:
    """By room, host, role, source and pin, what was taken and what went back; the rest unknown."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 9, "s2": 9}) as shop:
            lines = [
                LineRequest(sku="s1", qty=3, bucket="mia/buyer/e:7/note.n1"),
                LineRequest(sku="s2", qty=2),
            ]
            await shop.orders.place(order="o1", buyer="ann", room="r1", lines=lines, content="")
            await shop.pay("o1")
            await shop.buy("unpaid", ("s1", 1), buyer="bob")
            await shop.give_back("o1", {"sku": "s1", "qty": 1})
            await shop.outbox.run_once()
            seen = await report(books)
            known, unknown = sums(3, 750, 250), sums(2, 500) | {"unattributed": True}
            assert told(seen.total) == [sums(5, 1250, 250)]
            assert {one.currency for one in seen.total} == {"EUR"}
            assert told(seen.rooms) == [sums(5, 1250, 250) | {"room": "r1"}]
            assert told(seen.hosts) == [known | {"host": "mia"}, unknown]
            assert told(seen.roles) == [known | {"roles": ["buyer"]}, unknown]
            assert told(seen.sources) == [
                known | {"source": {"kind": "note", "id": "n1"}},
                unknown,
            ]
            pin = {"pin": "e:7", "room": "r1", "product": "p1"}
            assert told(seen.pins) == [known | pin, unknown]
            await shop.check()

    run(story())


def test_only_the_shop_and_the_time_that_are_asked_for(run, books, redis_url) -> None:
    """A sale counts when it was paid, for the shop whose goods it has."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 9}) as shop:
            await shop.buy("o1")
            await shop.pay("o1")
            paid_at = await shop.one("SELECT paid_at FROM payments")
            assert told((await report(books, paid_at, paid_at + 1)).total) == [sums(1, 250)]
            for since, until in ((paid_at - 9, paid_at), (paid_at + 1, paid_at + 9)):
                assert (await report(books, since, until)).total == []
            assert (await report(books, shop="another")).total == []
            for since, until in ((2, 1), (0, attribution.RANGE_MS_MAX + 1)):
                with pytest.raises(Invalid, match="bad_argument"):
                    await report(books, since, until)

    run(story())


def test_a_report_has_an_end(run, books, redis_url, monkeypatch) -> None:
    """Clients make up ids of sources: those that took least are told as one."""
    monkeypatch.setattr(attribution, "SHARES_MAX", 2)

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 20}) as shop:
            for n, qty in enumerate((4, 3, 2, 1), start=1):
                lines = [LineRequest(sku="s1", qty=qty, bucket=f"mia///note.n{n}")]
                order = f"o{n}"
                await shop.orders.place(
                    order=order, buyer="ann", room="r1", lines=lines, content=""
                )
                await shop.pay(order)
            assert told((await report(books)).sources) == [
                sums(4, 1000) | {"source": {"kind": "note", "id": "n1"}},
                sums(3, 750) | {"source": {"kind": "note", "id": "n2"}},
                sums(3, 750) | {"others": True},
            ]

    run(story())


def test_the_route_is_told_from_when_to_when(run, house):
    """The merchant's own, in the words of the contract; a time that is none is refused."""

    async def story():
        async with house() as h:
            path = "/v1/shops/s1/attribution"
            seen = (await h.ask("GET", f"{path}?from=5&to=9", MERCHANT)).json()
            assert (seen["shop"], seen["from"], seen["to"], seen["total"]) == ("s1", 5, 9, [])
            for query in ("from=-1", "to=now", "from=9&to=5", "from=1.5"):
                refused = await h.ask("GET", f"{path}?{query}", MERCHANT)
                assert refused.json()["code"] == "bad_argument", query
            nowhere = await h.ask("GET", "/v1/shops/nowhere/attribution", ADMIN)
            assert nowhere.status_code == 404

    run(story())


# ── the audit ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "planted",
    [
        update(tables.takings).where(tables.takings.c.paid_minor == 500).values(bucket="mia///x"),
        update(tables.order_lines).where(tables.order_lines.c.line == 0).values(bucket="mia///"),
        text("UPDATE order_lines SET refunded_minor = refunded_minor + 2 * line - 1"),
        text("UPDATE takings SET orders = 1 - orders"),
    ],
    ids=["takings moved", "a line moved", "a refund moved", "an order moved"],
)
def test_what_moves_between_buckets_is_found(run, books, redis_url, planted) -> None:
    """The sum is what it was, and the audit names room, minute and bucket all the same."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 9, "s2": 9}) as shop:
            await order_of_two(shop)
            await shop.pay("o1")
            await shop.give_back("o1", amount_minor=250)
            await shop.outbox.run_once()
            await shop.check()
            await shop.change(planted)
            failures = (await audit(books)).checks["I12"].failures
            assert failures
            assert all("mia///" in failure for failure in failures)

    run(story())
