"""The table of commands: who may, what fits, what is answered."""

from __future__ import annotations

import asyncio

import pytest
from house import (
    ADMIN,
    ANN,
    BO,
    GUEST,
    HOST,
    MERCHANT,
    MODERATOR,
    OTHER_HOST,
    OTHER_MERCHANT,
    House,
)

from liveroom.auth import Member
from liveroom.commands import COMMANDS, Who
from liveroom.errors import LiveroomError, Refused
from liveroom.ids import new_id
from liveroom.store.scripts import connect


@pytest.fixture
def house(db, redis_url):
    return lambda: House(db, redis_url)


async def code(work):
    """What refuses the work: its code, or `ok`."""
    try:
        await work
    except LiveroomError as refusal:
        return refusal.code
    return "ok"


# Who may: for each row of the table, what each kind of member is told before anything else.
PEOPLE = {
    "guest": GUEST,
    "viewer": ANN,
    "another room's host": OTHER_HOST,
    "moderator": MODERATOR,
    "host": HOST,
    "admin": ADMIN,
}
REFUSED = {
    Who.ANYONE: {},
    Who.MEMBER: {"guest": "unauthenticated"},
    Who.MODERATOR: {
        "guest": "unauthenticated",
        "viewer": "forbidden",
        "another room's host": "forbidden",
    },
    Who.HOST: {
        "guest": "unauthenticated",
        "viewer": "forbidden",
        "another room's host": "forbidden",
        "moderator": "forbidden",
    },
}
UNFIT = {"text": 7, "kind": 7, "creator": 7, "sku": 7, "order": 7, "message": 7, "product": 7}
UNFIT |= {"title": 7, "lines": 7}


def test_who_may_send_each_command(run, house):
    """Every row of the table refuses exactly those it must, before it looks at the data."""

    async def story():
        async with house() as h:
            for cmd, row in COMMANDS.items():
                for person, member in PEOPLE.items():
                    told = await code(h.commands.run("r1", member, cmd, UNFIT))
                    wanted = REFUSED[row.who].get(person)
                    if wanted is not None:
                        assert told == wanted, (cmd, person)
                    elif row.args.__struct_fields__:
                        assert told == "bad_argument", (cmd, person)
                    else:
                        assert told not in {"unauthenticated", "forbidden"}, (cmd, person)

    run(story())


LATER = [
    "coupon.claim",
    "giveaway.enter",
    "auction.bid",
    "words.set",
]


def test_what_is_not_in_the_table_is_unknown(run, house):
    """Commands of later issues, and nonsense, are unknown to everybody alike."""

    async def story():
        async with house() as h:
            for cmd in (*LATER, "", "room.join", "x" * 9000, "__class__"):
                for member in (GUEST, ANN, ADMIN):
                    assert await code(h.commands.run("r1", member, cmd, {})) == "unknown_command"

    run(story())


def test_checks_come_in_their_order(run, house):
    """Command, who, arguments, existence, and only then stock."""

    async def story():
        async with house() as h:
            assert await code(h.do(GUEST, "cart.add", room="nowhere", sku=7)) == "unauthenticated"
            assert await code(h.do(ANN, "cart.add", room="nowhere", sku=7)) == "bad_argument"
            assert await code(h.do(ANN, "cart.add", room="nowhere", sku="a", qty=1)) == "not_found"
            assert await code(h.do(ANN, "cart.add", sku="d", qty=9)) == "not_found"
            assert await code(h.do(ANN, "cart.add", sku="b", qty=9)) == "sold_out"
            late = Member("u1", "Ann", expires_at=h.clock.now_ms() - 60_000)
            assert await code(h.do(late, "cart.add", sku=7)) == "token_expired"

    run(story())


QUANTITIES = [0, -1, 1001, 2**31, 2**63, 1.5, "1", None, True, [1]]


def test_quantities_are_whole_and_bounded(run, house):
    """A quantity is an integer from 1 to 1000, for carts and for orders."""

    async def story():
        async with house() as h:
            for qty in QUANTITIES:
                assert await code(h.do(ANN, "cart.add", sku="a", qty=qty)) == "bad_argument"
                lines = [{"sku": "a", "qty": qty}]
                placed = h.do(ANN, "order.place", order=new_id(), lines=lines)
                assert await code(placed) == "bad_argument"

    run(story())


def test_cart_is_filled_and_checked_out(run, house):
    """What is in the cart becomes an order; the cart is empty after."""

    async def story():
        async with house() as h:
            await h.do(ANN, "cart.add", sku="a", qty=1)
            cart = (await h.do(ANN, "cart.add", sku="a", qty=1))["cart"]
            assert [(line["sku"], line["qty"]) for line in cart["lines"]] == [("a", 2)]
            assert (cart["total_minor"], cart["currency"]) == (200, "CNY")
            await h.do(ANN, "cart.add", sku="b", qty=1)
            cart = (await h.do(ANN, "cart.remove", sku="b"))["cart"]
            assert len(cart["lines"]) == 1
            assert (await h.do(BO, "cart.show"))["cart"]["lines"] == []
            order = (await h.do(ANN, "cart.checkout", order="o1"))["order"]
            assert (order["id"], order["state"], order["total_minor"]) == ("o1", "placed", 200)
            assert (await h.do(ANN, "cart.checkout", order="o1"))["order"] == order
            assert (await h.do(ANN, "cart.show"))["cart"]["lines"] == []
            assert await code(h.do(ANN, "cart.checkout", order="o2")) == "hold_expired"

    run(story())


def test_order_is_answered_again_whatever_came_after(run, house):
    """A repeated order id gets its first answer, even when the room has closed since."""

    async def story():
        async with house() as h:
            lines = [{"sku": "a", "qty": 1}]
            first = await h.do(ANN, "order.place", order="o1", lines=lines)
            await h.do(HOST, "shelf.remove", product="p1")
            assert await h.do(ANN, "order.place", order="o1", lines=lines) == first
            assert await h.do(ANN, "order.place", order="o1", lines=lines, again=True) == first
            other = [{"sku": "a", "qty": 2}]
            assert await code(h.do(ANN, "order.place", order="o1", lines=other)) == "id_reused"
            assert await code(h.do(BO, "order.place", order="o1", lines=lines)) == "id_reused"
            assert await code(h.do(ANN, "order.place", order="o2", lines=lines)) == "not_found"

    run(story())


def test_orders_are_their_buyers_own(run, house):
    """Another's order is not found, whatever is asked of it."""

    async def story():
        async with house() as h:
            await h.do(ANN, "order.place", order="o1", lines=[{"sku": "a", "qty": 1}])
            for cmd in ("order.show", "order.cancel", "payment.start"):
                assert await code(h.do(BO, cmd, order="o1")) == "not_found", cmd
            payment = (await h.do(ANN, "payment.start", order="o1"))["payment"]
            assert (payment["order"], payment["provider"], payment["amount_minor"]) == (
                "o1",
                "sandbox",
                100,
            )
            assert (await h.do(ANN, "order.cancel", order="o1"))["order"]["state"] == "cancelled"

    run(story())


def test_what_is_not_on_sale_is_refused(run, house):
    """Off the shelf, only shown, paused, closed: each has its own answer."""

    async def story():
        async with house() as h:
            buy = {"cmd": "cart.add", "sku": "a", "qty": 1}
            await h.do(HOST, "shelf.put", product="p1", state="visible")
            assert await code(h.do(ANN, **buy)) == "not_open"
            await h.do(HOST, "shelf.put", product="p1", state="off")
            assert await code(h.do(ANN, **buy)) == "not_found"
            await h.do(HOST, "shelf.put", product="p1", state="on")
            assert (await h.do(HOST, "sale.pause"))["room"]["paused"] is True
            assert await code(h.do(ANN, **buy)) == "sale_paused"
            lines = [{"sku": "a", "qty": 1}]
            assert await code(h.do(ANN, "order.place", order="o1", lines=lines)) == "sale_paused"
            await h.do(HOST, "sale.resume")
            assert await code(h.do(ANN, **buy)) == "ok"
            await h.do(HOST, "room.close")
            assert await code(h.do(ANN, "cart.add", sku="b", qty=1)) == "not_open"
            assert await code(h.do(ANN, "message.post", text="hello")) == "not_open"
            assert await code(h.do(ANN, "order.place", order="o2", lines=lines)) == "not_open"
            assert await code(h.do(ANN, "cart.checkout", order="o3")) == "ok"
            assert await code(h.do(ADMIN, "cart.add", room="r2", sku="a", qty=1)) == "not_open"

    run(story())


def test_price_is_the_servers(run, house):
    """A changed price is told to whoever saw another; the cart holds the price of its time."""

    async def story():
        async with house() as h:
            assert (await h.do(HOST, "price.set", sku="a", price_minor=150))["sku"] == {
                "id": "a",
                "price_minor": 150,
            }
            seen = {"sku": "a", "qty": 1, "price_minor": 100}
            with pytest.raises(LiveroomError) as refusal:
                await h.do(ANN, "cart.add", **seen)
            assert refusal.value.code == "price_changed"
            assert refusal.value.data["price_minor"] == 150
            cart = (await h.do(ANN, "cart.add", sku="a", qty=1, price_minor=150))["cart"]
            assert cart["total_minor"] == 150

    run(story())


def test_host_changes_own_shops_goods_only(run, house):
    """A host sells another shop's product, and neither reprices nor restocks it."""

    async def story():
        async with house() as h:
            for cmd, more in (
                ("price.set", {"price_minor": 1}),
                ("stock.restock", {"qty": 5}),
                ("stock.adjust", {"delta": -1, "why": "broken"}),
            ):
                assert await code(h.do(HOST, cmd, sku="c", **more)) == "forbidden", cmd
                assert await code(h.do(HOST, cmd, sku="d", **more)) == "not_found", cmd
                both = Member("c1", "Lin", ("host:r1", "merchant:s2"))
                assert await code(h.do(both, cmd, sku="c", **more)) == "ok", cmd
                assert await code(h.do(OTHER_MERCHANT, cmd, sku="c", **more)) == "forbidden", cmd

    run(story())


def test_restock_adds_once_for_a_key(run, house):
    """A restock repeated with its key adds once; with other content it is refused."""

    async def story():
        async with house() as h:
            first = await h.do(HOST, "stock.restock", key="k1", sku="a", qty=3)
            assert (first["stock"]["sku"], first["stock"]["left"]) == ("a", 8)
            assert await h.do(HOST, "stock.restock", key="k1", sku="a", qty=3) == first
            assert await code(h.do(HOST, "stock.restock", key="k1", sku="a", qty=4)) == "id_reused"
            assert (await h.do(HOST, "stock.restock", sku="a", qty=1))["stock"]["left"] == 9

    run(story())


def test_an_adjustment_takes_only_what_is_free(run, house):
    """Held units stay their buyers': more than is free is refused with the number."""

    async def story():
        async with house() as h:
            await h.do(ANN, "cart.add", sku="a", qty=2)
            broken = {"sku": "a", "delta": -4, "why": "broken"}
            with pytest.raises(Refused) as refused:
                await h.do(HOST, "stock.adjust", key="k1", **broken)
            assert (refused.value.code, refused.value.data) == ("sold_out", {"sku": "a", "left": 3})
            less = broken | {"delta": -3}
            first = await h.do(HOST, "stock.adjust", key="k1", **less)
            assert (first["stock"]["sku"], first["stock"]["left"]) == ("a", 0)
            assert await h.do(HOST, "stock.adjust", key="k1", **less) == first
            assert await code(h.do(HOST, "stock.adjust", key="k1", **broken)) == "id_reused"
            found = await h.do(HOST, "stock.adjust", sku="a", delta=1, why="found one")
            assert found["stock"]["left"] == 1
            for wrong in ({"delta": 0}, {"why": ""}, {"why": "\u202e"}, {"delta": -0.5}):
                assert await code(h.do(HOST, "stock.adjust", **(broken | wrong))) == "bad_argument"
            page = await h.inventory.ledger("a", after=None, limit=9)
            assert [(row["adjusted"], row["why"]) for row in page.items] == [
                (-3, "c1: broken"),
                (1, "c1: found one"),
            ]
            assert len((await h.do(ANN, "cart.show"))["cart"]["lines"]) == 1

    run(story())


def test_a_changed_product_is_told_to_who_watches(run, house):
    """PATCH answers once the rooms that show the product were told."""

    async def story():
        async with house() as h:
            await h.ask("PATCH", "/v1/products/p1", MERCHANT, {"title": "New"})
            end = (await h.backplane.position(["r1"]))["r1"]
            events = await h.backplane.read("r1", end._replace(seq=end.seq - 1))
            assert [(one.name, one.data["shelf"][0]["title"]) for one in events] == [
                ("shelf.changed", "New")
            ]

    run(story())


def test_only_counting_changes_stock(run, house):
    """What is sent with a product's change sets no stock, and units in carts stay what they are."""

    async def story():
        async with house() as h:
            body = {"title": "New", "stock": 99, "skus": [{"id": "a", "stock": 99}]}
            answer = await h.ask("PATCH", "/v1/products/p1", MERCHANT, body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["title"] == "New"
            assert (await h.inventory.left(["sku:a"]))["sku:a"][0] == 5
            page = await h.inventory.ledger("a", after=None, limit=9)
            assert page.items == []
            assert [(p["initial"], p["adjusted"]) for p in page.pools] == [(5, 0)]

    run(story())


def test_same_request_many_times_at_once_is_done_once(run, house):
    """Fifty times the same keyed command at once is one command with one answer."""

    async def story():
        async with house() as h:
            answers = await asyncio.gather(
                *(h.do(ANN, "cart.add", key="k1", sku="a", qty=2) for _ in range(50))
            )
            assert all(answer == answers[0] for answer in answers)
            said = await asyncio.gather(
                *(h.do(ANN, "message.post", key="k2", text="once") for _ in range(20))
            )
            assert {one["message"]["id"] for one in said} == {said[0]["message"]["id"]}
            assert len((await h.onair.draw("r1")).messages) == 1
            assert (await h.do(ANN, "cart.show"))["cart"]["lines"][0]["qty"] == 2

    run(story())


def test_same_request_many_times_at_once_waits_once_for_a_store(run, house, redis_url):
    """While Redis hangs they are all answered in the time that one of them takes."""

    async def story():
        async with house() as h:
            other = connect(redis_url)
            await other.client_pause(60_000, all=False)
            try:
                async with asyncio.timeout(3):
                    asked = (h.do(ANN, "cart.add", key="k1", sku="a", qty=2) for _ in range(10))
                    codes = await asyncio.gather(*map(code, asked))
            finally:
                await other.execute_command("CLIENT", "UNPAUSE")
                await other.aclose()
            assert set(codes) == {"store_down"}
            cart = (await h.do(ANN, "cart.add", key="k1", sku="a", qty=2))["cart"]
            assert cart["lines"][0]["qty"] == 2

    run(story())


def test_message_that_met_no_store_keeps_its_turn(run, house, redis_url):
    """In slow mode the same key may be repeated at once, and is said once; another waits."""

    async def story():
        async with house() as h:
            await h.do(HOST, "room.set", slow_mode_s=600)
            other = connect(redis_url)
            await other.client_pause(60_000, all=False)
            try:
                assert await code(h.do(ANN, "message.post", key="k1", text="hi")) == "store_down"
            finally:
                await other.execute_command("CLIENT", "UNPAUSE")
                await other.aclose()
            assert await code(h.do(ANN, "message.post", key="k2", text="ho")) == "slow_mode"
            assert await code(h.do(ANN, "message.post", key="k1", text="hi")) == "ok"
            assert await code(h.do(ANN, "message.post", key="k1", text="hi")) == "ok"
            assert await code(h.do(ANN, "message.post", key="k3", text="hi")) == "slow_mode"
            assert [said["text"] for said in (await h.onair.draw("r1")).messages] == ["hi"]

    run(story())


def test_refusal_binds_no_key(run, house):
    """After a refusal the same key may try again, and succeed."""

    async def story():
        async with house() as h:
            await h.do(HOST, "sale.pause")
            assert await code(h.do(ANN, "cart.add", key="k1", sku="a", qty=1)) == "sale_paused"
            await h.do(HOST, "sale.resume")
            assert await code(h.do(ANN, "cart.add", key="k1", sku="a", qty=1)) == "ok"
            assert await code(h.do(ANN, "cart.add", key="", sku="a", qty=1)) == "bad_argument"
            assert await code(h.do(ANN, "cart.add", key="k" * 65, sku="a", qty=1)) == "bad_argument"

    run(story())


def test_keys_are_each_members_own(run, house):
    """Two members may use the same key."""

    async def story():
        async with house() as h:
            first = await h.do(ANN, "message.post", key="k1", text="one")
            second = await h.do(BO, "message.post", key="k1", text="two")
            assert first["message"]["member"] != second["message"]["member"]

    run(story())


def test_message_is_cleaned_and_bounded(run, house):
    """A message is text on one line, 1 to 500 characters once it is cleaned."""

    async def story():
        async with house() as h:
            said = (await h.do(ANN, "message.post", text="  a\u202e b\n c "))["message"]
            assert (said["text"], said["name"], said["member"]) == ("a b c", "Ann", "u1")
            for text in ("", " ", "\u200b\u200b", "x" * 501, "x" * 5000, 7):
                assert await code(h.do(ANN, "message.post", text=text)) == "bad_argument"

    run(story())


def test_room_decides_who_talks(run, house):
    """Guests talk unless the room is for members; slow mode makes each wait."""

    async def story():
        async with house() as h:
            assert await code(h.do(GUEST, "message.post", text="hi")) == "ok"
            await h.do(HOST, "room.set", members_only=True, slow_mode_s=5)
            assert await code(h.do(GUEST, "message.post", text="hi")) == "unauthenticated"
            assert await code(h.do(ANN, "message.post", text="hi")) == "ok"
            assert await code(h.do(ANN, "message.post", text="hi")) == "slow_mode"
            assert await code(h.do(HOST, "message.post", text="hi")) == "ok"
            h.clock.advance(5000)
            assert await code(h.do(ANN, "message.post", text="hi")) == "ok"

    run(story())


def test_changed_object_is_answered_under_its_noun(run, house):
    """Commands answer with what they changed."""

    async def story():
        async with house() as h:
            said = (await h.do(ANN, "message.post", text="hi"))["message"]
            answers = {
                "room.set": await h.do(HOST, "room.set", title="New"),
                "shelf.put": await h.do(HOST, "shelf.put", product="p4", position=1),
                "product.pin": await h.do(HOST, "product.pin", product="p4"),
                "product.unpin": await h.do(HOST, "product.unpin", product="p4"),
                "shelf.remove": await h.do(HOST, "shelf.remove", product="p4"),
                "message.remove": await h.do(MODERATOR, "message.remove", message=said["id"]),
                "notice.post": await h.do(HOST, "notice.post", text="five minutes"),
                "creator.follow": await h.do(ANN, "creator.follow", creator="c1"),
                "creator.unfollow": await h.do(ANN, "creator.unfollow", creator="c1"),
            }
            assert answers["room.set"]["room"]["title"] == "New"
            assert [p["id"] for p in answers["shelf.put"]["shelf"]] == ["p4", "p1", "p2", "p3"]
            assert answers["product.pin"]["product"]["id"] == "p4"
            assert answers["product.unpin"]["product"]["id"] == "p4"
            assert [p["id"] for p in answers["shelf.remove"]["shelf"]] == ["p1", "p2", "p3"]
            assert answers["message.remove"] == {"message": {"id": said["id"]}}
            assert answers["notice.post"] == {"notice": {"text": "five minutes"}}
            assert answers["creator.follow"]["creator"]["followers"] == 1
            assert "followers" not in answers["creator.unfollow"]["creator"]  # a 0 is left out
            assert await h.do(ANN, "creator.unfollow", creator="c1") == answers["creator.unfollow"]
            assert await h.do(HOST, "product.unpin") == {}
            assert await h.do(ANN, "reaction.send", kind="heart", count=3) == {}

    run(story())


def test_who_changes_the_room_finds_it_changed(run, house):
    """After `ok` to a change, commands are judged by it, though no flush has told it yet."""

    async def story():
        async with house() as h:
            await h.onair.picture("r1")  # on air, and never folded: a tick that does not come
            await h.do(HOST, "room.set", guests=False)
            assert await code(h.do(GUEST, "message.post", text="hi")) == "unauthenticated"
            await h.do(HOST, "room.set", guests=True)
            assert await code(h.do(GUEST, "message.post", text="hi")) == "ok"
            wish = {"lines": [{"sku": "a", "qty": 1}]}
            await h.do(HOST, "sale.pause")
            assert await code(h.do(ANN, "order.place", order=new_id(), **wish)) == "sale_paused"
            await h.do(HOST, "sale.resume")
            assert await code(h.do(ANN, "order.place", order=new_id(), **wish)) == "ok"
            await h.do(HOST, "shelf.put", product="p1", state="visible")
            assert await code(h.do(ANN, "order.place", order=new_id(), **wish)) == "not_open"
            await h.do(HOST, "shelf.put", product="p1", state="on")
            assert await code(h.do(ANN, "cart.add", sku="a", qty=1)) == "ok"
            await h.do(HOST, "room.close")
            assert await code(h.do(ANN, "cart.add", sku="a", qty=1)) == "not_open"

    run(story())
