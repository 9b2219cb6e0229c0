"""Money: integer minor units beside an ISO 4217 currency. Floats never."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

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
