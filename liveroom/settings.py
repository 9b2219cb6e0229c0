"""Every setting of the server, once: its name, its default, its bounds and what it means.

A setting comes from a flag, else from the environment (`LIVEROOM_` and the name), else from
`liveroom.toml`, else from its default here. The dataclass is seen by the command line, the
demo and the server alone; everything else is handed values. `docs/settings.md` is made from
it. Names end in their unit: `_s` seconds (fractions are fine), `_max` a bound; 0 means no
limit where the text says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import unquote

from cyclopts import Parameter, validators

from liveroom import bounds
from liveroom.disk import sync_folder

DATA: Final = Path("liveroom-data")
SECRET_BYTES_MIN: Final = 32
"""As long as the hash that it feeds (RFC 7518, section 3.2)."""
ENV_PREFIX: Final = "LIVEROOM_"
FILE: Final = Path("liveroom.toml")
NO_LIMIT_MS: Final = 10 * 365 * 24 * 3600 * 1000
"""What 0 stands for where a deadline needs a number: ten years."""

_HIDDEN: Final = "(hidden)"
_MOST: Final = 2**53  # also in milliseconds a number that every part can hold; infinity is none
_not_negative = validators.Number(gte=0, lte=_MOST)
_positive = validators.Number(gt=0, lte=_MOST)


def _doc(text: str, *checks: Any) -> Parameter:
    return Parameter(help=text, validator=checks)


class BadSetting(Exception):
    """A setting that cannot be used; its text names the setting and what it must be."""


@Parameter(name="*", show_env_var=True)
@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one server."""

    # Where it listens and keeps things.
    host: Annotated[str, _doc("The address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, _doc("The port; 0 takes a free one.", validators.Number(gte=0, lte=65535))
    ] = 8000
    workers: Annotated[
        int, _doc("How many processes serve the port.", validators.Number(gte=1, lte=256))
    ] = 1
    data: Annotated[Path, _doc("The folder for the embedded stores and the made secret.")] = DATA
    redis_url: Annotated[
        str | None,
        _doc(
            "Redis 7 or Valkey 8 and later, or with redis+cluster:// a cluster of them; "
            "without it the embedded Valkey.",
            bounds.redis_url,
        ),
    ] = None
    database_url: Annotated[
        str | None,
        _doc("SQLite or PostgreSQL; without it SQLite in the data folder.", bounds.database_url),
    ] = None

    stock_partitions: Annotated[
        int | None,
        _doc(
            "Over how many slots of a Redis Cluster stock lies; without it as the database has "
            "it, at first 1. A changed number empties all carts.",
            validators.Number(gte=1, lte=256),
        ),
    ] = None

    # Who may come in.
    secret: Annotated[
        str | None,
        _doc(
            "Signs tokens (HS256); shorter than 32 bytes it may be guessed. Without it one is "
            "made in the data folder, mode 0600."
        ),
    ] = None
    jwks_url: Annotated[
        str | None,
        _doc(
            "Takes tokens signed by the keys of this JWKS instead of the secret's; with the "
            "sandbox, which signs with the secret, both.",
            bounds.http_url,
        ),
    ] = None
    issuer: Annotated[str | None, _doc("What `iss` of every token must be, where set.")] = None
    audience: Annotated[str | None, _doc("What `aud` of every token must be, where set.")] = None
    allowed_origins: Annotated[
        tuple[str, ...],
        Parameter(
            help="Origins of pages on other hosts that may open a WebSocket, such as "
            "https://shop.example.",
            validator=bounds.origins,
            negative_iterable=(),
        ),
    ] = ()
    sandbox: Annotated[
        bool,
        Parameter(
            help="The sandbox: viewer tokens for all who ask, and payments at the press of a "
            "button. Never with real money.",
            negative_bool=(),
        ),
    ] = False

    # Who takes the money.
    stripe_secret_key: Annotated[
        str | None, _doc("Takes payments through Stripe (the extra `stripe`) with this key.")
    ] = None
    stripe_webhook_secret: Annotated[
        tuple[str, ...],
        Parameter(
            help="Signs what Stripe sends to /v1/payments/webhooks/stripe; several while one "
            "is being rotated.",
            negative_iterable=(),
        ),
    ] = ()
    stripe_api_base: Annotated[
        str | None,
        _doc("Where Stripe's API is, if not where it always is; for tests.", bounds.http_url),
    ] = None

    # How much one client, and all together, may ask for.
    connections_max: Annotated[
        int, _doc("Open connections of one process; 0: no limit.", _not_negative)
    ] = 18_000
    connections_per_address_max: Annotated[
        int,
        _doc("Open connections from one address to one process; 0: no limit.", _not_negative),
    ] = 1000
    connections_per_member_max: Annotated[
        int,
        _doc(
            "Seats of one member in one process: for one more, its oldest is closed 4504; "
            "0, or no limit for an address: no limit.",
            _not_negative,
        ),
    ] = 1000
    handshakes_per_s_max: Annotated[
        float, _doc("WebSocket handshakes a second of one process; 0: no limit.", _not_negative)
    ] = 1000.0
    message_rate_max: Annotated[
        float,
        _doc(
            "Commands a second on one connection, and over HTTP of one member or of the guests "
            "of one address; 0: no limit.",
            _not_negative,
        ),
    ] = 50.0

    # How long things last.
    hold_ttl_s: Annotated[
        float, _doc("How long units stay in a cart; 0: until they leave it.", _not_negative)
    ] = 600.0
    hoarding_expired_max: Annotated[
        int,
        _doc(
            "After so many expired holds of a SKU a buyer waits before the next; 0: never.",
            _not_negative,
        ),
    ] = 0
    hoarding_window_s: Annotated[
        float,
        _doc("Within how long expired holds count together.", _positive),
    ] = 3600.0
    hoarding_wait_s: Annotated[
        float,
        _doc("How long whoever let them expire waits.", _positive),
    ] = 60.0
    pay_within_s: Annotated[
        float, _doc("How long an order waits for its payment; 0: for ever.", _not_negative)
    ] = 900.0
    closing_max_s: Annotated[
        float,
        _doc("How long an expired order waits for its payment provider's word.", _not_negative),
    ] = 60.0
    ping_interval_s: Annotated[
        float,
        _doc("Between two pings of a quiet connection, and for the pong.", _positive),
    ] = 25.0
    header_timeout_s: Annotated[
        float, _doc("How long a connection may take over its headers.", _positive)
    ] = 10.0
    drain_s: Annotated[
        float,
        _doc("After SIGTERM: how long /readyz answers 503 before the port closes.", _not_negative),
    ] = 2.0
    drain_spread_s: Annotated[
        float,
        _doc("After SIGTERM: over how long viewers are told to come back.", _not_negative),
    ] = 5.0
    shutdown_max_s: Annotated[
        float,
        _doc("After the port closed: how long running commands may take.", _positive),
    ] = 10.0

    # Fan-out.
    tick_max_ms: Annotated[
        int,
        _doc(
            "The longest a room gathers events before it writes them.",
            validators.Number(gte=1, lte=5000),
        ),
    ] = 300
    ring_max: Annotated[
        int,
        _doc(
            "Logged events of a room kept in memory for those who return.",
            validators.Number(gte=100),
        ),
    ] = 2000
    socket_send_bytes: Annotated[
        int,
        _doc(
            "The kernel's send buffer for each connection.", validators.Number(gte=4096, lte=2**30)
        ),
    ] = 65_536

    # What it says about itself.
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _doc("The least that is logged.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "plain", "json"],
        _doc("Log lines for people or for machines; auto: plain on a terminal."),
    ] = "auto"
    trusted_proxies: Annotated[
        tuple[str, ...],
        Parameter(
            help="Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed; "
            "* alone: all.",
            validator=bounds.addresses,
            negative_iterable=(),
        ),
    ] = ("127.0.0.1", "::1")

    @property
    def running_redis(self) -> Path:
        """The file in which a running server says where its embedded Valkey listens."""
        return self.data / "redis.url"

    def database(self) -> str:
        """The database's URL: the one that was set, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{self.data.expanduser().resolve() / 'liveroom.db'}"


class Documented(NamedTuple):
    """One setting, as the documentation shows it."""

    name: str
    flag: str
    variable: str
    default: Any
    text: str


def documented() -> Iterator[Documented]:
    """Every setting with its flag, its environment variable, its default and its text."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    for field in dataclasses.fields(Settings):
        parameter = next(m for m in hints[field.name].__metadata__ if isinstance(m, Parameter))
        yield Documented(
            name=field.name,
            flag="--" + field.name.replace("_", "-"),
            variable=ENV_PREFIX + field.name.upper(),
            default=field.default,
            text=str(parameter.help),
        )


def template() -> str:
    """A settings file that changes nothing: every setting commented out, with its text."""
    head = f"# Settings of liveroom. Flags and {ENV_PREFIX}* variables come before this file.\n"
    lines = [
        f"\n# {one.text}\n# {one.name} = {_toml(_shown(one.default))}\n" for one in documented()
    ]
    return head + "".join(lines)


def as_toml(settings: Settings) -> str:
    """The settings in force, without secrets; what is not set is left out."""
    values = {one.name: getattr(settings, one.name) for one in documented()}
    for name in ("secret", "stripe_secret_key"):
        if values[name] is not None:
            values[name] = _HIDDEN
    values["stripe_webhook_secret"] = tuple(_HIDDEN for _ in values["stripe_webhook_secret"])
    for name in ("redis_url", "database_url", "jwks_url"):
        if values[name] is not None:
            values[name] = without_password(values[name])
    return "".join(
        f"{name} = {_toml(value)}\n" for name, value in values.items() if value is not None
    )


def without_password(url: str) -> str:
    """The URL without who signs in, and without the parameters that are passwords.

    Both databases' drivers take `?password=` too. A password may hold what a URL should
    quote, so all up to the last @ is hidden.
    """

    def hide(found: re.Match[str]) -> str:
        is_password = "pass" in unquote(found["name"]).lower()
        return f"{found['name']}={_HIDDEN}" if is_password else found[0]

    shown = re.sub(r"(?<=[?&])(?P<name>[^?&=]*)=[^&]*", hide, url)
    return re.sub(r"^([\w+.-]*://)?.*@", rf"\1{_HIDDEN}@", shown)


def _shown(default: Any) -> Any:
    return "" if default is None else default


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, int | float):
        return repr(value)
    # A basic string of TOML escapes as JSON does.
    return json.dumps(str(value), ensure_ascii=False)


def limit_ms(seconds: float) -> int:
    """A duration of the settings in milliseconds; 0, no limit, becomes ten years, as all above."""
    return min(max(1, round(seconds * 1000)), NO_LIMIT_MS) if seconds > 0 else NO_LIMIT_MS


def secret_in(data: Path) -> str:
    """The secret that signs tokens where none was set: made once, kept with mode 0600.

    Two processes that ask at the same moment get the same one. It is on disk before anybody
    has it, so that no power cut leaves an empty one. Raises `BadSetting` where it is empty.
    """
    path = data / "secret"
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        fresh = data / f".secret.{os.getpid()}"
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was faster: take its secret
            os.link(fresh, path)
        fresh.unlink()
        sync_folder(data)
    secret = path.read_text().strip()
    if not secret:
        raise BadSetting(f"--data: {path} is empty; remove it, and sign tokens anew")
    return secret
