"""The contract as data: OpenAPI 3.1 and AsyncAPI 3.0, made from the tables that are run.

Routes tell themselves by their docstrings, bodies and answers by their types, commands by
`COMMANDS`, events by `EVENTS`, errors by `errors.py`. Nothing is written here twice.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from starlette.routing import BaseRoute, Route

import liveroom
from liveroom import arguments, attribution, catalog, creators, rooms, shapes
from liveroom.commands import COMMANDS
from liveroom.errors import FAMILIES
from liveroom.events import EVENTS
from liveroom.refunding import NewRefund
from liveroom.web.live import CommandBody
from liveroom.web.selling import TokenBody

Document = dict[str, Any]

BODIES: Final[dict[tuple[str, str], type[Any]]] = {
    ("POST", "/v1/shops"): catalog.NewShop,
    ("PATCH", "/v1/shops/{shop}"): catalog.ShopChange,
    ("POST", "/v1/products"): catalog.NewProduct,
    ("PATCH", "/v1/products/{product}"): catalog.ProductChange,
    ("POST", "/v1/creators"): creators.NewCreator,
    ("PATCH", "/v1/creators/{creator}"): creators.CreatorChange,
    ("POST", "/v1/notes"): creators.NewNote,
    ("PATCH", "/v1/notes/{note}"): creators.NoteChange,
    ("POST", "/v1/rooms"): rooms.NewRoom,
    ("PATCH", "/v1/rooms/{room}"): rooms.RoomChange,
    ("POST", "/v1/rooms/{room}/commands"): CommandBody,
    ("POST", "/v1/orders/{order}/refunds"): NewRefund,
    ("POST", "/v1/sandbox/tokens"): TokenBody,
}
"""What each route that reads a JSON body takes. Webhooks are the provider's own."""

ANSWERS: Final[dict[str, type[Any]]] = {
    "/v1/shops": shapes.Shop,
    "/v1/products": shapes.Product,
    "/v1/creators": shapes.Creator,
    "/v1/notes": shapes.Note,
    "/v1/rooms": shapes.Room,
    "/v1/orders": shapes.Order,
    "/v1/orders/{order}/refunds": shapes.Refund,
}
"""The thing behind each collection: listed as items, created and shown as itself."""

REPORTS: Final[dict[str, type[Any]]] = {
    "/v1/shops/{shop}/attribution": attribution.Attribution,
}
"""What a route answers that shows no thing of a collection."""

REPLIES: Final[dict[str, type[Any]]] = {
    "message": shapes.Message,
    "cart": shapes.Cart,
    "order": shapes.Order,
    "payment": shapes.Payment,
    "room": shapes.Room,
    "product": shapes.Product,
    "creator": shapes.Creator,
    "sku": shapes.Sku,
    "waiting": shapes.Waiting,
    "you": shapes.You,
}


class Problem(msgspec.Struct, kw_only=True):
    """A refusal as problem+json (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    message: str
    retry: bool
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET
    data: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Schemas:
    """Types as JSON Schema, each once, by reference."""

    def __init__(self, types: Iterable[type[Any]]) -> None:
        listed = list(dict.fromkeys(types))
        found, self.components = msgspec.json.schema_components(
            listed, ref_template="#/components/schemas/{name}"
        )
        self._found = dict(zip(listed, found, strict=True))

    def of(self, kind: type[Any]) -> Document:
        """The reference to a type's schema."""
        return self._found[kind]


def openapi(routes: Iterable[BaseRoute], *, sandbox: bool) -> Document:
    """The OpenAPI 3.1 document of the app's routes under `/v1` and the health routes."""
    listed = [route for route in routes if isinstance(route, Route) and route.include_in_schema]
    schemas = Schemas([*BODIES.values(), *ANSWERS.values(), *REPORTS.values(), Problem])
    paths: dict[str, Document] = {}
    for route in listed:
        for method in sorted(route.methods or ()):
            if method != "HEAD":
                operation = _operation(method, route, schemas)
                paths.setdefault(route.path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "liveroom",
            "version": liveroom.__version__,
            "description": "A live-commerce server."
            + (" The sandbox is on: no money is real." if sandbox else ""),
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
        "security": [{}, {"token": []}],
    }


def asyncapi() -> Document:
    """The AsyncAPI 3.0 document of the WebSocket: every command and every event."""
    schemas = Schemas(
        [command.args for command in COMMANDS.values()]
        + [spec.data for spec in EVENTS.values()]
        + [arguments.Join, *REPLIES.values()]
    )
    join = _command("room.join", "anyone", _summary(arguments.Join), schemas.of(arguments.Join))
    sent = {"room.join": join} | {
        cmd: _command(cmd, row.who.value, _summary(row.run), schemas.of(row.args))
        for cmd, row in COMMANDS.items()
    }
    told = {
        name: _event(name, spec.delivery.value, schemas.of(spec.data))
        for name, spec in EVENTS.items()
    }
    messages = {**sent, **told, "reply": _reply(schemas)}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "liveroom", "version": liveroom.__version__},
        "defaultContentType": "application/json",
        "channels": {
            "room": {
                "address": "/ws/{room}",
                "parameters": {"room": {"description": "The room's id."}},
                "messages": {name: _ref("messages", name) for name in messages},
                "description": "One seat in one room. The first command is room.join. Each "
                "frame of the server is an array of messages, in order. Subprotocols: "
                "liveroom.v1.json and liveroom.v1.msgpack.",
            }
        },
        "operations": {
            "command": _operation_of("receive", sent),
            "hear": _operation_of("send", [*told, "reply"]),
        },
        "components": {"schemas": schemas.components, "messages": messages},
    }


def _operation(method: str, route: Route, schemas: Schemas) -> Document:
    operation: Document = {
        "operationId": f"{method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path).strip('_')}",
        "summary": _summary(route.endpoint),
        "responses": {
            _created(method, route.path): {
                "description": "Done.",
                **_content(_answer(method, route.path, schemas)),
            },
            "default": {
                "description": "A refusal.",
                "content": {"application/problem+json": {"schema": schemas.of(Problem)}},
            },
        },
    }
    names = re.findall(r"{(\w+)(?::\w+)?}", route.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    kind = BODIES.get((method, route.path))
    if kind is not None:
        operation["requestBody"] = {"required": True, **_content(schemas.of(kind))}
    return operation


def _answer(method: str, path: str, schemas: Schemas) -> Document:
    if path in REPORTS:
        return schemas.of(REPORTS[path])
    beneath = next((c for c in ANSWERS if path.startswith(f"{c}/")), None)
    collection = path if path in ANSWERS else beneath
    if collection is None or (path != collection and path.count("/") > 3):
        return {"type": "object"} if path.startswith("/v1") else {}
    thing = schemas.of(ANSWERS[collection])
    if method == "GET" and path == collection:
        items = {"type": "array", "items": thing}
        following = {"type": ["string", "null"]}
        return {
            "type": "object",
            "properties": {"items": items, "next": following},
            "required": ["items", "next"],
        }
    return thing


def _created(method: str, path: str) -> str:
    creates = method == "POST" and (path in ANSWERS or path == "/v1/sandbox/tokens")
    return "201" if creates else "200"


def _content(schema: Document) -> Document:
    return {"content": {"application/json": {"schema": schema}}} if schema else {}


def _summary(endpoint: Callable[..., Any]) -> str:
    return (inspect.getdoc(endpoint) or "").partition("\n")[0]


def _command(cmd: str, who: str, summary: str, data: Document) -> Document:
    return {
        "name": cmd,
        "summary": summary,
        "x-who": who,
        "payload": {
            "type": "object",
            "properties": {
                "id": {"type": "integer"},
                "cmd": {"const": cmd},
                "data": data,
                "key": {"type": "string", "maxLength": arguments.KEY_MAX},
            },
            "required": ["id", "cmd", "data"],
        },
    }


def _event(name: str, delivery: str, data: Document) -> Document:
    properties: Document = {"ev": {"const": name}, "at": {"type": "integer"}, "data": data}
    place = {"logged": "seq", "chat": "n"}.get(delivery)
    if place is not None:
        properties[place] = {"type": "integer"}
    required = ["ev", "at", "data", *([place] if place else [])]
    payload = {"type": "object", "properties": properties, "required": required}
    return {
        "name": name,
        "summary": f"Event, {delivery}.",
        "x-delivery": delivery,
        "payload": payload,
    }


def _reply(schemas: Schemas) -> Document:
    nouns = {noun: schemas.of(kind) for noun, kind in REPLIES.items()}
    codes = [code for family in FAMILIES for code in family.codes]
    error = {
        "type": "object",
        "properties": {
            "code": {"enum": codes},
            "message": {"type": "string"},
            "retry": {"type": "boolean"},
            "retry_after_ms": {"type": "integer"},
            "data": {"type": "object"},
        },
        "required": ["code", "message", "retry"],
    }
    properties = {
        "re": {"type": ["integer", "null"]},
        "ok": {"type": "object", "properties": nouns},
        "error": error,
    }
    payload = {"type": "object", "properties": properties, "required": ["re"]}
    return {"name": "reply", "summary": "The answer to a command.", "payload": payload}


def _operation_of(action: str, names: Mapping[str, Any] | list[str]) -> Document:
    listed = [{"$ref": f"#/channels/room/messages/{name}"} for name in names]
    return {"action": action, "channel": {"$ref": "#/channels/room"}, "messages": listed}


def _ref(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}
