"""The crowd: visitors who come and go, talk, react, fill carts, buy and pay in the sandbox.

Each is one seat of the Python SDK and does what a person could do, at a person's pace. They
buy as new members at every visit, so that limits for each buyer never dry the room up.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Final

from liveroom.demo.hosting import Hosting
from liveroom.demo.script import Script
from liveroom_client import Api, Format, LiveroomError, Refused, Room, connect

PAUSE_S: Final = 24.0
"""How long a visitor does nothing, on average; more visitors wait longer."""
CROWD_AT_PAUSE: Final = 100
STAY_S: Final = (240.0, 1500.0)
ARRIVE_WITHIN_S: Final = 12.0
AWAY_S: Final = (2.0, 40.0)
GUESTS: Final = 0.2
OWN_LANGUAGE: Final = 0.9
SOURCES: Final = (None, {"kind": "follow"}, {"kind": "search"}, {"kind": "share"})
"""What brings visitors in, each as often as the others; of the first nothing is known."""

Thing = dict[str, Any]


async def play(url: str, room: str, host: str, script: Script, *, crowd: int) -> None:
    """Keep a host and a crowd in the room, for ever."""
    floor = Floor(url, room, script, PAUSE_S * max(1.0, crowd / CROWD_AT_PAUSE))
    async with asyncio.TaskGroup() as group:
        group.create_task(_host(url, room, host, script))
        for _ in range(crowd):
            group.create_task(_seat(floor))


@dataclass
class Floor:
    """What all visitors share."""

    url: str
    room: str
    script: Script
    pause_s: float
    names: set[str] = field(default_factory=set)
    """Names in the room now, so that no two visitors share one while there are enough."""

    def take_name(self) -> str:
        """A name for a visitor who comes in."""
        names = self.script.crowd["names"]
        name = random.choice([one for one in names if one not in self.names] or names)
        self.names.add(name)
        return name


async def _host(url: str, room: str, token: str, script: Script) -> None:
    """The host's seat; taken again if it was lost for good."""
    while True:
        try:
            await Hosting(url, room, token, script).run()
        except* LiveroomError:
            await asyncio.sleep(AWAY_S[0])


async def _seat(floor: Floor) -> None:
    """One place in the crowd, taken by one visitor after another."""
    await asyncio.sleep(random.uniform(0, ARRIVE_WITHIN_S))
    while True:
        name = floor.take_name()
        try:
            await _visit(floor, name)
        except LiveroomError:
            # Refused at the door, or cut off for good: somebody else comes a little later.
            await asyncio.sleep(floor.pause_s)
        finally:
            floor.names.discard(name)
        await asyncio.sleep(random.uniform(*AWAY_S))


async def _visit(floor: Floor, name: str) -> None:
    guest = random.random() < GUESTS
    api, token = Api(floor.url), None
    if not guest:
        token = (await api.post("/v1/sandbox/tokens", {"name": name}))["token"]
        api = Api(floor.url, token)
    wire_format = random.choice(list(Format))
    source, called = random.choice(SOURCES), name if guest else None
    seat = connect(floor.url, floor.room, token, called, source=source, format=wire_format)
    async with seat as room:
        await Visitor(floor, name, room, api, guest=guest).stay(random.uniform(*STAY_S))


class Visitor:
    """One person in the room."""

    def __init__(self, floor: Floor, name: str, room: Room, api: Api, *, guest: bool) -> None:
        self._floor = floor
        self._room = room
        self._api = api
        self._lines = floor.script.crowd
        self._chinese = _is_chinese(name)
        self._acts = [self._talk] * 9 + [self._react] * 8
        if not guest:
            self._acts += [self._buy] * 3 + [self._fill_cart] * 3 + [self._buy_dropped] * 4

    async def stay(self, for_s: float) -> None:
        """Do something now and then, until it is time to go."""
        until = asyncio.get_running_loop().time() + for_s
        if random.random() < 0.3:
            await self._try(self._say(self._lines["hello"]))
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(min(random.expovariate(1 / self._floor.pause_s), 120))
            if self._room.state.room.get("state") == "live":
                await self._try(random.choice(self._acts)())

    async def _try(self, act: Any) -> None:
        """Take a refusal as people do: a word if it was sold out, a shrug otherwise."""
        try:
            await act
        except Refused as refused:
            if refused.code == "sold_out" and random.random() < 0.5:
                await self._try(self._say(self._lines["missed"]))
        except LiveroomError as error:
            # Nothing a visitor could mend: off the shelf by now, or the server is away.
            await asyncio.sleep((error.retry_after_ms or 1000) / 1000)

    async def _say(self, lines: list[str]) -> None:
        recent = {message["text"] for message in self._room.state.messages[-40:]}
        fresh = [line for line in lines if line not in recent]
        if random.random() < OWN_LANGUAGE:
            fresh = [line for line in fresh if _is_chinese(line) is self._chinese]
        if fresh:
            await self._room.messages.post(random.choice(fresh))

    async def _talk(self) -> None:
        product = self._featured()
        spoken = self._floor.script.product(product["id"]) if product else None
        if spoken is None or random.random() < 0.3:
            await self._say(self._lines["chatter"])
        elif random.random() < 0.3:
            await self._say([question["ask"] for question in spoken["questions"]])
        else:
            await self._say(spoken["lines"])

    async def _react(self) -> None:
        kind = random.choice(self._lines["reactions"])
        await self._room.reactions.send(kind, random.choice((1, 1, 2, 3, 5, 8)))

    async def _buy(self) -> None:
        line = self._wanted()
        if line is None:
            await self._say(self._lines["missed"])
            return
        order = await self._room.orders.place([line])
        await self._pay(order)

    async def _buy_dropped(self) -> None:
        """One unit of a drop that is open, if there is one."""
        state = self._room.state
        opened = [one for one in state.drops.values() if one["state"] == "open"]
        if not opened or state.left(opened[0]["id"]) == 0:
            return
        drop = opened[0]
        line = {"sku": drop["sku"], "qty": 1, "drop": drop["id"]}
        await self._pay(await self._room.orders.place([line]))

    async def _fill_cart(self) -> None:
        line = self._wanted()
        if line is None:
            return
        await self._room.cart.add(line["sku"], random.choice((1, 1, 1, 2)))
        await asyncio.sleep(random.uniform(6, 45))
        chance = random.random()
        if chance < 0.7:
            await self._pay(await self._room.cart.checkout())
        elif chance < 0.9:
            await self._room.cart.remove(line["sku"])
        # The rest forget their cart: its hold runs out, as it does.

    async def _pay(self, order: Thing) -> None:
        await asyncio.sleep(random.uniform(2, 9))
        chance = random.random()
        if chance < 0.05:
            return  # never pays; the order expires and its units come back
        payment = await self._room.payments.start(order["id"])
        if chance < 0.09:
            await self._press(payment, "fail")
            await asyncio.sleep(random.uniform(2, 6))
            payment = await self._room.payments.start(order["id"])
        await self._press(payment, "succeed")
        if random.random() < 0.4:
            await self._say(self._lines["bought"])

    async def _press(self, payment: Thing, button: str) -> None:
        await self._api.post(f"/v1/sandbox/payments/{payment['id']}/{button}")

    def _featured(self) -> Thing | None:
        """Mostly what is pinned, now and then something else from the shelf."""
        state = self._room.state
        if state.pinned and random.random() < 0.8:
            return state.pinned[-1]
        on_sale = [one for one in state.shelf if one.get("state", "on") == "on"]
        return random.choice(on_sale) if on_sale else None

    def _wanted(self) -> Thing | None:
        """A line for one unit of something that is not sold out, at the price seen."""
        product = self._featured()
        skus = (
            [sku for sku in product["skus"] if self._room.state.left(sku["id"])] if product else []
        )
        if not skus:
            return None
        sku = random.choice(skus)
        return {"sku": sku["id"], "qty": 1, "price_minor": sku["price_minor"]}


def _is_chinese(text: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)
