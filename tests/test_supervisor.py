"""Processes: workers share a port, die with their parent, and are replaced when they die."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from uvicorn.config import STARTUP_FAILURE
from websockets.exceptions import ConnectionClosed, InvalidStatus

from liveroom import stores
from liveroom.ids import new_id
from liveroom.serving import connections_within_files
from liveroom.settings import Settings
from liveroom.supervisor import Config, Process
from tests.live import Live, Seat, serving

WAIT_MAX_S = 20.0


@pytest.fixture
def server(tmp_path) -> Iterator[Live]:
    live = Live(tmp_path / "data", "--workers", "2")
    try:
        live.start()
        live.shop()
        yield live
    finally:
        live.close()


def _until(fact: Callable[[], bool]) -> None:
    """Wait until something is true."""
    until = time.monotonic() + WAIT_MAX_S
    while not fact():
        assert time.monotonic() < until, "it did not become true"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def _seats_on_each(server: Live, workers: int = 2, *roles: str) -> dict[str, Seat]:
    """A seat on each worker, by the worker's name; with roles, of hosts."""
    found: dict[str, Seat] = {}
    until = time.monotonic() + WAIT_MAX_S
    while len(found) < workers:
        assert time.monotonic() < until, "some worker takes no connection"
        seat = Seat(server)
        node = seat.join(server.token(f"u{len(found)}", *roles))["node"]
        if node in found:
            seat.leave()
        else:
            found[node] = seat
    return found


def test_workers_are_one_room(server):
    """What is said and sold on one worker is seen on the other, and counted once."""
    ann, bob = _seats_on_each(server).values()
    said = ann.do("message.post", text="over there?")["message"]
    assert bob.hear("message.posted")["data"] == said
    ann.do("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 10}])
    assert bob.hear("stock.changed", lambda data: data["left"] == 0)
    assert bob.refusal("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 1}]) == "sold_out"
    ann.leave()
    bob.leave()
    assert server.audit()["ok"]


def _hears(seat: Seat, name: str, **data: int) -> bool:
    """Whether it has heard this, or hears it now."""

    def fits(told: dict[str, int]) -> bool:
        return data.items() <= told.items()

    return any(one["ev"] == name and fits(one["data"]) for one in seat.heard) or bool(
        seat.hear(name, fits)
    )


def test_three_workers_are_one_room(tmp_path):
    """On three workers too everybody hears each event once and in order, whoever caused it."""
    live = Live(tmp_path / "data", "--workers", "3", "--message-rate-max", "0")
    try:
        live.start()
        live.shop()
        seats = list(_seats_on_each(live, 3, "host:r1").values())
        assert len(live.workers()) == 3
        texts = [f"{turn} by {by}" for turn in range(5) for by in range(3)]
        for text, seat in zip(texts, cycle(seats), strict=False):
            seat.do("notice.post", text=text)
        for number, seat in enumerate(seats):
            seat.do("order.place", order=new_id(), lines=[{"sku": "s1", "qty": number + 1}])
        said = seats[0].do("message.post", text="everywhere?")["message"]
        for seat in seats:
            assert seat.hear("message.posted")["data"] == said
            notices = [one for one in seat.heard if one["ev"] == "notice.posted"]
            assert [one["data"]["text"] for one in notices] == texts
            assert [one["seq"] for one in notices] == [
                *range(notices[0]["seq"], notices[0]["seq"] + 15)
            ]
            assert _hears(seat, "stock.changed", left=4)
            assert _hears(seat, "viewers.counted", viewers=3)
        for seat in seats:
            seat.leave()
        assert live.audit()["ok"]
    finally:
        live.close()


def _seat_when_there_is_room(server: Live) -> Seat:
    """A seat, however often the answer was 503 first."""
    until = time.monotonic() + WAIT_MAX_S
    while time.monotonic() < until:
        try:
            return Seat(server)
        except InvalidStatus as refusal:
            answer = refusal.response
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
        time.sleep(0.05)
    raise AssertionError("nobody takes this connection")


def test_a_full_worker_leaves_viewers_to_its_siblings(tmp_path):
    """All that the workers can take together get in; one more is told 503, until one leaves."""
    live = Live(tmp_path / "data", "--workers", "2", "--connections-max", "4")
    try:
        live.start()
        live.shop()
        seats = [_seat_when_there_is_room(live) for _ in range(8)]
        nodes = Counter(seat.join()["node"] for seat in seats)
        assert sorted(nodes.values()) == [4, 4]
        with pytest.raises(InvalidStatus, match="503"):
            Seat(live, open_timeout=WAIT_MAX_S)
        seats[0].leave()
        _seat_when_there_is_room(live).leave()
    finally:
        live.close()


def test_a_scrape_is_of_every_worker(server):
    """Whichever worker answers, the numbers of all are told, each under its own place."""
    seats = _seats_on_each(server)
    for seat in seats.values():
        seat.do("message.post", text="counted")
    with server.http() as http:
        told = http.get("/metrics").text
    sums: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            if sample.labels.get("cmd", "message.post") == "message.post":
                sums.setdefault(sample.name, {})[sample.labels["worker"]] = sample.value
    assert sums["liveroom_commands_total"] == {"0": 1, "1": 1}
    assert all(count >= 1 for count in sums["liveroom_connections"].values())
    assert set(sums["liveroom_command_seconds_count"]) == {"0", "1"}
    for seat in seats.values():
        seat.leave()


def test_a_scrape_goes_on_beside_a_worker_that_hangs(server):
    """The series of a worker that does not answer are missing; those of the other are there."""
    seats = _seats_on_each(server)
    stopped = next(iter(server.workers()))
    os.kill(stopped, signal.SIGSTOP)
    try:
        with server.http() as http:
            told = http.get("/metrics").text
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert len(set(re.findall(r'liveroom_orders_placed_total{worker="(\d)"}', told))) == 1
    for seat in seats.values():
        seat.leave()


def test_connections_are_within_the_file_limit(monkeypatch):
    """A process that may open few files takes fewer connections than was asked, never more."""
    for files, wanted, taken in (
        (20_000, 18_000, 18_000),
        (20_000, 0, 19_000),
        (4096, 18_000, 3096),
        (1024, 0, 512),
        (resource.RLIM_INFINITY, 18_000, 18_000),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _which, files=files: (files, files))
        assert connections_within_files(wanted) == taken


def test_a_worker_that_dies_is_replaced(server):
    """A killed worker's viewers lose their connection; a new worker takes its place."""
    before = server.workers()
    assert len(before) == 2
    os.kill(next(iter(before)), signal.SIGKILL)
    _until(lambda: len(server.workers()) == 2 and server.workers() != before)
    for seat in _seats_on_each(server).values():
        seat.leave()
    assert server.stop() == 0


def test_a_worker_that_dies_while_redis_hangs_is_replaced_after_it(server):
    """One that cannot start takes none of the others along; once Redis is back, all serve."""
    valkey = next(pid for pid, line in server.children().items() if "valkey" in line)
    before = server.workers()
    os.kill(valkey, signal.SIGSTOP)
    try:
        os.kill(next(iter(before)), signal.SIGKILL)
        _until(lambda: "could not start" in server.log())
    finally:
        os.kill(valkey, signal.SIGCONT)
    _until(lambda: len(server.workers()) == 2 and server.workers() != before)
    for seat in _seats_on_each(server).values():
        seat.leave()
    assert server.stop() == 0


def _fails_to_start(data: Path, workers: int) -> subprocess.CompletedProcess[str]:
    """A start that fails once the stores are ready: what it serves with cannot be built."""
    program = data.parent / "program.py"
    program.write_text(
        f"""if __name__ == "__main__":
    from pathlib import Path
    from liveroom import supervisor
    from liveroom.settings import Settings
    data = Path({str(data)!r})
    supervisor.serve(Settings(data=data, port=0, workers={workers}, jwks_url="none"), print)
"""
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=WAIT_MAX_S,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.stdout == ""
    return done


def test_workers_that_cannot_start_end_it_all(tmp_path):
    """Where no worker can be built, however it ends, the server ends too and says that it failed."""
    done = _fails_to_start(tmp_path / "data", 2)
    assert done.returncode == STARTUP_FAILURE
    assert "a worker could not start; stopping" in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_that_fails_keeps_what_a_planned_stop_kept(tmp_path, workers):
    """Carts outlive a stop, a start that serves nobody, and the next start."""
    with serving(tmp_path / "data") as live:
        ann = Seat(live)
        ann.join(live.token("ann"))
        ann.do("cart.add", sku="s1", qty=3)
        assert live.stop() == 0
        ann.leave()
        assert _fails_to_start(live.data, workers).returncode != 0
        live.start()
        ann = Seat(live)
        [line] = ann.join(live.token("ann"))["snapshot"]["cart"]["lines"]
        assert (line["sku"], line["qty"]) == ("s1", 3)
        ann.leave()


def test_a_worker_that_is_killed_while_it_starts_is_replaced(tmp_path):
    """The server says where it listens once all serve, though one of the first never did."""
    live = Live(tmp_path / "data", "--workers", "2")
    starting = threading.Thread(target=live.start)
    starting.start()
    try:
        _until(lambda: live.process is not None and len(live.workers()) == 2)
        os.kill(min(live.workers()), signal.SIGKILL)
        starting.join()
        assert live.url
        assert len(live.workers()) == 2
        assert live.stop() == 0
    finally:
        starting.join()
        live.close()


def test_a_worker_that_still_starts_is_not_taken_for_one_that_hangs(tmp_path, redis_url):
    """Before its first answer a worker only has to run; from then on it has to answer in time."""
    settings = Settings(data=tmp_path, redis_url=redis_url, secret="s" * 40, workers=2)
    stores.upgrade(settings)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.set_inheritable(True)
        worker = Process(Config(settings), [listener])
        worker.start()
        try:
            assert worker.is_alive(timeout=0), "it cannot have answered yet"
            assert worker.wait_until_ready(WAIT_MAX_S)
            _until(lambda: worker.is_alive(timeout=WAIT_MAX_S))
            os.kill(worker.pid, signal.SIGSTOP)
            _until(lambda: not worker.is_alive(timeout=0.1))
        finally:
            worker.kill()
            worker.join()


def test_workers_and_valkey_die_with_their_parent(server):
    """With the parent killed nothing of the server goes on."""
    family = set(server.children())
    assert len(family) >= 3
    server.kill()
    _until(lambda: not any(_alive(pid) for pid in family))
    server.start()
    assert server.stop() == 0


def test_drain_closes_every_viewer_with_a_hint(server):
    """SIGTERM closes the viewers of each worker with 4000 and a time to come back, and exits 0."""
    seats = list(_seats_on_each(server).values())
    assert server.stop() == 0
    for seat in seats:
        assert seat.closed() == 4000
        assert '"after_ms"' in (seat.socket.close_reason or "")
        seat.leave()


def test_while_it_drains_it_is_not_ready_and_still_serves(tmp_path):
    """From SIGTERM on /readyz answers 503, while viewers are served until the drain is over."""
    live = Live(tmp_path / "data", "--drain-s", "3")
    try:
        live.start()
        live.shop()
        ann, mia = Seat(live), Seat(live)
        ann.join(live.token("ann"))
        mia.join(live.token("mia", "host:r1"))
        with live.http() as http:
            assert http.get("/readyz").status_code == 200
            live.send(signal.SIGTERM)
            _until(lambda: http.get("/readyz").status_code == 503)
            assert http.get("/readyz?verbose").json()["checks"]["draining"] == "draining"
            assert http.get("/livez").status_code == 200
            mia.do("notice.post", text="still here")
            assert ann.hear("notice.posted")["data"] == {"text": "still here"}
            line = {"sku": "s1", "qty": 1}
            assert ann.do("order.place", order=new_id(), lines=[line])["order"]["state"] == "placed"
        assert ann.closed() == mia.closed() == 4000
        assert live.wait() == 0
    finally:
        live.close()


def test_hangup_replaces_the_workers(server):
    """SIGHUP replaces the workers one after another while the port is served."""
    before = server.workers()
    server.send(signal.SIGHUP)
    _until(lambda: len(server.workers()) == 2 and not server.workers() & before)
    for seat in _seats_on_each(server).values():
        seat.leave()


def test_asked_to_stop_while_it_replaces_its_workers(tmp_path):
    """All drain at once, the one that was being replaced too, and no further one is started."""
    live = Live(tmp_path / "data", "--workers", "3", "--drain-s", "60")

    def serves() -> bool:
        with live.http() as http:
            return http.get("/readyz").status_code == 200

    try:
        live.start()
        before = live.workers()
        live.send(signal.SIGHUP)
        live.send(signal.SIGHUP)
        _until(lambda: bool(live.workers() - before))
        live.send(signal.SIGTERM)
        _until(lambda: not any(serves() for _ in range(50)))
        assert before <= live.workers()
        assert len(live.workers() - before) <= 1
    finally:
        live.kill()


def test_valkey_is_restarted_and_stock_rebuilt(tmp_path):
    """A killed Valkey comes back, the fence is raised, and sales go on by themselves."""
    live = Live(tmp_path / "data").start()
    try:
        live.shop()
        ann = Seat(live)
        before = ann.join(live.token("ann"))["snapshot"]["stock"]["s1"]["v"]
        [valkey] = [p for p, line in live.children().items() if "valkey-server" in line]
        os.kill(valkey, signal.SIGKILL)

        def sold() -> bool:
            with live.http(live.token("ann")) as http:
                line = {"sku": "s1", "qty": 1}
                body = {"cmd": "order.place", "data": {"order": new_id(), "lines": [line]}}
                answer = http.post("/v1/rooms/r1/commands", json=body)
            assert answer.status_code == 200 or answer.json()["retry"], answer.text
            return answer.status_code == 200

        def seen() -> bool:
            """Whether who comes now sees the new stock; told that its place is lost, it is not."""
            back = Seat(live)
            try:
                joined = back.join(live.token("ann"))
            except ConnectionClosed:
                if back.socket.close_code != 4002:
                    raise
                return False
            finally:
                back.leave()
            return joined["snapshot"]["stock"]["s1"]["v"] > before

        _until(sold)
        _until(seen)
        ann.leave()
        _until(lambda: live.audit()["ok"])
    finally:
        live.close()
