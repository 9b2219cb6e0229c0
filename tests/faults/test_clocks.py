"""Clocks that step and clocks that differ: holds and orders are judged by one clock each."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from liveroom.store.valkey import EmbeddedValkey
from tests.crowd import Viewer, staying, until
from tests.live import Live, serving
from tests.sale import FEW, Sale
from tests.tools import Postgres, compiled

HOUR_S = 3600
APART_S = 600


class Clock:
    """The wall clock of some processes, off by some seconds."""

    def __init__(self, folder: Path, off_s: int) -> None:
        self._file = folder / "clock"
        self.step(off_s)
        library = compiled(Path(__file__).parent / "clock.c", folder)
        self.env = {"LD_PRELOAD": str(library), "CLOCK_OFF": str(self._file)}

    def step(self, off_s: int) -> None:
        """Be off by so much from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(off_s))
        fresh.replace(self._file)


@pytest.mark.parametrize(("before_s", "after_s"), [(0, HOUR_S), (HOUR_S, 0)], ids=["on", "back"])
def test_the_clock_of_everything_steps_by_an_hour(tmp_path, before_s, after_s):
    """In the middle of a sale, under server and Valkey: no order is lost, none is sold twice."""
    clock = Clock(tmp_path, before_s)
    flags = ("--message-rate-max", "0", "--pay-within-s", "0")  # orders last, holds do not
    live = Live(tmp_path / "data", *flags, env=clock.env)
    try:
        live.start()
        live.shop(stock=FEW)
        asyncio.run(asyncio.wait_for(_step(live, clock, before_s, after_s), 90))
    finally:
        live.close()


async def _step(server: Live, clock: Clock, before_s: int, after_s: int) -> None:
    sale, ann = Sale(server, "s1"), Viewer(server, "ann")
    for member in (ann, *sale.buyers):
        member.token = server.token(member.name, ttl_s=4 * HOUR_S)
    async with staying(ann):
        [line] = (await ann.surely("cart.add", sku="s1", qty=3))["cart"]["lines"]
        async with sale.going_on():
            for by_s in (before_s, after_s):
                clock.step(by_s)
                await sale.is_normal_again()
                order = await sale.buy(ann)
                assert abs(order["placed_at"] / 1000 - time.time() - by_s) < HOUR_S / 2
        if after_s > before_s:  # its ten minutes are over by the clock that judges it
            await until(lambda: sale.left() == FEW - sale.sold)
        else:
            [kept] = (await ann.do("cart.show"))["cart"]["lines"]
            assert kept["hold"] == line["hold"]
            await ann.surely("cart.remove", sku="s1")
    await sale.adds_up()


@pytest.mark.postgres
def test_two_nodes_whose_clocks_are_ten_minutes_apart(tmp_path):
    """Deadlines are the stores': both nodes show the same ones, and neither ends what is not due."""
    clock = Clock(tmp_path, APART_S)
    valkey, postgres = EmbeddedValkey(tmp_path / "store"), Postgres("fsync=off")
    try:
        postgres.start()
        flags = ("--redis-url", valkey.start(), "--database-url", postgres.fresh())
        flags += ("--hold-ttl-s", "300", "--pay-within-s", "300")
        with serving(tmp_path / "one", *flags, stock=FEW) as one:
            shutil.copytree(tmp_path / "one", tmp_path / "two")  # the same secret
            two = Live(tmp_path / "two", *flags, env=clock.env)
            try:
                two.start()
                asyncio.run(asyncio.wait_for(_seen_by_both(one, two), 90))
            finally:
                two.close()
    finally:
        valkey.stop()
        postgres.close()


async def _seen_by_both(one: Live, two: Live) -> None:
    sale = Sale(one, "s1")
    here, there = Viewer(one, "ann"), Viewer(two, "ann")
    there.token = one.token("ann", ttl_s=4 * HOUR_S)
    async with staying(here, there):
        [line] = (await here.surely("cart.add", sku="s1", qty=3))["cart"]["lines"]
        order = await sale.buy(there)
        async with sale.going_on():
            for _ in range(3):  # the sweepers of both have been by meanwhile
                await sale.more()
                for viewer in (here, there):
                    [kept] = (await viewer.surely("cart.show"))["cart"]["lines"]
                    assert kept["hold"] == line["hold"]
                    assert abs(kept["expires_at"] - line["expires_at"]) < 5000
                    shown = (await viewer.surely("order.show", order=order["id"]))["order"]
                    assert (shown["state"], shown["pay_by"]) == ("placed", order["pay_by"])
        assert abs(order["placed_at"] / 1000 - time.time()) < APART_S / 2
        await there.surely("cart.remove", sku="s1")
    await sale.adds_up()
