"""What the demo sells and says, read from `script.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SCRIPT: Final = Path(__file__).parent / "script.toml"

Thing = dict[str, Any]


@dataclass(frozen=True)
class Script:
    """The demo's shops, products, creators, notes and lines."""

    room: str
    title: str
    host: str
    shops: list[Thing]
    creators: list[Thing]
    notes: list[Thing]
    products: list[Thing]
    crowd: dict[str, list[str]]
    hosting: dict[str, list[str]]

    @property
    def host_name(self) -> str:
        """The name of the creator who hosts."""
        return next(str(one["name"]) for one in self.creators if one["id"] == self.host)

    def product(self, product: str) -> Thing | None:
        """What the script knows of a product; people may add others."""
        return next((one for one in self.products if one["id"] == product), None)


def load() -> Script:
    """The script."""
    content = tomllib.loads(SCRIPT.read_text(encoding="utf-8"))
    content["hosting"] = content.pop("host_lines")
    return Script(**content)
