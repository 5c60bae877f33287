"""A sheet of paper: the smallest PDF that viewers open, for the demo's invoices. Pure."""

from __future__ import annotations

from typing import Final

_FONT: Final = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
_PAGE: Final = (
    b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R"
    b" /Resources << /Font << /F 4 0 R >> >> >>"
)


def sheet(*lines: str) -> bytes:
    """One A4 page with these lines (ISO 32000-1, sections 7.5 and 9.4). ASCII alone."""
    shown = " T* ".join("(" + _escaped(line) + ") Tj" for line in lines)
    drawing = f"BT /F 18 Tf 72 760 Td 28 TL {shown} ET".encode("ascii")
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        _PAGE,
        _FONT,
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(drawing), drawing),
    )
    document = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(document))
        document += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return b"%bxref\n0 %d\n0000000000 65535 f \n%btrailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        document, size, table, size, len(document),
    )  # fmt: skip


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
