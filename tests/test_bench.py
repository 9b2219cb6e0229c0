"""The load tester in its small forms: it measures a real server, and finds planted faults."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
from rich.console import Console

from bench import bars, cli, fanout, scaling, weight
from bench.bars import AIM, BARS, FAULTS, MISSED, MUST, NOT_RUN, SHORT, Bar, Run
from bench.cores import Cores
from bench.history import load
from bench.latency import Bins
from bench.report import PAGE, BadRule, Report
from bench.seat import Seat
from bench.soak import growth_mb
from bench.target import Target
from bench.timeline import Timeline
from bench.watch import Watch


@pytest.fixture(scope="module")
def own():
    """A server of our own, which the tests of this module share."""
    with Target() as target:
        yield target


@pytest.fixture
def there(own):
    """The flags that name a server which runs already."""
    return [f"--url={own.url}", f"--secret={own.secret}"]


def outcome(capfd):
    """The JSON line of the last run, the only one on standard output."""
    [line] = capfd.readouterr().out.splitlines()
    return json.loads(line)


def test_fanout_reaches_every_viewer(capfd):
    """Every viewer gets every event once and in order, and the run says how fast."""
    words = ["--viewers=12", "--rate=40", "--seconds=1", "--processes=2"]
    assert cli.main(["fanout", *words, "--json"]) == 0
    run = outcome(capfd)
    assert run["correct"]
    assert run["figures"]["events"] == 40
    assert run["figures"]["delivered"] == 12 * 40
    assert run["figures"]["server_cpu_us_per_delivered"] >= 0
    assert 0 < run["figures"]["p50_ms"] <= run["figures"]["p99_ms"]


def test_fanout_checks_logged_events_too(capfd, there):
    """Logged events are counted by their seq, on a server that runs already."""
    words = ["--viewers=5", "--rate=40", "--seconds=0.5", "--kind=logged", *there]
    assert cli.main(["fanout", *words, "--json"]) == 0
    assert outcome(capfd)["figures"]["delivered"] == 5 * 20


def test_a_fanout_of_which_nothing_arrives_is_told():
    """A run in which every event is lost ends with a report that says so."""
    counts = dict.fromkeys(("delivered", "frames", "doubled", "reordered", "refused", "cut"), 0)
    result = {"viewers": 2, "acked": 10, "lost": 20, "bins": {}, "timeline": {}, "spread": {}}
    spent = {"server": 0.5, "store": 0.1, "took": 1.0, "memory": 1e6}
    report = fanout._report(fanout.Plan(), [counts | result | {"cpu_s": 0.1}], "", spent)
    assert not report.correct
    assert (report.figures["delivered"], report.faults["lost"]) == (0, 20)


def test_drop_sells_every_unit_once(capfd, tmp_path, there):
    """Buyers get exactly what there is; report, history and bars come with it."""
    report, history = tmp_path / "out.html", tmp_path / "history.jsonl"
    hdr = tmp_path / "out.hgrm"
    words = ["--buyers=10", "--units=60", f"--hdr={hdr}", f"--history={history}"]
    if PAGE.is_file():  # the pages may be left out of an installation
        words.append(f"--report={report}")
    assert cli.main(["drop", *words, *there, "--json", "--assert=orders==60"]) == 0
    run = outcome(capfd)
    assert run["faults"] == dict.fromkeys(run["faults"], 0)
    assert run["figures"]["sold_out"] >= 1
    assert sum(line.what == "ok" for line in load(history)) == 60
    assert "Total count    =           60]" in hdr.read_text()
    if PAGE.is_file():
        page = report.read_text()
        assert "<title>drop: nothing lost</title>" in page
        [held] = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)
        assert json.loads(held)["figures"] == run["figures"]
        assert sum(count for _, count, *_ in json.loads(held)["seconds"]) == 60


def test_orders_at_a_fixed_rate(capfd, there):
    """Open arrival: orders are sent on time whatever the answers, until nothing is left."""
    assert cli.main(["drop", "--buyers=5", "--units=30", "--rate=200", "--json", *there]) == 0
    assert outcome(capfd)["figures"]["orders"] == 30


@pytest.mark.parametrize(
    "words", [[], ["--cart"], ["--limit=9000", "--skus=3", "--lines=2"]], ids=" ".join
)
def test_holds_take_every_unit_once(capfd, words):
    """The gates say exactly what was granted, and what ends is given back."""
    assert cli.main(["holds", "--holds=300", "--buyers=50", *words, "--json"]) == 0
    run = outcome(capfd)
    assert run["faults"] == dict.fromkeys(run["faults"], 0)
    assert run["figures"]["holds"] == 300
    assert run["figures"]["holds_per_call"] > 1


def test_a_bar_that_does_not_hold_fails_the_command(capfd, there):
    """`--assert` decides the exit code; one that cannot be read is bad usage."""
    small = ["fanout", "--viewers=2", "--rate=10", "--seconds=0.5", *there]
    assert cli.main([*small, "--assert=p99_ms<0.0001"]) == 1
    assert "does not hold" in capfd.readouterr().err
    assert cli.main(["fanout", "--viewers=none"]) == 2
    assert cli.main(["fanout", "--url=http://127.0.0.1:9"]) == 2


@pytest.mark.parametrize(
    "flag",
    [
        "--assert=p99_ms",
        "--assert=p99_ms<1.2.3",
        "--report=/nowhere/run.html",
        "--hdr=/nowhere/run.hgrm",
        "--history=/nowhere/run.jsonl",
        "--url=nonsense",
    ],
)
def test_what_no_run_could_use_is_refused_before_it(capfd, flag):
    """A bar that cannot be read and a file that cannot be written: 2, before anything is asked."""
    nobody = ["--url=http://127.0.0.1:9", "--secret=s"]
    assert cli.main(["drop", *nobody, flag]) == 2
    told = capfd.readouterr()
    assert flag.partition("=")[0] in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_a_server_that_cannot_be_measured_is_bad_usage(capfd, own):
    """Flags it does not know, a secret that is another's, a URL where nobody is: 2, and which."""
    other = "--secret=another secret that is long enough"
    for flags, named in (
        (["--server=--nonsense"], "--nonsense"),
        ([f"--url={own.url}", other], "--secret"),
        (["--url=http://127.0.0.1:9", other], "--url: http://127.0.0.1:9 "),
    ):
        assert cli.main(["fanout", "--viewers=1", "--seconds=0.1", *flags]) == 2
        assert named in capfd.readouterr().err


def test_rules_are_read_strictly():
    """A rule that names no figure is refused, never passed."""
    report = Report("fanout", "", {}, {"p99_ms": 12.0}, {"lost": 0}, Bins())
    assert report.failing(["p99_ms<20", "lost==0"]) == []
    assert report.failing(["p99_ms <= 11.5"])
    with pytest.raises(BadRule):
        report.failing(["p98_ms<20"])


def frame(*numbers):
    sent = f"0 {time.monotonic():.6f} ..."
    return json.dumps(
        [{"ev": "message.posted", "n": n, "at": 0, "data": {"text": sent}} for n in numbers]
    ).encode()


@pytest.mark.parametrize(
    ("frames", "lost", "doubled"),
    [
        ([[1, 2], [3]], 0, 0),
        ([[1], [3]], 1, 0),
        ([[1, 2], [2, 3]], 0, 1),
        ([[2], [1]], 1, 1),
        ([[1, 3], [4]], 1, 0),
    ],
)
def test_planted_faults_are_found(run, frames, lost, doubled):
    """A missing event is lost, one that comes again is doubled, for the viewer it happens to."""

    async def story():
        tally, seat = fanout.Tally("message.posted", "n"), Seat(b"", 0)
        seat.expected = 1
        for numbers in frames:
            tally.take(seat, frame(*numbers))
        tally.count_all()
        assert (tally.lost, tally.doubled) == (lost, doubled)
        assert tally.bins.total == sum(len(numbers) for numbers in frames)

    run(story())


class Cut(asyncio.Transport):
    """A transport as uvloop's: to write after `abort` is an error."""

    aborted = False
    sent = b""

    def write(self, data: bytes) -> None:
        if self.aborted:
            raise RuntimeError("the handler is closed")
        self.sent += data

    def abort(self) -> None:
        self.aborted = True


def test_a_seat_that_was_cut_answers_no_ping(run) -> None:
    """A frame on which the seat is cut and a ping may come in one read."""

    async def story() -> None:
        seat = Seat(b"", 0)
        seat.connection_made(Cut())
        seat.on_frame = lambda cut, _payload: cut.close()
        seat.data_received(b"HTTP/1.1 101 .\r\n\r\n" + b"\x81\x02[]" + b"\x89\x00")
        assert seat.transport is None

    run(story())


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 130, 131, 200])
def test_frames_are_cut_right_wherever_the_bytes_are_torn(run, cut):
    """Payloads of every length form come out whole, however the network tears them."""
    payloads = [b"a" * 3, b"b" * 126, b"c" * 70_000, b""]
    heads = [b"\x81\x03", b"\x82\x7e\x00\x7e", b"\x81\x7f" + (70_000).to_bytes(8, "big"), b"\x81\0"]
    opened = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    stream = opened + b"".join(h + p for h, p in zip(heads, payloads, strict=True))

    async def story():
        seat, got = Seat(b"", 0), []
        seat.on_frame = lambda _seat, payload: got.append(payload)
        for at in range(0, len(stream), cut):
            seat.data_received(stream[at : at + cut])
        assert got == payloads

    if cut < 100:
        stream = opened + b"".join(h + p for h, p in list(zip(heads, payloads, strict=True))[:2])
        payloads = payloads[:2]
    run(story())


def test_percentiles_are_within_a_percent():
    """Bins are narrow at every size, and merging loses nothing."""
    one, other = Bins(), Bins()
    for ms in range(1, 501):
        one.add(ms)
        other.add(ms + 500)
    both = one.merge([other])
    assert both.total == 1000
    for percent, ms in ((50, 500), (90, 900), (99, 990)):
        assert both.percentile(percent) == pytest.approx(ms, rel=0.011)
    assert Bins().percentile(50) is None


def test_percentiles_are_written_for_plotters():
    """HdrHistogram's text: value, percentile, count and 1/(1-percentile), rising to the last."""
    bins = Bins()
    for ms in range(1, 101):
        bins.add(ms)
    head, _, *lines, mean, largest, _ = bins.hgrm().splitlines()
    assert head.split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [[float(word) for word in line.split()] for line in lines]
    assert rows == sorted(rows)
    assert rows[-1][1:] == [1.0, 100]
    [median] = [row for row in rows if row[1] == 0.5]
    assert (median[0], median[2:]) == (pytest.approx(50, rel=0.011), [50, 2.0])
    assert float(mean.split("=")[1].split(",")[0]) == pytest.approx(50.5, rel=0.011)
    assert float(largest.split("=")[1].split(",")[0]) == pytest.approx(100, rel=0.011)


def test_time_is_cut_into_seconds():
    """What arrived in a second is counted there, also when it comes from several processes."""
    one, other = Timeline(), Timeline()
    one.add(100.2, 10)
    one.add(102.9, 30, times=3)
    other.add(102.1, 30)
    rows = Timeline(one.counts()).merge([other]).rows()
    assert [(at, count) for at, count, *_ in rows] == [(0, 1), (2, 4)]
    assert rows[1][2] == pytest.approx(30, rel=0.011)


def test_peers_get_the_same_fan_out(capfd):
    """What is installed stands in one table: the floor, a peer, and liveroom."""
    few = ["--only=floor", "--only=websockets_broadcast", "--only=liveroom"]
    small = ["--viewers=10", "--rate=20", "--seconds=1"]
    assert cli.main(["peers", *few, *small, "--json", "--assert=liveroom_p50_ms>0"]) == 0
    run = outcome(capfd)
    assert run["correct"]
    assert run["faults"]["websockets_broadcast_lost"] == 0
    assert 0 < run["figures"]["liveroom_server_us"] <= run["figures"]["liveroom_us"]


def test_a_peer_that_nobody_has_is_refused(capfd):
    """An unknown name among known ones is bad usage, and nothing is measured."""
    assert cli.main(["peers", "--only=floor", "--only=nonsuch", "--only=none"]) == 2
    told = capfd.readouterr()
    assert told.err.splitlines() == ["liveroom bench: --only: no such server: none, nonsuch"]
    assert told.out == ""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no way to choose cores")
def test_what_is_measured_shares_no_core_with_its_load():
    """Of two cores or more, the server has some that the load has not; then all is as before."""
    before = os.sched_getaffinity(0)
    say = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    with Cores() as cores:
        with cores.serving():
            served = {int(core) for core in subprocess.check_output(say, text=True).split()}
        loading = os.sched_getaffinity(0)
    assert os.sched_getaffinity(0) == before
    assert served
    assert loading
    assert served | loading == before
    assert served.isdisjoint(loading) or len(before) == 1


def test_a_chat_storm_delays_no_logged_event(capfd, there):
    """Above its budget a room shows everybody the same sample, and every logged event."""
    small = ["--viewers=10", "--authors=6", "--rate=150", "--budget=20", "--seconds=1.5"]
    assert cli.main(["chat_storm", *small, "--flood=4", *there, "--json"]) == 0
    run = outcome(capfd)
    assert run["faults"] == dict.fromkeys(run["faults"], 0)
    assert run["figures"]["posted"] == run["figures"]["shown"] + run["figures"]["hidden"] == 226
    assert run["figures"]["hidden"] > 0


def test_nothing_is_sold_after_the_last_unit(capfd, there):
    """Every order after the last unit is refused as sold out, and no other way."""
    assert cli.main(["storm", "--requests=300", "--buyers=10", *there, "--json"]) == 0
    assert outcome(capfd)["figures"]["refused"] == 300


def test_a_sale_whose_stores_are_killed_sells_every_unit_once(capfd, tmp_path):
    """Killed, emptied and started again in the middle: every unit is sold, no answer was a lie."""
    history = tmp_path / "history.jsonl"
    small = ["--buyers=20", "--units=240", "--stay=1", f"--history={history}"]
    assert cli.main(["kill", *small, "--json"]) == 0
    run = outcome(capfd)
    assert {line.what for line in load(history)} == {"invoke", "ok", "fail", "info", "saw"}
    assert run["faults"] == dict.fromkeys(run["faults"], 0)
    assert run["figures"]["orders"] == 240
    assert run["figures"]["cut"] >= 20
    assert run["figures"]["normal_s"] > 0
    assert cli.main(["kill", "--url=http://127.0.0.1:9", "--secret=s"]) == 2


def test_a_drop_is_watched_and_sold_by_a_plain_server_too(capfd):
    """Watchers stay to the end, and the plain server's orders are all on its disk."""
    small = ["--buyers=10", "--units=60", "--watchers=20"]
    assert cli.main(["drop", *small, "--apart", "--peers", "--json"]) == 0
    run = outcome(capfd)
    assert run["parameters"]["watchers"] == 20
    assert run["faults"]["watchers_cut"] == 0
    assert run["figures"]["plain_orders"] == run["figures"]["plain_on_disk"] == 60


def test_a_soak_checks_every_stream_and_memory(capfd):
    """Chat, notices, orders and viewers who come and go leave nothing lost, and memory flat."""
    small = ["--viewers=10", "--seconds=3", "--grow-mb-max=50"]
    assert cli.main(["soak", *small, "--json"]) == 0
    run = outcome(capfd)
    assert run["figures"]["orders"] > 0
    assert run["figures"]["came_anew"] == 15
    assert run["figures"]["memory_end_mb"] > 10


def test_memory_that_grows_is_found():
    """The rise of a line through the samples, whatever the noise around it."""
    leak = [(float(t), 100 + 0.5 * t + (-1) ** t) for t in range(60)]
    assert growth_mb(leak) == pytest.approx(29.5, abs=0.5)
    assert abs(growth_mb([(float(t), 100 + (-1) ** t) for t in range(60)])) < 0.2


def storm(*ns, seq=None):
    sent = f"0 {time.monotonic():.6f} ..."
    events = [{"ev": "message.posted", "n": n, "data": {"text": sent, "member": "m"}} for n in ns]
    if seq is not None:
        events.append({"ev": "notice.posted", "seq": seq, "data": {"text": sent}})
    return json.dumps(events).encode()


def test_a_watch_accounts_for_what_is_not_shown(run):
    """Jumps in `n` are hidden messages; a jump in `seq` is a loss; what comes again is a fault."""

    async def story():
        watch, seat = Watch(), Seat(b"", 0)
        watch.begin(seat, {"seq": 5, "snapshot": {"messages": []}})
        watch.take(seat, storm(1, 4, seq=6))
        watch.take(seat, storm(9))
        viewer = watch.viewers[0]
        assert (viewer.shown, viewer.hidden, viewer.n) == (3, 6, 9)
        assert (watch.lost, watch.doubled) == (0, 0)
        watch.take(seat, storm(9, seq=8))
        assert (watch.lost, watch.doubled) == (1, 1)

    run(story())


def test_comparisons_say_what_more_costs(own):
    """Each line of a comparison is a run of its own, and any fault in one is a fault of all."""
    small = scaling.Workers(viewers=4, rate=20, seconds=0.4, buyers=4, units=10)
    report = scaling.workers(lambda _count: nullcontext(own), small, Console(quiet=True), "")
    assert report.correct
    assert report.figures["fanout_ratio"] > 0
    assert report.figures["drop_2_p99_ms"] > 0
    less = scaling.Growth(viewers=2, rate=20, seconds=0.5, rooms=2)
    report = scaling.growth(lambda _count: nullcontext(own), less, Console(quiet=True), "")
    assert report.correct
    ratios = {f"{name}_ratio" for name in ("viewers", "active", "rooms", "seated")}
    assert set(report.figures) > ratios


def test_a_viewer_is_weighed_line_by_line():
    """What the lines of our own seats grew by is named, and is most of what all grew by."""
    found = weight.measure(60, few=20, console=Console(quiet=True))
    ours = [size for line, size in found["lines"].items() if line.startswith("liveroom/wire/")]
    assert sum(ours) > 300
    assert found["all"] > sum(ours)


def test_every_bar_can_be_run():
    """Each bar names a scenario that there is, in words it takes."""
    for one in BARS.values():
        words = list(one.words)
        command, _, _ = cli.app.parse_args(words, print_error=False, exit_on_error=False)
        assert callable(command)
        assert one.bars


def test_bars_are_judged_in_one_table(capfd):
    """A must and an aim decide the verdict; what was not measured or not run is never passed."""
    small = ("idle", "--viewers=10", "--seconds=0.1")
    met = Run(small, (Bar("viewers", 10, 5, least=True), Bar("join_p50_ms", 60_000)), 120)
    missed = Run(small, (Bar("join_p50_ms", 0.001), Bar("nothing_such", 1)), 120)
    late = Run(small, (Bar("viewers", 10),), 0.1)
    rows, holds = bars.run((), 600, Console(quiet=True), {"met": met})
    assert (holds, [row.verdict for row in rows]) == (True, [AIM, MUST])
    assert rows[0].value == 10
    told = json.loads(bars.as_json(rows, holds=holds))
    assert [row["verdict"] for row in told["bars"]] == [AIM, MUST]
    rows, holds = bars.run((), 600, Console(quiet=True), {"missed": missed, "late": late})
    assert (holds, [row.verdict for row in rows]) == (False, [MISSED, MISSED, NOT_RUN])
    rows, holds = bars.run((), 1, Console(quiet=True), {"met": met})
    assert (holds, {row.verdict for row in rows}) == (False, {NOT_RUN})


def test_faults_fail_a_bar_whatever_its_figures():
    """A run that lost something passes no bar, however fast it was; an aim alone fails nothing."""
    found = {"scenario": "drop", "correct": False, "parameters": {"buyers": 100}}
    found["figures"] = {"orders_per_s": 1000.0, "p99_ms": 120.0}
    one = Run(("drop",), (Bar("p99_of_fair_share", 1.5),), 1)
    assert [row.verdict for row in bars.judged("flash", one, [found])] == [FAULTS]
    [row] = bars.judged("flash", one, [found | {"correct": True}])
    assert (row.verdict, row.value, row.must) == (MUST, 1.2, "≤ 1.5")
    assert Bar("last", None, 1000).judge(2000) == SHORT


def test_the_median_of_several_runs_decides():
    """One run in a bad minute decides nothing, is shown, and a fault in it counts."""
    one = Run(("growth",), (Bar("rooms_ratio", 1.1), Bar("only_once", None, 1)), 1, 3)
    ratios = ({"rooms_ratio": 1.0, "only_once": 1}, {"rooms_ratio": 2.0}, {"rooms_ratio": 1.05})
    plain = {"scenario": "growth", "correct": True, "parameters": {}}
    found = [plain | {"figures": ratio} for ratio in ratios]
    rows = bars.judged("growth", one, found)
    assert [row.verdict for row in rows] == [MUST, SHORT]
    assert (rows[0].value, rows[0].runs) == (1.05, (1.0, 2.0, 1.05))
    bars.show(rows, console := Console(record=True, width=200, file=io.StringIO()))
    assert "1.0 2.0 1.05" in console.export_text()
    assert [row.verdict for row in bars.judged("growth", one, [])] == [NOT_RUN, NOT_RUN]
    found[1]["correct"] = False
    assert {row.verdict for row in bars.judged("growth", one, found)} == {FAULTS}


def test_a_scenario_runs_as_often_as_it_says():
    """Every run is one of its own; one that does not end leaves the bar without a figure."""
    small = ("idle", "--viewers=10", "--seconds=0.1")
    twice = Run(small, (Bar("viewers", 10, least=True),), 120, 2)
    [row], _ = bars.run((), 600, Console(quiet=True), {"twice": twice})
    assert row.runs == (10, 10)
    [row], _ = bars.run((), 600, Console(quiet=True), {"twice": twice._replace(within_s=0.1)})
    assert (row.verdict, row.runs) == (NOT_RUN, ())
