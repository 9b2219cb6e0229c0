"""Planted bugs: what somebody might well write instead. The simulation must find each.

A bug is a change of the house's own code, in Python or in Lua, that leaves everything else as
it is. A gate that finds none of these would find none of ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

from liveroom.store.scripts import LUA


class Bug(NamedTuple):
    """A change of the code: patches, and replacements in the text of Lua scripts.

    `finding` is what must be said of it, as a regular expression: a bug that ends otherwise no
    longer fits the code. `theme` is what must go wrong for it to show and `focus` what the sale
    must be about (None: whatever the seed says), `found_at` a seed that has found it: where to
    begin looking.
    """

    finding: str
    patches: Sequence[tuple[Any, str, Any]] = ()
    lua: Sequence[tuple[str, str]] = ()
    theme: str | None = None
    focus: str | None = None
    found_at: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The code with the bug in it.

        Raises:
            AssertionError: the code has moved on, and the bug no longer fits it.
        """
        for text, _ in self.lua:
            assert any(text in part.read_text() for part in LUA.rglob("*.lua")), f"no {text!r}"
        with ExitStack() as stack:
            for where, name, new in self.patches:
                _assert_fits(getattr(where, name), new)
                stack.enter_context(mock.patch.object(where, name, new))
            yield


def _assert_fits(old: Any, new: Any) -> None:
    """A function that replaces another one takes what that took."""
    takes = list(inspect.signature(new).parameters.values())
    if not any(one.kind is one.VAR_POSITIONAL for one in takes):
        was = list(inspect.signature(old).parameters)
        assert [one.name for one in takes] == was, f"{old.__qualname__} takes {was}"
