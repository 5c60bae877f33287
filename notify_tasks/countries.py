"""Countries of phone numbers, by their codes in ISO 3166-1: `DE`."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import phonenumbers

KNOWN: Final[frozenset[str]] = frozenset(phonenumbers.SUPPORTED_REGIONS)


@lru_cache(maxsize=8192)
def of_number(number: str) -> str | None:
    """The country of a number in E.164 form.

    Returns:
        None where it is no country's: a number for fiction (`+1555...`), a satellite phone, no number at all.
    """
    try:
        found: str | None = phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return None
    return found if found in KNOWN else None
