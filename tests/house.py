"""The whole house over real stores, without a port: services, hub, commands and the app."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import httpx2
from starlette.applications import Starlette

from liveroom.arguments import fitting
from liveroom.auth import Auth, Member
from liveroom.cart import Carts
from liveroom.catalog import Catalog, NewProduct, NewShop
from liveroom.clock import ManualClock
from liveroom.commands import Commands, Services
from liveroom.creators import Creators, NewCreator
from liveroom.expiring import Expiring
from liveroom.hoarding import Hoarding
from liveroom.inventory import Inventory
from liveroom.metrics import Counters
from liveroom.moderation import Moderation, SlowMode
from liveroom.onair import OnAir
from liveroom.orders import Orders
from liveroom.payments import Payments, Sandbox
from liveroom.promotions import Promotions
from liveroom.rooms import NewRoom, Rooms
from liveroom.store import scripts
from liveroom.store.backplane import Backplane
from liveroom.store.cooling import Cooling
from liveroom.store.lost import LostLines
from liveroom.waitlist import Waitlist
from liveroom.web.app import Web, build
from liveroom.wire.hub import Hub

SECRET = "a secret of the house that is long enough"

COOL_MS = 4_000

ADMIN = Member("root", "Root", ("admin",))
HOST = Member("c1", "Lin", ("host:r1",))
OTHER_HOST = Member("c2", "Xia", ("host:r2",))
MODERATOR = Member("m1", "Mo", ("moderator:r1",))
MERCHANT = Member("b1", "Shen", ("merchant:s1",))
OTHER_MERCHANT = Member("b2", "Qi", ("merchant:s2",))
ANN = Member("u1", "Ann")
BO = Member("u2", "Bo")
GUEST = Member("guest-1", "Guest", guest=True)


class House:
    """An open room r1 of shop s1 with products p1 (SKU a, 5 units) and p2 (SKU b, 1 unit).

    p3 (SKU c) belongs to shop s2 and is on the shelf too; p4 (SKU d) is on no shelf.
    """

    def __init__(self, db: Any, url: str, *, hold_ttl_s: float = 600, hoarded_max: int = 0) -> None:
        self.db = db
        self.clock = ManualClock()
        self.clients = scripts.connect(url), scripts.connect(url)
        self.backplane = backplane = Backplane(*self.clients, self.clock)
        self.inventory = Inventory(db, self.clients[0], self.clock, hold_ttl_s=hold_ttl_s)
        cooling = Cooling(self.clients[0], most=hoarded_max, window_ms=60_000, cool_ms=COOL_MS)
        self.hoarding = Hoarding(cooling if hoarded_max else None)
        lost = LostLines(self.clients[0], self.clock)
        self.expiring = Expiring(self.inventory, backplane, self.clock, self.hoarding, lost)
        self.rooms = Rooms(db, backplane, self.clock)
        self.promotions = Promotions(db, self.inventory, backplane, self.clock)
        self.onair = OnAir(
            self.rooms,
            backplane,
            self.clock,
            node="n1",
            left=self.inventory.left,
            drops=self.promotions.of_room,
        )
        self.hub = Hub(
            log=backplane.read,
            picture=self.onair.picture,
            positions=backplane.position,
            subscribe=backplane.subscribe,
            unsubscribe=self._forget,
            clock=self.clock,
            node="n1",
        )
        self.onair.attach(self.hub)
        payments = Payments(db, [Sandbox([b"the sandbox's own secret"], self.clock)])
        self.services = Services(
            node="n1",
            clock=self.clock,
            db=db,
            backplane=backplane,
            auth=Auth(SECRET),
            catalog=Catalog(db),
            creators=Creators(db),
            rooms=self.rooms,
            onair=self.onair,
            moderation=Moderation(db, self.rooms),
            slow_mode=SlowMode(self.clock),
            inventory=self.inventory,
            carts=Carts(db, self.inventory),
            orders=Orders(db, self.inventory, payments, backplane, Counters(), pay_within_s=900),
            payments=payments,
            promotions=self.promotions,
            hoarding=self.hoarding,
            expiring=self.expiring,
            waitlist=Waitlist(db, self.inventory, backplane, self.clock),
        )
        self.commands = Commands(self.services)
        self.checks = {"redis": "ok", "sql": "ok"}

    @cached_property
    def app(self) -> Starlette:
        web = Web(
            services=self.services,
            hub=self.hub,
            readiness=self._readiness,
            audit=self._audit,
            sandbox=True,
        )
        return build(web)

    @cached_property
    def http(self) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self.app)
        return httpx2.AsyncClient(transport=transport, base_url="http://house")

    async def _forget(self, room: str) -> None:
        self.onair.forget(room)
        await self.backplane.unsubscribe(room)

    async def _readiness(self) -> dict[str, str]:
        return self.checks

    async def _audit(self) -> dict[str, Any]:
        return {"ok": True, "checks": {}}

    async def __aenter__(self) -> Self:
        await self.inventory.start()
        await self.backplane.start(
            lambda batch: self.hub.deliver(batch.room, batch.epoch, batch.events),
            lambda events: [self.hub.direct(event) for event in events],
            self.onair.stock_changed,
            self.hub.reset,
        )
        await self.seed()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if "http" in self.__dict__:
            await self.http.aclose()
        await self.promotions.close_down()
        await self.services.orders.close()
        await self.hub.close()
        await self.inventory.close()
        await self.backplane.close()
        for client in self.clients:
            await client.aclose()

    async def seed(self) -> None:
        catalog = self.services.catalog
        for shop in ("s1", "s2"):
            await catalog.create_shop(NewShop(id=shop, name=shop))
        for product, shop, sku, stock in (
            ("p1", "s1", "a", 5),
            ("p2", "s1", "b", 1),
            ("p3", "s2", "c", 5),
            ("p4", "s1", "d", 5),
        ):
            skus = [{"id": sku, "price_minor": 100, "stock": stock}]
            body = {"id": product, "shop": shop, "title": product, "currency": "CNY", "skus": skus}
            await catalog.create_product(fitting(body, NewProduct))
        await self.services.creators.create(NewCreator(id="c1", name="Lin"))
        for room in ("r1", "r2"):
            new = NewRoom(id=room, title=room, host="c1", shop="s1", shelf=["p1", "p2", "p3"])
            await self.rooms.create(new)
        await self.rooms.open("r1")

    def token(self, member: Member) -> dict[str, str]:
        """The header that makes an HTTP request this member's; none for a guest."""
        if member.guest:
            return {}
        token = self.services.auth.issue(
            member.id, name=member.name, roles=list(member.roles), ttl_s=3600
        )
        return {"authorization": f"Bearer {token}"}

    async def ask(
        self, method: str, path: str, member: Member = GUEST, body: Any = None, **headers: str
    ) -> httpx2.Response:
        """One HTTP request; header names with underscores for dashes."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        content = {"content": body} if isinstance(body, bytes | str) else {"json": body}
        if body is None:
            content = {}
        return await self.http.request(method, path, headers=self.token(member) | sent, **content)

    async def do(
        self, member: Member, cmd: str, room: str = "r1", key: Any = None, **data: Any
    ) -> Any:
        """Run a command as a member; its `ok`."""
        return await self.commands.run(room, member, cmd, data, key)
