"""Who is calling: tokens become members, and members have rights.

A token is a JWT: HS256 with the house's secret, or, where a JWKS is set, an asymmetric
algorithm with a key of the JWKS instead. `exp` is required; the algorithm is ours to choose,
never the token's. A right is asked of a `Member` and of nothing else.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from typing import Any, Final

import jwt
import msgspec

from liveroom.errors import Denied, Unavailable
from liveroom.ids import is_id, new_id
from liveroom.text import clean_name

TOKEN_BYTES_MAX: Final = 8192
ROLES_MAX: Final = 64
LEEWAY_S: Final = 10
KNOWN_MAX: Final = 10_000
"""How many tokens of ours are remembered as good: a herd returns with the tokens it had."""
ASYMMETRIC: Final = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")

_ROLE = re.compile(r"^(admin|(merchant|host|moderator):[A-Za-z0-9_.\-]{1,64})$")


class Member(msgspec.Struct, frozen=True):
    """Somebody at the door: a member with a token, or a guest without one.

    `expires_at` (milliseconds) is when the token ends; a guest has none.
    """

    id: str
    name: str
    roles: tuple[str, ...] = ()
    guest: bool = False
    expires_at: int | None = None

    @property
    def admin(self) -> bool:
        """Whether everything is allowed."""
        return "admin" in self.roles

    def hosts(self, room: str) -> bool:
        """Whether this is the room's host, or a helper with the host's rights."""
        return self.admin or f"host:{room}" in self.roles

    def moderates(self, room: str) -> bool:
        """Whether this member may keep order in the room; its host may."""
        return self.hosts(room) or f"moderator:{room}" in self.roles

    def runs(self, shop: str) -> bool:
        """Whether this is a merchant of the shop."""
        return self.admin or f"merchant:{shop}" in self.roles

    @property
    def shops(self) -> list[str]:
        """The shops this member is a merchant of."""
        return [role.partition(":")[2] for role in self.roles if role.startswith("merchant:")]

    def expired(self, now_ms: int) -> bool:
        """Whether the token has ended, the leeway over."""
        return self.expires_at is not None and now_ms > self.expires_at + LEEWAY_S * 1000


class Auth:
    """Reads and makes tokens.

    With `jwks_url` tokens of the secret are refused, since whoever has the secret would pass
    by the sign-in service; the `sandbox`, which signs with it, takes both. `issuer` and
    `audience`, where set, must be in every token.
    """

    def __init__(
        self,
        secret: str | bytes,
        *,
        jwks_url: str | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        sandbox: bool = False,
    ) -> None:
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._jwks = jwt.PyJWKClient(jwks_url, timeout=3) if jwks_url else None
        self._takes_secret = sandbox or not jwks_url
        self._known: OrderedDict[str, Member] = OrderedDict()
        self._issuer = issuer
        self._audience = audience

    async def read(self, token: object) -> Member:
        """The member a token speaks for; `unauthenticated` or `token_expired` otherwise."""
        known = self._known.get(token) if isinstance(token, str) else None
        if known is not None and not known.expired(int(time.time() * 1000)):
            return known
        try:
            text = _compact(token)
            member = _member(await self._claims(text))
        except jwt.ExpiredSignatureError:
            raise Denied("token_expired") from None
        except jwt.PyJWKClientConnectionError as fault:
            raise Unavailable("store_down", "The keys of the sign-in service are away.") from fault
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # What exactly is wrong with a token helps only those who forge them.
            raise Denied("unauthenticated", "The token cannot be read.") from None
        if self._jwks is None:  # our own secret does not change; keys of others may be withdrawn
            self._known[text] = member
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return member

    def guest(self, name: str | None = None) -> Member:
        """Somebody without a token, under an id made for this visit."""
        return Member(id=f"guest-{new_id()}", name=clean_name(name or "") or "Guest", guest=True)

    def issue(self, sub: str, *, name: str, roles: list[str], ttl_s: float) -> str:
        """A token of ours (HS256), good for `ttl_s` seconds from now."""
        now = time.time()
        claims: dict[str, Any] = {"sub": sub, "name": name, "roles": roles}
        claims |= {"iat": int(now), "exp": int(now + ttl_s)}
        claims |= {"iss": self._issuer} if self._issuer else {}
        claims |= {"aud": self._audience} if self._audience else {}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    async def _claims(self, token: str) -> dict[str, Any]:
        algorithm = jwt.get_unverified_header(token).get("alg")
        if algorithm == "HS256" and self._takes_secret:
            return self._decode(token, self._secret, ["HS256"])
        if self._jwks is None or algorithm not in ASYMMETRIC:  # no key of others could fit it
            raise jwt.InvalidAlgorithmError
        key = await asyncio.to_thread(self._public_key, self._jwks, token)
        return self._decode(token, key, list(ASYMMETRIC))

    def _decode(self, token: str, key: Any, algorithms: list[str]) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=algorithms,
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_S,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )

    @staticmethod
    def _public_key(jwks: jwt.PyJWKClient, token: str) -> jwt.PyJWK:
        # The client caches the keys, and asks again for an unknown one at most each 30 s.
        return jwks.get_signing_key(str(jwt.get_unverified_header(token).get("kid")))


def valid_role(role: object) -> bool:
    """Whether `role` is one of `admin`, `merchant:<shop>`, `host:<room>`, `moderator:<room>`."""
    return isinstance(role, str) and _ROLE.fullmatch(role) is not None


def _compact(token: object) -> str:
    if not isinstance(token, str) or len(token) > TOKEN_BYTES_MAX or not token.isascii():
        raise jwt.DecodeError
    return token


def _member(claims: dict[str, Any]) -> Member:
    roles = claims.get("roles", [])
    if not is_id(claims["sub"]) or not isinstance(roles, list) or len(roles) > ROLES_MAX:
        raise jwt.InvalidTokenError
    name = claims.get("name")
    return Member(
        id=claims["sub"],
        name=clean_name(name if isinstance(name, str) else "") or claims["sub"],
        roles=tuple(role for role in roles if valid_role(role)),
        expires_at=int(claims["exp"]) * 1000,
    )
