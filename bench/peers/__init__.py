"""The same fan-out on other servers: one publisher, N viewers, every event to all of them.

Each peer is written the way its own documentation broadcasts, with compression off, one process,
and uvloop where it is Python. It is started with `RATE SECONDS BYTES`, prints `port N`, publishes
from the moment that the line `go START` names (CLOCK_MONOTONIC), and ends when its stdin does.
"""
