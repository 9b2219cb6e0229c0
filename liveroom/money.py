"""Money: integer minor units beside an ISO 4217 currency. Floats never."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from liveroom.errors import ensure

AMOUNT_MAX: Final = 10**12
"""The largest amount in minor units; sums of 1,000 lines of it stay below 2^53."""

Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}$")]
Price = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]

# ISO 4217 currencies whose minor unit is not a hundredth; all others have two digits.
_DIGITS: Final = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF"), 0),
    **dict.fromkeys(("UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


def decimal_text(amount_minor: int, currency: str) -> str:
    """The amount as a plain decimal, for people and CSV: `(1999, "CNY")` is `"19.99"`."""
    digits = _DIGITS.get(currency, 2)
    if digits == 0:
        return str(amount_minor)
    sign = "-" if amount_minor < 0 else ""
    whole, part = divmod(abs(amount_minor), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}"


def shares(amount_minor: int, weights: Sequence[int]) -> list[int]:
    """The amount divided in proportion to the weights, in whole units that sum to it.

    What rounding leaves over goes to the largest remainders, the first of equals first. No
    share is above its weight unless the amount is above their sum; the weights of an amount
    above 0 are not all 0.
    """
    if not amount_minor:
        return [0] * len(weights)
    total = sum(weights)
    ensure(total > 0, "an amount has somebody to be divided among")
    parts = [divmod(amount_minor * weight, total) for weight in weights]
    found = [whole for whole, _ in parts]
    by_remainder = sorted(range(len(parts)), key=lambda at: (-parts[at][1], at))
    for at in by_remainder[: amount_minor - sum(found)]:
        found[at] += 1
    return found


def taken_off(amount_minor: int, wanted: Sequence[int], left: Sequence[int]) -> list[int]:
    """What of an amount comes from each of several sums, none of which has more than `left`.

    What is `wanted` comes first, in proportion to it; what is more than that comes from all,
    in proportion to what they have left then. The amount is at most all that is left.
    """
    wanted = [min(pair) for pair in zip(wanted, left, strict=True)]
    first = shares(min(amount_minor, sum(wanted)), wanted)
    rest = shares(amount_minor - sum(first), [a - b for a, b in zip(left, first, strict=True)])
    return [a + b for a, b in zip(first, rest, strict=True)]
