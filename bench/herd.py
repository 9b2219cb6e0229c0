"""A herd: all viewers lose their connection at once, and all come back and resume.

Events are sent all the while, so that whoever resumes has missed some. A viewer that is told
503 returns after the time it was told; one that is refused in any other way, or that gets a
snapshot instead of what it missed, is a fault.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from bench.crew import Boss, Crew
from bench.fanout import KINDS, Sender, Tally
from bench.latency import Bins
from bench.report import Report
from bench.seat import RETURNS_MAX, Seat, join, retry_after_s
from bench.target import Target, sign

CONNECTS_AT_ONCE: Final = 50
RETURNS_AT_ONCE: Final = 400
"""Handshakes a load process has under way; more would only wait in the kernel."""
BACK_MAX_S: Final = 120.0
SETTLE_MAX_S: Final = 30.0


@dataclass(frozen=True)
class Plan:
    """What one run does; `rate` logged events a second; `members` have tokens."""

    viewers: int = 10_000
    rate: float = 5.0
    members: bool = False
    processes: int = 1


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a running server."""
    room, _ = target.room("herd")
    crew = Crew(work, [_spec(target, plan, room, at) for at in range(plan.processes)], console)
    try:
        crew.hear("connecting", plan.viewers)
        before, began = target.cpu_s(), time.monotonic()
        crew.say(None)
        last = max(crew.hear("returning", plan.viewers))
        took, spent = time.monotonic() - began, target.spent_since(before)
        crew.say(last)
        results = crew.hear("settling", plan.viewers)
    finally:
        crew.close()

    def total(name: str) -> int:
        return sum(one[name] for one in results)

    bins = Bins().merge(Bins(one["bins"]) for one in results)
    figures: dict[str, Any] = {
        "viewers": plan.viewers,
        "all_back_s": round(took, 2),
        **bins.figures("back_"),
        "told_503": total("told_503"),
        "missed_and_resumed": total("missed"),
        "load_cpu_s": round(sum(one["cpu_s"] for one in results), 2),
    }
    if spent:
        figures["server_cpu_us_per_return"] = round(spent["server"] / plan.viewers * 1e6, 1)
    faults = {name: total(name) for name in ("lost", "doubled", "snapshots", "refused", "cut")}
    parameters = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    return Report("reconnect_herd", command, parameters, figures, faults, bins)


def _spec(target: Target, plan: Plan, room: str, at: int) -> dict[str, Any]:
    share = plan.viewers // plan.processes + (at < plan.viewers % plan.processes)
    host = target.token("sender", f"host:{room}") if at == 0 else None
    secret = target.secret if plan.members else None
    spec = {"url": target.url, "room": room, "kind": "logged", "rate": plan.rate}
    return spec | {"viewers": share, "at": at, "host": host, "secret": secret}


# ── in the load process ───────────────────────────────────────────────────────────────────


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """One load process: its viewers join, are cut, and return."""
    herd = _Herd(spec, boss)
    await herd.gather(CONNECTS_AT_ONCE, herd.join)
    sender = None if spec["host"] is None else await Sender.join(spec, spec["host"])
    sending = asyncio.create_task(_send(sender, spec["rate"]))
    await boss.go()
    cpu = time.process_time()
    herd.cut_all()
    async with asyncio.timeout(BACK_MAX_S):
        await herd.gather(RETURNS_AT_ONCE, herd.come_back)
    sending.cancel()
    acked = 0 if sender is None else await _answered(sender)
    last = await boss.ask(herd.first + acked - 1)
    await herd.settle(last)
    herd.tally.count_all()
    behind = sum(max(0, last + 1 - viewer.expected) for viewer in herd.viewers)
    return herd.counts | {
        "lost": herd.counts["lost"] + herd.tally.lost + behind,
        "doubled": herd.counts["doubled"] + herd.tally.doubled,
        "cut": sum(viewer.seat.closed is not None for viewer in herd.viewers),
        "bins": herd.bins.counts,
        "cpu_s": time.process_time() - cpu,
    }


async def _send(sender: Sender | None, rate: float) -> None:
    """Events at the rate, until cancelled."""
    number = 0
    while sender is not None:
        sender.send(number, time.monotonic(), 120)
        number += 1
        await asyncio.sleep(1 / rate)


async def _answered(sender: Sender) -> int:
    async with asyncio.timeout(SETTLE_MAX_S):
        while sender.unanswered:  # noqa: ASYNC110 - answers come in bulk
            await asyncio.sleep(0.01)
    return sender.acked


class _Viewer:
    """One of the herd: where it is in the log outlives its connection."""

    def __init__(self, number: int, token: str | None) -> None:
        self.number = number
        self.token = token
        self.epoch = ""
        self.seat = Seat(b"", number)

    @property
    def expected(self) -> int:
        """The position after the last event seen."""
        return self.seat.expected


class _Herd:
    """The viewers of one load process, and what is counted of them."""

    def __init__(self, spec: dict[str, Any], boss: Boss) -> None:
        self._spec = spec
        self._boss = boss
        self.tally = Tally(*KINDS["logged"][1:])
        self.bins = Bins()
        self.first = 1
        names = ("lost", "doubled", "snapshots", "refused", "told_503", "missed")
        self.counts = dict.fromkeys(names, 0)
        self._cut_s = 0.0
        self.viewers = [_Viewer(number, self._token(number)) for number in range(spec["viewers"])]

    def _token(self, number: int) -> str | None:
        secret = self._spec["secret"]
        return None if secret is None else sign(secret, f"viewer-{self._spec['at']}-{number}")

    async def gather(self, at_once: int, what: Any) -> None:
        """Have every viewer do it, so many at a time."""
        gate, done = asyncio.Semaphore(at_once), 0

        async def one(viewer: _Viewer) -> None:
            nonlocal done
            async with gate:
                await what(viewer)
            done += 1
            if done % 50 == 0:
                self._boss.progress(done)

        await asyncio.gather(*map(one, self.viewers))

    async def join(self, viewer: _Viewer) -> None:
        """Sit down for the first time."""

        def joined(seat: Seat, ok: dict[str, Any]) -> None:
            viewer.epoch, seat.expected = ok["epoch"], ok["seq"] + 1
            self.first = seat.expected
            seat.on_frame = self.tally.take

        spec = self._spec
        viewer.seat, _ = await join(
            spec["url"], spec["room"], viewer.number, viewer.token, on_joined=joined
        )

    def cut_all(self) -> None:
        """End every connection at once, as a network that fails does."""
        self._cut_s = time.monotonic()
        for viewer in self.viewers:
            viewer.seat.close()

    async def come_back(self, viewer: _Viewer) -> None:
        """Return and resume, however often 503 is told."""
        for _ in range(RETURNS_MAX):
            try:
                await self._resume(viewer)
            except ConnectionError as told:
                after_s = retry_after_s(str(told))
                if after_s is None:
                    break
                self.counts["told_503"] += 1
                await asyncio.sleep(after_s * (0.5 + random.random()))
            else:
                self.bins.add((time.monotonic() - self._cut_s) * 1000)
                return
        self.counts["refused"] += 1

    async def _resume(self, viewer: _Viewer) -> None:
        since = viewer.expected - 1

        def joined(seat: Seat, ok: dict[str, Any]) -> None:
            self._check(since, ok)
            seat.expected = ok["seq"] + 1
            seat.on_frame = self.tally.take

        spec = self._spec
        # Before anything was published a room has no log, hence no position to resume from.
        position = {"epoch": viewer.epoch, "seq": since}
        viewer.seat, _ = await join(
            spec["url"],
            spec["room"],
            viewer.number,
            viewer.token,
            since=position if viewer.epoch else None,
            on_joined=joined,
        )

    def _check(self, since: int, ok: dict[str, Any]) -> None:
        if ok["mode"] != "resumed":
            self.counts["snapshots"] += 1
            return
        seen = [event["seq"] for event in ok["events"]]
        missed = range(since + 1, ok["seq"] + 1)
        self.counts["missed"] += len(seen)
        self.counts["lost"] += len(set(missed) - set(seen))
        self.counts["doubled"] += len(seen) - len(set(seen) & set(missed))

    async def settle(self, last: int) -> None:
        """Wait until every viewer has seen the last event, or for long enough."""
        until = time.monotonic() + SETTLE_MAX_S
        while time.monotonic() < until:
            if all(one.expected > last or one.seat.closed for one in self.viewers):
                return
            await asyncio.sleep(0.02)
