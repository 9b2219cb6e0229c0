"""The embedded Valkey: it starts anywhere, dies with us, comes back, and is used unretried."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis.exceptions

from liveroom.errors import Refused, Unavailable
from liveroom.store import scripts, single
from liveroom.store.folder import DataFolder, FolderInUse
from liveroom.store.valkey import EmbeddedValkey, StartFailed


def until(fact: Callable[[], object], within_s: float = 15.0) -> None:
    """Wait for a fact; fail when it does not come to be."""
    deadline = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def ask(url: str, *command: object) -> object:
    client = scripts.connect(url)
    try:
        with scripts.store_errors():
            return await client.execute_command(*command)
    finally:
        await client.aclose()


@pytest.fixture
def server(tmp_path):
    """An embedded server not yet started; stopped afterwards."""
    embedded = EmbeddedValkey(tmp_path)
    yield embedded
    embedded.stop()


@pytest.mark.parametrize("name", ["plain", 'a b\'c "d" %41 ü', "x" * 120])
def test_starts_in_any_folder(tmp_path, run, name):
    """Spaces, quotes and long paths are no hindrance, and every file stays in the folder."""
    server = EmbeddedValkey(tmp_path / name)
    try:
        assert run(ask(server.start(), "SET", "a", "1"))
        assert Path(f"/proc/{server.pid}/comm").read_text().strip() == "valkey-server"
        assert (tmp_path / name / "valkey" / "appendonlydir").is_dir()
    finally:
        server.stop()


def test_the_server_has_the_settings_the_stock_needs(server, run):
    """It appends every second, never evicts, listens on no port, and is quiet where idle."""
    url = server.start()

    async def settings():
        client = scripts.connect(url)
        found = await client.config_get(
            "appendonly", "appendfsync", "maxmemory-policy", "port", "hz"
        )
        await scripts.check_policy(client)
        await client.aclose()
        return found

    assert run(settings()) == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "hz": "5",
    }


def test_what_was_written_is_there_after_a_stop(server, tmp_path, run):
    """A stop writes everything out; the next start reads it."""
    run(ask(server.start(), "SET", "a", "kept"))
    server.stop()
    assert server.pid is None
    again = EmbeddedValkey(tmp_path)
    assert run(ask(again.start(), "GET", "a")) == b"kept"
    again.stop()


def test_a_killed_server_comes_back_under_the_same_url(tmp_path, run):
    """Its death is reported and counted, and it is there again without anyone's doing."""
    statuses = []
    server = EmbeddedValkey(tmp_path, on_death=statuses.append)
    url = server.start()
    first = server.pid
    run(ask(url, "SET", "a", "kept"))
    os.kill(first, signal.SIGKILL)
    until(lambda: server.pid not in (None, first))

    def answers() -> bool:
        try:
            return run(ask(url, "GET", "a")) == b"kept"
        except Unavailable:
            return False

    until(answers)
    assert statuses == [-signal.SIGKILL]
    assert server.deaths == 1
    server.stop()


@pytest.mark.parametrize("name", ["plain", "x" * 120])
@pytest.mark.parametrize("killed", [True, False])
def test_a_server_without_its_folder_comes_back_empty(tmp_path, run, name, killed):
    """Killed beside it or cut off by it, it is there again under the same URL, with a new folder."""
    server = EmbeddedValkey(tmp_path / name)
    url = server.start()
    first = server.pid
    run(ask(url, "SET", "a", "lost"))
    shutil.rmtree(server.folder)
    Path(url.removeprefix("unix://")).unlink(missing_ok=True)
    if killed:
        os.kill(first, signal.SIGKILL)

    def is_back() -> bool:
        try:
            return run(ask(url, "EXISTS", "a")) == 0
        except Unavailable:
            return False

    until(is_back)
    assert server.deaths == 1
    assert (server.folder / "appendonlydir").is_dir()
    server.stop()


def test_ctrl_c_does_not_reach_the_server(server):
    """It leads its own session, so the terminal's signals are not for it."""
    server.start()
    assert os.getsid(server.pid) == server.pid != os.getsid(0)


def test_the_server_dies_with_its_parent(tmp_path, run):
    """A parent killed with SIGKILL leaves no server behind, and the folder is free again."""
    code = (
        "import sys, time, pathlib\n"
        "from liveroom.store.valkey import EmbeddedValkey\n"
        "v = EmbeddedValkey(pathlib.Path(sys.argv[1]))\n"
        "v.start(); print(v.pid, flush=True); time.sleep(60)\n"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=root
    ) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    until(lambda: not alive(pid))
    server = EmbeddedValkey(tmp_path)
    assert run(ask(server.start(), "PING")) is True
    server.stop()


def test_one_folder_has_one_server(server, tmp_path):
    """A second server on the folder is refused, with the folder's name."""
    server.start()
    second = EmbeddedValkey(tmp_path)
    with pytest.raises(StartFailed, match=str(tmp_path)):
        second.start(within_s=0.5)
    assert alive(server.pid)


def test_a_file_that_cannot_be_read_is_set_aside(server, tmp_path, run):
    """What the server cannot load is kept under another name; it starts empty."""
    run(ask(server.start(), "SET", "a", "1"))
    server.stop()
    (log,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"*3\r\n$3\r\nSET\r\n$1\r\n!broken!" + log.read_bytes())
    again = EmbeddedValkey(tmp_path)
    assert run(ask(again.start(), "GET", "a")) is None
    assert list((tmp_path / "valkey" / "appendonlydir.unreadable").glob("*.incr.aof"))
    again.stop()


def test_a_data_folder_is_private_and_held_once(tmp_path):
    """The second server is told which folder is held; a closed folder can be taken again."""
    folder = DataFolder(tmp_path / "data")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    with pytest.raises(FolderInUse, match=str(folder.path)):
        DataFolder(tmp_path / "data")
    folder.close()
    DataFolder(tmp_path / "data").close()


def test_a_redis_that_evicts_is_refused(redis_url, run):
    """A store that forgets by itself could sell what is not there."""

    async def check():
        client = scripts.connect(redis_url)
        await client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(scripts.StoreUnfit, match="noeviction"):
                await scripts.check_policy(client)
        finally:
            await client.config_set("maxmemory-policy", "noeviction")
            await client.aclose()

    run(check())


@pytest.mark.parametrize(
    ("lua", "expected"),
    [
        ("return redis.error_reply('sold_out')", Refused),
        ("return {err = 'rebuilding'}", Unavailable),
        ("return redis.error_reply('OOM no memory left')", Unavailable),
        ("return redis.error_reply('READONLY you write to a replica')", Unavailable),
        ("error('a fault of the script')", redis.exceptions.ResponseError),
    ],
)
def test_the_words_of_scripts_become_errors(redis_url, run, lua, expected):
    """A code keeps its family; what passes by itself is store_down; our own faults stay bare."""
    with pytest.raises(expected):
        run(ask(redis_url, "EVAL", lua, 0))


def test_a_store_that_is_away_is_store_down(tmp_path, run):
    """Nobody sees a driver's error."""
    with pytest.raises(Unavailable) as failure:
        run(ask(f"unix://{tmp_path}/nobody.sock", "PING"))
    assert failure.value.code == "store_down"


def test_a_store_that_hangs_is_store_down_in_time(server, run):
    """A stopped server holds nobody much longer than a command's time, connecting included."""
    url = server.start()

    async def story():
        client = scripts.connect(url)
        script = scripts.Script("room_adopt")
        call = (["lr:{r00}:run"], ["a run"])
        await script(client, *call)
        os.kill(server.pid, signal.SIGSTOP)
        for _ in range(2):  # first on an open connection, then on one to be made
            async with asyncio.timeout(single.ANSWER_MAX_S * 2):
                with pytest.raises(Unavailable):
                    await script(client, *call)
        os.kill(server.pid, signal.SIGCONT)
        answer = await script.each(client, [call, call])
        await client.aclose()
        return answer

    assert run(story()) == [0, 0]


def test_a_script_the_server_forgot_is_loaded_again(redis_url, run):
    """NOSCRIPT says that it did not run, so it may be sent again; alone and in a batch."""

    async def forget_and_call():
        client = scripts.connect(redis_url)
        script = scripts.Script("room_adopt")
        call = (["lr:{r00}:run"], ["a run"])
        await client.script_flush()
        alone = await script(client, *call)
        await client.script_flush()
        together = await script.each(client, [call, call])
        await client.aclose()
        return alone, together

    assert run(forget_and_call()) == (0, [0, 0])


def test_packed_values_pass_through_lua_unharmed(redis_url, run):
    """Text, bytes, big integers and nested values are the same on the other side."""
    value = ["ü😀", b"\xff\x00", 2**52 + 1, -1, {"a": [1, {"b": "c"}]}, True]

    async def echo():
        client = scripts.connect(redis_url)
        packed = await client.eval(
            "return cmsgpack.pack(cmsgpack.unpack(ARGV[1]))", 0, scripts.pack(value)
        )
        await client.aclose()
        return scripts.unpack_raw(packed)

    text, raw, *numbers, nested, flag = run(echo())
    assert (text.decode(), raw, numbers, flag) == ("ü😀", b"\xff\x00", [2**52 + 1, -1], True)
    assert nested == {b"a": [1, {b"b": b"c"}]}


def test_a_cut_connection_is_not_used_again(server, run):
    """After the store's restart the first command of each connection succeeds."""
    url = server.start()

    async def over_a_restart():
        client = scripts.connect(url)
        await asyncio.gather(*(client.set(f"k{i}", i) for i in range(8)))
        before = await scripts.run_id(client)
        os.kill(server.pid, signal.SIGKILL)
        other = scripts.connect(url)
        for _ in range(1000):
            try:
                if await scripts.run_id(other) != before:
                    break
            except Unavailable:
                await asyncio.sleep(0.01)
        # Not what was set: `everysec` writes nothing while an fsync of the file is under way.
        said = await asyncio.gather(*(client.echo(f"{i}") for i in range(8)))
        await client.aclose()
        await other.aclose()
        return said

    assert run(over_a_restart()) == [str(i).encode() for i in range(8)]
