"""The host bot: pins, talks, answers, restocks, plans drops; steps back for a person.

Rule: a pin, unpin or word of the host that this bot did not send is a person's at the console;
the bot then keeps quiet for some minutes and only looks after the stock.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from typing import Any, Final

from liveroom.demo.script import Script
from liveroom_client import Event, LiveroomError, connect

DROP_S: Final = (70.0, 120.0)
DROP_SOON_MS: Final = 30_000
DROP_LASTS_MS: Final = 60_000
DROP_UNITS: Final = 4
PIN_S: Final = (30.0, 50.0)
NOTICE_S: Final = (80.0, 150.0)
QUIET_S: Final = 300.0
"""How long the bot leaves the room to the person at the console."""
LOW: Final = 3
RESTOCK_AFTER_S: Final = (15.0, 35.0)
"""How long a SKU stays low before more comes, so that people see what sold out looks like."""
LOOK_S: Final = 5.0
ANSWERS: Final = 0.7
ANSWER_GAP_S: Final = 5.0

Thing = dict[str, Any]


class Hosting:
    """The host's seat, played by a bot."""

    def __init__(self, url: str, room: str, token: str, script: Script) -> None:
        self._room = connect(url, room, token)
        self._script = script
        self._sent: Counter[tuple[str, str]] = Counter()
        self._said: deque[str] = deque(maxlen=50)
        self._quiet_until = 0.0
        self._restock_at: dict[str, float] = {}
        self._answered_at = 0.0
        self._answers = {
            question["ask"]: question["answer"]
            for product in script.products
            for question in product["questions"]
        }

    async def run(self) -> None:
        """Host the room until cancelled."""
        async with self._room.events() as events, self._room, asyncio.TaskGroup() as group:
            group.create_task(self._again(self._pin_next, PIN_S))
            group.create_task(self._again(self._post_notice, NOTICE_S))
            group.create_task(self._again(self._restock, (LOOK_S, LOOK_S)))
            group.create_task(self._again(self._drop, DROP_S))
            async for event in events:
                self._notice_person(event)
                if event.name == "message.posted" and self._wants_answer(event.data):
                    group.create_task(self._answer(event.data["text"]))

    async def _again(self, act: Any, every_s: tuple[float, float]) -> None:
        while True:
            try:
                if self._room.state.room.get("state") == "live":
                    await act()
            except LiveroomError as error:
                # The room was ended, sales are rebuilt, the server is away: look again later.
                await asyncio.sleep((error.retry_after_ms or 1000) / 1000)
            await asyncio.sleep(random.uniform(*every_s))

    # ── the person at the console ─────────────────────────────────────────────────────────

    @property
    def _quiet(self) -> bool:
        return _now() < self._quiet_until

    def _notice_person(self, event: Event) -> None:
        if event.name in {"product.pinned", "product.unpinned"}:
            mine = self._take_back(event.name, _product_of(event))
        elif event.name == "message.posted" and event.data["member"] == self._script.host:
            mine = event.data["text"] in self._said
        else:
            return
        if not mine:
            self._quiet_until = _now() + QUIET_S

    def _take_back(self, name: str, product: str) -> bool:
        """Whether the bot has sent for this event, which has now come."""
        if self._sent[name, product] <= 0:
            return False
        self._sent[name, product] -= 1
        return True

    # ── pins and words ────────────────────────────────────────────────────────────────────

    async def _pin_next(self) -> None:
        if self._quiet:
            return
        state = self._room.state
        shelf = [one["id"] for one in state.shelf if one.get("state", "on") == "on"]
        before = [one["id"] for one in state.pinned]
        if not shelf:
            return
        last = before[-1] if before and before[-1] in shelf else shelf[-1]
        product = shelf[(shelf.index(last) + 1) % len(shelf)]
        for old in before[:-1]:
            await self._send("product.unpinned", old)
        if product not in before:
            await self._send("product.pinned", product)
        spoken = self._script.product(product)
        if spoken is not None:
            await asyncio.sleep(random.uniform(1, 3))
            await self._say(random.choice(spoken["pitch"]))
        if before and before[-1] != product and not self._quiet:
            await self._send("product.unpinned", before[-1])

    async def _send(self, event: str, product: str) -> None:
        """Pin or unpin, knowing that the event to come is the bot's own."""
        self._sent[event, product] += 1
        try:
            if event == "product.pinned":
                await self._room.host.pin(product)
            else:
                await self._room.host.unpin(product)
        except LiveroomError:
            self._sent[event, product] -= 1
            raise

    async def _say(self, text: str) -> None:
        if not self._quiet:
            self._said.append(text)
            await self._room.messages.post(text)

    async def _post_notice(self) -> None:
        if not self._quiet:
            await self._room.host.notice(random.choice(self._script.hosting["notices"]))

    # ── flash drops ───────────────────────────────────────────────────────────────────────

    async def _drop(self) -> None:
        """Plan a drop of what is on air, a fifth off, soon enough to wait for."""
        state = self._room.state
        coming = [one for one in state.drops.values() if one["state"] in {"scheduled", "open"}]
        if self._quiet or coming or not state.pinned:
            return
        product = state.pinned[-1]
        plenty = [one for one in product["skus"] if (state.left(one["id"]) or 0) > DROP_UNITS]
        if not plenty:
            return
        sku = random.choice(plenty)
        price_minor = sku["price_minor"] * 4 // 5
        await self._room.host.schedule_drop(
            sku["id"],
            DROP_UNITS,
            price_minor,
            opens_in_ms=DROP_SOON_MS,
            lasts_ms=DROP_LASTS_MS,
            limit_per_buyer=1,
        )
        line = random.choice(self._script.hosting["drops"])
        await self._say(line.format(title=product["title"], qty=DROP_UNITS))

    def _wants_answer(self, message: Thing) -> bool:
        known = message["text"] in self._answers and not self._quiet
        if not known or _now() - self._answered_at < ANSWER_GAP_S or random.random() > ANSWERS:
            return False
        self._answered_at = _now()
        return True

    async def _answer(self, question: str) -> None:
        await asyncio.sleep(random.uniform(1.5, 4))
        try:
            await self._say(self._answers[question])
        except LiveroomError:
            return  # the moment has passed

    # ── stock ─────────────────────────────────────────────────────────────────────────────

    async def _restock(self) -> None:
        for product in self._script.products:
            for sku in product["skus"]:
                if self._due(sku["id"]):
                    del self._restock_at[sku["id"]]
                    await self._room.host.restock(sku["id"], sku["stock"])
                    line = random.choice(self._script.hosting["restocked"])
                    await self._say(line.format(title=product["title"], qty=sku["stock"]))

    def _due(self, sku: str) -> bool:
        """Whether a SKU has been low for long enough."""
        left = self._room.state.left(sku)
        if left is None or left > LOW:
            self._restock_at.pop(sku, None)
            return False
        due = self._restock_at.setdefault(sku, _now() + random.uniform(*RESTOCK_AFTER_S))
        return _now() >= due


def _product_of(event: Event) -> str:
    product = event.data["product"]
    return str(product["id"] if isinstance(product, dict) else product)


def _now() -> float:
    return asyncio.get_running_loop().time()
