"""Flash drops: units set aside, opened and closed in time, and given back, whatever crashes."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest
from shopfloor import Floor, floor
from sqlalchemy import update

from liveroom import drawing, promotions
from liveroom.carving import DROPS_MAX, Due, change
from liveroom.errors import Invalid, LiveroomError
from liveroom.events import Position
from liveroom.ids import new_id
from liveroom.orders import LineRequest
from liveroom.promotions import NewDrop
from liveroom.states import DROP
from liveroom.store import tables
from liveroom.store.ledger import pool_of


async def schedule(one: Floor, operation: str | None = None, **but):
    """A drop of four units of s1 at 100 cents, open at once; the drop."""
    asked = {"room": "r1", "sku": "s1", "quantity": 4, "price_minor": 100, "opens_in_ms": 0}
    new = NewDrop(**asked | {"lasts_ms": 600_000} | but)
    return await one.promotions.schedule(new, operation or new_id())


async def buy(one: Floor, drop, order: str | None = None, *, qty: int = 1, buyer="ann", **but):
    """Buy now in a drop, past the check of the command."""
    line = LineRequest(sku=drop.sku, qty=qty, drop=drop.id, **but)
    order = order or new_id()
    return await one.buy(order, lines=[line], buyer=buyer, content=f"{buyer} {order}")


async def left(one: Floor, drop) -> tuple[int, int]:
    """What could be held now: of ordinary stock, and of the drop."""
    await one.settle_down()
    names = [pool_of(drop.sku), pool_of(drop.sku, drop.id)]
    found = await one.inventory.left(names)
    return found[names[0]][0], found[names[1]][0]


async def time_comes(one: Floor, drop, *columns: str) -> None:
    """Let the opening or closing time of a drop pass, and whoever keeps time look."""
    row = tables.drops
    past = dict.fromkeys(columns, row.c.created_at)
    await one.change(update(row).where(row.c.id == drop.id).values(past))
    await one.promotions.keep_time()


async def said(one: Floor) -> list[tuple[str, str]]:
    """The room's events of drops, in order, each with the drop's state."""
    position = (await one.backplane.position(["r1"]))["r1"]
    events = await one.backplane.read("r1", Position(position.epoch, 0))
    return [(event.name, event.data["drop"]["state"]) for event in events]


async def until(look, wanted) -> None:
    """Wait until `look` finds what is wanted; the test's own bound ends a vain wait."""
    found = await look()
    if found != wanted:
        await asyncio.sleep(0.02)
        await until(look, wanted)


async def outcome(call) -> str:
    """A refusal's code, or `ok`."""
    try:
        await call
    except LiveroomError as refusal:
        return refusal.code
    return "ok"


OPENED = [("drop.scheduled", "scheduled"), ("drop.opened", "open")]
CLOSED = [*OPENED, ("drop.closed", "closed")]


# ── carving ───────────────────────────────────────────────────────────────────────────────


def test_units_are_set_aside_and_come_back(run, db, redis_url) -> None:
    """A drop's units leave ordinary stock at once; closing returns those that nobody bought."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            drop = await schedule(one, quantity=4)
            assert drop.state == "open"
            assert await left(one, drop) == (6, 4)
            await buy(one, drop, qty=3)
            await one.check()
            closed = await one.promotions.close("r1", drop.id)
            assert (closed.state, await left(one, drop)) == ("closed", (7, 0))
            assert await said(one) == CLOSED
            await one.check()

    run(story())


def test_more_than_is_free_is_refused_with_how_many_are(run, db, redis_url) -> None:
    """What others hold cannot be set aside, and nothing has changed."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            await one.put("s1", 7)
            with pytest.raises(LiveroomError) as refusal:
                await schedule(one, quantity=4)
            assert (refusal.value.code, refusal.value.data) == (
                "sold_out",
                {"sku": "s1", "left": 3},
            )
            assert await one.left() == 3
            assert await one.rows(tables.drops) == []
            await one.check()

    run(story())


def test_the_same_operation_sets_aside_once(run, db, redis_url) -> None:
    """Ten at once and one later get the same drop; another drop under that id is refused."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one, floor(db, redis_url) as two:
            asked = [schedule((one, two)[n % 2], "op", quantity=4) for n in range(10)]
            drops = await asyncio.gather(*asked)
            again = await schedule(one, "op", quantity=4)
            assert {drop.id for drop in [*drops, again]} == {again.id}
            assert await outcome(schedule(one, "op", quantity=5)) == "id_reused"
            assert await said(one) == OPENED
            row = (await one.rows(tables.drops))[0]
            assert (row.quantity, row.told) == (4, "open")
            await one.check()

    run(story())


@pytest.mark.parametrize(
    ("but", "code"),
    [
        ({"sku": "nothing"}, "not_found"),
        ({"room": "nowhere"}, "not_found"),
        ({"quantity": 11}, "sold_out"),
    ],
)
def test_what_cannot_be_a_drop(run, db, redis_url, but, code) -> None:
    """Units, a room and a place on its shelf must be there."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            assert await outcome(schedule(one, **but)) == code
            assert await one.left() == 10

    run(story())


def test_a_closed_room_and_a_room_with_enough_drops(run, db, redis_url) -> None:
    """A room has a bounded number of drops at once, and none once it has closed."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 100}) as one:
            for _ in range(DROPS_MAX):
                await schedule(one, quantity=1)
            assert await outcome(schedule(one, quantity=1)) == "bad_argument"
            await one.set_room(state="closed")
            assert await outcome(schedule(one, quantity=1)) == "not_open"
            await one.promotions.keep_time()
            assert {row.state for row in await one.rows(tables.drops)} == {"closed"}
            assert await one.left() == 100
            await one.check()

    run(story())


# ── buying ────────────────────────────────────────────────────────────────────────────────


def test_own_price_own_limit_own_units(run, db, redis_url) -> None:
    """Neither the drop's price nor its limit is the SKU's, and neither sells for the other."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}, limits={"s1": 3}) as one:
            drop = await schedule(one, quantity=4, limit_per_buyer=2)
            order = await buy(one, drop, qty=2)
            assert [(line.price_minor, line.drop) for line in order.lines] == [(100, drop.id)]
            assert await outcome(buy(one, drop)) == "limit_reached"
            ordinary = await one.buy("o2", ("s1", 3))
            assert [(line.price_minor, line.drop) for line in ordinary.lines] == [(250, None)]
            assert await outcome(one.buy("o3", ("s1", 1))) == "limit_reached"
            assert await outcome(buy(one, drop, buyer="bo", price_minor=250)) == "price_changed"
            await buy(one, drop, qty=2, buyer="bo")
            assert await outcome(buy(one, drop, buyer="cy")) == "sold_out"
            assert await left(one, drop) == (3, 0)
            await one.check()

    run(story())


def test_one_order_of_both(run, db, redis_url) -> None:
    """A SKU at its ordinary price and from its drop are two lines of one order."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            drop = await schedule(one)
            lines = [LineRequest(sku="s1", qty=2), LineRequest(sku="s1", qty=1, drop=drop.id)]
            order = await one.buy("o1", lines=lines)
            assert [(line.drop, line.qty) for line in order.lines] == [(None, 2), (drop.id, 1)]
            assert order.total_minor == 2 * 250 + 100
            await one.check()

    run(story())


def test_only_an_open_drop_sells(run, db, redis_url) -> None:
    """Before its time, after it and called off it is `not_open`; ordinary stock sells on."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            drop = await schedule(one, opens_in_ms=60_000)
            off = await schedule(one, opens_in_ms=60_000)
            assert await outcome(buy(one, drop)) == "not_open"
            await one.buy("o1")
            await one.promotions.cancel("r1", off.id)
            assert await outcome(buy(one, off)) == "not_open"
            await time_comes(one, drop, "opens_at")
            await buy(one, drop)
            await time_comes(one, drop, "closes_at")
            assert await outcome(buy(one, drop)) == "not_open"
            assert await left(one, drop) == (8, 0)
            await one.check()

    run(story())


def test_sql_refuses_what_a_gate_lets_through(run, db, redis_url) -> None:
    """A gate that nobody has told of the end holds units; SQL places no order of them."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            drop = await schedule(one)
            await one.db.write(
                lambda conn: change(conn, Due(drop.id, "closed"), room="r1", early=True)
            )
            assert await outcome(buy(one, drop)) == "not_open"
            await one.promotions.mend_once()
            assert await left(one, drop) == (10, 0)
            await one.check()

    run(story())


@pytest.mark.parametrize("wrong", ["sku", "room", "drop"])
def test_a_drop_is_of_one_sku_and_one_room(run, db, redis_url, wrong) -> None:
    """Neither another SKU nor another room sells it, by the command's check and by SQL's."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10, "s2": 10}) as one:
            drop = await schedule(one)
            room = "elsewhere" if wrong == "room" else "r1"
            sku = "s2" if wrong == "sku" else "s1"
            which = "none" if wrong == "drop" else drop.id
            offered = one.promotions.refuse_unless_offered
            assert await outcome(offered(room, "ann", [(sku, which)])) == "not_found"
            meant = msgspec.structs.replace(drop, sku=sku, id=which)
            if wrong != "room":
                assert await outcome(buy(one, meant)) == "not_found"
            assert await outcome(offered("r1", "ann", [("s1", drop.id)])) == "ok"

    run(story())


def test_fifty_buyers_of_five_units(run, db, redis_url) -> None:
    """Two nodes sell exactly what the drop has, at most one to each."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 60}) as one, floor(db, redis_url) as two:
            drop = await schedule(one, quantity=5, limit_per_buyer=1)
            asked = [outcome(buy((one, two)[n % 2], drop, buyer=f"b{n % 40}")) for n in range(50)]
            counted = Counter(await asyncio.gather(*asked))
            assert counted["ok"] == 5
            assert set(counted) <= {"ok", "sold_out", "limit_reached"}
            await two.settle_down()
            assert await left(one, drop) == (55, 0)
            await one.check()

    run(story())


# ── what ends after the drop ──────────────────────────────────────────────────────────────


def test_what_a_cart_held_is_sold_after_the_end(run, db, redis_url) -> None:
    """A cart line held in time is the buyer's until it expires, at the drop's price."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            drop = await schedule(one)
            for buyer in ("ann", "bo"):
                await one.carts.add(
                    buyer=buyer,
                    room="r1",
                    sku="s1",
                    qty=1,
                    drop=drop.id,
                    price_minor=100,
                    bucket="mia///",
                    operation=buyer,
                )
            await one.promotions.close("r1", drop.id)
            assert await left(one, drop) == (8, 0)
            order = await one.checkout("o1")
            assert (order.total_minor, order.lines[0].drop) == (100, drop.id)
            await one.carts.remove(buyer="bo", room="r1", sku="s1", drop=drop.id)
            await one.promotions.mend_once()
            assert await left(one, drop) == (9, 0)
            await one.check()

    run(story())


def test_an_order_that_ends_after_the_drop(run, db, redis_url) -> None:
    """Its units are ordinary stock again, once; money that comes late is sent back."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            drop = await schedule(one)
            await buy(one, drop, "o1", qty=2)
            await buy(one, drop, "o2")
            late = await one.orders_payment("o1")
            await one.promotions.close("r1", drop.id)
            await one.overdue("o1")
            await one.expire()
            await one.orders.cancel("o2", "ann")
            await one.settle_down()
            for _ in range(3):
                await one.promotions.mend_once()
            assert await left(one, drop) == (10, 0)
            await one.press(late)
            assert await one.state("o1") == "refund_pending"
            assert await left(one, drop) == (10, 0)
            await one.check()

    run(story())


# ── time and crashes ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", sorted(DROP))
@pytest.mark.parametrize("to", ["open", "closed", "cancelled"])
def test_every_pair_of_states(run, db, redis_url, state, to) -> None:
    """By hand a drop moves along the arrows of its table, and along no other."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            drop = await schedule(one, opens_in_ms=60_000)
            await one.change(update(tables.drops).values(state=state, told=state))

            async def move() -> None:
                wanted = Due(drop.id, to)
                await one.db.write(lambda conn: change(conn, wanted, room="r1", early=True))

            may = to in DROP[state]
            assert await outcome(move()) == ("ok" if may else "illegal_transition")
            [row] = await one.rows(tables.drops)
            assert row.state == (to if may else state)

    run(story())


def test_another_rooms_drop_is_not_found(run, db, redis_url) -> None:
    """A host closes and cancels in the own room only."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            drop = await schedule(one)
            for call in (one.promotions.close, one.promotions.cancel):
                with pytest.raises(Invalid, match="no such drop"):
                    await call("r2", drop.id)
                with pytest.raises(Invalid, match="no such drop"):
                    await call("r1", "nothing")

    run(story())


def test_drops_open_and_close_by_themselves(run, db, redis_url) -> None:
    """Whoever keeps time needs nobody: a short drop is scheduled, opens, closes, returns."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            one.promotions.start()
            drop = await schedule(one, opens_in_ms=150, lasts_ms=150)
            assert drop.state == "scheduled"
            await until(lambda: said(one), CLOSED)
            [row] = await one.rows(tables.drops)
            assert row.changed_at >= row.closes_at == row.opens_at + 150
            await until(lambda: left(one, drop), (10, 0))
            await one.check()

    run(story())


def test_a_drop_waits_for_no_beat(run, db, redis_url, monkeypatch) -> None:
    """It opens and closes at its own times, also where the node looks by itself but hourly."""
    monkeypatch.setattr(promotions, "LOOK_EVERY_S", 3600.0)

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            one.promotions.start()
            drop = await schedule(one, opens_in_ms=150, lasts_ms=150)
            await until(lambda: said(one), CLOSED)
            await until(lambda: left(one, drop), (10, 0))
            await one.check()

    run(story())


def test_two_nodes_at_the_same_moment(run, db, redis_url) -> None:
    """Both open and close it; the room hears each once."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one, floor(db, redis_url) as two:
            drop = await schedule(one, opens_in_ms=60_000)
            row = tables.drops
            for column in ("opens_at", "closes_at"):
                await one.change(update(row).values({column: row.c.created_at}))
                both = [node.promotions.keep_time() for node in (one, two)]
                await asyncio.gather(*both, one.promotions.mend_once(), two.promotions.mend_once())
            assert await said(one) == CLOSED
            assert await left(one, drop) == (10, 0)
            await one.check()

    run(story())


class Killed(BaseException):
    """What a test raises where a process would be killed."""


@pytest.mark.parametrize(
    "step",
    [
        *(("drop.held", 1), ("drop.carved", 1), ("drop.moved", 1), ("drop.moved", 2)),
        *(("drop.gate_set", n) for n in (1, 2, 3)),
        *(("drop.said", n) for n in (1, 2, 3)),
        *(("drop.return_held", 1), ("drop.returned", 1)),
    ],
)
def test_killed_between_two_steps(run, db, redis_url, monkeypatch, step) -> None:
    """Wherever the node ends, another one finishes: each event once, no unit lost."""
    name, nth = step
    passed = 0

    def point(here: str) -> None:
        nonlocal passed
        passed += here == name
        if here == name and passed == nth:
            raise Killed(name)

    async def whole_life(one: Floor) -> None:
        drop = await schedule(one, "op", opens_in_ms=60_000)
        await time_comes(one, drop, "opens_at")
        await time_comes(one, drop, "closes_at")

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            with monkeypatch.context() as patch:
                patch.setattr(promotions, "point", point)
                with pytest.raises(Killed):
                    await whole_life(one)
        async with floor(db, redis_url) as two:
            await two.promotions.mend_once()
            drop = await schedule(two, "op", opens_in_ms=60_000)
            await time_comes(two, drop, "opens_at")
            await time_comes(two, drop, "closes_at")
            await two.promotions.mend_once()
            assert await said(two) == CLOSED

            async def swept() -> tuple[int, int]:
                await two.inventory.sweep_once()
                await two.promotions.mend_once()
                return await left(two, drop)

            await until(swept, (10, 0))  # a hold that the dead node left has fallen due
            assert await two.one("SELECT SUM(initial + adjusted) FROM pools") == 10
            await two.check()

    run(story())


def test_a_rebuild_during_a_drop(run, db, redis_url) -> None:
    """Redis forgets everything: what is open is open again, what is shut stays shut."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 12}) as one:
            drop = await schedule(one, quantity=4, limit_per_buyer=2)
            later = await schedule(one, quantity=3, opens_in_ms=60_000)
            over = await schedule(one, quantity=2)
            await one.promotions.close("r1", over.id)
            await buy(one, drop, qty=2)
            await one.settle_down()
            await one.client.flushall()
            await one.inventory.check_once()
            assert await left(one, drop) == (5, 2)
            assert await outcome(buy(one, drop)) == "limit_reached"
            assert await outcome(buy(one, later)) == "not_open"
            assert await outcome(buy(one, over)) == "not_open"
            await buy(one, drop, qty=2, buyer="bo")
            await one.check()

    run(story())


# ── draws ─────────────────────────────────────────────────────────────────────────────────


def test_a_draw_can_be_checked_afterwards() -> None:
    """The digests and the ranking, as docs/inventory.md tells others to compute them."""
    seed = "00" * 32
    assert drawing.seed_hash(seed) == (
        "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
    )
    assert drawing.digest(["bo", "ann"]) == drawing.digest(["ann", "bo"])
    assert drawing.digest(["a", "b"]) != drawing.digest(["ab"])
    ranks = {tuple(drawing.ranked(seed, drop, ["ann", "bo", "cy"])) for drop in map(str, range(99))}
    assert len(ranks) == 6
    assert drawing.new_seed() != drawing.new_seed()


def test_a_draw(run, db, redis_url) -> None:
    """Who enters in time may be admitted, as many as there are units; only they may buy."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            enter, offered = one.promotions.enter, one.promotions.refuse_unless_offered
            drop = await schedule(one, quantity=2, opens_in_ms=60_000, admission="draw")
            assert (drop.seed_hash is None, drop.seed) == (False, None)
            members = [f"m{n}" for n in range(5)]
            await asyncio.gather(*(enter("r1", drop.id, member) for member in members * 3))
            assert [e.admitted for e in await one.promotions.entries_of("m1", [drop.id])] == [None]
            await time_comes(one, drop, "opens_at")
            assert await outcome(enter("r1", drop.id, "late")) == "not_open"
            lucky = [
                member
                for member in [*members, "late"]
                if await outcome(offered("r1", member, [("s1", drop.id)])) == "ok"
            ]
            assert len(lucky) == 2
            async with asyncio.timeout(5), one.heard_more:
                await one.heard_more.wait_for(lambda: len(one.heard) >= 2)
            told = {event.to for event in one.heard if event.name == "drop.admitted"}
            assert told == set(lucky)
            await time_comes(one, drop, "closes_at")
            closed = await one.promotions.show(drop.id)
            assert drawing.seed_hash(closed.seed) == drop.seed_hash
            assert (closed.entries, closed.entries_digest) == (5, drawing.digest(members))
            assert set(drawing.ranked(closed.seed, drop.id, members)[:2]) == set(lucky)

    run(story())


def test_what_is_no_draw(run, db, redis_url) -> None:
    """One enters draws only, and only in their own room."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            enter = one.promotions.enter
            first = await schedule(one, opens_in_ms=60_000, quantity=1)
            drawn = await schedule(one, opens_in_ms=60_000, quantity=1, admission="draw")
            assert await outcome(enter("r1", first.id, "ann")) == "bad_argument"
            assert await outcome(enter("r2", drawn.id, "ann")) == "not_found"
            assert await outcome(enter("r1", "none", "ann")) == "not_found"
            await one.promotions.cancel("r1", drawn.id)
            assert await outcome(enter("r1", drawn.id, "ann")) == "not_open"

    run(story())


def test_a_full_draw(run, db, redis_url, monkeypatch) -> None:
    """A draw has a bounded number of entries; who has entered may ask again."""
    monkeypatch.setattr(drawing, "ENTRIES_MAX", 2)

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 10}) as one:
            enter = one.promotions.enter
            drop = await schedule(one, opens_in_ms=60_000, admission="draw")
            answers = [await outcome(enter("r1", drop.id, who)) for who in ("a", "b", "c", "a")]
            assert answers == ["ok", "ok", "limit_reached", "ok"]

    run(story())
