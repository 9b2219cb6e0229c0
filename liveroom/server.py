"""Builds everything once, and closes it in reverse.

Here alone the parts that may not import each other are brought together: the hub is handed
its functions, stock finds its way to the rooms that show it, direct events to their members.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import structlog
from starlette.types import ASGIApp

from liveroom.audit import Auditor, Report
from liveroom.auth import Auth
from liveroom.cart import Carts
from liveroom.catalog import Catalog
from liveroom.chores import Chores
from liveroom.clock import ServerClock
from liveroom.commands import Services
from liveroom.creators import Creators
from liveroom.errors import LiveroomError
from liveroom.events import Event
from liveroom.expiring import Expiring
from liveroom.hoarding import Hoarding
from liveroom.ids import new_id
from liveroom.metrics import counters
from liveroom.moderation import Moderation, SlowMode
from liveroom.onair import BEAT_S, OnAir
from liveroom.orders import Orders
from liveroom.outbox import Outbox
from liveroom.payments import PaymentProvider, Payments, Sandbox
from liveroom.promotions import Promotions
from liveroom.rooms import Rooms
from liveroom.settings import Settings, limit_ms
from liveroom.siblings import Siblings
from liveroom.store import scripts
from liveroom.store.backplane import Batch
from liveroom.stores import (
    Stores,
    backplane_of,
    cooling_of,
    inspection,
    measure,
    open_database,
    stock_of,
)
from liveroom.sweeper import Sweeper
from liveroom.waitlist import Waitlist
from liveroom.web.app import Web, build
from liveroom.wire.door import Door, Limits
from liveroom.wire.http import RoomHttp
from liveroom.wire.hub import CHECK_EVERY_S, Hub
from liveroom.wire.protocol import FRAME_BYTES_MAX, RoomSocket

CLOCK_EVERY_S: Final = 10.0
FENCES_EVERY_S: Final = 1.0
TIDY_EVERY_S: Final = 3600.0
READY_MAX_S: Final = 2.0

log = structlog.get_logger(__name__)


class Node:
    """One process's everything: built at once, opened by `start`, closed by `stop`.

    `app` is what uvicorn serves, through the two protocols that `protocols` makes.
    """

    def __init__(self, settings: Settings, door: Door, siblings: Siblings | None = None) -> None:
        self.name = new_id()[-12:]
        self.settings = settings
        self._door = door
        self._siblings = siblings
        self._chores = Chores()
        self._build()

    @property
    def app(self) -> ASGIApp:
        """The routes of the house."""
        return self._app

    async def start(self) -> None:
        """Open everything this process needs, and begin its chores; raises `store_down`."""
        stores = self._stores
        await measure(stores)
        await self._inventory.start()
        await self._backplane.start(
            self._on_batch,
            self._on_direct,
            self._on_stock,
            self._on_reset,
            stock_partitions=self._inventory.partitions,
            is_seated=self._hub.is_seated,
        )
        self._chores.every(CLOCK_EVERY_S, "clock", functools.partial(measure, stores))
        self._chores.every(FENCES_EVERY_S, "fences", self._expiring.check_once)
        self._chores.every(BEAT_S, "beat", self._onair.beat)
        self._chores.every(CHECK_EVERY_S, "positions", self._hub.check)
        self._promotions.start()
        self._sweeper.start()
        self._asker.start()
        self._tidier.start()
        if self._siblings is not None:
            await self._siblings.start()

    def drain(self) -> None:
        """Take nothing new: `/readyz` answers 503, and so do WebSocket handshakes."""
        self._door.draining = True

    def end_streams(self) -> None:
        """End the event streams: they are requests that would otherwise never be done."""
        self._app.state.close_streams()

    async def stop(self) -> None:
        """Finish what was begun and close everything, in reverse of how it was opened."""
        if self._siblings is not None:
            await self._siblings.close()
        await self._sweeper.close()
        await self._asker.close()
        await self._tidier.close()
        await self._chores.close()
        await self._promotions.close_down()
        await self._onair.end()
        await self._hub.close()
        await self._orders.close()
        await self._payments.close()
        await self._inventory.close()
        await self._backplane.close()
        await self._stores.client.aclose()
        await self._stores.database.close()

    def _build(self) -> None:
        settings = self.settings
        database = open_database(settings)
        client = scripts.connect(settings.redis_url or "")
        clock = ServerClock()
        self._stores = stores = Stores(database, client, clock)
        self._inventory = inventory = stock_of(settings, stores)
        self._auditor = Auditor(database)
        self._backplane = backplane = backplane_of(settings, stores)
        hoarding = Hoarding(cooling_of(settings, stores))
        self._expiring = expiring = Expiring(inventory, backplane, clock, hoarding)
        rooms = Rooms(database, backplane, clock)
        secret = settings.secret or ""
        self._payments = payments = Payments(database, _providers(settings, secret, clock))
        self._orders = orders = Orders(
            database,
            inventory,
            payments,
            backplane,
            counters,
            pay_within_s=limit_ms(settings.pay_within_s) / 1000,
            closing_max_s=settings.closing_max_s,
        )
        self._promotions = promotions = Promotions(database, inventory, backplane, clock)
        self._onair = onair = OnAir(
            rooms,
            backplane,
            clock,
            node=self.name,
            left=inventory.left,
            drops=promotions.of_room,
        )
        self._hub = hub = Hub(
            log=backplane.read,
            picture=onair.picture,
            positions=backplane.position,
            subscribe=backplane.subscribe,
            unsubscribe=self._forget_room,
            clock=clock,
            node=self.name,
            tick_max_s=settings.tick_max_ms / 1000,
            ring_max=settings.ring_max,
        )
        onair.attach(hub)
        waitlist = Waitlist(database, inventory, backplane, clock)
        self._sweeper = Sweeper(
            database,
            {
                "holds": expiring.sweep_once,
                "waitlist": waitlist.sweep_once,
                "orders": orders.expire_once,
                "captures": orders.settle_waiting_once,
                "drops": promotions.mend_once,
            },
            holder=self.name,
        )
        self._asker = Sweeper(
            database,
            {
                "closing": orders.end_closing_once,
                "outbox": Outbox(database, {"refund": orders.refund}).run_once,
            },
            holder=self.name,
            lease="asker",
        )
        self._tidier = Sweeper(
            database,
            {"void": inventory.prune_once},
            holder=self.name,
            every_s=TIDY_EVERY_S,
            lease="tidier",
        )
        services = Services(
            node=self.name,
            clock=clock,
            db=database,
            backplane=backplane,
            auth=Auth(
                secret,
                jwks_url=settings.jwks_url,
                issuer=settings.issuer,
                audience=settings.audience,
            ),
            catalog=Catalog(database),
            creators=Creators(database),
            rooms=rooms,
            onair=onair,
            moderation=Moderation(database, rooms),
            slow_mode=SlowMode(clock),
            inventory=inventory,
            carts=Carts(database, inventory),
            orders=orders,
            payments=payments,
            promotions=promotions,
            waitlist=waitlist,
            hoarding=hoarding,
        )
        self._app = build(
            Web(
                services=services,
                hub=hub,
                readiness=self._readiness,
                audit=self._audit,
                allowed_origins=settings.allowed_origins,
                sandbox=settings.sandbox,
                message_rate_max=settings.message_rate_max,
                numbers=None if self._siblings is None else self._siblings.exposition,
            )
        )
        counters.gauge("connections", lambda: self._door.connections)
        counters.gauge("rooms", lambda: len(hub.rooms()))
        counts = hub.counts
        counters.follow("events_delivered", lambda: counts.events_delivered)
        counters.follow("frames_sent", lambda: counts.frames_written)
        counters.follow("gaps_filled", lambda: counts.gaps)
        counters.follow("positions_lost", lambda: counts.positions_lost + counts.resets)

    # ── how what happens finds its way ────────────────────────────────────────────────────

    def _on_batch(self, batch: Batch) -> None:
        self._hub.deliver(batch.room, batch.epoch, batch.events)

    def _on_direct(self, events: list[Event]) -> None:
        for event in events:
            self._hub.direct(event)

    def _on_stock(self, changes: list[tuple[str, int, int]]) -> None:
        self._inventory.heard(changes)
        self._onair.stock_changed(changes)

    def _on_reset(self) -> None:
        self._hub.reset()
        self._chores.once("catch_up", self._onair.catch_up)

    async def _forget_room(self, room: str) -> None:
        # Before any wait: by then somebody may have opened the room again.
        self._onair.forget(room)
        await self._backplane.unsubscribe(room)

    async def _audit(self) -> Report:
        return await self._auditor.audit(await inspection(self._inventory))

    async def _readiness(self) -> Mapping[str, str]:
        """Each thing without which this node cannot serve, with `ok` or what is wrong."""
        found = {"draining": "draining" if self._door.draining else "ok"}
        checks: dict[str, Callable[[], Any]] = {
            "database": self._stores.database.now_ms,
            "redis": functools.partial(scripts.run_id, self._stores.client),
        }
        for name, check in checks.items():
            try:
                async with asyncio.timeout(READY_MAX_S):
                    await check()
                found[name] = "ok"
            except (LiveroomError, TimeoutError) as fault:
                found[name] = getattr(fault, "code", "no answer in time")
        return found


def _providers(settings: Settings, secret: str, clock: ServerClock) -> list[PaymentProvider]:
    """The payment providers that are set up, the default one first."""
    found: list[PaymentProvider] = []
    if settings.stripe_secret_key:
        # An extra, which a server without it must not need.
        from liveroom.stripe_provider import Stripe  # noqa: PLC0415

        secrets = settings.stripe_webhook_secret
        base = settings.stripe_api_base
        found.append(Stripe(settings.stripe_secret_key, secrets, api_base=base))
    if settings.sandbox:
        found.append(Sandbox([secret.encode()], clock))
    return found


def limits(settings: Settings) -> Limits:
    """What the door of each process lets through."""
    return Limits(
        connections_max=settings.connections_max,
        connections_per_address_max=settings.connections_per_address_max,
        handshakes_per_s_max=settings.handshakes_per_s_max,
        header_timeout_s=settings.header_timeout_s,
        allowed_origins=settings.allowed_origins,
        return_within_ms=round(settings.drain_spread_s * 1000),
        command_within_s=settings.shutdown_max_s,
    )


def protocols(door: Door) -> tuple[type[asyncio.Protocol], type[asyncio.Protocol]]:
    """The HTTP and the WebSocket protocol of this process's door, as uvicorn calls them."""
    made = functools.partial(RoomHttp, door=door), functools.partial(RoomSocket, door=door)
    return cast("tuple[type[asyncio.Protocol], type[asyncio.Protocol]]", made)


__all__ = ["FRAME_BYTES_MAX", "Node", "limits", "protocols"]
