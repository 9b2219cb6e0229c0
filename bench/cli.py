"""`liveroom bench SCENARIO`: the command line of the load tester.

Exit codes: 0 done, 1 something was lost, doubled, reordered or oversold, or an `--assert` does
not hold, 2 bad usage.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal

import cyclopts
from cyclopts import App, Parameter
from rich.console import Console

from bench import bars as every_bar
from bench import chat_storm as chat_storm_scenario
from bench import drop as drop_scenario
from bench import fanout as fanout_scenario
from bench import herd as herd_scenario
from bench import holds as holds_scenario
from bench import huge_room as huge_room_scenario
from bench import idle as idle_scenario
from bench import kill as kill_scenario
from bench import large_room as large_room_scenario
from bench import scaling
from bench import slow_viewers as slow_viewers_scenario
from bench import soak as soak_scenario
from bench import storm as storm_scenario
from bench.peers import servers as peer_servers
from bench.peers import table as peer_table
from bench.report import BadRule
from bench.running import (
    BAD_USAGE,
    DONE,
    FAILED,
    Count,
    History,
    Options,
    Positive,
    command,
    conclude,
    measure,
    own,
)
from bench.target import Unusable
from liveroom import logs

app = App(
    name="liveroom bench",
    help="Load a server and measure it. Each scenario starts its own server unless --url is given.",
    result_action="return_value",
)

_PLAIN: Final = Options()


@app.command
def fanout(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers.")] = 1000,
    rate: Annotated[Positive, Parameter(help="Events a second.")] = 30.0,
    seconds: Annotated[Positive, Parameter(help="For how long.")] = 20.0,
    kind: Annotated[Literal["chat", "logged"], Parameter(help="Delivery class.")] = "chat",
    event_bytes: Annotated[Count, Parameter(help="Length of an event's text.")] = 120,
) -> int:
    """N viewers of one room, events at a fixed rate, every viewer checked."""
    plan = fanout_scenario.Plan(viewers, rate, seconds, kind, event_bytes, options.processes)
    return measure(
        options, lambda target, console: fanout_scenario.run(target, plan, console, command())
    )


@app.command
def drop(
    *,
    options: Options = _PLAIN,
    buyers: Annotated[Count, Parameter(help="Connected buyers.")] = 500,
    units: Annotated[Count, Parameter(help="Units on sale.")] = 2000,
    rate: Annotated[
        float | None,
        Parameter(help="Orders a second, whatever the answers; without it each buyer waits."),
    ] = None,
    history: History = None,
    watchers: Annotated[int, Parameter(help="Viewers who watch meanwhile.")] = 0,
    apart: Annotated[
        bool, Parameter(help="They watch a quiet room of their own.", negative="")
    ] = False,
    peers: Annotated[
        bool, Parameter(help="The same sale on a plain server as well.", negative="")
    ] = False,
) -> int:
    """N buyers order one unit at a time until nothing is left; stock and orders are checked."""
    plan = drop_scenario.Plan(
        buyers, units, rate, options.processes, history, watchers, apart, peers
    )
    return measure(
        options, lambda target, console: drop_scenario.run(target, plan, console, command())
    )


@app.command
def kill(
    *,
    options: Options = _PLAIN,
    buyers: Annotated[Count, Parameter(help="Connected buyers.")] = 300,
    units: Annotated[Count, Parameter(help="Units on sale.")] = 3000,
    stay: Annotated[Positive, Parameter(help="Seconds buyers stay after the last fault.")] = 10.0,
    history: History = None,
) -> int:
    """A sale while all of it is killed, then Valkey alone, then Valkey is emptied."""
    if options.url is not None:
        print("liveroom bench: kill starts and kills a server of its own", file=sys.stderr)
        return BAD_USAGE
    plan = kill_scenario.Plan(buyers, units, stay, history)
    return measure(
        options, lambda target, console: kill_scenario.run(target, plan, console, command())
    )


@app.command
def idle(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers.")] = 5000,
    seconds: Annotated[Positive, Parameter(help="How long they do nothing.")] = 10.0,
    members: Annotated[bool, Parameter(help="Viewers with tokens.", negative="")] = False,
) -> int:
    """N viewers who do nothing: memory of each, CPU to let each in and to keep it."""
    plan = idle_scenario.Plan(viewers, seconds, members, options.processes)
    return measure(
        options, lambda target, console: idle_scenario.run(target, plan, console, command())
    )


@app.command
def holds(
    *,
    options: Options = _PLAIN,
    holds: Annotated[Count, Parameter(help="Holds in all.")] = 20_000,
    buyers: Annotated[Count, Parameter(help="Buyers who ask at the same time.")] = 256,
    skus: Annotated[Count, Parameter(help="SKUs they choose from.")] = 1,
    lines: Annotated[Count, Parameter(help="Lines of a request.")] = 1,
    cart: Annotated[bool, Parameter(help="Holds in carts.", negative="")] = False,
    limit: Annotated[Count | None, Parameter(help="Units a buyer may have of a SKU.")] = None,
) -> int:
    """N buyers hold units from the inventory alone: no server, no orders."""
    plan = holds_scenario.Plan(holds, buyers, skus, lines, cart, limit)
    console = Console(stderr=True, highlight=False)
    return conclude(options, holds_scenario.run(plan, command()), console)


@app.command(name="chat_storm")
def chat_storm(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers.")] = 1000,
    authors: Annotated[Count, Parameter(help="Members who post.")] = 100,
    rate: Annotated[Positive, Parameter(help="Messages a second, all authors together.")] = 1000.0,
    budget: Annotated[Count, Parameter(help="The room's chat_per_s_max.")] = 50,
    logged: Annotated[Positive, Parameter(help="Logged events a second meanwhile.")] = 5.0,
    seconds: Annotated[Positive, Parameter(help="For how long.")] = 15.0,
    flood: Annotated[Count, Parameter(help="How much more one author posts than others.")] = 10,
) -> int:
    """Chat far above the room's budget: logged events on time, one fair sample for all."""
    plan = chat_storm_scenario.Plan(
        viewers, authors, rate, budget, logged, seconds, flood, options.processes, options.workers
    )
    return measure(
        options, lambda target, console: chat_storm_scenario.run(target, plan, console, command())
    )


@app.command
def storm(
    *,
    options: Options = _PLAIN,
    requests: Annotated[Count, Parameter(help="Orders after the last unit.")] = 20_000,
    buyers: Annotated[Count, Parameter(help="Connected buyers.")] = 200,
    window: Annotated[Count, Parameter(help="Orders under way of each buyer.")] = 8,
) -> int:
    """N orders after the last unit is gone: refusals a second, and nothing sold."""
    plan = storm_scenario.Plan(requests, buyers, window, options.processes)
    return measure(
        options, lambda target, console: storm_scenario.run(target, plan, console, command())
    )


@app.command
def soak(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers.")] = 500,
    seconds: Annotated[Positive, Parameter(help="For how long.")] = 600.0,
    chat: Annotated[Positive, Parameter(help="Messages a second.")] = 20.0,
    logged: Annotated[Positive, Parameter(help="Logged events a second.")] = 20.0,
    orders: Annotated[Positive, Parameter(help="Orders and cancels a second.")] = 5.0,
    churn: Annotated[Positive, Parameter(help="Viewers replaced a second.")] = 5.0,
    grow_mb_max: Annotated[Positive, Parameter(help="What memory may grow, once warm.")] = 8.0,
) -> int:
    """Everything at once for a long time: every stream whole, and memory flat."""
    plan = soak_scenario.Plan(
        viewers, seconds, chat, logged, orders, churn, grow_mb_max, options.processes
    )
    return measure(
        options, lambda target, console: soak_scenario.run(target, plan, console, command())
    )


@app.command
def peers(
    only: Annotated[
        tuple[str, ...],
        Parameter(help="Names of some: floor, nchan, ws, socketio, websockets_broadcast …"),
    ] = (),
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers.")] = 1000,
    rate: Annotated[Count, Parameter(help="Events a second.")] = 30,
    seconds: Annotated[Count, Parameter(help="For how long, each.")] = 8,
    event_bytes: Annotated[Count, Parameter(help="Length of an event's text.")] = 120,
) -> int:
    """The same fan-out on every other server that is installed, and on liveroom: one table."""
    load = peer_servers.Load(viewers, rate, seconds, event_bytes)
    console = Console(stderr=True, highlight=False)
    report = peer_table.run(load, only, lambda: own(options), console, command())
    return conclude(options, report, console)


@app.command
def workers(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers.")] = 1000,
    rate: Annotated[Positive, Parameter(help="Events a second.")] = 300.0,
    seconds: Annotated[Positive, Parameter(help="For how long, each.")] = 8.0,
    buyers: Annotated[Count, Parameter(help="Connected buyers of the drop.")] = 500,
    units: Annotated[Count, Parameter(help="Units on sale.")] = 20_000,
) -> int:
    """Fan-out and a drop with 1 and with 2 workers: what each event and order costs."""
    plan = scaling.Workers(viewers, rate, seconds, buyers, units, options.processes)
    console = Console(stderr=True, highlight=False)
    report = scaling.workers(lambda count: own(options, workers=count), plan, console, command())
    return conclude(options, report, console)


@app.command
def growth(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers, and then ten times.")] = 200,
    rate: Annotated[Positive, Parameter(help="Events a second, and then ten times.")] = 20.0,
    seconds: Annotated[Positive, Parameter(help="For how long, each.")] = 8.0,
    rooms: Annotated[Count, Parameter(help="Idle rooms beside the same load.")] = 1000,
) -> int:
    """Ten times the viewers, the events, the rooms, and idle rooms besides: what each costs."""
    plan = scaling.Growth(viewers, rate, seconds, rooms, options.processes)
    console = Console(stderr=True, highlight=False)
    report = scaling.growth(lambda count: own(options, workers=count), plan, console, command())
    return conclude(options, report, console)


@app.command
def bars(
    only: Annotated[tuple[str, ...], Parameter(help="Names of some.")] = (),
    *,
    minutes: Annotated[Positive, Parameter(help="For all of them together.")] = 30.0,
    json: Annotated[bool, Parameter(help="Print the table as one line of JSON.", negative="")] = (
        False
    ),
) -> int:
    """Every bar at its real size, one after another, and one table; 1 where a must is missed."""
    unknown = set(only) - set(every_bar.BARS)
    if unknown:
        print(f"liveroom bench: no such bar: {', '.join(sorted(unknown))}", file=sys.stderr)
        return BAD_USAGE
    console = Console(stderr=True, highlight=False)
    rows, holds = every_bar.run(only, minutes * 60, console)
    if json:
        print(every_bar.as_json(rows, holds=holds), flush=True)
    return DONE if holds else FAILED


@app.command(name="reconnect_herd")
def reconnect_herd(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers.")] = 10_000,
    rate: Annotated[Positive, Parameter(help="Logged events a second meanwhile.")] = 5.0,
    members: Annotated[bool, Parameter(help="Viewers with tokens.", negative="")] = False,
) -> int:
    """N viewers lose their connection at once: all must be back and resumed, nothing lost."""
    plan = herd_scenario.Plan(viewers, rate, members, options.processes)
    return measure(
        options, lambda target, console: herd_scenario.run(target, plan, console, command())
    )


@app.command(name="large_room")
def large_room(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers.")] = 15_000,
    rate: Annotated[Positive, Parameter(help="Events a second.")] = 20.0,
    seconds: Annotated[Positive, Parameter(help="For how long.")] = 20.0,
) -> int:
    """N viewers of one room, every one checked, while a buyer's orders are answered."""
    plan = large_room_scenario.Plan(viewers, rate, seconds, options.processes)
    return measure(
        options, lambda target, console: large_room_scenario.run(target, plan, console, command())
    )


@app.command(name="huge_room")
def huge_room(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Connected viewers.")] = 60_000,
    pins: Annotated[Positive, Parameter(help="Pins a second.")] = 0.5,
    chat: Annotated[Positive, Parameter(help="Messages a second.")] = 0.2,
    seconds: Annotated[Positive, Parameter(help="For how long.")] = 20.0,
) -> int:
    """More viewers than a process can hold: start it with --workers and --processes to match."""
    plan = huge_room_scenario.Plan(viewers, pins, chat, seconds, options.processes)
    return measure(
        options, lambda target, console: huge_room_scenario.run(target, plan, console, command())
    )


@app.command(name="slow_viewers")
def slow_viewers(
    *,
    options: Options = _PLAIN,
    viewers: Annotated[Count, Parameter(help="Viewers who read.")] = 1000,
    stuck: Annotated[Count, Parameter(help="Guests who never read a byte.")] = 1000,
    members: Annotated[Count, Parameter(help="Seats of one member that never read.")] = 20,
    slow: Annotated[Count, Parameter(help="Viewers who read slowly.")] = 20,
    rate: Annotated[Positive, Parameter(help="Logged events a second.")] = 50.0,
    seconds: Annotated[Positive, Parameter(help="For how long, each of two times.")] = 12.0,
    event_bytes: Annotated[Count, Parameter(help="Length of an event's text.")] = 480,
) -> int:
    """The same fan-out without and beside viewers that never read: the others must not notice."""
    options = replace(options, server=(*slow_viewers_scenario.SERVER_FLAGS, *options.server))
    plan = slow_viewers_scenario.Plan(
        viewers,
        stuck,
        members,
        slow,
        rate=rate,
        seconds=seconds,
        event_bytes=event_bytes,
        processes=options.processes,
    )
    return measure(
        options,
        lambda target, console: slow_viewers_scenario.run(target, plan, console, command()),
    )


def main(arguments: Sequence[str]) -> int:
    """Run one scenario; its exit code."""
    logs.configure("warning", "auto")  # of what runs in this process: no line of it is an answer
    try:
        code = app(list(arguments), print_error=False, exit_on_error=False)
    except (cyclopts.CycloptsError, BadRule, Unusable) as error:
        print(f"liveroom bench: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_USAGE
    except (RuntimeError, OSError, TimeoutError) as error:
        print(f"liveroom bench: {error}", file=sys.stderr)
        return FAILED
    return DONE if code is None else int(code)
