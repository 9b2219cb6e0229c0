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
from liveroom.chores import Chores
from liveroom.errors import LiveroomError
from liveroom.events import Event
from liveroom.ids import new_id
from liveroom.metrics import counters
from liveroom.onair import BEAT_S
from liveroom.services import services_of
from liveroom.settings import Settings
from liveroom.siblings import Siblings
from liveroom.store import scripts
from liveroom.store.backplane import Batch
from liveroom.stores import (
    inspection,
    measure,
    stores_of,
)
from liveroom.sweeps import sweepers
from liveroom.web.app import Web, build
from liveroom.wire.door import Door, Limits
from liveroom.wire.http import RoomHttp
from liveroom.wire.hub import CHECK_EVERY_S, Hub
from liveroom.wire.protocol import MESSAGE_BYTES_MAX, RoomSocket

CLOCK_EVERY_S: Final = 10.0
FENCES_EVERY_S: Final = 1.0
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
        await self._services.inventory.start()
        await self._services.backplane.start(
            self._on_batch,
            self._on_direct,
            self._on_stock,
            self._on_reset,
            stock_partitions=self._services.inventory.partitions,
            is_seated=self._hub.is_seated,
        )
        self._chores.every(CLOCK_EVERY_S, "clock", functools.partial(measure, stores))
        self._chores.every(FENCES_EVERY_S, "fences", self._services.expiring.check_once)
        self._chores.every(BEAT_S, "beat", self._services.onair.beat)
        self._chores.every(CHECK_EVERY_S, "positions", self._hub.check)
        self._services.promotions.start()
        for sweeper in self._sweepers:
            sweeper.start()
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
        for sweeper in self._sweepers:
            await sweeper.close()
        await self._chores.close()
        await self._services.promotions.close_down()
        await self._services.onair.end()
        await self._hub.close()
        await self._services.orders.close()
        await self._services.payments.close()
        await self._services.expiring.close()
        await self._services.inventory.close()
        await self._services.backplane.close()
        await self._stores.close()

    def _build(self) -> None:
        settings = self.settings
        self._stores = stores = stores_of(settings)
        self._services = services = services_of(settings, stores, node=self.name)
        self._auditor = Auditor(stores.database)
        self._hub = hub = self._make_hub()
        services.onair.attach(hub)
        self._sweepers = sweepers(services)
        self._app = build(
            Web(
                services=services,
                hub=hub,
                readiness=self._readiness,
                audit=self._audit,
                allowed_origins=settings.allowed_origins,
                sandbox=settings.sandbox,
                message_rate_max=settings.message_rate_max,
                ping_interval_s=settings.ping_interval_s,
                return_within_ms=limits(settings).return_within_ms,
                numbers=None if self._siblings is None else self._siblings.exposition,
            )
        )
        self._count()

    def _make_hub(self) -> Hub:
        backplane = self._services.backplane
        return Hub(
            log=backplane.read,
            picture=self._services.onair.picture,
            positions=backplane.position,
            subscribe=backplane.subscribe,
            unsubscribe=self._forget_room,
            clock=self._stores.clock,
            node=self.name,
            tick_max_s=self.settings.tick_max_ms / 1000,
            ring_max=self.settings.ring_max,
            member_seats_max=_member_seats_max(self.settings),
        )

    def _count(self) -> None:
        """Let `/metrics` read what the hub and the door have counted."""
        hub, counts = self._hub, self._hub.counts
        counters.gauge("connections", lambda: self._door.connections)
        counters.gauge("rooms", lambda: len(hub.rooms()))
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
        self._services.inventory.heard(changes)
        self._services.onair.stock_changed(changes)

    def _on_reset(self) -> None:
        self._hub.reset()
        self._chores.once("catch_up", self._services.onair.catch_up)

    async def _forget_room(self, room: str) -> None:
        # Before any wait: by then somebody may have opened the room again.
        self._services.onair.forget(room)
        await self._services.backplane.unsubscribe(room)

    async def _audit(self) -> Report:
        return await self._auditor.audit(await inspection(self._services.inventory))

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
        if found["redis"] == "ok" and self._services.inventory.unfit is not None:
            found["redis"] = self._services.inventory.unfit
        return found


def limits(settings: Settings) -> Limits:
    """What the door of each process lets through."""
    return Limits(
        connections_max=settings.connections_max,
        connections_per_address_max=settings.connections_per_address_max,
        handshakes_per_s_max=settings.handshakes_per_s_max,
        header_timeout_s=settings.header_timeout_s,
        allowed_origins=settings.allowed_origins,
        trusted_proxies=settings.trusted_proxies,
        return_within_ms=round(settings.drain_spread_s * 1000),
        command_within_s=settings.shutdown_max_s,
    )


def _member_seats_max(settings: Settings) -> int:
    """None where addresses have none either: that is a load test's, with few tokens."""
    return settings.connections_per_address_max and settings.connections_per_member_max


def protocols(door: Door) -> tuple[type[asyncio.Protocol], type[asyncio.Protocol]]:
    """The HTTP and the WebSocket protocol of this process's door, as uvicorn calls them."""
    made = functools.partial(RoomHttp, door=door), functools.partial(RoomSocket, door=door)
    return cast("tuple[type[asyncio.Protocol], type[asyncio.Protocol]]", made)


__all__ = ["MESSAGE_BYTES_MAX", "Node", "limits", "protocols"]
