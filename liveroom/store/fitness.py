"""Whether this Redis may hold stock: it must never forget by itself.

Its settings may change under a server that runs. Where keys may go, no hold is made and no cart
is ordered; where some have gone, only a rebuild says what is true. What gives back goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import structlog

from liveroom.errors import Unavailable
from liveroom.store import keys
from liveroom.store.cluster import Cluster
from liveroom.store.scripts import Client, Script, infos, unpack

NO_EVICTION: Final = "noeviction"
_LOOK: Final = Script("stock_look")

log = structlog.get_logger()


class _Server(NamedTuple):
    """What a master says of itself."""

    run: str
    policy: str
    evicted: int


class Fitness:
    """What this node knows of it; it looks once a second.

    `unfit` says why stock may not be held, None: it may. With `forgot` keys have been evicted,
    and it stays unfit until `rebuilt`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.unfit: str | None = None
        self.forgot = False
        self._evicted: dict[str, int] | None = None  # by run id, when last found fit

    def ensure(self) -> None:
        """`store_down` where stock may not be held."""
        if self.unfit is not None:
            raise Unavailable("store_down")

    async def look(self, epochs: Mapping[int, int]) -> dict[int, int]:
        """Ask every master, and in the same call which partitions are open under these epochs.

        Returns:
            Those found open, with their epochs. A cluster has them in many slots, which no
            one call may ask for: there none is found.

        Raises:
            Unavailable: `store_down`, no master answers.
        """
        if isinstance(self._client, Cluster):
            self._judge(await self._masters())
            return {}
        server, found_open = await self._alone(epochs)
        self._judge([server])
        return found_open

    async def _masters(self) -> list[_Server]:
        return [
            _Server(
                str(one["run_id"]),
                str(one.get("maxmemory_policy", NO_EVICTION)),
                int(one["evicted_keys"]),
            )
            for one in await infos(self._client, "server", "memory", "stats")
        ]

    async def _alone(self, epochs: Mapping[int, int]) -> tuple[_Server, dict[int, int]]:
        parts = list(epochs)
        names = [name for part in parts for name in keys.stock(part, epochs[part])[:2]]
        asked = [epochs[part] for part in parts]
        *told, found = unpack(await _LOOK(self._client, names, asked))
        return _Server(*told), {parts[at]: asked[at] for at, is_open in enumerate(found) if is_open}

    def _judge(self, servers: Sequence[_Server]) -> None:
        policies = {one.policy for one in servers}
        evicted = {one.run: one.evicted for one in servers}
        if others := policies - {NO_EVICTION}:
            if self._evicted is None:  # what went before this node began is lost all the same
                self._evicted = {}
            self._set(f"maxmemory-policy is {min(others)}, not {NO_EVICTION}")
            return
        before = evicted if self._evicted is None else self._evicted
        self.forgot = self.forgot or any(gone > before.get(run, 0) for run, gone in evicted.items())
        self._evicted = evicted
        self._set("keys were evicted" if self.forgot else None)

    def rebuilt(self) -> None:
        """All that was lost is there again."""
        self.forgot = False
        self._set(None)

    def _set(self, unfit: str | None) -> None:
        if unfit == self.unfit:
            return
        self.unfit = unfit
        if unfit is None:
            log.warning("stock.store_fit_again")
        else:
            log.error("stock.store_unfit", why=unfit)
