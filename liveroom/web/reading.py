"""What a request says: who asks, the body, the page of a list. Everything is bounded."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from liveroom.arguments import fitting
from liveroom.auth import Auth, Member
from liveroom.catalog import PAGE_MAX
from liveroom.errors import Denied, Invalid
from liveroom.ids import is_id

BODY_BYTES_MAX: Final = 256 * 1024
BODY_TIMEOUT_S: Final = 10
PAGE: Final = 50

T = TypeVar("T")


class Paging(NamedTuple):
    """Which page of a list is asked for."""

    after: str | None
    limit: int


async def caller(request: Request, auth: Auth) -> Member:
    """The member of the bearer token, or a guest where there is none."""
    header = request.headers.get("authorization")
    if header is None:
        return auth.guest()
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Denied("unauthenticated", "Authorization must be a Bearer token.")
    return await auth.read(token.strip())


async def member(request: Request, auth: Auth) -> Member:
    """The member of the bearer token; `unauthenticated` without one."""
    found = await caller(request, auth)
    if found.guest:
        raise Denied("unauthenticated")
    return found


async def body_bytes(request: Request) -> bytes:
    """The raw body, at most 256 KiB and 10 s long; `bad_frame` beyond that."""
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                content += part
                if len(content) > BODY_BYTES_MAX:
                    raise Invalid("bad_frame", f"A body has at most {BODY_BYTES_MAX} bytes.")
    except TimeoutError:
        raise Invalid("bad_frame", "The body took too long.") from None
    except ClientDisconnect:
        raise Invalid("bad_frame", "The body ended early.") from None
    return bytes(content)


async def body(request: Request, kind: type[T]) -> T:
    """The JSON body as a `kind`: `bad_frame` if it is no JSON object, else `bad_argument`."""
    return fitting(await json_object(request), kind)


async def json_object(request: Request) -> dict[str, Any]:
    """The JSON body, an object; a doubled key counts as its last value."""
    content = await body_bytes(request)
    try:
        decoded = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("bad_frame", "The body is no JSON.") from None
    if not isinstance(decoded, dict):
        raise Invalid("bad_frame", "The body must be a JSON object.")
    return decoded


def paging(request: Request) -> Paging:
    """`?after=&limit=`; `next` of the page before is `after` of this one."""
    if any("\0" in value for value in request.query_params.values()):
        raise Invalid("bad_argument", "A query holds no NUL.")  # PostgreSQL cannot take one
    given = request.query_params.get("limit", str(PAGE))
    is_short = given.isascii() and given.isdecimal() and len(given) < 10
    if not (is_short and 1 <= int(given) <= PAGE_MAX):
        raise Invalid("bad_argument", f"`limit` is 1 to {PAGE_MAX}.")
    after = request.query_params.get("after") or request.query_params.get("cursor")
    return Paging(after, int(given))


def time_ms(request: Request, name: str) -> int | None:
    """A time of the query, in integer milliseconds, or None where it is not given."""
    given = request.query_params.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 16):
        raise Invalid("bad_argument", f"`{name}` is a time in milliseconds.")
    return int(given)


def path_id(request: Request, name: str) -> str:
    """The id in the path; what cannot be an id is `not_found`."""
    value = request.path_params[name]
    if not is_id(value):
        raise Invalid("not_found")
    return str(value)
