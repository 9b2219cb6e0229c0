"""The command line: what each command prints, and with which code it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from liveroom import cli, settings
from liveroom.exports import COLUMNS, safe
from liveroom.ids import new_id
from tests.live import Live, Seat

SECRET = "a secret that is long enough to sign with"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Every command runs in an empty folder, without settings of the machine's own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LIVEROOM_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    live = Live(tmp_path_factory.mktemp("cli") / "data")
    try:
        live.start()
        live.shop()
        yield live
    finally:
        live.close()


@pytest.mark.parametrize("command", ["serve", "demo", "audit", "token", "export"])
def test_help_shows_defaults_and_variables(capsys, command):
    """`--help` tells each setting's default and environment variable."""
    assert cli.main([command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in ("LIVEROOM_PORT", "LIVEROOM_MESSAGE_RATE_MAX", "[default: 8000]", "--config"):
        assert name in said
    for flag in ("SUB", "ROLE", "JSON", "ROOM", "FRESH"):
        assert f"LIVEROOM_{flag}" not in said


def test_flags_of_one_call_are_no_settings(capsys, monkeypatch):
    """What a call is to do is said in the call: no variable makes an admin of whom it names."""
    for name in ("NAME", "ROLE", "TTL"):
        monkeypatch.setenv(f"LIVEROOM_{name}", "1" if name == "TTL" else "admin")
    assert cli.main(["token", "--sub", "u1", "--secret", SECRET]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"])
    assert (claims["name"], claims["roles"]) == ("u1", [])
    assert claims["exp"] - claims["iat"] == 86_400
    monkeypatch.setenv("LIVEROOM_SUB", "u1")
    assert cli.main(["token", "--secret", SECRET]) == 2
    monkeypatch.setenv("LIVEROOM_JSON", "true")
    assert cli.main(["db", "upgrade", "--data", "data"]) == 0
    assert cli.main(["audit", "--data", "data"]) == 0
    assert "all sums agree" in capsys.readouterr().out


def test_token_is_signed_with_the_folders_secret(tmp_path, capsys):
    """`liveroom token` prints a token that the server of that folder takes."""
    made = settings.secret_in(tmp_path / "data")
    flags = ["--data", "data", "--sub", "u1", "--name", "Ann", "--ttl", "60"]
    assert cli.main(["token", *flags, "--role", "host:r1", "--role", "admin"]) == 0
    token = capsys.readouterr().out.strip()
    claims = jwt.decode(token, made, algorithms=["HS256"])
    assert (claims["sub"], claims["name"]) == ("u1", "Ann")
    assert claims["roles"] == ["host:r1", "admin"]
    assert claims["exp"] - claims["iat"] == 60


def test_token_says_what_may_be_of_no_use(tmp_path, capsys):
    """A role that no server knows, and a secret that no server has made: signed, with a word."""
    flags = ["--sub", "u1", "--role", "boss", "--role", "host:", "--role", "admin"]
    assert cli.main(["token", *flags]) == 0
    told = capsys.readouterr()
    assert [name for name in ("'boss'", "'host:'", "'admin'") if name in told.err] == [
        "'boss'",
        "'host:'",
    ]
    assert "a secret is made in liveroom-data" in told.err
    made = settings.secret_in(tmp_path / "liveroom-data")
    claims = jwt.decode(told.out.strip(), made, algorithms=["HS256"])
    assert claims["roles"] == ["boss", "host:", "admin"]
    assert cli.main(["token", "--sub", "u1", "--ttl", "1e9"]) == 0
    assert capsys.readouterr().err == ""


def test_token_takes_the_secret_that_is_set(capsys):
    """With a secret of one's own no folder is made."""
    assert cli.main(["token", "--sub", "u1", "--secret", SECRET]) == 0
    jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"])
    assert not Path("liveroom-data").exists()


def test_token_for_a_sandbox_is_signed_beside_a_sign_in_service(capsys):
    """With a JWKS the secret signs for the sandbox alone, which is then set here too."""
    secret = "a secret that is long enough to sign with"
    flags = ["--secret", secret, "--jwks-url", "https://id.example/jwks", "--sandbox"]
    assert cli.main(["token", "--sub", "u1", *flags]) == 0
    jwt.decode(capsys.readouterr().out.strip(), secret, algorithms=["HS256"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["token"], "--sub"),
        (["token", "--sub", "u1", "--ttl", "0"], "--ttl"),
        (["token", "--sub", "u1", "--jwks-url", "https://id.example/jwks"], "--jwks-url"),
        (["token", "--sub", "a b"], "--sub"),
        (["token", "--sub", "x" * 65], "--sub"),
        (["token", "--sub", "u1", *(f"--role=host:r{n}" for n in range(65))], "--role"),
        (["token", "--sub", "u1", "--ttl", "inf"], "--ttl"),
        (["config", "init", "nowhere/liveroom.toml"], "nowhere/liveroom.toml"),
        (["audit"], "--data"),
        (["export"], "--data"),
        (["export", "secrets"], "secrets"),
        (["demo", "--crowd", "-1"], "--crowd"),
        (["sing"], "sing"),
    ],
)
def test_bad_usage_is_one_line_and_2(capsys, arguments, named):
    """Bad usage ends with 2 and one line that names what is wrong; nothing is made."""
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_db_upgrade_makes_what_the_audit_reads(capsys):
    """After `db upgrade` the audit finds tables, empty and right; it may be repeated."""
    assert cli.main(["db", "upgrade", "--data", "data"]) == 0
    assert cli.main(["db", "upgrade", "--data", "data"]) == 0
    assert cli.main(["audit", "--data", "data"]) == 0
    assert "all sums agree" in capsys.readouterr().out


def test_audit_beside_a_live_server(server):
    """The audit of a running server checks its gates too, those there are by then."""
    with server.http() as http:
        assert http.get("/v1/rooms/r1").json()["stock"]
    report = server.audit()
    assert report["ok"]
    assert report["checks"]["I3"]["checked"] > 0


def test_audit_fails_with_1_and_names_what_differs(tmp_path, capsys):
    """A sum that is wrong ends the audit with 1 and a line with the pool and both sums."""
    live = Live(tmp_path / "wrong")
    live.start()
    live.shop(stock=7)
    live.close()
    with sqlite3.connect(tmp_path / "wrong" / "liveroom.db") as database:
        database.execute("UPDATE pools SET sold = 2")
    assert cli.main(["audit", "--data", str(tmp_path / "wrong")]) == 1
    said = capsys.readouterr().out
    assert "I1" in said
    assert "sku:s1" in said
    assert "FAILED" in said


def test_export_writes_every_line(server, capsys):
    """`export orders` writes a row for each line of each order."""
    ann = Seat(server)
    ann.join(server.token("ann"))
    order = ann.do("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 2}])["order"]
    ann.leave()
    assert cli.main(["export", "orders", "--data", str(server.data)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert set(rows[0]) == set(COLUMNS)
    [row] = [row for row in rows if row["order"] == order["id"]]
    assert (row["sku"], row["qty"], row["price"], row["line_total"]) == (
        "s1",
        "2",
        "19.99",
        "39.98",
    )
    assert cli.main(["export", "orders", "--data", str(server.data), "--room", "none"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_export_holds_no_formula(text):
    """Text that a spreadsheet would run as a formula is written as text."""
    assert safe(text) == f"'{text}"
    assert safe("plain") == "plain"


def test_a_port_in_use_is_said(tmp_path):
    """A port that another program has ends `serve` with 2 and a line that names the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _serve("--port", str(port), "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "--port" in done.stderr.splitlines()[-1]


def test_a_folder_in_use_is_said(server):
    """A second server on the same folder ends with 2 and leaves the first alone."""
    done = _serve("--port", "0", "--data", str(server.data))
    assert done.returncode == 2
    assert "--data" in done.stderr.splitlines()[-1]
    assert server.audit()["ok"]


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("--redis-url", "unix:///nowhere/redis.sock"),
        ("--redis-url", "redis+cluster://127.0.0.1:1"),
        ("--redis-url", "redis://127.0.0.1/?db=many"),
        ("--database-url", "postgresql://ann:geheim@127.0.0.1:1/liveroom"),
        ("--database-url", "sqlite:////nowhere/liveroom.db"),
        ("--database-url", "sqlite:///"),
    ],
)
def test_the_store_that_cannot_be_used_is_named(tmp_path, setting, url):
    """A store that is away ends `serve` with 2 and one line, of its setting and no other."""
    done = _serve("--port", "0", "--data", str(tmp_path / "data"), setting, url)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"liveroom: {setting}: "), line
    assert "Traceback" not in done.stderr
    assert "geheim" not in done.stderr


def test_a_folder_that_cannot_be_made_is_said(capsys):
    """A data folder under a file ends `db upgrade` with 2 and the setting's name."""
    Path("file").write_text("")
    assert cli.main(["db", "upgrade", "--data", "file/data"]) == 2
    assert capsys.readouterr().err.startswith("liveroom: --data: ")


def test_ctrl_c_ends_with_0(tmp_path):
    """Ctrl-C drains like SIGTERM, and ends with 0."""
    live = Live(tmp_path / "data").start()
    assert live.stop(signal.SIGINT) == 0


def _serve(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "liveroom", "serve", *flags]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=here
    )


def test_json_report_is_one_object(server):
    """`audit --json` ends with one object of `ok` and `checks`."""
    command = [sys.executable, "-m", "liveroom", "audit", "--json", "--data", str(server.data)]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=here)
    assert {"ok", "checks"} <= set(json.loads(done.stdout.splitlines()[-1]))
