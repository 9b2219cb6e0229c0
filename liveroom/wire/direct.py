"""Handing bytes to the kernel at once: one system call, nothing queued, nothing scheduled.

A transport's own `write` goes through its object, its buffer and the loop's handle, and before
uvloop 0.23 through a queue, which is walked when the turn of the loop ends. For a frame that goes
to thousands of sockets all of that is cold again at each.

`os.write` and `socket.send` would not do: they let other threads run meanwhile, and then wait
up to 5 ms for their turn, at each of thousands of sockets. So it is libc's `send`, called as
the loop itself calls it: the interpreter's lock is kept, and the socket never blocks.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
from collections.abc import Callable
from typing import Final

NOWHERE: Final = -1
"""The descriptor of no socket: nothing can be sent to it."""

FLAGS: Final[int] = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)
"""Never wait, and raise no signal where the peer is gone."""


def _libc_send() -> Callable[[int, bytes, int, int], int]:
    send = ctypes.PyDLL(None).send
    send.restype = ctypes.c_ssize_t
    return send


send: Final = _libc_send()
"""`send(descriptor, data, size, FLAGS)`: how many bytes the kernel has taken, as send(2).

-1 where it takes none, whatever the cause: whoever then writes the usual way finds out.
"""


def descriptor(transport: asyncio.Transport) -> int:
    """Where the transport's bytes go; `NOWHERE` when they do not go as they are (TLS)."""
    plain = transport.get_extra_info("socket")
    if plain is None or transport.get_extra_info("sslcontext") is not None:
        return NOWHERE
    return int(plain.fileno())
