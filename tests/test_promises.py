"""Every promise names tests that hold it, and the tests it names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| (P\d+) \|(.*)$", (ROOT / "docs" / "promises.md").read_text(), re.MULTILINE)


def test_every_promise_stands_once():
    """Fourteen promises, in their order."""
    assert [number for number, _ in ROWS] == [f"P{number}" for number in range(1, 15)]


@pytest.mark.parametrize(("number", "row"), ROWS, ids=[number for number, _ in ROWS])
def test_what_holds_a_promise_is_there(number, row):
    """Each `file::test` of its row is a test of that file."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
    assert named, f"{number} is an intention"
    assert len(named) == row.count("::"), f"{number} names something that is no test"
    for path, test in named:
        tree = ast.parse((ROOT / path).read_text())
        tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert test in tests, f"{number}: {path} has no {test}"
