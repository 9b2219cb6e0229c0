"""Redis Cluster: commands to the master of their slot, and a listening line to each master.

Nothing that may have run is sent twice: only a redirection (MOVED, ASK, TRYAGAIN), which says
that it did not run, is followed. Where the slots are is asked anew after each failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self, cast

import redis.exceptions
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from liveroom.errors import ensure
from liveroom.store.single import ANSWER_MAX_S

SCHEMES: Final = {"redis+cluster://": "redis://", "rediss+cluster://": "rediss://"}
TURNS_MAX: Final = 32
CONNECTIONS_MAX: Final = 64
NODE_MAX_S: Final = 1.0
"""How long one node may take: another must have time to say who took its slots over."""
_LOST: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)


class NoCluster(Exception):
    """The server at a cluster's URL is one for itself."""


def is_cluster(url: str) -> bool:
    """Whether this URL names a Redis Cluster."""
    return url.startswith(tuple(SCHEMES))


class Cluster(RedisCluster):
    """A client of a Redis Cluster: 1.5 s for each command, waiting for its turn included."""

    @classmethod
    def at(cls, url: str) -> Self:
        """The cluster that any of the nodes of `redis+cluster://host:port,host:port` knows."""
        scheme, _, rest = url.partition("://")
        user, at, hosts = rest.partition("/")[0].rpartition("@")
        first, *others = hosts.split(",")
        made = cls.from_url(
            f"{SCHEMES[f'{scheme}://']}{user}{at}{first}",
            startup_nodes=[ClusterNode(*_host_port(other)) for other in others],
            socket_timeout=NODE_MAX_S,
            socket_connect_timeout=NODE_MAX_S,
            max_connections=CONNECTIONS_MAX,
            # Slots without a master must not stop the others.
            require_full_coverage=False,
            # Beginning anew closes every connection, under commands that wait for answers.
            reinitialize_steps=0,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        return cast("Self", made)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = asyncio.Semaphore(TURNS_MAX)
        self._asking: asyncio.Future[RedisCluster] | None = None

    async def initialize(self, *args: Any, **kwargs: Any) -> Self:
        """Ask where the slots are, where that is not known; goes on without a caller.

        Cut off in the middle, the library would close every connection there is.

        Raises:
            NoCluster: the server is one for itself.
            ConnectionError: no node answers.
        """
        if self._initialize:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.ensure_future(super().initialize(*args, **kwargs))
                self._asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
            try:
                await asyncio.shield(self._asking)
            except redis.exceptions.RedisClusterException as fault:
                if "Cluster mode is not enabled" in str(fault):
                    raise NoCluster from fault
                # The library's own word for it is no RedisError: nobody would take it for one.
                raise redis.exceptions.ConnectionError(str(fault)) from fault
        return self

    async def aclose(self) -> None:
        """Close every connection, also while it is not known where the slots are."""
        if self._asking is not None and not self._asking.done():
            await asyncio.wait([self._asking], timeout=ANSWER_MAX_S)
        await super().aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """What the master of the keys' slot answers.

        Raises:
            TimeoutError: there was no turn or no answer within 1.5 s.
        """
        async with asyncio.timeout(ANSWER_MAX_S), self._turns:
            with _lost_where_closed():
                return await super().execute_command(*args, **kwargs)

    def master(self, key: str) -> str:
        """The name of the master of the key's slot; raises `SlotNotCoveredError`."""
        node = self.get_node_from_key(key)
        ensure(node is not None, "only a replica may be missing")
        return cast("ClusterNode", node).name

    async def infos(self, *sections: str) -> list[dict[str, Any]]:
        """These sections of INFO of each master that answers.

        Raises:
            NoCluster: the server is one for itself.
            RedisError: no master answers.
        """
        async with asyncio.timeout(ANSWER_MAX_S):
            await self.initialize()
        told = await asyncio.gather(
            *(self.info(*sections, target_nodes=master) for master in self.get_primaries()),
            return_exceptions=True,
        )
        answers: list[dict[str, Any]] = [one for one in told if isinstance(one, dict)]
        if not answers:
            raise redis.exceptions.ConnectionError("no master answers")
        return answers

    async def answers(self, commands: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """An answer or exception for each `(key, command)`; one pipeline for each master.

        A master that is away fails for its own commands only.
        """
        async with asyncio.timeout(ANSWER_MAX_S):
            await self.initialize()
        masters: dict[str, list[int]] = {}
        answers: list[Any] = [None] * len(commands)
        for at, (key, _) in enumerate(commands):
            try:
                masters.setdefault(self.master(key), []).append(at)
            except redis.exceptions.RedisClusterException as uncovered:
                answers[at] = uncovered
                self._initialize = True
        told = await asyncio.gather(
            *(self._pipeline([commands[at][1] for at in ats]) for ats in masters.values())
        )
        for ats, among in zip(masters.values(), told, strict=True):
            for at, answer in zip(ats, among, strict=True):
                answers[at] = answer
        return answers

    async def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        try:
            async with asyncio.timeout(ANSWER_MAX_S), self._turns:
                pipe = self.pipeline()
                for command in commands:
                    pipe.execute_command(*command)
                with _lost_where_closed():
                    answers = await pipe.execute(raise_on_error=False)
        except (redis.exceptions.RedisError, OSError) as fault:
            answers = [fault] * len(commands)
        if any(isinstance(answer, _LOST) for answer in answers):
            self._initialize = True  # the library looks only after single commands
        return list(answers)


class Masters:
    """The ways to the masters of a cluster, for a `Listener`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def home(self, channel: str) -> str | None:
        """The name of the master whose slot the channel is in; None where none is known."""
        try:
            return self._cluster.master(channel)
        except redis.exceptions.RedisClusterException:
            return None

    def connection(self, home: str) -> AbstractConnection:
        """A new connection to this master, not connected; it may be silent as long as it likes."""
        host, port = _host_port(home)
        kwargs: dict[str, Any] = self._cluster.get_connection_kwargs()
        node = self._cluster.get_node(host, port) or ClusterNode(host, port, **kwargs)
        made: Callable[..., AbstractConnection] = node.connection_class
        kwargs = node.connection_kwargs | {"socket_timeout": None, "retry": Retry(NoBackoff(), 0)}
        return made(**kwargs)

    async def refresh(self) -> None:
        """Ask the cluster where its slots are."""
        async with asyncio.timeout(ANSWER_MAX_S):
            await self._cluster.nodes_manager.initialize()


@contextmanager
def _lost_where_closed() -> Iterator[None]:
    """A connection that was reset while it lay idle is lost: a write says so in its own way."""
    try:
        yield
    except RuntimeError as closed:
        if type(closed) is not RuntimeError:  # a kind of its own is a fault of ours
            raise
        raise redis.exceptions.ConnectionError(str(closed)) from closed


def _host_port(name: str) -> tuple[str, int]:
    host, _, port = name.rpartition(":")
    return host.strip("[]"), int(port)
