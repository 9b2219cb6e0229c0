"""The documentation says what the code says: settings, codes, commands, events, states.

`python -m tests.test_docs` writes the table of settings anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from liveroom import settings, states
from liveroom.cli import app
from liveroom.commands import COMMANDS
from liveroom.errors import FAMILIES
from liveroom.events import EVENTS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SETTINGS = DOCS / "settings.md"
START, END = "<!-- made by python -m tests.test_docs -->", "<!-- end -->"


def settings_table() -> str:
    rows = ["| setting | default | what it means |", "|---|---|---|"]
    for one in settings.documented():
        default = "" if one.default in (None, ()) else _shown(one.default)
        rows.append(f"| `{one.name}` | {default} | {one.text} |")
    return "\n".join(rows)


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ", ".join(f"`{item}`" for item in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _page(name: str) -> str:
    return (DOCS / name).read_text()


def test_every_setting_is_documented():
    """docs/settings.md holds the table that the settings make."""
    between = _page("settings.md").split(START)[1].split(END)[0]
    assert between.strip() == settings_table(), "run python -m tests.test_docs"


@pytest.mark.parametrize("code", [code for family in FAMILIES for code in family.codes])
def test_every_error_code_is_documented(code):
    """docs/protocol.md names each code."""
    assert re.search(rf"\b{code}\b", _page("protocol.md"))


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_documented(event):
    """docs/protocol.md names each event, or its family with a star."""
    page = _page("protocol.md")
    assert event in page or event.partition(".")[0] + ".*" in page


@pytest.mark.parametrize("command", ["room.join", *COMMANDS])
def test_every_command_is_documented(command):
    """docs/protocol.md names each command of the table."""
    first, _, last = command.partition(".")
    page = _page("protocol.md")
    assert command in page or re.search(rf"{first}\.\w+ / {first}\.{last}", page)


@pytest.mark.parametrize("machine", states.TABLES)
def test_every_state_machine_is_drawn(machine):
    """docs/architecture.md draws exactly the arrows of states.py."""
    drawing = re.search(
        rf"### {machine}\n+```mermaid\n(.*?)```", _page("architecture.md"), re.DOTALL
    )
    assert drawing, f"{machine} is not drawn"
    drawn = set(re.findall(r"(\w+) --> (\w+)", drawing[1]))
    table = states.TABLES[machine]
    assert drawn == {(before, after) for before, afters in table.items() for after in afters}


def test_every_command_of_the_command_line_is_documented():
    """docs/operations.md names each command of `liveroom`."""
    page = _page("operations.md")
    for name in app:
        if not name.startswith("-"):
            assert f"liveroom {name}" in page, name


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(DOCS.rglob("*.md")), ids=str)
def test_links_lead_somewhere(page):
    """A link to another file of the project leads to a file that is there."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


if __name__ == "__main__":
    text = SETTINGS.read_text()
    head, rest = text.split(START)
    SETTINGS.write_text(f"{head}{START}\n{settings_table()}\n{END}{rest.split(END)[1]}")
