"""A sale of few units that goes on whatever becomes of the server and its stores.

Buyers repeat each order under its id until it is answered, and return whenever they are cut. Where
nothing is left they let go of what they have, so that there is always somebody who buys the last
unit. All they ask, are told and are shown is recorded, and in the end compared with the books.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from bench.checker import Books
from bench.history import Recorder
from liveroom.ids import new_id
from tests.books import audited, books_agree
from tests.crowd import Cut, Viewer, staying, until, until_answered
from tests.live import Live, Said

FEW: Final = 24
"""Units of one SKU: every sale meets its end many times over."""
DEMAND: Final = 10
"""So many times the units are asked for, at the least."""
THINKING_S = 0.005
ANSWER_MAX_S = 6.0
"""Three times what is promised: the machine may be busy with other things."""
NORMAL_MAX_S = 10.0
"""What is promised (P13): so long after a fault has stopped everybody is served again."""
SELL_OUT_MAX_S = 30.0


class Sale:
    """Buyers of one SKU, one unit at a time; `bought` are the orders that were acknowledged.

    `given_back` are those whose cancellation was, too. Of the SKU `spare` nobody but the callers
    of `code_of` buys: who asks for it is not told that it is sold out because others were quicker.
    """

    def __init__(
        self, server: Live, sku: str, *, spare: str | None = None, buyers: int = 6
    ) -> None:
        self.server = server
        self.sku = sku
        self.bought: list[str] = []
        self.given_back: set[str] = set()
        self.unsettled: list[tuple[Viewer, str]] = []
        """Orders that were refused for now, and whose buyers ask again in the end."""
        self.history = Recorder()
        self._spare = spare or sku
        self._spared: set[str] = set()
        self._answered: Counter[str] = Counter()
        self.buyers = [Viewer(server, f"{sku}-b{number}") for number in range(buyers)]
        for buyer in self.buyers:
            self.watched_by(buyer)
        self._over = asyncio.Event()

    @property
    def sold(self) -> int:
        """How many units buyers know to be theirs."""
        return len(set(self.bought) - self.given_back - self._spared)

    @asynccontextmanager
    async def going_on(self, *, to_the_end: bool = True) -> AsyncIterator[None]:
        """Everybody buys until the end of the block; then all that was asked is answered.

        Unless `to_the_end`: then nobody asks any more, for there is no server.
        """
        async with staying(*self.buyers):
            buying = [asyncio.create_task(self._buy(buyer)) for buyer in self.buyers]
            try:
                await self.more()
                yield
            finally:
                self._over.set()
                if not to_the_end:
                    for each in buying:
                        each.cancel()
                await asyncio.gather(*buying, return_exceptions=not to_the_end)
            for buyer, order in self.unsettled:
                await self._order(buyer, order, self._spare)

    async def more(self, orders: int = 20, within_s: float = 30) -> None:
        """Wait until so many more orders are acknowledged."""
        enough = len(self.bought) + orders
        await until(lambda: len(self.bought) >= enough, within_s)

    async def is_normal_again(self) -> None:
        """Wait until every buyer is served, and units are sold, from now on: in 10 s at most.

        Served means answered: who is told `sold_out` is served too.
        """
        # The first answer may be that to an order of before; the second is not.
        enough = {buyer.name: self._answered[buyer.name] + 2 for buyer in self.buyers}
        sold = len(self.bought) + len(self.buyers) + 1
        await until(
            lambda: (
                len(self.bought) >= sold
                and all(self._answered[name] >= orders for name, orders in enough.items())
            ),
            NORMAL_MAX_S,
        )

    def watched_by(self, viewer: Viewer) -> None:
        """Record the stock numbers this viewer is shown.

        Where there are several workers, those of each by themselves: one may lag behind another,
        and `v` tells a client that comes from it which number is the older one.
        """
        alone = "--workers" not in self.server.flags

        def saw(stock: dict[str, Any]) -> None:
            if stock["sku"] == self.sku:
                who = viewer.name if alone else f"{viewer.name} at {viewer.node}"
                self.history.saw(who, "stock", stock)

        viewer.sees_stock = saw

    async def buy(self, buyer: Viewer) -> dict[str, Any]:
        """An order of any buyer, as soon as there is a unit for it."""
        bought = None
        while bought is None:
            bought = await self._order(buyer, new_id(), self.sku)
        return bought

    async def code_of(self, buyer: Viewer, order: str) -> str:
        """What an order that is sent now is answered; one that is refused is sent again in the end."""
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                await self._ask(buyer, order, self._spare)
        except Said as refusal:
            self.unsettled.append((buyer, order))
            return refusal.code
        return "ok"

    async def adds_up(self) -> None:
        """All units are sold, to those who know it and to nobody else; the audit agrees.

        At no time were more sold than there are. Units of orders that nobody was answered are on
        sale again within 10 s.
        """
        await self._sell_out()
        books = await asyncio.to_thread(self.books_agree, self.server)
        ours = [one for one in books.orders if one["lines"][0]["sku"] in {self.sku, self._spare}]
        cancelled = {one["id"] for one in ours if one["state"] == "cancelled"}
        assert sorted(one["id"] for one in ours) == sorted(self.bought), "each is there once"
        assert cancelled == self.given_back
        pool = books.pools[0]
        assert (pool["reserved"], pool["available"]) == (FEW, 0)
        await until(lambda: self.left() == 0)
        await asyncio.to_thread(audited, self.server)

    def books_agree(self, server: Live) -> Books:
        """The books of a server, which bear out everything that anybody was told."""
        assert any(line.what == "saw" for line in self.history.lines), "nobody saw any stock"
        stock = {f"sku:{sku}": FEW for sku in (self.sku, self._spare)}
        return books_agree(server, self.history.lines, stock, name=self.sku)

    def left(self) -> int:
        """What could be bought now; -1 while that cannot be told."""
        with self.server.http() as http:
            answer = http.get("/v1/rooms/r1")
            return answer.json()["stock"][self.sku]["left"] if answer.status_code == 200 else -1

    async def _buy(self, buyer: Viewer) -> None:
        mine: list[str] = []
        while not self._over.is_set():
            order = new_id()
            if await self._order(buyer, order, self.sku):
                mine.append(order)
            elif mine:
                await self._give_back(buyer, mine.pop(0))
            await asyncio.sleep(THINKING_S)

    async def _sell_out(self) -> None:
        """Everybody buys until all is sold, and asks on for what is not there any more."""
        async with staying(*self.buyers), asyncio.timeout(SELL_OUT_MAX_S):
            await asyncio.gather(*map(self._buy_the_rest, self.buyers))

    async def _buy_the_rest(self, buyer: Viewer) -> None:
        while self.sold < FEW or self._answered.total() < DEMAND * FEW:
            await self._order(buyer, new_id(), self.sku)
            await asyncio.sleep(THINKING_S)

    async def _order(self, buyer: Viewer, order: str, sku: str) -> dict[str, Any] | None:
        """The order, repeated until it is answered; None where it is sold out."""
        try:
            answer = await until_answered(lambda: self._ask(buyer, order, sku))
        except Said as refusal:
            if refusal.code != "sold_out":
                raise
            answer = None
        self._answered[buyer.name] += 1
        return answer

    async def _ask(self, buyer: Viewer, order: str, sku: str) -> dict[str, Any]:
        data = {"order": order, "lines": [{"sku": sku, "qty": 1}]}
        answer = await ask(self.history, buyer, "order.place", data)
        self.bought.append(order)
        if sku != self.sku:
            self._spared.add(order)
        return answer

    async def _give_back(self, buyer: Viewer, order: str) -> None:
        data = {"order": order}
        try:
            await until_answered(lambda: ask(self.history, buyer, "order.cancel", data))
        except Said as refusal:  # a repeated one, whose first answer was lost
            if refusal.error.get("data") != {"machine": "order", "state": "cancelled"}:
                raise
        self.given_back.add(order)


async def ask(history: Recorder, buyer: Viewer, cmd: str, data: dict[str, Any]) -> dict[str, Any]:
    """Send a command about an order once, on record; the order as answered."""
    asked = history.invoke(buyer.name, cmd, data)
    try:
        answer = (await buyer.do(cmd, **data))["order"]
    except Said as refusal:
        history.refused(asked, refusal.error)
        raise
    except (Cut, asyncio.CancelledError):
        history.info(asked)
        raise
    history.ok(asked, answer)
    return answer


async def order(
    history: Recorder, buyer: Viewer, line: dict[str, Any], cmd: str = "order.place"
) -> str:
    """What one order comes to, repeated until it is answered: `ok`, or the code of a refusal."""
    data = {"order": new_id()} | ({"lines": [line]} if cmd == "order.place" else {})
    try:
        await until_answered(lambda: ask(history, buyer, cmd, data))
    except Said as refusal:
        return refusal.code
    return "ok"
