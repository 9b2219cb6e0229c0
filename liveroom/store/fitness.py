"""Whether this Redis may hold stock: it must never forget by itself.

Its settings may change under a server that runs. Where keys may go, no hold is made and no cart
is ordered; where some have gone, only a rebuild says what is true. What gives back goes on.
"""

from __future__ import annotations

from typing import Final

import structlog

from liveroom.errors import Unavailable
from liveroom.store.scripts import Client, infos

NO_EVICTION: Final = "noeviction"

log = structlog.get_logger()


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

    async def look(self) -> None:
        """Ask every master; `store_down` where none answers."""
        servers = await infos(self._client, "default")
        policies = {str(one.get("maxmemory_policy", NO_EVICTION)) for one in servers}
        evicted = {str(one["run_id"]): int(one["evicted_keys"]) for one in servers}
        if others := policies - {NO_EVICTION}:
            if self._evicted is None:  # what went before this node began is lost all the same
                self._evicted = {}
            self._set(f"maxmemory-policy is {min(others)}, not {NO_EVICTION}")
            return
        before = evicted if self._evicted is None else self._evicted
        self.forgot = self.forgot or any(keys > before.get(run, 0) for run, keys in evicted.items())
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
