"""A Stripe of our own (localstripe, as a process), and somebody with a card at it."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import httpx2
import pytest
import tools

PYTHON = Path(__file__).parent.parent / ".tools/localstripe/bin/python"
KEY = "sk_test_12345"
HOOK = "whsec_of_the_tests"
GOOD, DECLINED = "4242424242424242", "4000000000000341"
START_MAX_S = 30.0


class LocalStripe:
    """localstripe on a free port; its store is empty."""

    def __init__(self) -> None:
        if not PYTHON.exists():
            tools.lacks("localstripe")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [PYTHON, "-m", "localstripe", "--from-scratch", "--port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._http = httpx2.Client(base_url=self.url, auth=(KEY, ""), timeout=10)
        until = time.monotonic() + START_MAX_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.close()
                pytest.fail("localstripe did not start")
            time.sleep(0.05)

    def close(self) -> None:
        """End it."""
        self._http.close()
        self._process.kill()
        self._process.wait()

    def tell(self, url: str, secret: str = HOOK) -> None:
        """Send webhooks to this URL, signed with the secret."""
        self._post("/_config/webhooks/ours", json={"url": url, "secret": secret})

    def card(self, intent: str, number: str) -> int:
        """Pay the PaymentIntent with this card, as a buyer's browser does; the status answered."""
        card = {"number": number, "exp_month": 1, "exp_year": 2050, "cvc": "123"}
        method = self._post("/v1/payment_methods", json={"type": "card", "card": card})
        self._post(f"/v1/payment_intents/{intent}", json={"payment_method": method["id"]})
        return self._http.post(f"/v1/payment_intents/{intent}/confirm").status_code

    def intent(self, intent: str) -> dict:
        """The PaymentIntent as Stripe has it."""
        return self._http.get(f"/v1/payment_intents/{intent}").json()

    def refunds(self) -> list[dict]:
        """Every refund there is."""
        return self._http.get("/v1/refunds").json()["data"]

    def _post(self, path: str, **body) -> dict:
        answer = self._http.post(path, **body)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else {}

    def _answers(self) -> bool:
        try:
            return self._http.get("/v1/refunds").status_code == 200
        except httpx2.TransportError:
            return False
