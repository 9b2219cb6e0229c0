"""Every service of a process, built over its stores as the settings say."""

from __future__ import annotations

from liveroom.auth import Auth
from liveroom.cart import Carts
from liveroom.catalog import Catalog
from liveroom.clock import Clock
from liveroom.commands import Services
from liveroom.creators import Creators
from liveroom.expiring import Expiring
from liveroom.hoarding import Hoarding
from liveroom.metrics import counters
from liveroom.moderation import Moderation, SlowMode
from liveroom.onair import OnAir
from liveroom.orders import Orders
from liveroom.payments import PaymentProvider, Payments, Sandbox
from liveroom.promotions import Promotions
from liveroom.rooms import Rooms
from liveroom.settings import Settings, limit_ms
from liveroom.store.lost import LostLines
from liveroom.stores import Stores, backplane_of, cooling_of, stock_of
from liveroom.waitlist import Waitlist


def services_of(settings: Settings, stores: Stores, *, node: str) -> Services:
    """All of them, under the name of their node; nothing is opened yet."""
    database, clock = stores.database, stores.clock
    inventory = stock_of(settings, stores)
    backplane = backplane_of(stores)
    rooms = Rooms(database, backplane, clock)
    payments = Payments(database, _providers(settings, clock))
    promotions = Promotions(database, inventory, backplane, clock)
    hoarding = Hoarding(cooling_of(settings, stores))
    return Services(
        node=node,
        clock=clock,
        db=database,
        backplane=backplane,
        auth=_auth(settings),
        catalog=Catalog(database),
        creators=Creators(database),
        rooms=rooms,
        onair=OnAir(
            rooms,
            backplane,
            clock,
            node=node,
            left=inventory.left,
            drops=promotions.of_room,
        ),
        moderation=Moderation(database, rooms),
        slow_mode=SlowMode(clock),
        inventory=inventory,
        carts=Carts(database, inventory),
        orders=Orders(
            database,
            inventory,
            payments,
            backplane,
            counters,
            pay_within_s=limit_ms(settings.pay_within_s) / 1000,
            closing_max_s=settings.closing_max_s,
        ),
        payments=payments,
        promotions=promotions,
        waitlist=Waitlist(database, inventory, backplane, clock),
        hoarding=hoarding,
        expiring=Expiring(inventory, backplane, clock, hoarding, LostLines(stores.client, clock)),
    )


def _auth(settings: Settings) -> Auth:
    return Auth(
        settings.secret or "",
        jwks_url=settings.jwks_url,
        issuer=settings.issuer,
        audience=settings.audience,
        sandbox=settings.sandbox,
    )


def _providers(settings: Settings, clock: Clock) -> list[PaymentProvider]:
    """The payment providers that are set up, the default one first."""
    found: list[PaymentProvider] = []
    if settings.stripe_secret_key:
        # An extra, which a server without it must not need.
        from liveroom.stripe_provider import Stripe  # noqa: PLC0415

        secrets = settings.stripe_webhook_secret
        base = settings.stripe_api_base
        found.append(Stripe(settings.stripe_secret_key, secrets, api_base=base))
    if settings.sandbox:
        found.append(Sandbox([(settings.secret or "").encode()], clock))
    return found
