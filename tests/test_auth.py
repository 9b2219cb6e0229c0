"""Tokens: what is taken, and a table of forged ones that are not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from liveroom.auth import LEEWAY_S, Auth, Member, valid_role
from liveroom.errors import Denied, Unavailable

SECRET = "a secret of the house that is long enough"


def claims(**changed):
    now = int(time.time())
    known = {"sub": "u1", "name": "Ann", "roles": ["host:r1"], "iat": now, "exp": now + 60}
    return {name: value for name, value in (known | changed).items() if value is not None}


def signed(secret=SECRET, algorithm="HS256", headers=None, **changed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forged tokens may well use short keys
        return jwt.encode(claims(**changed), secret, algorithm=algorithm, headers=headers)


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_body(**changed):
    head, _, signature = signed().split(".")
    return f"{head}.{part(claims(**changed))}.{signature}"


def rsa_signed():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(claims(), key, algorithm="RS256")


FORGED = {
    "another secret": lambda: signed("another secret that is just as long as ours"),
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "alg none": lambda: f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}.",
    "alg None": lambda: f"{part({'alg': 'None', 'typ': 'JWT'})}.{part(claims())}.",
    "another HMAC": lambda: signed(algorithm="HS512"),
    "an RSA key of their own": rsa_signed,
    "roles changed after signing": lambda: with_body(roles=["admin"]),
    "no exp": lambda: signed(exp=None),
    "exp is text": lambda: signed(exp="tomorrow"),
    "exp is endless": lambda: signed(exp=float("inf")),
    "no sub": lambda: signed(sub=None),
    "sub is empty": lambda: signed(sub=""),
    "sub is no id": lambda: signed(sub="u1 or 1=1"),
    "sub is a list": lambda: signed(sub=["u1"]),
    "roles are text": lambda: signed(roles="admin"),
    "not before later": lambda: signed(nbf=int(time.time()) + 3600),
    "two parts": lambda: ".".join(signed().split(".")[:2]),
    "empty": lambda: "",
    "a number": lambda: 17,
    "nothing": lambda: None,
    "not ASCII": lambda: signed() + "é",
    "huge": lambda: "a" * 100_000,
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_token_is_unauthenticated(run, name):
    """Whatever is wrong with a token, its answer is `unauthenticated`, and nothing else."""
    with pytest.raises(Denied) as refusal:
        run(Auth(SECRET).read(FORGED[name]()))
    assert refusal.value.code == "unauthenticated"


def test_token_of_ours_is_read_back(run):
    """A token issued here speaks for its member, with name and roles."""
    auth = Auth(SECRET)
    token = auth.issue("u1", name="Ann", roles=["host:r1", "merchant:s1"], ttl_s=60)
    member = run(auth.read(token))
    assert (member.id, member.name, member.guest) == ("u1", "Ann", False)
    assert member.roles == ("host:r1", "merchant:s1")
    assert not member.expired(int(time.time() * 1000))


def test_token_past_its_end_is_expired(run):
    """An expired token has a code of its own, so that a client knows to renew it."""
    with pytest.raises(Denied) as refusal:
        run(Auth(SECRET).read(signed(exp=int(time.time()) - LEEWAY_S - 5)))
    assert refusal.value.code == "token_expired"


def test_token_that_was_read_before_still_ends(run):
    """A token remembered as good is good until its end and no longer."""
    auth = Auth(SECRET)
    soon = signed(exp=int(time.time()) - LEEWAY_S + 1)

    async def story():
        assert await auth.read(soon) == await auth.read(soon)
        auth._known[soon] = msgspec.structs.replace(auth._known[soon], expires_at=1)
        fresh = signed(exp=int(time.time()) - LEEWAY_S - 5)
        auth._known[fresh] = auth._known[soon]
        with pytest.raises(Denied, match="token_expired"):
            await auth.read(fresh)

    run(story())


def test_unknown_roles_give_nothing(run):
    """A role we do not know is passed over: it gives no right and breaks no token."""
    member = run(Auth(SECRET).read(signed(roles=["root", "host:", "ADMIN", 7, "host:r1"])))
    assert member.roles == ("host:r1",)


def test_issuer_and_audience_are_required_where_set(run):
    """With an issuer or audience set, a token without it is no token of ours."""
    auth = Auth(SECRET, issuer="house", audience="liveroom")
    assert run(auth.read(auth.issue("u1", name="Ann", roles=[], ttl_s=60))).id == "u1"
    for forged in (signed(), signed(iss="house"), signed(iss="x", aud="liveroom")):
        with pytest.raises(Denied):
            run(auth.read(forged))


def test_rights_follow_from_roles():
    """A role is for one room or shop; admin is for all."""
    host = Member("u1", "Ann", ("host:r1",))
    moderator = Member("u2", "Bo", ("moderator:r1",))
    merchant = Member("u3", "Cy", ("merchant:s1",))
    admin = Member("u4", "Di", ("admin",))
    assert (host.hosts("r1"), host.moderates("r1"), host.hosts("r2")) == (True, True, False)
    assert (moderator.hosts("r1"), moderator.moderates("r1")) == (False, True)
    assert (merchant.runs("s1"), merchant.runs("s2"), merchant.shops) == (True, False, ["s1"])
    assert admin.hosts("r1")
    assert admin.runs("s1")


def test_guests_differ_and_their_names_are_cleaned():
    """Each guest has an id of the visit, and a name that deceives nobody's eye."""
    auth = Auth(SECRET)
    first, second = auth.guest("  A\u202enn\n "), auth.guest()
    assert first.guest
    assert first.id != second.id
    assert (first.name, second.name) == ("Ann", "Guest")


@pytest.mark.parametrize("role", ["admin", "merchant:s1", "host:r-1.x_2", "moderator:r1"])
def test_roles_of_the_contract_are_valid(role):
    """The contract names four kinds of role."""
    assert valid_role(role)


@pytest.fixture
def jwks():
    """A sign-in service with one RSA key: its key and its URL."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k1", "alg": "RS256"}

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self):
            content = json.dumps({"keys": [public]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield key, f"http://127.0.0.1:{server.server_port}/jwks.json"
        server.shutdown()
        thread.join()


def test_keys_of_a_sign_in_service_sign_tokens(run, jwks):
    """With a JWKS its keys alone sign, and a public key is never taken for a secret."""
    key, url = jwks
    auth = Auth(SECRET, jwks_url=url)
    in_sandbox = Auth(SECRET, jwks_url=url, sandbox=True)
    good = jwt.encode(claims(), key, algorithm="RS256", headers={"kid": "k1"})
    assert run(auth.read(good)).id == "u1"
    assert run(in_sandbox.read(good)).id == "u1"
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = part({"alg": "HS256", "typ": "JWT", "kid": "k1"})
    body = part(claims(roles=["admin"]))
    mac = hmac.new(pem, f"{head}.{body}".encode(), hashlib.sha256).digest()
    confused = f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for forged in (
        confused,
        jwt.encode(claims(), stranger, algorithm="RS256", headers={"kid": "k1"}),
        jwt.encode(claims(), key, algorithm="RS256", headers={"kid": "k2"}),
        jwt.encode(claims(), key, algorithm="RS256"),
    ):
        for one in (auth, in_sandbox):
            with pytest.raises(Denied, match="unauthenticated"):
                run(one.read(forged))


@pytest.mark.parametrize("roles", [[], ["admin"]])
def test_secret_signs_nothing_beside_a_sign_in_service(run, jwks, roles):
    """With a JWKS the house's secret opens no door, but for the sandbox, which signs with it."""
    _, url = jwks
    auth = Auth(SECRET, jwks_url=url)
    ours = auth.issue("u1", name="Ann", roles=roles, ttl_s=60)
    with pytest.raises(Denied, match="unauthenticated"):
        run(auth.read(ours))
    assert run(Auth(SECRET, jwks_url=url, sandbox=True).read(ours)).roles == tuple(roles)


def test_sign_in_service_that_is_away_is_no_forgery(run):
    """When the keys cannot be fetched, the answer is to try again, not to sign in anew."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = jwt.encode(claims(), key, algorithm="RS256", headers={"kid": "k1"})
    with pytest.raises(Unavailable, match="store_down"):
        run(Auth(SECRET, jwks_url="http://127.0.0.1:1/jwks.json").read(token))
