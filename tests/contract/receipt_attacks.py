"""What anyone may send to the receipts' door: each change of one bit or one character, and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from hypothesis import strategies as st

from channels.receipts import Event, Forged, Receipt, Reporting, Unreadable

CANARY = "+4917000031337"
CANARY_MAIL = "zoe.canary.31337@customer.example"


def a_receipt(body: bytes = b"", query: str = "", method: str = "POST", **headers: str) -> Receipt:
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return Receipt(method=method, query=query, headers=named, body=body)


def with_header(receipt: Receipt, name: str, value: str | None) -> Receipt:
    """The receipt with another value of a header, or without it."""
    rest = {each: kept for each, kept in receipt.headers.items() if each != name}
    return replace(receipt, headers=rest if value is None else {**rest, name: value})


def bits_flipped(raw: bytes) -> Iterator[bytes]:
    """Every text that differs in one bit."""
    for place in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[place] ^= 1 << bit
            yield bytes(changed)


def characters_changed(text: str) -> Iterator[str]:
    """Every text with one character less, one twice, one other, or one in the other case."""
    for place, character in enumerate(text):
        before, after = text[:place], text[place + 1 :]
        yield before + after
        yield before + character + character + after
        yield before + ("A" if character != "A" else "B") + after
        if character.swapcase() != character:
            yield before + character.swapcase() + after
    yield text + " "
    yield text + "="
    yield " " + text


def is_refused(verify: Callable[[Receipt], None], receipt: Receipt) -> bool:
    """Whether it is taken for forged; any other error is none of the contract's."""
    try:
        verify(receipt)
    except Forged:
        return True
    return False


def read(provider: Reporting, receipt: Receipt) -> list[Event] | None:
    """What the receipt says; None where nothing of it can be read."""
    try:
        return list(provider.events(receipt))
    except Unreadable:
        return None


header_text = st.text(st.characters(codec=None, exclude_characters="\r\n"), max_size=80)
noise = st.builds(
    Receipt,
    method=st.sampled_from(["GET", "POST", "PIPE"]),
    query=st.one_of(st.just(""), header_text, st.just("token=x&token=y"), st.just("%zz=%ff&=")),
    headers=st.dictionaries(
        st.sampled_from([
            "x-twilio-signature",
            "x-twilio-email-event-webhook-signature",
            "x-twilio-email-event-webhook-timestamp",
            "x-acme-signature",
            "content-type",
        ]),
        header_text,
    ),
    body=st.binary(max_size=300),
)  # fmt: skip
"""Receipts of anyone's."""
