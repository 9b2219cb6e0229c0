"""The command line: `liveroom serve`, `demo`, `bench`, `audit`, `token` and their kin.

Every command that touches a server takes the server's settings. Exit codes: 0 done, 1 a
check failed, 2 bad usage or configuration, with one line that names the setting, 3 a server
that could not start.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import cyclopts
from cyclopts import App, Parameter, validators
from cyclopts.config import Env, Toml
from rich.console import Console

from liveroom import __version__, logs, settings, stores, supervisor
from liveroom.auth import ROLES_MAX, Auth, valid_role
from liveroom.errors import LiveroomError
from liveroom.ids import is_id
from liveroom.settings import Settings

DONE: Final = 0
FAILED: Final = 1
BAD_USAGE: Final = 2

_NAMES: Final = frozenset(one.name for one in settings.documented())
_FLAGS: Final = frozenset(one.flag for one in settings.documented())
_UNTOLD: Final = frozenset(
    {"--secret", "--stripe-secret-key", "--stripe-webhook-secret"}
    | {"--redis-url", "--database-url", "--jwks-url"}
)
"""Settings whose values are not repeated in a refusal: it may end in a log."""
_TRUTH: Final = ("true", "false", "1", "0")
_DEMO_DATA: Final = Path("liveroom-data/demo")

app = App(
    name="liveroom",
    help="A live-commerce server: everybody sees it now, and nobody is sold what is not there.",
    version=__version__,
    result_action="return_value",
    # What is said of one call alone is no setting, and comes from no other source.
    default_parameter=Parameter(show_env_var=False),
    help_epilogue=(
        "Settings come from `liveroom.toml` too; `--config FILE`, or `LIVEROOM_CONFIG`, names "
        "another file."
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    tokens = _with_joined_truth(sys.argv[1:] if arguments is None else arguments)
    try:
        tokens = _with_sources(tokens)
        code = app(tokens, print_error=False, exit_on_error=False)
    except cyclopts.ValidationError as error:
        return _bad_usage(_without_secrets(error))
    except (cyclopts.CycloptsError, settings.BadSetting) as error:
        return _bad_usage(str(error))
    except LiveroomError as error:
        return _bad_usage(f"{error.message} ({error.code})")
    except KeyboardInterrupt:
        return DONE
    return DONE if code is None else int(code)


@app.command
def serve(*, chosen: Settings | None = None) -> None:
    """Serve rooms until SIGTERM or Ctrl-C, then drain."""
    supervisor.serve(chosen or Settings(), lambda url: print(f"liveroom: {url}", flush=True))


@app.command
def demo(
    *,
    chosen: Settings | None = None,
    crowd: Annotated[
        int,
        Parameter(help="How many bots talk and buy.", validator=validators.Number(gte=0)),
    ] = 60,
    fresh: Annotated[
        bool, Parameter(help="Forget the last demo and start over.", negative_bool=())
    ] = False,
) -> None:
    """Open a seeded shop and a live room with a crowd in it, all embedded, and keep running."""
    used = chosen or Settings()
    if used.data == Settings.data:
        used = replace(used, data=_DEMO_DATA)
    importlib.import_module("liveroom.demo").run(
        replace(used, sandbox=True), crowd=crowd, fresh=fresh
    )


@app.command(config=(), help_flags=[])
def bench(
    *tokens: Annotated[str, Parameter(allow_leading_hyphen=True, help="See `--help`.")],
) -> int:
    """Load a server and measure it; `liveroom bench --help` lists the scenarios."""
    try:
        scenarios = importlib.import_module("bench.cli")
    except ModuleNotFoundError as missing:
        if missing.name not in {"bench", "bench.cli"}:
            raise
        return _bad_usage("bench: the scenarios are in the source tree; run this in a clone of it")
    return int(scenarios.main(list(tokens)))


@app.command
def audit(
    *,
    chosen: Settings | None = None,
    json: Annotated[bool, Parameter(help="Print one JSON object.", negative_bool=())] = False,
) -> int:
    """Check every invariant of stock, orders and money; may run beside a live server."""
    used = _quiet(chosen)
    report = asyncio.run(stores.audit(used))
    if json:
        print(dumps(report))
    else:
        _print_report(report)
    return DONE if report["ok"] else FAILED


def _known_id(_type: object, sub: str) -> None:
    """What a server would refuse is not signed."""
    if not is_id(sub):
        raise ValueError("an id has 1 to 64 characters of A-Z a-z 0-9 _ - .")


def _known_roles(_type: object, roles: Sequence[str]) -> None:
    if len(roles) > ROLES_MAX:
        raise ValueError(f"at most {ROLES_MAX} times")


@app.command
def token(
    *,
    chosen: Settings | None = None,
    sub: Annotated[str, Parameter(help="The member's id.", validator=_known_id)],
    name: Annotated[str | None, Parameter(help="The name others see; the id without it.")] = None,
    role: Annotated[
        tuple[str, ...],
        Parameter(
            help="admin, merchant:SHOP, host:ROOM or moderator:ROOM; may be repeated.",
            negative_iterable=(),
            validator=_known_roles,
        ),
    ] = (),
    ttl: Annotated[
        float,
        Parameter(
            help="How many seconds it is good for.",
            validator=validators.Number(gt=0, lte=10 * settings.NO_LIMIT_MS // 1000),
        ),
    ] = 86_400.0,
) -> None:
    """Print a token signed with the server's secret."""
    used = _quiet(chosen)
    if used.jwks_url and not used.sandbox:
        raise settings.BadSetting(
            "--jwks-url: the server takes no tokens of its secret; ask the sign-in service for one"
        )
    for one in role:
        if not valid_role(one):  # servers pass over what they do not know
            print(f"liveroom: --role: no server gives {one!r} any right", file=sys.stderr)
    if not used.secret and not (used.data / "secret").is_file():
        print(f"liveroom: --data: a secret is made in {used.data}, for its server", file=sys.stderr)
    secret = used.secret or settings.secret_in(used.data)
    auth = Auth(secret, issuer=used.issuer, audience=used.audience)
    print(auth.issue(sub, name=name or sub, roles=list(role), ttl_s=ttl))


@app.command
def export(
    what: Annotated[Literal["orders"], Parameter(help="What to export.")] = "orders",  # noqa: ARG001 - the first of several to come
    *,
    chosen: Settings | None = None,
    room: Annotated[str | None, Parameter(help="Of this room alone.")] = None,
) -> None:
    """Write orders as CSV to standard output."""
    asyncio.run(stores.export_orders(_quiet(chosen), room, sys.stdout))


config = App(name="config", help="Make, check or show the settings.")
app.command(config)


@config.command(config=(), help_epilogue="")
def init(path: Path = settings.FILE) -> int:
    """Write a file with every setting, its text and its default, all commented out."""
    try:
        with path.open("x") as file:
            file.write(settings.template())
    except FileExistsError:
        return _bad_usage(f"{path} exists; it is left as it is")
    except OSError as fault:
        return _bad_usage(f"{path} cannot be written: {fault.strerror}")
    print(f"wrote {path}")
    return DONE


@config.command
def check(*, chosen: Settings | None = None) -> None:
    """Read every source of settings and say whether they can be used."""
    _quiet(chosen)
    print("ok")


@config.command
def show(*, chosen: Settings | None = None) -> None:
    """Print the settings in force; the secret and passwords are not shown."""
    print(settings.as_toml(_quiet(chosen)), end="")


db = App(name="db", help="Look after the database.")
app.command(db)


@db.command
def upgrade(*, chosen: Settings | None = None) -> None:
    """Bring the database's tables up to this version; `serve` does it by itself."""
    stores.upgrade(_quiet(chosen))
    print("the database is up to date")


def _quiet(chosen: Settings | None) -> Settings:
    """The settings of a command that prints its answer: only faults are logged."""
    used = chosen or Settings()
    logs.configure("error", used.log_format)
    return used


def _with_sources(tokens: list[str]) -> list[str]:
    """Take `--config FILE` out of the arguments, and name where settings come from."""
    path = Path(os.environ.get("LIVEROOM_CONFIG") or settings.FILE)
    named = "LIVEROOM_CONFIG" in os.environ
    rest: list[str] = []
    words = iter(tokens)
    for word in words:
        flag, _, value = word.partition("=")
        if flag == "--config":
            path, named = Path(value or next(words, "")), True
        else:
            rest.append(word)
    if named and not path.is_file():
        raise settings.BadSetting(f"--config: there is no file {str(path)!r}")
    app.config = (
        _Variables(settings.ENV_PREFIX, command=False),
        _File(path, use_commands_as_keys=False),
    )
    return rest


class _Variables(Env):
    """Environment variables, for settings alone: `LIVEROOM_ROLE` makes nobody an admin."""

    def __call__(
        self, app: App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection
    ) -> None:
        chosen = (one for one in arguments if one.name in _FLAGS)
        super().__call__(
            app,
            commands,
            cyclopts.ArgumentCollection(chosen),  # type: ignore[no-untyped-call]
        )


class _File(Toml):
    """A file of settings and of nothing else."""

    def _load_config(self, path: Path) -> dict[str, Any]:
        try:
            found = super()._load_config(path)
        except ValueError as fault:
            raise cyclopts.CycloptsError(msg=f"{path} is no TOML: {fault}") from fault
        except OSError as fault:
            raise cyclopts.CycloptsError(msg=f"{path} cannot be read: {fault}") from fault
        for name in found:
            if name.replace("-", "_") not in _NAMES:
                raise cyclopts.CycloptsError(msg=f"{path}: {name!r} is no setting")
        return found


def _without_secrets(error: cyclopts.ValidationError) -> str:
    argument = error.argument
    if argument is None or argument.name not in _UNTOLD:
        return str(error)
    return f"{argument.tokens[0].keyword or argument.name}: {error.exception_message}"


def _with_joined_truth(arguments: Sequence[str]) -> list[str]:
    """Let `--sandbox true` mean `--sandbox=true`."""
    flags = {one.flag for one in settings.documented() if isinstance(one.default, bool)}
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] in flags and word.lower() in _TRUTH:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _bad_usage(message: str) -> int:
    line = " ".join(message.split())
    print(f"liveroom: {line}", file=sys.stderr)
    return BAD_USAGE


def _print_report(report: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for name, found in report["checks"].items():
        note = found.get("note", "")
        word = "ok" if found["ok"] else "FAILED"
        console.print(f"{name:<4} {word:<7} {found['checked']} checked {note}".rstrip())
        for failure in found.get("failures", ()):
            console.print(f"     {failure}", markup=False)
    console.print("all sums agree" if report["ok"] else "the sums above do not agree")
