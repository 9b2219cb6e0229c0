"""Pins, while the shelf and its prices change: the last word is what is on the shelf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from tape import until
from test_rooms import House

from liveroom.errors import Invalid
from liveroom.events import Position
from liveroom.rooms import Rooms
from liveroom.store import scripts, tables
from liveroom.store.backplane import Backplane
from tests.proxy import Proxy, proxy


class TwoNodes:
    """A house, and another node of it whose word to Redis can be held back."""

    def __init__(self, house: House, rooms: Rooms, relay: Proxy) -> None:
        self.house = house
        self.rooms = rooms
        self._relay = relay

    @asynccontextmanager
    async def pinning(self, product: str) -> AsyncIterator[asyncio.Task[object]]:
        """The other node has read the shelf; its pin arrives after the block."""
        self._relay.stall()
        pinning = asyncio.create_task(self.rooms.pin("r1", product))
        await until(lambda: self._relay.held)
        yield pinning
        self._relay.flow()
        await asyncio.wait([pinning])

    async def pinned(self) -> list[str]:
        """What is pinned by the log, which SQL must have too."""
        up = (await self.house.backplane.room_state("r1")).pinned
        assert (await self.house.rooms.facts("r1")).pinned == up
        return list(up)


@pytest.fixture
def two_nodes(db, redis_url, tmp_path):
    @asynccontextmanager
    async def made() -> AsyncIterator[TwoNodes]:
        at = tmp_path / "relay.sock"
        with proxy(at, Path(redis_url.removeprefix("unix://"))) as relay:
            async with House(db, redis_url) as house:
                client = scripts.connect(f"unix://{at}")
                plane = Backplane(client, client, house.clock)
                await plane.room_state("r1")
                yield TwoNodes(house, Rooms(db, plane, house.clock), relay)
                await plane.close()
                await client.aclose()

    return made


def test_a_pin_that_arrives_after_its_product_left_the_shelf(run, two_nodes):
    """It is taken down again, and whoever pinned it is told that it is not there."""

    async def story():
        async with two_nodes() as nodes:
            async with nodes.pinning("p1") as pinning:
                await nodes.house.rooms.take("r1", "p1")
            with pytest.raises(Invalid, match="not_found"):
                pinning.result()
            assert await nodes.pinned() == []
            assert (await nodes.house.told())[-1] == ("product.unpinned", {"product": "p1"})

    run(story())


def test_a_pin_that_arrives_after_the_price_changed(run, two_nodes):
    """What everybody sees in the end is the price in force."""

    async def story():
        async with two_nodes() as nodes:
            h = nodes.house
            picture = await h.onair.picture("r1")
            async with nodes.pinning("p1") as pinning:
                await h.rooms.set_price("p1.m", 250)
                await h.rooms.tell_price("p1.m")
            assert pinning.result().skus[0].price_minor == 250
            for event in await h.backplane.read("r1", Position(picture.epoch, 0)):
                picture.apply(event)
            assert [pin["skus"][0]["price_minor"] for pin in picture.pinned] == [250]
            assert await nodes.pinned() == ["p1"]

    run(story())


def test_two_hosts_take_all_pins_down_at_once(run, db, redis_url):
    """Both are answered, and nothing is pinned."""

    async def story():
        async with House(db, redis_url) as h:
            for product in ("p1", "p2", "p3"):
                await h.rooms.pin("r1", product)
            await asyncio.gather(h.rooms.unpin_all("r1"), h.rooms.unpin_all("r1"))
            assert (await h.backplane.room_state("r1")).pinned == {}
            assert (await h.rooms.facts("r1")).pinned == {}
            names = [name for name, _ in await h.told()]
            assert names.count("product.unpinned") == 3

    run(story())


def test_a_crash_between_taking_off_the_shelf_and_telling_it(run, db, redis_url):
    """The pin that should have gone with the product goes with the beat that tells the shelf."""

    async def story():
        async with House(db, redis_url) as h:
            await h.rooms.pin("r1", "p1")
            await h.rooms.pin("r1", "p2")
            await h.onair.picture("r1")

            def take_off(conn):
                conn.execute(delete(tables.shelf).where(tables.shelf.c.product == "p1"))
                conn.execute(update(tables.rooms).values(v=tables.rooms.c.v + 1))

            await h.db.write(take_off)
            for _ in range(5):
                await h.onair.beat()
            assert list((await h.backplane.room_state("r1")).pinned) == ["p2"]
            assert list((await h.rooms.facts("r1")).pinned) == ["p2"]

    run(story())
