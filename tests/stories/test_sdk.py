"""The Python SDK in a whole server's room: what its users write, and what they may rely on."""

import asyncio

import pytest

from liveroom_client import Api, Denied, Format, Refused, connect


async def until(fact):
    """Wait until `fact()` holds, at most ten seconds."""
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110 - a test looks, it is not told
            await asyncio.sleep(0.01)


async def hear(events, name):
    """The next event of this name."""
    async with asyncio.timeout(10):
        async for event in events:
            if event.name == name:
                return event
    raise AssertionError(f"{name} did not come")


@pytest.mark.parametrize(("wire_format", "wanted"), [(Format.JSON, "s1"), (Format.MSGPACK, "s2")])
def test_a_viewer_sees_a_pin_buys_and_pays(run, server, wire_format, wanted):
    """From the pin to the paid order, over either wire format."""

    async def story():
        buyer = connect(server.url, "r1", server.token("ann"), format=wire_format)
        host = connect(server.url, "r1", server.token("mia", "host:r1"), format=wire_format)
        async with buyer, host, buyer.events() as events:
            await host.host.unpin()
            await host.host.pin("p1")
            pinned = await hear(events, "product.pinned")
            sku = next(one for one in pinned.data["product"]["skus"] if one["id"] == wanted)
            cart = await buyer.cart.add(sku["id"], 2, price_minor=sku["price_minor"])
            assert cart["total_minor"] == 2 * 1999
            order = await buyer.cart.checkout()
            payment = await buyer.payments.start(order["id"])
            api = Api(server.url, server.token("ann"))
            await api.post(f"/v1/sandbox/payments/{payment['id']}/succeed")
            paid = await hear(events, "order.paid")
            assert paid.data["order"]["id"] == order["id"]
            assert (await buyer.orders.show(order["id"]))["state"] == "paid"
            with pytest.raises(Refused) as refused:
                await buyer.orders.place([{"sku": sku["id"], "qty": 9}])
            assert refused.value.code == "sold_out"
            assert refused.value.data["left"] == 8
            await until(lambda: buyer.state.left(wanted) == 8)

    run(story())
    assert server.audit()["ok"]


def test_a_viewer_whose_line_is_cut_misses_no_logged_event(run, server):
    """Notices posted while the line is down come after it, once and in order."""

    async def story():
        viewer = connect(server.url, "r1", server.token("ann"))
        host = connect(server.url, "r1", server.token("mia", "host:r1"))
        async with viewer, host, viewer.events() as events:
            await host.host.notice("0")
            await hear(events, "notice.posted")
            viewer._socket.transport.abort()
            for number in range(1, 6):
                await host.host.notice(str(number))
            joined = await hear(events, "local.joined")
            assert joined.data["mode"] == "resumed"
            heard = [(await hear(events, "notice.posted")).data["text"] for _ in range(5)]
            assert heard == ["1", "2", "3", "4", "5"]

    run(story())


def test_a_retried_order_is_one_order(run, server):
    """The same order id from two connections of one buyer takes one unit."""

    async def story():
        token = server.token("ann")
        async with (
            connect(server.url, "r1", token) as one,
            connect(server.url, "r1", token, format=Format.MSGPACK) as other,
        ):
            lines = [{"sku": "s3", "qty": 1}]
            orders = await asyncio.gather(
                *(room.orders.place(lines, order="same-order") for room in (one, other) * 5)
            )
            assert all(order == orders[0] for order in orders)
            await until(lambda: one.state.left("s3") == 9)

    run(story())
    assert server.audit()["ok"]


def test_a_guest_may_talk_and_not_buy(run, server):
    """A guest gets a name and a voice; the cart asks for a token."""

    async def story():
        async with connect(server.url, "r1", name="小鹿") as guest:
            assert guest.you["name"] == "小鹿"
            message = await guest.messages.post("hello <b>there</b>")
            assert message["text"] == "hello <b>there</b>"
            with pytest.raises(Denied):
                await guest.cart.add("s1")

    run(story())
