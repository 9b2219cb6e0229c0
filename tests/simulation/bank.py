"""A payment provider of a world: the money it has, and what it says of it.

It stands outside: it never dies and forgets nothing, but it may be slow, silent, or late to
know what it has captured. What it says it repeats until it was heard, perhaps twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from liveroom.errors import LiveroomError, Unavailable
from liveroom.payments import Kind, Started, Webhook
from tests.simulation.loop import Gone, Process
from tests.simulation.world import CALL_FAULTS, World

NAME: Final = "bank"
SILENT_S: Final = 8.0
"""How long a bank that answers nobody keeps them waiting."""


@dataclass
class Account:
    """A payment as the bank has it."""

    amount_minor: int
    currency: str
    closed: bool = False
    captured: Webhook | None = None


class Bank:
    """The bank of a world. Its `refunds` are those that succeeded: id to (reference, amount)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self.slow_s = self._rng.choice([0.0, 0.0, 0.1, 1.0])
        self.is_late = self._rng.random() < 0.3
        self.is_silent = False
        self.accounts: dict[str, Account] = {}
        self.refunds: dict[str, tuple[str, int]] = {}
        self.refused: dict[str, Webhook] = {}
        self._said: list[Webhook] = []

    def fall_silent(self) -> None:
        """Answer nobody from now on."""
        self.is_silent = True

    # ── what its customers do ─────────────────────────────────────────────────────────────

    async def pay(self, reference: str) -> None:
        """A buyer pays; a payment that is closed takes no money, unless the bank is late."""
        account = self.accounts[reference]
        short = 1 if self._rng.random() < 0.05 else 0
        if account.captured is None and (self.is_late or not account.closed):
            said = self._says("payment.succeeded", reference, account.amount_minor - short)
            account.captured = said

    async def decline(self, reference: str) -> None:
        """A buyer's card is declined; the money may come all the same, later."""
        account = self.accounts[reference]
        if account.captured is None:
            self._says("payment.failed", reference, account.amount_minor)

    def _says(
        self, kind: Kind, reference: str, amount_minor: int, refund: str | None = None
    ) -> Webhook:
        said = Webhook(
            provider=NAME,
            event=f"{refund or reference}.{kind}",
            kind=kind,
            reference=reference,
            amount_minor=amount_minor,
            currency=self.accounts[reference].currency,
            refund=refund,
        )
        self._said.append(said)
        return said

    # ── what it is asked ──────────────────────────────────────────────────────────────────

    def open(self, payment: str, amount_minor: int, currency: str) -> str:
        """The bank's name of a payment; asked twice, it is the same one."""
        reference = reference_of(payment)
        self.accounts.setdefault(reference, Account(amount_minor, currency))
        return reference

    def close(self, reference: str) -> Webhook | None:
        """Take no money any more; what was taken before, as far as the bank knows by now."""
        account = self.accounts.get(reference)
        if account is None:
            return None
        account.closed = True
        return None if self.is_late and self._rng.random() < 0.5 else account.captured

    def refund(self, refund: str, reference: str, amount_minor: int) -> Webhook | None:
        """Send money back, once for each refund; what became of it is said at once, or later."""
        if refund in self.refunds or refund in self.refused:
            return self.refused.get(refund) or self._refunded(refund)
        if self._rng.random() < 0.1:
            said = self._says("refund.failed", reference, amount_minor, refund)
            self.refused[refund] = said
        else:
            self.refunds[refund] = reference, amount_minor
            said = self._says("refund.succeeded", reference, amount_minor, refund)
        return said if self._rng.random() < 0.5 else None

    def _refunded(self, refund: str) -> Webhook:
        reference, amount = self.refunds[refund]
        return self._says("refund.succeeded", reference, amount, refund)

    # ── what it says ──────────────────────────────────────────────────────────────────────

    async def speak(self, tell: Callable[[Webhook], Awaitable[Any]]) -> None:
        """Say everything until it was heard, in any order and perhaps twice; never returns."""
        while True:
            await asyncio.sleep(self._rng.uniform(0.0, 0.4))
            for said in self._rng.sample(self._said, len(self._said)):
                try:
                    await tell(said)
                except (Gone, LiveroomError):
                    continue
                if self._rng.random() < 0.8:
                    self._said.remove(said)

    @property
    def has_said_all(self) -> bool:
        """Whether all of it was heard."""
        return not self._said

    def kept(self, reference: str) -> int:
        """The money of a payment that is here now."""
        captured = self.accounts[reference].captured
        back = sum(amount for whose, amount in self.refunds.values() if whose == reference)
        return (captured.amount_minor if captured else 0) - back


def reference_of(payment: str) -> str:
    """What the bank calls a payment."""
    return f"ref-{payment}"


class Provider:
    """The bank as one process asks it."""

    name = NAME

    def __init__(self, world: World, process: Process, bank: Bank) -> None:
        self._world = world
        self._process = process
        self._bank = bank

    async def start(
        self, *, payment: str, reference: str | None, amount_minor: int, currency: str
    ) -> Started:
        opened = await self._ask("open", lambda: self._bank.open(payment, amount_minor, currency))
        assert reference in (None, opened)
        return Started(opened)

    async def close(self, *, payment: str, reference: str | None) -> Webhook | None:
        return await self._ask(
            "close", lambda: self._bank.close(reference or reference_of(payment))
        )

    async def refund(
        self,
        *,
        refund: str,
        reference: str,
        amount_minor: int,
        currency: str,  # noqa: ARG002 - that of the payment
    ) -> Webhook | None:
        return await self._ask("refund", lambda: self._bank.refund(refund, reference, amount_minor))

    def verify(self, headers: Mapping[str, str], body: bytes) -> Webhook | None:  # noqa: ARG002
        raise AssertionError("the bank of a world signs nothing")

    async def stop(self) -> None:
        """There is nothing to close."""

    async def _ask(self, what: str, run: Callable[[], Any]) -> Any:
        if self._bank.is_silent:
            await asyncio.sleep(SILENT_S)
            raise Unavailable("store_down")
        await asyncio.sleep(self._bank.slow_s)
        return await self._world.call(
            self._process,
            f"bank: {what}",
            run,
            CALL_FAULTS,
            refused=lambda: Unavailable("store_down"),
            unknown=lambda: Unavailable("store_down"),
        )
