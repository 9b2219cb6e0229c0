"""The settings: one source each for flags, environment, file and documentation."""

from __future__ import annotations

import stat
import tomllib
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

from liveroom import cli, settings
from liveroom.settings import Settings
from liveroom.wire.hub import Hub


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """What `liveroom config show` says in an empty folder, as a dict."""
    monkeypatch.chdir(tmp_path)

    def show(*arguments: str) -> dict[str, object]:
        assert cli.main(["config", "show", *arguments]) == 0
        return tomllib.loads(capsys.readouterr().out)

    return show


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """The line with which `liveroom config check` refuses the arguments."""
    monkeypatch.chdir(tmp_path)

    def check(*arguments: str) -> str:
        assert cli.main(["config", "check", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, "a refusal is one line"
        return said

    return check


def test_flag_beats_environment_beats_file_beats_default(shown, monkeypatch):
    """Flags come before LIVEROOM_* variables, these before the file, and this before defaults."""
    assert shown()["port"] == 8000
    Path("liveroom.toml").write_text("port = 1\nhold_ttl_s = 1.5\nworkers = 3\n")
    assert shown()["port"] == 1
    monkeypatch.setenv("LIVEROOM_PORT", "2")
    assert shown()["port"] == 2
    found = shown("--port", "3")
    assert (found["port"], found["hold_ttl_s"], found["workers"]) == (3, 1.5, 3)


def test_a_hub_keeps_what_the_settings_say():
    """Its default for those who make one without settings is theirs."""
    assert signature(Hub).parameters["ring_max"].default == Settings.ring_max


def test_config_names_another_file(shown, refused, monkeypatch):
    """`--config` and LIVEROOM_CONFIG name a settings file; a file that is named must be there."""
    Path("other.toml").write_text("port = 7\n")
    assert shown("--config", "other.toml")["port"] == 7
    monkeypatch.setenv("LIVEROOM_CONFIG", "other.toml")
    assert shown()["port"] == 7
    assert "--config" in refused("--config=nowhere.toml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sandbox"], True),
        (["--sandbox=true"], True),
        (["--sandbox", "true"], True),
        (["--sandbox", "1"], True),
        (["--sandbox", "false"], False),
        (["--sandbox", "0"], False),
        ([], False),
    ],
)
def test_truth_is_written_as_true_false_1_or_0(shown, arguments, expected):
    """A boolean setting takes true, false, 1 and 0, after a space too, and alone means true."""
    assert shown(*arguments)["sandbox"] is expected


@pytest.mark.parametrize(("text", "expected"), [("1", True), ("0", False), ("true", True)])
def test_truth_in_the_environment(shown, monkeypatch, text, expected):
    """The same words serve in the environment."""
    monkeypatch.setenv("LIVEROOM_SANDBOX", text)
    assert shown()["sandbox"] is expected


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "70000"], "--port"),
        (["--port", "many"], "--port"),
        (["--workers", "0"], "--workers"),
        (["--hold-ttl-s", "-1"], "--hold-ttl-s"),
        (["--redis-url", "localhost"], "--redis-url"),
        (["--database-url", "mysql://x"], "--database-url"),
        (["--allowed-origins", "shop.example"], "--allowed-origins"),
        (["--log-level", "loud"], "--log-level"),
        (["--prot", "1"], "--prot"),
        (["--redis-url", "redis://127.0.0.1:99999"], "--redis-url"),
        (["--redis-url", "redis+cluster://a:1,b:many"], "--redis-url"),
        (["--jwks-url", "nonsense"], "--jwks-url"),
        (["--jwks-url", "https://"], "--jwks-url"),
        (["--jwks-url", "https://a.example:99999/keys"], "--jwks-url"),
        (["--stripe-api-base", "api.stripe.example"], "--stripe-api-base"),
        (["--hold-ttl-s", "inf"], "--hold-ttl-s"),
        (["--ping-interval-s", "inf"], "--ping-interval-s"),
        (["--message-rate-max", "1e300"], "--message-rate-max"),
        (["--drain-s", "nan"], "--drain-s"),
        (["--socket-send-bytes", "99999999999"], "--socket-send-bytes"),
        (["--allowed-origins", "https://a.example,https://b.example"], "--allowed-origins"),
        (["--allowed-origins", "https://a.example/shop"], "--allowed-origins"),
        (["--allowed-origins", "https://ann@a.example"], "--allowed-origins"),
        (["--trusted-proxies", "nonsense"], "--trusted-proxies"),
        (["--trusted-proxies", "10.0.0.0/8", "--trusted-proxies", "*"], "--trusted-proxies"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(refused, arguments, named):
    """Bad usage exits 2 with one line that names the setting."""
    assert named in refused(*arguments)


def test_several_values(shown, monkeypatch):
    """A flag is repeated, a space separates the values of a variable, the file has a list."""
    one, two = "https://a.example", "http://[::1]:8080"
    assert shown("--allowed-origins", one, "--allowed-origins", two)["allowed_origins"] == [
        one,
        two,
    ]
    Path("liveroom.toml").write_text(f'allowed_origins = ["{one}"]\n')
    assert shown()["allowed_origins"] == [one]
    monkeypatch.setenv("LIVEROOM_ALLOWED_ORIGINS", f"{one} {two} capacitor://localhost")
    assert shown()["allowed_origins"] == [one, two, "capacitor://localhost"]
    monkeypatch.setenv("LIVEROOM_TRUSTED_PROXIES", "10.0.0.0/8 ::1")
    assert shown()["trusted_proxies"] == ["10.0.0.0/8", "::1"]
    monkeypatch.setenv("LIVEROOM_TRUSTED_PROXIES", "*")
    assert shown()["trusted_proxies"] == ["*"]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--redis-url", "redis://:geheim@a.example:99999"),
        ("--database-url", "mysql://ann:geheim@a.example/x"),
    ],
)
def test_a_refusal_repeats_no_secret(refused, monkeypatch, flag, value):
    """A value that may hold a password is not said again, wherever it comes from."""
    assert "geheim" not in refused(flag, value)
    variable = f"LIVEROOM_{flag[2:].replace('-', '_').upper()}"
    monkeypatch.setenv(variable, value)
    said = refused()
    assert variable in said
    assert "geheim" not in said


@pytest.mark.parametrize(
    "text", ["port =\n", "[serve]\nport = 5\n", "[port]\nx = 5\n", "role = 1\n"]
)
def test_a_file_that_holds_anything_but_settings_is_named(refused, text):
    """A broken file, a table and a flag of one call are refused by the name of the file."""
    Path("other.toml").write_text(text)
    assert "other.toml" in refused("--config", "other.toml")


def test_a_variable_or_key_that_does_not_fit_is_named(refused, monkeypatch):
    """So do a bad variable, a bad value in the file, an unknown key, and a broken file."""
    file = Path("liveroom.toml")
    file.write_text('port = "x"\n')
    assert "port" in refused()
    file.write_text("prot = 1\n")
    assert "prot" in refused()
    file.write_text("port =\n")
    assert "TOML" in refused()
    file.unlink()
    monkeypatch.setenv("LIVEROOM_PORT", "x")
    assert "LIVEROOM_PORT" in refused()


def test_template_holds_every_setting_and_changes_none(shown):
    """`config init` writes each setting, commented out; uncommented it is the default."""
    assert cli.main(["config", "init"]) == 0
    text = Path("liveroom.toml").read_text()
    for field in fields(Settings):
        assert f"\n# {field.name} = " in text
    assert "port" not in tomllib.loads(text)
    lines = [line.removeprefix("# ") for line in text.splitlines() if " = " in line]
    live = [line for line in lines if not line.endswith('= ""')]
    defaults = {f.name: f.default for f in fields(Settings)}
    for name, value in tomllib.loads("\n".join(live)).items():
        default = defaults[name]
        assert value == (list(default) if isinstance(default, tuple) else _plain(default))


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def test_init_leaves_a_file_alone(shown, capsys):
    """`config init` never writes over a file."""
    Path("liveroom.toml").write_text("port = 5\n")
    assert cli.main(["config", "init"]) == 2
    assert Path("liveroom.toml").read_text() == "port = 5\n"


def test_show_hides_secrets(shown):
    """Neither the secret nor a password in a URL is shown."""
    url = "redis://user:geheim@host/0"
    stripe = ["--stripe-secret-key", "geheim", "--stripe-webhook-secret", "geheim"]
    found = shown("--secret", "geheim" * 6, "--redis-url", url, *stripe)
    assert "geheim" not in str(found)
    assert found["stripe_webhook_secret"] == ["(hidden)"]
    assert found["redis_url"] == "redis://(hidden)@host/0"


@pytest.mark.parametrize(
    ("flag", "url", "seen"),
    [
        ("--redis-url", "redis://h/1?password=geheim&db=2", "redis://h/1?password=(hidden)&db=2"),
        (
            "--redis-url",
            "unix:///run/r?db=0&password=a@geheim",
            "unix:///run/r?db=0&password=(hidden)",
        ),
        ("--redis-url", "rediss://:a@geheim@h/0", "rediss://(hidden)@h/0"),
        ("--redis-url", "redis://h/1?p%61ssword=geheim", "redis://h/1?p%61ssword=(hidden)"),
        ("--database-url", "postgresql://u:a/geheim@h/db", "postgresql://(hidden)@h/db"),
        (
            "--database-url",
            "postgresql://h/db?user=u&password=geheim&sslpassword=geheim&sslmode=require",
            "postgresql://h/db?user=u&password=(hidden)&sslpassword=(hidden)&sslmode=require",
        ),
    ],
)
def test_show_hides_passwords_wherever_a_url_may_have_them(shown, flag, url, seen):
    """A password is hidden before the host and behind the question mark; the rest is shown."""
    assert shown(flag, url)[flag.removeprefix("--").replace("-", "_")] == seen


@pytest.mark.parametrize("url", ["postgres://u:geheim@h/db", "u:geheim@h", "x:///?password=geheim"])
def test_a_refused_url_keeps_its_password(capsys, monkeypatch, url):
    """A URL that is refused is not repeated: it may hold a password, and the line ends in a log."""
    for flag in ("--database-url", "--redis-url"):
        assert cli.main(["config", "check", flag, url]) == 2
        monkeypatch.setenv("LIVEROOM_" + flag[2:].upper().replace("-", "_"), url)
        assert cli.main(["config", "check"]) == 2
        said = capsys.readouterr().err
        assert said.count("Must start with") == 2
        assert flag in said
        assert "geheim" not in said


def test_no_limit_is_a_number_where_a_deadline_needs_one():
    """0 seconds mean no limit; a fraction below a millisecond does not become one."""
    assert settings.limit_ms(0) == settings.NO_LIMIT_MS
    assert settings.limit_ms(0.0001) == 1
    assert settings.limit_ms(1.5) == 1500


def test_secret_is_made_once_and_kept_private(tmp_path):
    """The made secret stays the same, and only its owner may read it."""
    first = settings.secret_in(tmp_path / "data")
    assert settings.secret_in(tmp_path / "data") == first
    assert len(first) >= 32
    mode = (tmp_path / "data" / "secret").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret"]
