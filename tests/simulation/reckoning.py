"""The last word on a sale at rest: its money, its draws, and that all may be told again."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from liveroom.inventory import Told
from liveroom.payments import Webhook
from liveroom.store import tables
from tests.simulation.bank import Bank
from tests.simulation.crowd import Crowd
from tests.simulation.node import Node
from tests.simulation.watch import Watch

CAPTURED: Final = ("succeeded", "refunding", "refunded")


def reckon(watch: Watch, bank: Bank) -> None:
    """The bank and SQL agree on every cent, and a draw has sold to those it admitted."""
    _captures_agree(watch, bank)
    _refunds_agree(watch, bank)
    _nothing_is_kept_of_what_ended(watch, bank)
    lucky = watch.rows(
        """SELECT l."order", o.buyer FROM order_lines l JOIN orders o ON o.id = l."order"
           JOIN drops d ON d.id = l."drop" AND d.admission = 'draw'
           LEFT JOIN drop_entries e ON e."drop" = d.id AND e.member = o.buyer
           WHERE e.place IS NULL"""
    )
    assert not lucky, f"bought in a draw and was not drawn: {lucky}"


def _captures_agree(watch: Watch, bank: Bank) -> None:
    sql = {
        reference: amount
        for reference, state, amount in watch.rows(
            "SELECT reference, state, amount_minor FROM payments WHERE reference IS NOT NULL"
        )
        if state in CAPTURED
    }
    there = {
        reference: account.captured.amount_minor
        for reference, account in bank.accounts.items()
        if account.captured is not None
    }
    assert sql == there, f"captured: SQL has {sql}, the bank {there}"


def _refunds_agree(watch: Watch, bank: Bank) -> None:
    sql = {
        refund: (reference, amount)
        for refund, reference, amount in watch.rows(
            """SELECT r.id, p.reference, r.amount_minor
               FROM refunds r JOIN payments p ON p.id = r.payment WHERE r.state = 'succeeded'"""
        )
    }
    assert sql == bank.refunds, f"refunded: SQL has {sql}, the bank {bank.refunds}"


def _nothing_is_kept_of_what_ended(watch: Watch, bank: Bank) -> None:
    for order, state in watch.rows("SELECT id, state FROM orders"):
        payments = watch.rows(
            'SELECT reference FROM payments WHERE "order" = ? AND reference IS NOT NULL', order
        )
        kept = sum(bank.kept(row[0]) for row in payments if row[0] in bank.accounts)
        could_not = watch.value(
            """SELECT COALESCE(SUM(r.amount_minor), 0) FROM refunds r
               JOIN payments p ON p.id = r.payment WHERE p."order" = ? AND r.state = 'failed'""",
            order,
        )
        if state not in ("paid", "refund_pending"):
            assert kept <= could_not, f"order {order} is {state}, and {kept} of it is kept"


async def tell_again(crowd: Crowd, watch: Watch) -> None:
    """I14: telling the whole ledger and the whole outbox twice changes nothing."""
    before = _everything(watch)
    told = [
        Told(
            pool=pool,
            from_seq=first,
            to_seq=seq,
            available_after=after,
            holds=[hold] if hold is not None else [],
        )
        for pool, first, seq, after, hold in watch.rows(
            "SELECT pool, seq, seq, available_after, hold FROM ledger"
        )
    ]
    crowd.rng.shuffle(told)

    async def again(node: Node) -> None:
        for _ in range(2):
            if told:
                await node.inventory.tell(told)
            for (body,) in watch.rows("SELECT body FROM payment_events ORDER BY event"):
                await node.orders.settle(msgspec.json.decode(body, type=Webhook))
            for (body,) in watch.rows("SELECT body FROM outbox ORDER BY id"):
                await node.orders.refund(msgspec.json.decode(body))

    await crowd.ask(again)
    after = _everything(watch)
    changed = sorted(name for name, rows in after.items() if rows != before[name])
    assert not changed, f"told again, {changed} changed: {[(before[n], after[n]) for n in changed]}"


def _everything(watch: Watch) -> dict[str, Any]:
    """Every row of stock and money, and every gate."""
    found: dict[str, Any] = {
        name: watch.rows(f'SELECT * FROM "{name}"')
        for name in tables.metadata.tables
        if name != "leases"
    }
    gates = {pool: gate for _, one in watch.inspect().values() for pool, gate in one.gates.items()}
    return found | {"gates": gates}
