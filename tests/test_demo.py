"""The demo as its users start it: a living room, the same one the next time, and a way out."""

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from liveroom.demo import hosting, script
from liveroom_client import Event, connect

ROOT = Path(__file__).parent.parent
START_MAX_S = 40.0


class Demo:
    """One `liveroom demo` with a small crowd."""

    def __init__(self, data, *flags):
        path = os.pathsep.join([str(ROOT), str(ROOT / "clients" / "python")])
        environment = {n: v for n, v in os.environ.items() if not n.startswith("LIVEROOM_")}
        command = [sys.executable, "-m", "liveroom", "demo", "--port=0", "--crowd=6"]
        self.process = subprocess.Popen(
            [*command, "--drain-s=0", "--drain-spread-s=0", f"--data={data}", *flags],
            stdout=subprocess.PIPE,
            bufsize=0,  # select() does not see what a buffer holds
            env=environment | {"PYTHONPATH": path},
        )
        try:
            self.viewer = self.line("viewer:")
            self.console = self.line("console:")
        except BaseException:
            self.stop()
            raise
        self.url, _, self.room = self.viewer.partition("/room/")
        self.token = self.console.partition("#token=")[2]

    def line(self, name):
        until = time.monotonic() + START_MAX_S
        while (left := until - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0]:
                read = self.process.stdout.readline().decode()
                if read.startswith(name):
                    return read.removeprefix(name).strip()
                assert read, "the demo ended"
        raise AssertionError(f"{name} was not printed")

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return answer.read().decode()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.process.stdout.close()
        return code


async def until(fact):
    async with asyncio.timeout(25):
        while not fact():  # noqa: ASYNC110 - a test looks, it is not told
            await asyncio.sleep(0.05)


def test_the_demo_lives_and_goes_on(run, tmp_path):
    """A crowd talks in a seeded room; the next start opens the same room; both end cleanly."""
    demo = Demo(tmp_path / "demo folder")

    async def first():
        async with connect(demo.url, demo.room, demo.token) as room:
            assert len(room.state.shelf) == 8
            assert all(f"/pictures/{p['id']}.svg" == p["picture"] for p in room.state.shelf)
            await until(lambda: room.state.pinned and room.state.messages)
            await until(lambda: room.state.viewers >= 4)
            await room.host.pin("lamp")

    try:
        run(first())
        assert "<svg" in demo.get("/pictures/teaset.svg")
    finally:
        assert demo.stop() == 0

    again = Demo(tmp_path / "demo folder")

    async def second():
        async with connect(again.url, again.room, again.token) as room:
            assert "lamp" in {product["id"] for product in room.state.pinned}
            assert room.state.messages

    try:
        assert again.room == demo.room
        run(second())
    finally:
        assert again.stop() == 0


def test_fresh_never_empties_a_folder_of_somebody_else(tmp_path):
    """`--fresh` deletes what a demo has made, and nothing else."""
    (tmp_path / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        [sys.executable, "-m", "liveroom", "demo", "--fresh", f"--data={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "clients/python")])},
    )
    assert done.returncode == 2
    assert "--fresh" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "data", "steps_back"),
    [
        ("product.pinned", {"product": {"id": "mug"}}, True),
        ("product.unpinned", {"product": "mug"}, True),
        ("message.posted", {"member": "linxia", "text": "I am here now"}, True),
        ("message.posted", {"member": "u-1", "text": "hello"}, False),
        ("viewers.counted", {"viewers": 3, "v": 1}, False),
    ],
)
def test_the_host_bot_steps_back_for_a_person(run, name, data, steps_back):
    """What the host does without the bot was done by a person, who then has the room."""

    async def story():
        bot = hosting.Hosting("http://localhost", "tonight", "", script.load())
        bot._notice_person(Event(name, data, 0))
        assert bot._quiet is steps_back

    run(story())


def test_the_script_is_whole():
    """Every product has a picture, words and prices; every note shows products there are."""
    told = script.load()
    products = {product["id"] for product in told.products}
    assert len(told.shops) == 2
    assert len(products) == 8
    assert {role for one in told.creators for role in one["roles"]} == {"buyer", "manager", "clerk"}
    for product in told.products:
        picture = (ROOT / "liveroom" / "pictures" / f"{product['id']}.svg").read_text()
        assert not re.search(r"<script|href=", picture)
        assert all(product[what] for what in ("pitch", "lines", "questions", "needs"))
    assert {product for note in told.notes for product in note["products"]} <= products
