"""What a house keeps of what is over: nothing that grows with it.

The bench's soak watches a server's memory for an hour; here the same is asked of the objects
themselves, in seconds, so that a change that keeps something for each order fails at once.
"""

from __future__ import annotations

import gc
import sys

import pytest
from house import ANN, BO, HOST, House
from tape import Who

from liveroom.ids import new_id
from liveroom.wire.codec import Format
from liveroom.wire.outbox import Seat, StreamLink

ROUND = 100
WARM_ROUNDS = 2
"""By then what is bounded and small is full: messages shown, answers and buyers remembered."""
ROUNDS = 4
KEPT_MAX = 2 * ROUND * ROUNDS
"""What Python itself keeps varies by hundreds of objects; a leak is several for each act."""


async def _own():
    return {}


async def buys_and_cancels(house: House) -> None:
    order, lines = new_id(), [{"sku": "a", "qty": 1}]
    await house.do(ANN, "order.place", order=order, lines=lines)
    await house.do(ANN, "order.cancel", order=order)


async def fills_and_empties_a_cart(house: House) -> None:
    await house.do(BO, "cart.add", sku="c", qty=2, key=new_id())
    await house.do(BO, "cart.remove", sku="c")


async def is_refused(house: House) -> None:
    with pytest.raises(Exception, match="sold_out"):
        await house.do(BO, "order.place", order=new_id(), lines=[{"sku": "b", "qty": 2}])


async def talks(house: House) -> None:
    await house.do(ANN, "message.post", text=new_id())
    await house.do(BO, "reaction.send", kind="heart", count=3)


async def comes_and_goes(house: House) -> None:
    seat = Seat(StreamLink(), Format.STREAM, member=Who(new_id()), crew=False)
    await house.hub.join("r1", seat, re=1, since=None, you={}, own=_own)
    house.hub.leave(seat)


async def restocks(house: House) -> None:
    await house.do(HOST, "stock.restock", sku="a", qty=1, key=new_id())
    await house.do(HOST, "stock.adjust", sku="a", delta=-1, why="counted", key=new_id())


@pytest.mark.parametrize(
    "act",
    [buys_and_cancels, fills_and_empties_a_cart, is_refused, talks, comes_and_goes, restocks],
    ids=lambda act: act.__name__,
)
def test_nothing_is_kept_of_what_is_over(db, redis_url, run, act):
    """Hundreds of acts leave no object behind that grows with their number."""

    async def story():
        async with House(db, redis_url) as house:
            watcher = Seat(StreamLink(), Format.STREAM, member=Who("watcher"), crew=False)
            await house.hub.join("r1", watcher, re=1, since=None, you={}, own=_own)
            kept = []
            for _ in range(WARM_ROUNDS + ROUNDS):
                for _ in range(ROUND):
                    await act(house)
                    watcher.link._frames.clear()
                await house.onair.beat()
                gc.collect()
                kept.append(sys.getallocatedblocks())
            house.hub.leave(watcher)
            return kept

    kept = run(story())
    grown = kept[-1] - kept[WARM_ROUNDS - 1]
    assert grown < KEPT_MAX, f"{grown} objects after {ROUND * ROUNDS} acts: {kept}"
