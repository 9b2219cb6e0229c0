"""Redis connections and Lua scripts, and how their failures become errors of the house.

Nothing here retries: a lost reply says nothing about whether a script ran. The one exception
is NOSCRIPT, which says that it did not.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
import redis.exceptions

from liveroom.errors import FAMILIES, LiveroomError, Unavailable, error
from liveroom.store.cluster import Cluster, Masters, NoCluster, is_cluster
from liveroom.store.listener import OneServer, Ways
from liveroom.store.single import Single

Client = Single | Cluster
"""A way to Redis for commands, for those who hand it on without knowing the library."""

LUA: Final = Path(__file__).parent / "lua"
REDIS_VERSION_MIN: Final = 7

# First words of error replies that pass by themselves (redis.io/docs, "Error replies").
_AWAY: Final = frozenset(
    {"ASK", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOREPLICAS"}
    | {"OOM", "READONLY", "TRYAGAIN"}
)
_PART: Final = re.compile(r"^-- part: (\w+)\n", re.MULTILINE)


_FAULTS: Final = (
    redis.exceptions.RedisError,
    redis.exceptions.SlotNotCoveredError,
    OSError,
)

Call = tuple[Sequence[str], Sequence[Any]]
"""The keys and the arguments of one call of a script."""

_packer: Final = msgpack.Packer(
    use_bin_type=False
)  # one for all: each has a buffer, as large as its largest


class StoreUnfit(Exception):
    """The Redis at this URL may not be used; the message says which setting must change."""


def pack(value: Any) -> bytes:
    """`value` as msgpack that Lua can read too: its cmsgpack knows no bin type, only strings."""
    return _packer.pack(value)  # type: ignore[no-any-return]


def unpack(packed: bytes) -> Any:
    """What `pack` or Lua packed, its strings as text: they must all be UTF-8."""
    return msgpack.unpackb(packed, strict_map_key=False)


def unpack_raw(packed: bytes) -> Any:
    """What `pack` or Lua packed, its strings as bytes: for what holds packed values itself."""
    return msgpack.unpackb(packed, raw=True, strict_map_key=False)


def connect(url: str) -> Client:
    """A client: 1.5 s for each command, no retries, a bounded number of connections."""
    return Cluster.at(url) if is_cluster(url) else Single.at(url)


def ways(client: Client) -> Ways:
    """The ways for a `Listener` to the servers of this client."""
    return Masters(client) if isinstance(client, Cluster) else OneServer(client)


@contextmanager
def store_errors() -> Iterator[None]:
    """Redis failures leave as errors of the house: `store_down`, or the word a script replied."""
    try:
        yield
    except _FAULTS as cause:
        raise house_error(cause) from cause


def house_error(cause: Exception) -> Exception:
    """The error of the house for a Redis failure; a fault of a script stays what it is."""
    if isinstance(cause, LiveroomError):
        return cause
    if isinstance(cause, redis.exceptions.ResponseError):
        words = str(cause).removeprefix("ERR ").split()
        word = words[0] if words else ""
        if any(word in family.codes for family in FAMILIES):
            return error(word)
        if word not in _AWAY and type(cause) is redis.exceptions.ResponseError:
            return cause
    return Unavailable("store_down")


@cache
def _source(name: str) -> str:
    """The text of `lua/<name>.lua`; a line `-- part: x` is replaced by `lua/parts/x.lua`."""
    text = (LUA / f"{name}.lua").read_text(encoding="utf-8")
    return _PART.sub(lambda m: (LUA / "parts" / f"{m[1]}.lua").read_text(encoding="utf-8"), text)


def _is_unknown(answer: Any) -> bool:
    return isinstance(answer, redis.exceptions.NoScriptError)


class Script:
    """A script of `lua/`, called by its digest and loaded where a server does not know it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = _source(name)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Client, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """What the script returns.

        Raises:
            LiveroomError: the word the script replied, or `store_down` where there is no
                answer within 1.5 s, connecting included.
        """
        words = (len(keys), *keys, *args)
        try:
            try:
                return await client.execute_command("EVALSHA", self.sha, *words)
            except redis.exceptions.NoScriptError:
                return await client.execute_command("EVAL", self.source, *words)
        except _FAULTS as cause:
            raise house_error(cause) from cause

    async def each(self, client: Client, calls: Sequence[Call]) -> list[Any]:
        """One answer for each call, in one round trip; an answer may be an exception.

        Calls stand alone: one that fails changes nothing for the others.

        Raises:
            Unavailable: `store_down` where there is no answer within 1.5 s.
        """
        if len(calls) == 1:  # a pipeline of a cluster costs more than the call
            try:
                return [await self(client, *calls[0])]
            except (LiveroomError, redis.exceptions.ResponseError) as refusal:
                return [refusal]
        with store_errors():
            answers = await client.answers(
                [(keys[0], ("EVALSHA", self.sha, len(keys), *keys, *args)) for keys, args in calls]
            )
        unknown = [at for at, answer in enumerate(answers) if _is_unknown(answer)]
        again = await asyncio.gather(
            *(self(client, *calls[at]) for at in unknown), return_exceptions=True
        )
        for at, answer in zip(unknown, again, strict=True):
            answers[at] = answer
        return [house_error(a) if isinstance(a, Exception) else a for a in answers]


async def ask_where(client: Client, key: str, *command: Any) -> Any:
    """What the server that has this key answers to a command that names no key."""
    where = {"target_nodes": client.get_node_from_key(key)} if isinstance(client, Cluster) else {}
    return await client.execute_command(*command, **where)


async def run_id(client: Client) -> str:
    """The run id of the server: it changes with every start of it.

    In a cluster those of all masters that answer.
    """
    return " ".join(str(server["run_id"]) for server in await infos(client, "server"))


async def check_policy(client: Client) -> None:
    """Refuse a Redis that forgets by itself, or that is too old for sharded pub/sub.

    Raises:
        StoreUnfit: with the setting that must change.
        Unavailable: `store_down` when it does not answer.
    """
    for memory in await infos(client, "memory"):
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise StoreUnfit(f"Redis has maxmemory-policy {policy}; it must be noeviction")
    for server in await infos(client, "server"):
        version = str(server["redis_version"])
        if int(version.split(".", maxsplit=1)[0]) < REDIS_VERSION_MIN:
            raise StoreUnfit(f"Redis is {version}; it must be {REDIS_VERSION_MIN}.0 or newer")
    (cluster, *_) = await infos(client, "cluster")
    if cluster.get("cluster_enabled") and not isinstance(client, Cluster):
        raise StoreUnfit("Redis is a cluster; its URL must start with redis+cluster://")


async def infos(client: Client, *sections: str) -> list[dict[str, Any]]:
    """Sections of INFO of the server; in a cluster, of each master that answers."""
    with store_errors():
        if isinstance(client, Cluster):
            try:
                return await client.infos(*sections)
            except NoCluster as unfit:
                raise StoreUnfit("Redis is no cluster; its URL must start redis://") from unfit
        return [await client.info(*sections)]
