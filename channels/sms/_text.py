"""What every SMS provider checks before it sends: the number, the text, and how many SMS the text makes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from channels.contract import AddressInvalid, Message, Refused, TextContent
from channels.http import carried

GSM7: Final = "GSM-7"
UCS2: Final = "UCS-2"
BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""The GSM 7-bit default alphabet (3GPP TS 23.038, section 6.2.1)."""
EXTENDED: Final = frozenset("\f^{}\\[~]|€")
"""Its extension table (section 6.2.1.1), of which each character takes two septets."""
_ALONE: Final = {GSM7: 160, UCS2: 70}
_OF_SEVERAL: Final = {GSM7: 153, UCS2: 67}
_LAST_OF_BMP: Final = 0xFFFF

MAX_SEGMENTS: Final = 10
"""SMS that one text may make, where the option `max_segments` says nothing: about 1,500 Latin letters."""
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}")


@dataclass(frozen=True, slots=True)
class Segments:
    """What a text costs.

    Args:
        alphabet: `GSM-7` or `UCS-2`. One character beyond GSM-7 makes the whole text UCS-2.
        units: septets, or units of 16 bits.
        count: SMS that it is cut into, each of which is paid for.
    """

    alphabet: str
    units: int
    count: int


def segments(text: str) -> Segments:
    """Count a text's SMS (3GPP TS 23.038; TS 23.040, section 9.2.3.24.1).

    One SMS has room for 160 septets or 70 units of 16 bits. Each of several has 153 or 67, since a header
    takes the rest; what takes two units is not cut between them.
    """
    alphabet = GSM7 if all(each in BASIC or each in EXTENDED for each in text) else UCS2
    sizes = [_units(each, alphabet) for each in text]
    total = sum(sizes)
    if total <= _ALONE[alphabet]:
        return Segments(alphabet, total, 1)
    room = _OF_SEVERAL[alphabet]
    count, used = 1, 0
    for size in sizes:
        if used + size > room:
            count, used = count + 1, 0
        used += size
    return Segments(alphabet, total, count)


def _units(character: str, alphabet: str) -> int:
    if alphabet == GSM7:
        return 2 if character in EXTENDED else 1
    return 2 if ord(character) > _LAST_OF_BMP else 1


def checked_text(message: Message, *, most: int, most_segments: int, ahead: str = "") -> str:
    """The text of an SMS, which may be sent.

    Args:
        message: to be sent.
        most: characters that the provider takes.
        most_segments: SMS that the text may make.
        ahead: what the provider puts in front of a text that does not begin with it.

    Raises:
        Refused: it is no text, empty, too long, or no Unicode. The sentence names the field.
    """
    text = carried(message, TextContent).text
    if not text.strip():
        raise Refused("empty", "content.text is empty; correct the type's sms.txt")
    if len(text) > most:
        raise Refused(
            "too-long",
            f"content.text has {len(text)} characters and the provider takes {most}; shorten sms.txt",
        )
    if re.search(r"[\ud800-\udfff]", text):
        raise Refused("content", "content.text has half of a character (a lone surrogate); correct sms.txt")
    made = segments(ahead + text.removeprefix(ahead))
    if made.count > most_segments:
        raise Refused(
            "too-long",
            f"content.text makes {made.count} SMS in {made.alphabet} and {most_segments} are allowed; "
            "shorten sms.txt, or raise max_segments",
        )
    return text


def number_of(message: Message) -> str:
    """The recipient's number in E.164: a plus, the country's code, at most 15 digits (ITU-T E.164).

    Raises:
        AddressInvalid: it is none.
    """
    if not _NUMBER.fullmatch(message.address):
        raise AddressInvalid(
            "number", "the address is no phone number in E.164; write +, country code, number"
        )
    return message.address
