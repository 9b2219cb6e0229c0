"""A whole server whose Redis loses replies, hangs, forgets, goes back in time; the sale goes on.

Between them stands a relay of the tests. `LIVEROOM_FAULT_PAUSE_S` says how long Redis hangs;
with `LIVEROOM_FAULT_LONG`, as in `make faults`, there are more ways for it to fail.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from liveroom.ids import new_id
from liveroom.store import keys
from liveroom.store.memory import MEMORY_S
from liveroom.store.scripts import Script
from liveroom.store.valkey import EmbeddedValkey
from tests.crowd import Said, Viewer, staying, until
from tests.live import Live, serving
from tests.nodes import free_port
from tests.relayed import Place, relayed
from tests.sale import ANSWER_MAX_S, FEW, Sale

LONG = "LIVEROOM_FAULT_LONG" in os.environ
PAUSE_S = float(os.environ.get("LIVEROOM_FAULT_PAUSE_S", "3"))
FLUSHES = int(os.environ.get("LIVEROOM_FAULT_FLUSHES", "8"))
SKUS = tuple(f"s{number}" for number in range(1, 60))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("redis")
    with relayed(folder, "--message-rate-max", "0", stock=FEW, skus=SKUS) as made:
        yield made


@pytest.fixture
def sku(request) -> str:
    """A SKU that no other test buys."""
    return _another(request)


@pytest.fixture
def spare(request) -> str:
    """One more."""
    return _another(request)


def _another(request) -> str:
    taken = getattr(request.config, "skus_taken", 0)
    request.config.skus_taken = taken + 1
    return SKUS[taken]


LOST = [(script, False) for script in ("hold", "tell", "left", "release")] + [("hold", True)]
LOST_TOO = [("expire", False), ("tell", True), ("left", True), ("release", True)]


@pytest.mark.parametrize(("script", "torn"), LOST + (LOST_TOO if LONG else []))
def test_replies_that_never_came(place, sku, script, torn):
    """A script ran and its reply was lost: whoever asks again finds it done once."""

    async def story() -> None:
        sale, ann = Sale(place.server, sku), Viewer(place.server, f"ann-{sku}")
        async with staying(ann):
            await ann.surely("cart.add", new_id(), sku=sku, qty=1)
            async with sale.going_on():
                before = place.proxy.lost
                place.proxy.lose_replies(Script(f"stock_{script}").sha.encode(), times=5, torn=torn)
                await ann.surely("cart.remove", sku=sku)
                await until(lambda: place.proxy.lost >= before + (3 if script == "hold" else 1))
                await sale.more()
                place.proxy.lose_replies(b"", times=0)
                await sale.is_normal_again()
        await sale.adds_up()

    asyncio.run(asyncio.wait_for(story(), 90))


def test_a_hold_that_nobody_places_ends_though_replies_are_lost(place, sku):
    """Its buyer was told to try again and never did: the sweep ends it, at its second try too."""

    def left() -> int:
        with place.server.http() as http:
            return http.get("/v1/rooms/r1").json()["stock"][sku]["left"]

    async def story() -> None:
        ann = Viewer(place.server, f"ann-{sku}")
        async with staying(ann):
            await ann.surely("cart.add", new_id(), sku=sku, qty=1)  # Redis knows the script now
            place.proxy.lose_replies(Script("stock_hold").sha.encode(), times=1000)
            with pytest.raises(Said) as told:
                await ann.do("order.place", order=new_id(), lines=[{"sku": sku, "qty": 2}])
            assert told.value.error["code"] == "store_down"
            place.proxy.lose_replies(Script("stock_stuck").sha.encode())
            before = place.proxy.lost
            await until(lambda: left() == FEW - 3)
            await until(lambda: place.proxy.lost > before)
            await until(lambda: left() == FEW - 1)
        assert place.server.audit()["ok"]

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_checkout_whose_replies_were_lost(place, sku):
    """A cart is ordered once, though every reply of its checkout is lost on the way at first."""

    async def story() -> None:
        ann = Viewer(place.server, f"ann-{sku}")
        async with staying(ann):
            for script in ("hold", "place", "tell", "return"):
                await ann.surely("cart.add", new_id(), sku=sku, qty=2)
                place.proxy.lose_replies(Script(f"stock_{script}").sha.encode())
                order = (await ann.surely("cart.checkout", order=new_id()))["order"]
                assert order["lines"][0]["qty"] == 2
                place.proxy.lose_replies(b"", times=0)
            assert (await ann.do("cart.show"))["cart"]["lines"] == []
        with place.server.http() as http:
            await until(
                lambda: http.get("/v1/rooms/r1").json()["stock"][sku]["left"] == FEW - 4 * 2
            )
        assert place.server.audit()["ok"]

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize("how", ["stopped", "stalled", "paused"] if LONG else ["stopped"])
def test_buying_is_refused_in_time_while_redis_hangs(place, sku, how):
    """Redis hangs: buying is answered 503 in time, what needs SQL alone goes on, and so does the sale after."""

    def hang() -> None:
        if how == "stopped":
            os.kill(place.valkey.pid, signal.SIGSTOP)
        elif how == "stalled":
            place.proxy.stall()
        else:
            with place.redis as client:
                client.client_pause(round(PAUSE_S * 1000), all=True)

    def go_on() -> None:
        if how == "stopped":
            os.kill(place.valkey.pid, signal.SIGCONT)
        elif how == "stalled":
            place.proxy.flow()

    async def story() -> None:
        sale = Sale(place.server, sku)
        ann = Viewer(place.server, f"ann-{how}")
        async with staying(ann):
            known = (await sale.buy(ann))["id"]
            async with sale.going_on():
                hang()
                until_s = time.monotonic() + PAUSE_S
                try:
                    codes = set()
                    while time.monotonic() < until_s:
                        codes.add(await sale.code_of(ann, new_id()))
                        shown = await ann.do("order.show", order=known)
                        assert shown["order"]["state"] == "placed"
                finally:
                    go_on()
                await sale.is_normal_again()
                assert codes & {"store_down", "rebuilding"}, codes
            assert not ann.ends, "nobody is sent away because Redis hangs"
        await sale.adds_up()

    asyncio.run(asyncio.wait_for(story(), 60 + PAUSE_S))


def test_everybody_is_refused_in_time_where_redis_hangs_after_the_last_unit(place, sku):
    """Who asks for what is sold out waits for one look at the gate, not for one of each before."""

    async def story() -> None:
        buyers = [Viewer(place.server, f"{sku}-late{number}") for number in range(10)]

        async def code_of(buyer: Viewer, qty: int = 1) -> str:
            lines = [{"sku": sku, "qty": qty}]
            try:
                async with asyncio.timeout(ANSWER_MAX_S):
                    await buyer.do("order.place", order=new_id(), lines=lines)
            except Said as refusal:
                return refusal.code
            return "ok"

        async with staying(*buyers):
            assert await code_of(buyers[0], FEW) == "ok"
            await asyncio.sleep(1.5)  # the gate has been told: nothing is held any more
            assert await code_of(buyers[0]) == "sold_out"
            os.kill(place.valkey.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(MEMORY_S)
                codes = await asyncio.gather(*(code_of(buyer) for buyer in buyers))
            finally:
                os.kill(place.valkey.pid, signal.SIGCONT)
            assert set(codes) == {"store_down"}
            while (code := await code_of(buyers[0])) != "sold_out":
                assert code in {"store_down", "rebuilding"}

    asyncio.run(asyncio.wait_for(story(), 60))


def test_redis_is_emptied_again_and_again(place, sku):
    """FLUSHALL in the middle of a sale, and of the rebuilds that follow: it costs time, no order."""

    async def story() -> None:
        sale = Sale(place.server, sku)
        async with sale.going_on():
            with place.redis as client:
                for _ in range(FLUSHES):
                    client.flushall()
                    await asyncio.sleep(random.uniform(0, 0.1))
            await sale.is_normal_again()
        await sale.adds_up()

    asyncio.run(asyncio.wait_for(story(), 90))


def test_each_key_of_the_stock_is_lost_in_turn(place, sku):
    """A key that is gone is noticed, or it was of no worth: the sale goes on and adds up."""

    async def story() -> None:
        sale = Sale(place.server, sku)
        async with sale.going_on():
            with place.redis as client:
                for at in range(1 + len(keys.STOCK_KEYS)):
                    epoch = int(client.hget(keys.stock_fence(0), "epoch") or 0)
                    client.delete(keys.stock(0, epoch)[at])
                    await sale.is_normal_again()
        await sale.adds_up()

    asyncio.run(asyncio.wait_for(story(), 90))


@pytest.mark.parametrize("how", ["empty", "rolled back", *(["killed"] if LONG else [])])
def test_redis_comes_back_otherwise_than_it_went(place, sku, how):
    """Redis is killed, or starts with an empty folder, or with an older one: stock is exact after it."""

    async def story() -> None:
        sale = Sale(place.server, sku)
        older = place.folder / "older"
        async with sale.going_on():
            if how == "killed":
                os.kill(place.valkey.pid, signal.SIGKILL)
            else:
                store = place.folder / "store" / "valkey" / "appendonlydir"
                shutil.rmtree(older, ignore_errors=True)
                shutil.copytree(store, older)
                await sale.more()
                await asyncio.to_thread(place.stop)
                shutil.rmtree(store)
                if how == "rolled back":
                    shutil.move(older, store)
                await asyncio.to_thread(place.start)
            await sale.is_normal_again()
        await sale.adds_up()

    asyncio.run(asyncio.wait_for(story(), 90))


def test_redis_is_set_to_forget_by_itself(place, sku, spare):
    """Keys go in the middle of a sale: nothing is sold until none may go, then all that is there."""

    async def story() -> None:
        sale = Sale(place.server, sku, spare=spare)
        ann = Viewer(place.server, f"ann-{sku}")
        async with staying(ann), sale.going_on():
            with place.redis as client:
                epoch = int(client.hget(keys.stock_fence(0), "epoch") or 0)
                try:
                    client.config_set("maxmemory-policy", "allkeys-lru")
                    await until(lambda: "noeviction" in ready().text)
                    assert ready().status_code == 503
                    assert await sale.code_of(ann, new_id()) == "store_down"
                    client.config_set("maxmemory", 1)
                    await until(lambda: client.info("stats")["evicted_keys"])
                finally:
                    client.config_set("maxmemory", 0)
                    client.config_set("maxmemory-policy", "noeviction")
                await until(lambda: ready().status_code == 200)
                assert int(client.hget(keys.stock_fence(0), "epoch") or 0) > epoch
            await sale.more()
        await sale.adds_up()

    def ready():
        with place.server.http() as http:
            return http.get("/readyz?verbose")

    asyncio.run(asyncio.wait_for(story(), 90))


def test_the_folder_of_the_embedded_server_vanishes(tmp_path):
    """`rm -rf` of it and a kill in the middle of a sale: selling goes on by itself, and adds up."""

    async def story(live: Live) -> None:
        sale = Sale(live, "s1")
        async with sale.going_on():
            for killed in (True, False):
                shutil.rmtree(live.data / "valkey")
                if killed:
                    os.kill(_valkey_of(live), signal.SIGKILL)
                await until((live.data / "valkey" / "valkey.sock").exists)
                await sale.more()
        await sale.adds_up()

    with serving(tmp_path / "data", "--message-rate-max", "0", stock=FEW) as live:
        asyncio.run(asyncio.wait_for(story(live), 90))


def _valkey_of(live: Live) -> int:
    return next(pid for pid, line in live.children().items() if "valkey-server" in line)


def test_a_failover_to_a_replica_that_lags_and_back(place, sku):
    """Both Redises believe in what they have; neither sells what the other has sold."""
    lagging = EmbeddedValkey(place.folder / "replica")

    async def story() -> None:
        sale = Sale(place.server, sku)
        async with sale.going_on():
            with place.redis as main, redis.Redis.from_url(lagging.start()) as replica:
                main.config_set("port", port := free_port())
                replica.replicaof("127.0.0.1", port)
                await until(lambda: replica.info("replication")["master_link_status"] == "up")
                await sale.more()
                replica.replicaof("NO", "ONE")
                assert replica.exists(keys.stock_fence(0)), "there is nothing it could sell"
                await sale.more()
            first = place.proxy.to
            place.proxy.turn_to(Path(lagging.url.removeprefix("unix://")))
            await sale.is_normal_again()
            place.proxy.turn_to(first)
            await sale.is_normal_again()
        await sale.adds_up()

    try:
        asyncio.run(asyncio.wait_for(story(), 90))
    finally:
        lagging.stop()
