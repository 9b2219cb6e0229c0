"""One run of a scenario from the command line: against which server, and what becomes of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from rich.console import Console

from bench.report import Report, can_be_written, has_page, rules_are_read
from bench.target import Target
from liveroom import bounds

DONE, FAILED, BAD_USAGE = 0, 1, 2

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
History = Annotated[
    Path | None, Parameter(help="Write every call and answer here.", validator=can_be_written)
]
Positive = Annotated[float, Parameter(validator=validators.Number(gt=0))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """What every scenario takes."""

    url: Annotated[
        str | None,
        Parameter(help="A running server; needs --secret.", validator=bounds.http_url),
    ] = None
    secret: Annotated[str | None, Parameter(help="That server's secret, for tokens.")] = None
    workers: Annotated[Count, Parameter(help="Worker processes of our own server.")] = 1
    server: Annotated[
        tuple[str, ...],
        Parameter(help="More flags for our own server, such as --server=--tick-max-ms=50."),
    ] = ()
    processes: Annotated[Count, Parameter(help="Load processes.")] = 1
    json: Annotated[bool, Parameter(help="Print the run as one line of JSON.", negative="")] = False
    report: Annotated[
        Path | None,
        Parameter(help="Write the run as one HTML file.", validator=(has_page, can_be_written)),
    ] = None
    hdr: Annotated[
        Path | None,
        Parameter(
            help="Write the latencies as HdrHistogram's percentiles.", validator=can_be_written
        ),
    ] = None
    assert_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--assert",
            help="A bar that must hold: 'p99_ms<200'. May be repeated.",
            validator=rules_are_read,
        ),
    ] = ()


def measure(options: Options, scenario: Callable[[Target, Console], Report]) -> int:
    """Run a scenario against the server that was named, or one of our own; the exit code."""
    if options.url is not None and options.secret is None:
        print("liveroom bench: --url needs --secret, the server's own", file=sys.stderr)
        return BAD_USAGE
    console = Console(stderr=True, highlight=False)
    with own(options) if options.url is None else Target(options.url, options.secret) as target:
        report = scenario(target, console)
    return conclude(options, report, console)


def own(options: Options, workers: int | None = None) -> Target:
    """A server of our own, with the flags that were given."""
    return Target(flags=(f"--workers={workers or options.workers}", *options.server))


def conclude(options: Options, report: Report, console: Console) -> int:
    """Show, print, write and judge a run; the exit code."""
    report.show(console)
    if options.json:
        print(report.as_json(), flush=True)
    if options.report is not None:
        report.write_html(options.report)
    if options.hdr is not None:
        options.hdr.write_text(report.bins.hgrm())
    failed = report.failing(list(options.assert_))
    for line in failed:
        print(f"liveroom bench: {line}", file=sys.stderr)
    return DONE if report.correct and not failed else FAILED


def command() -> str:
    """The command as it can be repeated."""
    words = sys.argv[1:]
    return shlex.join(["liveroom", "bench", *(words[1:] if words[:1] == ["bench"] else words)])
