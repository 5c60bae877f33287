"""What every SMS provider checks before it sends: the number, the text, and how many SMS the text makes."""

from __future__ import annotations

import re
from typing import Final

from channels.contract import AddressInvalid, Message, Refused, TextContent
from channels.http import carried
from channels.segments import segments

MAX_SEGMENTS: Final = 10
"""SMS that one text may make, where the option `max_segments` says nothing: about 1,500 Latin letters."""
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}")


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
