"""How a text is cut into SMS: alphabet, length, parts (3GPP TS 23.038 and TS 23.040 section 9.2.3.24.1). Pure.

A text of the GSM 7-bit alphabet has 160 septets in one SMS, or 153 in each of several, whose header takes the rest;
a character of the extension table takes two. One character beyond that alphabet makes the whole text UCS-2: 70 and 67
units of 16 bits, of which an emoji takes two. What takes two is never cut between parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GSM7: Final = "GSM-7"
UCS2: Final = "UCS-2"
BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENDED: Final = frozenset("\f^{}\\[~]|€")
_LIMITS: Final = {GSM7: (160, 153), UCS2: (70, 67)}
_BEYOND_BMP: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Segments:
    """A text as it travels.

    Args:
        alphabet: `GSM-7` or `UCS-2`.
        parts: the text of each SMS; one empty part for an empty text.
        used: units in the last part, or in the only one.
        room: units that a part holds.
        total: units of the whole text: septets, or 16 bits.
        foreign: characters that GSM-7 does not have, each once, in the order of the text.
    """

    alphabet: str
    parts: tuple[str, ...]
    used: int
    room: int
    total: int
    foreign: tuple[str, ...]

    @property
    def count(self) -> int:
        """SMS that it is cut into, each of which is paid for."""
        return len(self.parts)

    @property
    def left(self) -> int:
        """Units left in the last part."""
        return self.room - self.used


def segments(text: str) -> Segments:
    """Cut a text into SMS."""
    foreign = tuple(dict.fromkeys(each for each in text if each not in BASIC and each not in EXTENDED))
    alphabet = UCS2 if foreign else GSM7
    alone, of_several = _LIMITS[alphabet]
    total = sum(_units(each, alphabet) for each in text)
    room = alone if total <= alone else of_several
    parts = [""]
    used = 0
    for each in text:
        units = _units(each, alphabet)
        if used + units > room:
            parts.append("")
            used = 0
        parts[-1] += each
        used += units
    return Segments(alphabet, tuple(parts), used, room, total, foreign)


def _units(character: str, alphabet: str) -> int:
    if alphabet == GSM7:
        return 2 if character in EXTENDED else 1
    return 2 if ord(character) > _BEYOND_BMP else 1
