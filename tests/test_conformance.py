"""The Autobahn cases against our WebSocket protocol, on an echo route of the test's own.

Compression (12.*, 13.*) is off in the house and left out. What does not pass is named here
and explained in docs/conformance.md; a case that passes unexpectedly fails as well.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from kosoku import FailureError, run_fuzzingclient

from liveroom.wire.door import Limits
from tests.test_protocol import served

PAGE = Path(__file__).parent.parent / "docs" / "conformance.md"
COMPRESSION = ["12.*", "13.*"]
CASES = 301
AT_ONCE = 8

TOO_LARGE = {
    *(f"9.{section}.{case}" for section in (1, 2) for case in range(2, 7)),
    *(f"9.{section}.{case}" for section in (3, 4) for case in range(1, 10)),
    *(f"9.{section}.{case}" for section in (5, 6) for case in range(1, 7)),
}
"""Messages over 64 KiB or of more than 64 fragments: closed 1009, as the house means it."""

LATER = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}
"""Strict after all where the whole messages happen to come before the broken frame."""
UTF8 = {"6.4.1", "6.4.2", "6.4.3", "6.4.4"}
NON_STRICT = LATER | UTF8
"""Passed, but less eagerly than Autobahn would like."""

WIDE = Limits(fragments_max=2**30, control_frames_per_s_max=2**30)


async def outcomes(port, cases=None):
    """The result of each case, by its number."""
    url = f"ws://127.0.0.1:{port}/ws/r1"
    try:
        results = await run_fuzzingclient(url, cases, COMPRESSION, concurrency=AT_ONCE)
    except FailureError as failure:
        results = failure.results
    return {one.case_id: one for one in results}


def not_passed(results):
    return {case for case, one in results.items() if not one.passed}


def test_every_case_within_the_limits_of_the_house(run):
    """All cases pass but those too large, which are closed 1009."""
    with served(Limits()) as server:
        results = run(outcomes(server.port))
    assert len(results) == CASES
    assert not_passed(results) == TOO_LARGE
    assert {results[case].remote_close_code for case in TOO_LARGE} == {1009}
    lax = {case for case, one in results.items() if one.behavior.value == "NON-STRICT"}
    assert UTF8 <= lax <= NON_STRICT


def test_large_messages_without_the_limits(run):
    """What the limits refuse passes without them: up to 16 MiB, up to 16,000 fragments."""
    with served(WIDE, ws_max_size=2**25) as server:
        results = run(outcomes(server.port, sorted(TOO_LARGE)))
    assert set(results) == TOO_LARGE
    assert not_passed(results) == set()


@pytest.mark.parametrize("case", sorted(TOO_LARGE | NON_STRICT))
def test_every_exception_is_explained(case):
    """docs/conformance.md has a row for each case that is not a plain pass."""
    rows = re.findall(r"^\| ([\d.*, ]+) \|", PAGE.read_text(), re.MULTILINE)
    patterns = [pattern.strip() for row in rows for pattern in row.split(",")]
    assert any(fnmatchcase(case, pattern) for pattern in patterns)
