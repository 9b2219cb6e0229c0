"""A Stripe that opens payments, and then accepts whatever it is asked and never answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

OPENS: Final = "/v1/payment_intents"


class SilentStripe(ThreadingHTTPServer):
    """On a free port; `unanswered` are the paths that it was asked for and keeps to itself."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Teller)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.unanswered: list[str] = []
        self.opened = 0
        self.closing = threading.Event()


class _Teller(BaseHTTPRequestHandler):
    server: SilentStripe
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != OPENS:
            self.do_GET()
            return
        self.server.opened += 1
        intent = {"id": f"pi_{self.server.opened}", "object": "payment_intent", "amount": 250}
        body = json.dumps(intent | {"currency": "eur", "client_secret": "s", "metadata": {}})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        self.server.unanswered.append(self.path)
        self.server.closing.wait()
        self.close_connection = True

    def log_message(self, *_what: object) -> None:
        """Say nothing."""


@contextmanager
def silent_stripe() -> Iterator[SilentStripe]:
    """One that cuts everybody off in the end."""
    with SilentStripe() as bank:
        serving = threading.Thread(target=bank.serve_forever, daemon=True)
        serving.start()
        try:
            yield bank
        finally:
            bank.closing.set()
            bank.shutdown()
            serving.join()
