"""A sale under seeds: whatever fails at whichever call, the sums hold; planted bugs are found.

`LIVEROOM_FAULT_SEEDS` says how many seeds, `LIVEROOM_FAULT_SEED` where they begin; `make
faults` takes many. A failure prints its seed and every call to a store: the same seed does
the same again.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
import redis

from liveroom.store.database import Database
from tests.simulation.bugs import BUGS
from tests.simulation.explore import hurried, simulate
from tests.simulation.planting import Bug

SEEDS = int(os.environ.get("LIVEROOM_FAULT_SEEDS", "120"))
FIRST = int(os.environ.get("LIVEROOM_FAULT_SEED", "0"))
SEEDS_FOR_A_BUG = 300
BLOCKS = 4


@pytest.fixture(scope="module")
def client(valkey: str) -> Iterator[redis.Redis]:
    """The session's Redis, asked without an event loop."""
    one = redis.Redis(unix_socket_path=unquote(valkey.removeprefix("unix://")))
    one.flushall()
    yield one
    one.flushall()
    one.close()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A SQLite database with every table."""
    one = hurried(tmp_path_factory.mktemp("simulation") / "liveroom.db")
    one.upgrade()
    yield one
    asyncio.run(one.close())


@pytest.mark.parametrize("block", range(BLOCKS))
def test_whatever_befalls_a_sale_the_sums_hold(client, database, block):
    """No unit is sold twice or forgotten, no acknowledged order is lost, no answer changes."""
    for seed in range(FIRST + block, FIRST + SEEDS, BLOCKS):
        outcome = simulate(seed, client, database)
        assert outcome.wrong is None, f"seed {seed}: {outcome.wrong}\n" + "\n".join(outcome.trace)


def test_a_seed_gives_the_same_run(client, database):
    """Every call at the same moment, and the same befalls it."""
    first, again = (simulate(6, client, database) for _ in range(2))
    assert first.trace == again.trace
    assert len(first.trace) > 50


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(client, database, name):
    """The simulation is worth what it finds: each of these within a bounded number of seeds."""
    with BUGS[name].planted():
        _find(client, database, BUGS[name])


def _find(client: redis.Redis, database: Database, bug: Bug) -> None:
    """The bug's own finding within `SEEDS_FOR_A_BUG`; another one first is a failure."""
    for seed in (bug.found_at, *range(SEEDS_FOR_A_BUG)):
        wrong = simulate(
            seed, client, database, lua=bug.lua, theme=bug.theme, focus=bug.focus
        ).wrong
        if wrong is not None:
            assert re.search(bug.finding, wrong), f"seed {seed} has found something else: {wrong}"
            return
    raise AssertionError(f"{SEEDS_FOR_A_BUG} seeds have not found it")
