"""Who asks: a living node is found, an answer is waited for or given up, and asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from liveroom.errors import Invalid, LiveroomError, Refused
from tests.simulation.bank import Bank
from tests.simulation.loop import Gone
from tests.simulation.node import Node
from tests.simulation.watch import Watch
from tests.simulation.world import World

ANSWER_MAX_S: Final = 40.0
"""How long an answer may take, whatever sleeps or is silent meanwhile."""

Ask = Callable[[Node], Awaitable[Any]]


class Crowd:
    """The way of everybody to the nodes of a world; what was acknowledged is kept."""

    def __init__(self, world: World, watch: Watch, bank: Bank, *, hold_ttl_s: float) -> None:
        self.world = world
        self.watch = watch
        self.rng = world.rng
        self.bank = bank
        self.hold_ttl_s = hold_ttl_s
        self.nodes: list[Node] = []
        self.broken = 0
        self.acked: dict[str, Any] = {}
        self._made = 0

    # ── nodes ─────────────────────────────────────────────────────────────────────────────

    async def keep_nodes(self) -> None:
        """Two nodes, each started again when it dies."""
        while True:
            for node in [node for node in self.nodes if node.process.died.is_set()]:
                self.nodes.remove(node)
                self.broken += node.counters.broken_holds
                node.end()
            while len(self.nodes) < 2:
                await self._start_one()
            await asyncio.sleep(0.1)

    async def _start_one(self) -> None:
        self._made += 1
        node = Node(self.world, f"n{self._made}", self.bank, hold_ttl_s=self.hold_ttl_s)
        try:
            await node.process.do(node.start())
        except (Gone, LiveroomError):
            node.end()
        else:
            self.nodes.append(node)
        await asyncio.sleep(0.05)

    async def ask(self, ask: Ask) -> Any:
        """What some living node answers; `Gone`, or an error of the house."""
        while not self.nodes:  # noqa: ASYNC110 - a buyer does poll
            await asyncio.sleep(0.05)
        node = self.rng.choice(self.nodes)
        try:
            async with asyncio.timeout(ANSWER_MAX_S) as patience:
                return await node.process.do(ask(node), until_wait=self.world.waits_given_up())
        except TimeoutError:
            assert not patience.expired(), f"no answer of {node.process.name}"
            raise

    async def attempt(self, ask: Ask) -> Any:
        """The same, once; None where there is no answer or a refusal."""
        try:
            return await self.ask(ask)
        except (Gone, LiveroomError):
            return None

    async def insist(self, ask: Ask, tries: int = 20) -> Any:
        """The same again and again, until it is answered or refused; None where it is refused."""
        for _ in range(tries):
            try:
                return await self.ask(ask)
            except (Refused, Invalid):
                return None
            except (Gone, LiveroomError):
                await asyncio.sleep(self.rng.uniform(0.0, 0.6))
        return None

    # ── orders ────────────────────────────────────────────────────────────────────────────

    async def order(self, order: str, ask: Ask, *, patience: int) -> Any:
        """Repeat one order id until it is there or the buyer gives up."""
        for _ in range(patience):
            before, began_s = self.watch.exists(order), self.world.loop.time()
            try:
                answer = await self.ask(ask)
            except Refused as refusal:
                self._is_true(refusal, order, is_there=before, since_s=began_s)
                if self.rng.random() < 0.3:
                    return None
            except (Gone, LiveroomError) as fault:
                self._is_no_fault_of_the_buyer(fault, order)
            else:
                self._acknowledged(order, answer)
                return answer
            await asyncio.sleep(self.rng.uniform(0.0, 0.6))
        return None

    def _is_true(self, refusal: Refused, order: str, *, is_there: bool, since_s: float) -> None:
        assert not is_there, f"{order} is there and was told {refusal.code}"
        if refusal.code == "sold_out":
            sku = (refusal.data or {})["sku"]
            said = self.watch.remembers(sku, since_s)
            assert said, f"{order}: false sold_out of {sku}, no gate has said so"

    @staticmethod
    def _is_no_fault_of_the_buyer(fault: Exception, order: str) -> None:
        is_ours = not isinstance(fault, Invalid) or fault.code == "illegal_transition"
        assert is_ours, f"{order} was told {fault!r}"

    def _acknowledged(self, order: str, answer: Any) -> None:
        assert self.watch.exists(order), f"{order} was told ok and is not there"
        first = self.acked.setdefault(order, answer)
        assert answer == first, f"{order} was answered two ways"
