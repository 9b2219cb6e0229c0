"""A partition of the stock in Redis behind its fence: calls of its scripts, and the fence itself.

A call names the fence epoch it believes in. Where Redis is not open under that epoch nothing
happens and the call raises `Shut`; what to do about it is for `fences.py` to decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import ResponseError

from liveroom.store import keys
from liveroom.store.scripts import Client, Script, ask_where, store_errors, unpack

FLUSH_MS: Final = 1_500


class Shut(Exception):
    """Redis is not open under this fence epoch."""


class Marked(Shut):
    """A planned stop has marked the stock: nothing is held until the mark is taken away."""

    def __init__(self, mark: str) -> None:
        super().__init__(mark)
        self.mark = mark


class Lost(Shut):
    """A key of the partition is gone."""


class Fenced:
    """The fences of all partitions in one Redis."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def open(self, part: int, epoch: int, *, gates: int, counts: int) -> None:
        """Open an epoch whose gates and counts are all there. Never repeated."""
        await self._call(_OPEN, part, epoch, gates, counts)

    async def mark(self, part: int, epoch: int, mark: str) -> None:
        """Mark a planned stop, and give the append-only file time to have it on disk.

        An earlier part of that file never lacks what a later part has, so a mark that is
        there after a restart says that all before it is there too.
        """
        await self._call(_MARK, part, epoch, mark, 1)
        with store_errors(), suppress(ResponseError):  # no append-only file: nothing to wait for
            await ask_where(self._client, keys.stock_fence(part), "WAITAOF", 1, 0, FLUSH_MS)

    async def unmark(self, part: int, epoch: int, mark: str) -> None:
        """Take this mark away; another one stays."""
        await self._call(_MARK, part, epoch, mark, 0)

    async def adopt(self, part: int, epoch: int, mark: str) -> None:
        """Go on with what the planned stop of this mark left."""
        await self._call(_ADOPT, part, epoch, mark)

    async def fence(self, part: int) -> tuple[int, str | None]:
        """The epoch of the fence in Redis, or 0, and the mark of a planned stop."""
        with store_errors():
            epoch, mark = await self._client.hmget(keys.stock_fence(part), ["epoch", "mark"])
        return int(epoch or 0), mark.decode() if isinstance(mark, bytes) else mark

    async def forget(self, part: int, epochs: Iterable[int]) -> None:
        """Delete what older epochs left."""
        names = [name for epoch in epochs for name in keys.stock(part, epoch)[1:]]
        if names:
            with store_errors():
                await self._client.unlink(*names)

    async def _call(self, script: Script, part: int, epoch: int, *args: Any) -> list[Any]:
        return opened(unpack(await self._ask(script, part, epoch, *args)), part, epoch)

    async def _ask(self, script: Script, part: int, epoch: int, *args: Any) -> Any:
        names = keys.stock(part, epoch)
        return await script(self._client, names, [epoch, keys.stock_channel(part), *args])


_OPEN, _MARK, _ADOPT = (Script(f"stock_{verb}") for verb in ("open", "mark", "adopt"))
_SHUT: Final[dict[str, type[Shut]]] = {"shut": Shut, "lost": Lost}


def opened(answer: list[Any], part: int, epoch: int) -> list[Any]:
    """What an answer says after its word; raises what the word stands for, if it is a refusal."""
    word, *rest = answer
    if word == "marked":
        raise Marked(rest[1])
    if word in _SHUT:
        raise _SHUT[word](f"stock partition {part}, epoch {epoch}")
    return rest
