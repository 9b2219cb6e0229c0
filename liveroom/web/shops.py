"""HTTP for shops, products, creators and notes: create, list, show, change.

Everybody may look. A shop's things are changed by its merchants, a creator's by the creator;
admins may do all.
"""

from __future__ import annotations

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from liveroom import catalog, creators
from liveroom.auth import Member
from liveroom.commands import Services
from liveroom.errors import Denied, Unavailable
from liveroom.web.answers import answer
from liveroom.web.reading import body, member, paging, path_id

log = structlog.get_logger(__name__)


class Shops:
    """The routes under `/v1/shops`, `/v1/products`, `/v1/creators` and `/v1/notes`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """The routes, for the app."""
        return [
            Route("/v1/shops", self.list_shops, methods=["GET"]),
            Route("/v1/shops", self.create_shop, methods=["POST"]),
            Route("/v1/shops/{shop}", self.show_shop, methods=["GET"]),
            Route("/v1/shops/{shop}", self.change_shop, methods=["PATCH"]),
            Route("/v1/products", self.list_products, methods=["GET"]),
            Route("/v1/products", self.create_product, methods=["POST"]),
            Route("/v1/products/{product}", self.show_product, methods=["GET"]),
            Route("/v1/products/{product}", self.change_product, methods=["PATCH"]),
            Route("/v1/creators", self.list_creators, methods=["GET"]),
            Route("/v1/creators", self.create_creator, methods=["POST"]),
            Route("/v1/creators/{creator}", self.show_creator, methods=["GET"]),
            Route("/v1/creators/{creator}", self.change_creator, methods=["PATCH"]),
            Route("/v1/notes", self.list_notes, methods=["GET"]),
            Route("/v1/notes", self.write_note, methods=["POST"]),
            Route("/v1/notes/{note}", self.show_note, methods=["GET"]),
            Route("/v1/notes/{note}", self.change_note, methods=["PATCH"]),
        ]

    # ── shops ─────────────────────────────────────────────────────────────────────────────

    async def list_shops(self, request: Request) -> Response:
        """All shops, newest first."""
        after, limit = paging(request)
        return answer(await self._services.catalog.shops(after=after, limit=limit))

    async def create_shop(self, request: Request) -> Response:
        """A new shop, by an admin or by the merchant whose token names its id."""
        by = await self._member(request)
        _ensure_may(by.admin or bool(by.shops))
        new = await body(request, catalog.NewShop)
        _ensure_may(by.admin or (new.id is not None and by.runs(new.id)))
        return answer(await self._services.catalog.create_shop(new), 201)

    async def show_shop(self, request: Request) -> Response:
        """One shop."""
        return answer(await self._services.catalog.shop(path_id(request, "shop")))

    async def change_shop(self, request: Request) -> Response:
        """The shop's name, by its merchant."""
        by, shop = await self._member(request), path_id(request, "shop")
        _ensure_may(by.runs(shop))
        change = await body(request, catalog.ShopChange)
        return answer(await self._services.catalog.change_shop(shop, change))

    # ── products ──────────────────────────────────────────────────────────────────────────

    async def list_products(self, request: Request) -> Response:
        """Products, newest first; `?shop=` for one shop's."""
        after, limit = paging(request)
        shop = request.query_params.get("shop")
        return answer(await self._services.catalog.products(shop=shop, after=after, limit=limit))

    async def create_product(self, request: Request) -> Response:
        """A new product with its SKUs and stock, by the shop's merchant."""
        by = await self._member(request)
        _ensure_may(by.admin or bool(by.shops))
        new = await body(request, catalog.NewProduct)
        _ensure_may(by.runs(new.shop))
        product = await self._services.catalog.create_product(new)
        try:
            await self._services.inventory.open_pools([sku.id for sku in product.skus])
        except Unavailable as fault:
            # The product is on disk: whoever first asks for its stock opens the gates.
            log.info("pools_unopened", product=product.id, code=fault.code)
        return answer(product, 201)

    async def show_product(self, request: Request) -> Response:
        """One product with its SKUs."""
        return answer(await self._services.catalog.product(path_id(request, "product")))

    async def change_product(self, request: Request) -> Response:
        """Title, needs, picture, by the shop's merchant; never stock or price. Rooms are told."""
        by, product = await self._member(request), path_id(request, "product")
        change = await body(request, catalog.ProductChange)
        known = await self._services.catalog.product(product)
        _ensure_may(by.runs(known.shop))
        changed = await self._services.catalog.change_product(product, change)
        await self._services.rooms.tell_shelves(changed.rooms)
        return answer(changed.product)

    # ── creators and their notes ──────────────────────────────────────────────────────────

    async def list_creators(self, request: Request) -> Response:
        """All creators, newest first."""
        after, limit = paging(request)
        return answer(await self._services.creators.creators(after=after, limit=limit))

    async def create_creator(self, request: Request) -> Response:
        """A new creator: by an admin, or a member under their own id."""
        by = await self._member(request)
        new = await body(request, creators.NewCreator)
        _ensure_may(by.admin or new.id == by.id)
        created = await self._services.creators.create(new)
        await self._services.rooms.host_changed(created.id)
        return answer(created, 201)

    async def show_creator(self, request: Request) -> Response:
        """One creator with the roles held now and the number of fans."""
        return answer(await self._services.creators.show(path_id(request, "creator")))

    async def change_creator(self, request: Request) -> Response:
        """Name and roles, by the creator; a role left out ends now and stays on record."""
        by, creator = await self._member(request), path_id(request, "creator")
        _ensure_may(by.admin or by.id == creator)
        change = await body(request, creators.CreatorChange)
        changed = await self._services.creators.change(creator, change)
        await self._services.rooms.host_changed(creator)
        return answer(changed)

    async def list_notes(self, request: Request) -> Response:
        """Notes, newest first; `?creator=` for one creator's."""
        after, limit = paging(request)
        creator = request.query_params.get("creator")
        listed = await self._services.creators.notes(creator=creator, after=after, limit=limit)
        return answer(listed)

    async def write_note(self, request: Request) -> Response:
        """A new note, by its creator."""
        by = await self._member(request)
        new = await body(request, creators.NewNote)
        _ensure_may(by.admin or by.id == new.creator)
        return answer(await self._services.creators.write_note(new), 201)

    async def show_note(self, request: Request) -> Response:
        """One note."""
        return answer(await self._services.creators.note(path_id(request, "note")))

    async def change_note(self, request: Request) -> Response:
        """What the note says, by its creator."""
        by, note = await self._member(request), path_id(request, "note")
        change = await body(request, creators.NoteChange)
        known = await self._services.creators.note(note)
        _ensure_may(by.admin or by.id == known.creator)
        return answer(await self._services.creators.change_note(note, change))

    async def _member(self, request: Request) -> Member:
        return await member(request, self._services.auth)


def _ensure_may(right: bool) -> None:  # noqa: FBT001 - the right itself is what is passed
    if not right:
        raise Denied("forbidden")
