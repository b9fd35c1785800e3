"""A stand-in for the East Asian fonts that a PDF refers to and a machine lacks."""

from __future__ import annotations

import ctypes
import struct

# The character sets of Windows by which PDFium asks for fonts: 0 is Western, 2 symbols.
_BUILT_IN = frozenset({0, 2})
_UNITS = 1000  # of an em, the square that a glyph stands in


def install_stand_in_font() -> None:
    """
    Give PDFium a font of plain boxes for scripts that no installed font covers.

    PDFium drops a text whose glyphs have no width. So a Chinese, Japanese or Korean text whose
    font is not inside the file would be read on a desktop, which has such fonts, and vanish on a
    server, which has none. Fonts that are installed keep going first, and a handler that the
    program has installed itself stays.
    """
    import pypdfium2

    if pypdfium2.PdfSysfontBase.SINGLETON is not None:
        return
    try:
        _handler_class()().setup()
    except pypdfium2.PdfiumError:
        return  # PDFium has no list of fonts on this platform to add one to


def _handler_class() -> type:
    """Return the class of the handler, which needs pypdfium2 for its base."""
    import pypdfium2

    class StandInFont(pypdfium2.PdfSysfontBase):  # type: ignore[misc]
        """Answers PDFium's requests for fonts; the arguments are those of fpdf_sysfontinfo.h."""

        def __init__(self) -> None:
            super().__init__()
            self._font = ctypes.create_string_buffer(box_font(), len(box_font()))
            self._handle = ctypes.addressof(self._font)

        def MapFont(  # noqa: N802
            self,
            caller: object,
            weight: int,
            italic: int,
            charset: int,
            pitch: int,
            face: object,
            exact: object,
        ) -> int | None:
            found: int | None = super().MapFont(caller, weight, italic, charset, pitch, face, exact)
            return found or (None if charset in _BUILT_IN else self._handle)

        def GetFontData(  # noqa: N802
            self, caller: object, font: int, table: int, buffer: object, size: int
        ) -> int:
            if font != self._handle:
                copied: int = super().GetFontData(caller, font, table, buffer, size)
                return copied
            return 0 if table else _copy(self._font.raw, buffer, size)  # 0 asks for the whole file

        def GetFaceName(self, caller: object, font: int, buffer: object, size: int) -> int:  # noqa: N802
            if font != self._handle:
                copied: int = super().GetFaceName(caller, font, buffer, size)
                return copied
            return _copy(b"Boxes\0", buffer, size)

        def GetFontCharset(self, caller: object, font: int) -> int:  # noqa: N802
            if font != self._handle:
                charset: int = super().GetFontCharset(caller, font)
                return charset
            return 1  # the default one

        def DeleteFont(self, caller: object, font: int) -> None:  # noqa: N802
            if font != self._handle:
                super().DeleteFont(caller, font)

    return StandInFont


def _copy(data: bytes, buffer: object, size: int) -> int:
    """Fill a buffer of C that is large enough, and return how large it has to be."""
    if buffer and size >= len(data):
        ctypes.memmove(buffer, data, len(data))  # type: ignore[arg-type]
    return len(data)


def box_font() -> bytes:
    """Return a TrueType font that draws every character as a box of one em."""
    outline = struct.pack(">5h", 1, 0, 0, _UNITS, _UNITS)
    corners = struct.pack(">HH4B", 3, 0, 1, 1, 1, 1)
    steps = struct.pack(">8h", 0, 0, _UNITS, 0, 0, _UNITS, 0, -_UNITS)
    glyph = outline + corners + steps + b"\0\0"
    every_character = struct.pack(">HHIIIIII", 13, 0, 28, 0, 1, 0x20, 0x10FFFF, 1)
    tables = {
        b"cmap": struct.pack(">HHHHI", 0, 1, 3, 10, 12) + every_character,
        b"glyf": glyph * 2,
        b"head": struct.pack(
            ">IIIIHHQQ4hHHhhh",
            *(0x10000, 0x10000, 0, 0x5F0F3CF5, 0, _UNITS, 0, 0),
            *(0, 0, _UNITS, _UNITS, 0, 8, 2, 1, 0),
        ),
        b"hhea": struct.pack(
            ">I3hH11hH", 0x10000, _UNITS, 0, 0, _UNITS, 0, 0, _UNITS, 1, *[0] * 7, 2
        ),
        b"hmtx": struct.pack(">HhHh", _UNITS, 0, _UNITS, 0),
        b"loca": struct.pack(">III", 0, len(glyph), 2 * len(glyph)),
        b"maxp": struct.pack(">I14H", 0x10000, 2, 4, 1, 0, 0, 1, *[0] * 8),
    }
    listed, content = b"", b""
    start = 12 + 16 * len(tables)
    for name, table in tables.items():
        listed += name + struct.pack(">III", 0, start + len(content), len(table))
        content += table + b"\0" * (-len(table) % 4)
    return (
        struct.pack(">I4H", 0x10000, len(tables), 64, 2, 16 * len(tables) - 64) + listed + content
    )
