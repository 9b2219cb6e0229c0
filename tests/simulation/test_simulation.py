"""A sale under seeds: whatever fails at whichever call, the sums hold; planted bugs are found.

`LIVEROOM_FAULT_SEEDS` says how many seeds, `LIVEROOM_FAULT_SEED` where they begin; `make
faults` takes many. A failure prints its seed and every call to a store: the same seed does
the same again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
import redis

from liveroom.store.database import Database
from tests.simulation.bugs import BUGS
from tests.simulation.explore import simulate

SEEDS = int(os.environ.get("LIVEROOM_FAULT_SEEDS", "16"))
FIRST = int(os.environ.get("LIVEROOM_FAULT_SEED", "0"))
SEEDS_FOR_A_BUG = 400


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """The test's Redis, asked without an event loop."""
    one = redis.Redis(unix_socket_path=unquote(redis_url.removeprefix("unix://")))
    yield one
    one.close()


@pytest.mark.parametrize("block", range(4))
def test_whatever_befalls_a_sale_the_sums_hold(client, db: Database, block):
    """No unit is sold twice or forgotten, no acknowledged order is lost, no answer changes."""
    for seed in range(FIRST + block, FIRST + SEEDS, 4):
        outcome = simulate(seed, client, db)
        assert outcome.wrong is None, f"seed {seed}: {outcome.wrong}\n" + "\n".join(outcome.trace)


def test_a_seed_gives_the_same_run(client, db: Database):
    """Every call at the same moment, and the same befalls it."""
    first, again = (simulate(6, client, db) for _ in range(2))
    assert first.trace == again.trace
    assert len(first.trace) > 50


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(client, db: Database, name):
    """The simulation is worth what it finds: each of these within a bounded number of seeds."""
    bug = BUGS[name]
    with bug.planted():
        for seed in (bug.found_at, *range(SEEDS_FOR_A_BUG)):
            if simulate(seed, client, db, lua=bug.lua, theme=bug.theme).wrong is not None:
                return
    raise AssertionError(f"{SEEDS_FOR_A_BUG} seeds have not found that {name}")
