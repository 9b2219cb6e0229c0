"""The large scenarios of the load tester, made small: idle viewers and a herd."""

import json

from bench import cli
from bench.crowd import Stream
from bench.slow_viewers import closes_in
from liveroom.metrics import Counters, exposition


def outcome(capfd):
    """The JSON line of the last run."""
    return json.loads(capfd.readouterr().out.splitlines()[-1])


def test_idle_viewers_are_weighed(capfd):
    """The run says what a viewer costs to let in and to keep; members come with tokens."""
    assert cli.main(["idle", "--viewers=20", "--seconds=0.2", "--members", "--json"]) == 0
    figures = outcome(capfd)["figures"]
    assert figures["viewers"] == 20
    assert figures["server_cpu_us_per_join"] >= 0
    assert 0 < figures["join_p50_ms"] <= figures["join_max_ms"]


def test_a_herd_is_back_and_has_missed_nothing(capfd):
    """All resume, those who are told 503 included, and every event is seen once."""
    words = ["--viewers=30", "--rate=50", "--processes=2", "--json"]
    budget = "--server=--handshakes-per-s-max=100"
    assert cli.main(["reconnect_herd", *words, budget]) == 0
    run = outcome(capfd)
    assert run["faults"] == dict.fromkeys(run["faults"], 0)
    assert run["figures"]["viewers"] == 30
    assert run["figures"]["all_back_s"] > 0


def test_a_large_room_hears_everything_while_somebody_buys(capfd):
    """Every viewer gets every event, and every order is answered."""
    words = ["--viewers=10", "--rate=20", "--seconds=1", "--json"]
    assert cli.main(["large_room", *words]) == 0
    figures = outcome(capfd)["figures"]
    assert figures["delivered"] == 10 * 20
    assert figures["orders"] == 10
    assert 0 < figures["reply_p50_ms"] <= figures["reply_p99_ms"]


def test_a_huge_room_is_watched_over_workers(capfd):
    """Every viewer of every worker gets every pin and message once and in order."""
    words = ["--viewers=40", "--workers=2", "--processes=2", "--seconds=1.5"]
    assert cli.main(["huge_room", *words, "--pins=4", "--chat=4", "--json"]) == 0
    run = outcome(capfd)
    assert run["faults"] == dict.fromkeys(run["faults"], 0)
    assert run["figures"]["delivered"] == 40 * (6 + 6)
    assert run["figures"]["viewers"] == 40
    assert 0 < run["figures"]["first_viewer_p50_ms"] <= run["figures"]["last_viewer_p99_ms"]


def test_a_crowd_finds_what_is_lost_and_doubled():
    """Whatever of a stream is missing, comes twice or comes late, for the viewer it happens to."""
    stream = Stream(2)
    stream.take(0, [1, 2])
    stream.take(1, [1, 4])
    stream.take(0, [2, 3])
    assert stream.at == [3, 4]
    assert (stream.lost, stream.doubled, stream.reordered) == (2, 1, 1)


def test_a_full_house_is_entered_by_those_who_come_again(capfd):
    """Who is told 503 returns at the time it was told; nobody is refused for good."""
    words = ["--viewers=30", "--seconds=0.5", "--pins=4", "--chat=4", "--json"]
    full = "--server=--handshakes-per-s-max=10"
    assert cli.main(["huge_room", *words, full]) == 0
    run = outcome(capfd)
    assert run["correct"]
    assert run["figures"]["told_503"] > 0


def test_closes_of_all_workers_are_counted():
    """The slow viewers whom the server has closed, by one process or by several."""
    counted = Counters()
    for code, times in (("4001", 3), ("4000", 5)):
        counted.count("closes", code, times)
    assert closes_in(counted.exposition().decode()) == 3
    reading = counted.reading()
    assert closes_in(exposition({"0": reading, "1": reading}).decode()) == 6


def test_viewers_who_never_read_are_weighed_and_cut(capfd):
    """The others miss nothing, slow readers neither, and a member's full seats are closed 4001."""
    words = ["--viewers=10", "--stuck=5", "--members=2", "--slow=2", "--rate=100", "--seconds=0.5"]
    assert cli.main(["slow_viewers", *words, "--json"]) == 0
    run = outcome(capfd)
    assert run["faults"] == dict.fromkeys(run["faults"], 0)
    assert run["figures"]["closed_4001"] == 2
    assert 0 < run["figures"]["kernel_kb_max"] <= 2 * 65.536
    assert run["figures"]["delivered"] == 10 * 50
