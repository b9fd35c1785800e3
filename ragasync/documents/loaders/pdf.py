"""PDF to text by PDFium, from the extra `ingest`."""

from __future__ import annotations

import ctypes
import re
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ragasync.documents.loaders.text import Loaded, join_parts
from ragasync.documents.models import LoadError
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    import numpy as np
    from pypdfium2 import PdfDocument, PdfPage, PdfTextPage

# PDFium is not thread-safe: concurrent calls crash the process.
_one_at_a_time = threading.Lock()

_MAX_TEXT = 200_000_000  # characters; pages of a small file may share one long text
_MAX_PIXELS = 20_000_000  # of one page as an image; a file may claim a page of any size
_MAX_BROKEN = 1_000  # pages; a small file may claim to have billions
_MAX_FIELDS = 10_000  # of one page
_MAX_TYPED = 10_000_000  # bytes of all names, values and notes; some may share one long text
_HIDDEN = 1 << 1 | 1 << 5  # of the flags of an annotation: ISO 32000-1, table 165
_PASSWORD = 1 << 13  # of the flags of a text field: ISO 32000-1, table 228
_DPI = 200
_LINE_END_HYPHEN = re.compile(r"(?:\x02|\ufffe|\xad)\n?(?=(\w?))|\xad")
_CONTROLS = re.compile(r"[\x01-\x08\x0b-\x1f]")  # mostly the space of a font without Unicode
_Box: TypeAlias = tuple[float, float, float, float]  # left, bottom, right, top
_MAX_PLACED = 200_000  # characters of a page that are looked at one by one
_WORD_GAP = 0.15  # of the height of a line
_NOT_PRINTED = re.compile(r"[\0-\x08\x0e-\x1f\xad\ufffe]")
# One character on a line, with its punctuation.
_MARKS = "[\u3001-\u3003\u3008-\u301f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff65]{0,2}"
_ALONE = f"{_MARKS}[\u3001-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]{_MARKS}"
_VERTICAL = re.compile(f"(?m)^{_ALONE}(?:\n{_ALONE}){{4,}}$")


@dataclass(frozen=True, slots=True)
class EmptyPage:
    """
    A page without text, as an image for OCR.

    Example:
        >>> from ragasync.documents import EmptyPage
        >>> EmptyPage.__slots__
        ('number', 'image')

    Args:
        number: The number of the page, from 1.
        image: Its pixels, height x width x 3 (RGB, uint8), at 200 dots per inch or less.
    """

    number: int
    image: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PDFLoader:
    """
    Load the text of all pages, joined by blank lines.

    Hyphenated words at the end of a line are joined, and so are the characters of vertical writing.
    Form values follow the text of their page as lines of `name: value`, and so do typed notes.
    `metadata["page_starts"]` holds the offset of each page, `metadata["pages_without_text"]` the
    numbers, from 1, of pages without text, which are usually scans, and
    `metadata["unreadable_pages"]` those of damaged pages, if others can be read. Only one file is
    read at a time, on any number of threads.

    Example:
        >>> from ragasync.documents import LOADERS, PDFLoader
        >>> def read_scan(page):
        ...     return ""  # for instance pytesseract.image_to_string(Image.fromarray(page.image))
        >>> loader = PDFLoader(password="open sesame", on_empty_page=read_scan)
        >>> loaders = {**LOADERS, ".pdf": loader}  # for load_source(path, loaders=loaders)

    Args:
        password: The password of encrypted files; others are opened without it.
        on_empty_page: A function from the image of a page without text to its text, for OCR; it
            blocks only the thread that loads the file.

    Raises:
        MissingExtra: If pypdfium2 is not installed.
        LoadError: "pdf" for a damaged file, "encrypted" for an encrypted one, "no text" for scans,
            "too large" for pages that expand to more than 200,000,000 characters.
        TypeError: If `on_empty_page` returns anything but a str or None.
    """

    password: str | None = field(default=None, repr=False)
    on_empty_page: Callable[[EmptyPage], str | None] | None = None

    def __call__(self, data: bytes) -> Loaded:
        """Load one file."""
        try:
            import pypdfium2
        except ImportError:
            raise MissingExtra("loading a PDF", "pypdfium2", "ingest") from None
        try:
            pages, unreadable = self._pages(data)
        except pypdfium2.PdfiumError as error:
            if "password" not in str(error).lower():
                raise LoadError("pdf", f"PDFium cannot open it: {error}") from None
            advice = "give PDFLoader(password=...)" if self.password is None else "wrong password"
            raise LoadError("encrypted", f"locked by a password: {advice}") from None
        text, starts = join_parts(pages)
        if not text.strip() and unreadable:
            raise LoadError(
                "pdf",
                f"{len(unreadable)} of its {len(pages)} pages are broken, and the others have no "
                "text: open it in a PDF viewer and print it to a new PDF",
            )
        if not text.strip():
            raise LoadError(
                "no text",
                f"{len(pages)} pages without text: scanned ones need OCR, for instance by "
                "PDFLoader(on_empty_page=...)",
            )
        metadata: dict[str, object] = {"page_starts": starts}
        empty = (n for n, page in enumerate(pages, 1) if not page.strip() and n not in unreadable)
        if without_text := tuple(empty):
            metadata["pages_without_text"] = without_text
        if unreadable:
            metadata["unreadable_pages"] = tuple(unreadable)
        return text, metadata

    def _pages(self, data: bytes) -> tuple[list[str], list[int]]:
        """Return the text of each page, and the numbers of broken pages."""
        import pypdfium2

        with _one_at_a_time:
            install_stand_in_font()
            pdf = pypdfium2.PdfDocument(data, password=self.password)
            annotations = _Annotations(pdf)
        try:
            with _one_at_a_time:
                count = len(pdf)
            pages: list[str] = []
            unreadable: list[int] = []
            size = 0
            for number in range(1, count + 1):
                try:
                    text, image = self._page(pdf, annotations, number - 1)
                except pypdfium2.PdfiumError:
                    text, image = "", None
                    unreadable.append(number)
                    if len(unreadable) > _MAX_BROKEN:
                        raise LoadError(
                            "pdf", f"more than {_MAX_BROKEN:,} of its pages are broken"
                        ) from None
                # PDFium is free meanwhile: the hook may take long, or read a PDF itself.
                pages.append(text if image is None else self._read_image(EmptyPage(number, image)))
                size += len(pages[-1])
                if size > _MAX_TEXT:
                    raise LoadError(
                        "too large", f"more than {_MAX_TEXT:,} characters by page {number:,}"
                    )
            return pages, unreadable
        finally:
            with _one_at_a_time:
                annotations.close()
                pdf.close()

    def _page(
        self, pdf: PdfDocument, annotations: _Annotations, index: int
    ) -> tuple[str, np.ndarray | None]:
        """Return the text of one page, and its image if it has no text and there is a hook."""
        with _one_at_a_time:
            page = pdf[index]
            try:
                text = _page_text(page)
                typed = "\n".join(annotations.lines(page))
                text = f"{text}\n{typed}" if text.strip() and typed else typed or text
                is_wanted = not text.strip() and self.on_empty_page is not None
                return text, _image_of(page) if is_wanted else None
            finally:
                page.close()

    def _read_image(self, page: EmptyPage) -> str:
        text = self.on_empty_page(page) if self.on_empty_page else None
        if not isinstance(text, str | None):
            raise TypeError(f"on_empty_page must return a str or None, got {text!r:.200}")
        return (text or "").replace("\r\n", "\n").replace("\0", "")


def load_pdf(data: bytes) -> Loaded:
    """Load a PDF with a `PDFLoader` without options; see there."""
    return PDFLoader()(data)


def _page_text(page: PdfPage) -> str:
    """Return the text of one page, with hyphenated words joined and cells separated."""
    textpage = page.get_textpage()
    try:
        # The text in the page's box glues cells that PDFium does not know to be on one line,
        # 400.01 and 3 to 400.013; all text has their gaps, and printers' marks outside the page.
        text: str = textpage.get_text_bounded()
        if textpage.count_chars() <= _MAX_PLACED and (
            _words(text) != _words(textpage.get_text_range())
        ):
            # Where nothing is in the page's box, the box is wrong and not the text.
            text = _text_by_places(textpage, page.get_bbox()) or textpage.get_text_range()
    finally:
        textpage.close()
    text = join_hyphenated(text.replace("\r\n", "\n").replace("\0", ""))
    return join_vertical(_CONTROLS.sub(" ", text))


def _words(text: str) -> list[str]:
    """Return the words of a text, without characters that only some readings have."""
    return _NOT_PRINTED.sub("", text).split()


def _text_by_places(textpage: PdfTextPage, page: _Box) -> str:
    """Return the characters whose middle is on the page, by line; much slower."""
    import pypdfium2.raw as pdfium

    characters: list[str] = []
    gap = ""
    last: _Box | None = None
    for index in range(textpage.count_chars()):
        character = chr(pdfium.FPDFText_GetUnicode(textpage, index))
        if character.isspace():
            gap += character
            continue
        box = textpage.get_charbox(index, loose=True)
        if not _has_middle_of(page, box):
            continue
        if last is not None and "\n" in gap:
            gap = _gap_between(last, box)
        characters += gap, character
        gap, last = "", box
    # On Windows, PDFium gives rare characters in two halves.
    return "".join(characters).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _has_middle_of(page: _Box, box: _Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return page[0] <= x <= page[2] and page[1] <= y <= page[3]


def _gap_between(first: _Box, second: _Box) -> str:
    """Return the white space between two characters where PDFium ends a line."""
    height = min(first[3] - first[1], second[3] - second[1])
    is_one_line = 2 * (min(first[3], second[3]) - max(first[1], second[1])) > height
    distance = second[0] - first[2]
    if not is_one_line or distance < -_WORD_GAP * height:
        return "\n"
    return " " if distance > _WORD_GAP * height else ""


def join_vertical(text: str) -> str:
    """Join the characters of vertical writing, each of which is a line in PDFium."""
    return _VERTICAL.sub(lambda lines: lines[0].replace("\n", ""), text)


def join_hyphenated(text: str) -> str:
    """
    Join words that PDFium marks as hyphenated at the end of a line, by U+0002.

    Before a capital or a digit the hyphen stays: it belongs to a name or a number.
    """

    def joint(hyphen: re.Match[str]) -> str:
        after = hyphen[1] or ""
        is_part_of_name = hyphen[0][0] != "\xad" and (after.isupper() or after.isdigit())
        return "-" if is_part_of_name else ""

    return _LINE_END_HYPHEN.sub(joint, text)


class _Annotations:
    """
    Read the form values and typed notes of a document.

    The form is not opened by the document's `init_forms`: that makes PDFium draw each field when
    its page is opened, which takes minutes for a long value.
    """

    def __init__(self, pdf: PdfDocument) -> None:
        import pypdfium2.raw as pdfium

        self._api: Any = pdfium  # imported here only, as it belongs to an extra
        self._taken = 0
        self._form = None
        if pdf.get_formtype() != pdfium.FORMTYPE_NONE:
            self._settings = pdfium.FPDF_FORMFILLINFO(version=2)  # PDFium keeps its address
            self._form = pdfium.FPDFDOC_InitFormFillEnvironment(pdf, self._settings)

    def close(self) -> None:
        """Free the form in PDFium; must come before the document is closed."""
        if self._form:
            self._api.FPDFDOC_ExitFormFillEnvironment(self._form)
            self._form = None

    def lines(self, page: PdfPage) -> list[str]:
        """Return `name: value` for each filled field of a page, and its notes, each once."""
        lines: dict[str, None] = {}
        for index in range(min(self._api.FPDFPage_GetAnnotCount(page), _MAX_FIELDS)):
            annotation = self._api.FPDFPage_GetAnnot(page, index)
            if annotation:
                try:
                    lines[self._line(annotation)] = None
                finally:
                    self._api.FPDFPage_CloseAnnot(annotation)
        return [line for line in lines if line]

    def _line(self, annotation: object) -> str:
        """Return the text of one annotation; "" if it is not typed."""
        if self._api.FPDFAnnot_GetSubtype(annotation) == self._api.FPDF_ANNOT_FREETEXT:
            is_shown = not self._api.FPDFAnnot_GetFlags(annotation) & _HIDDEN
            text = self._text(self._api.FPDFAnnot_GetStringValue, annotation, b"Contents")
            return text if is_shown else ""
        return self._field(annotation) if self._form else ""

    def _field(self, annotation: object) -> str:
        """Return `name: value` of a field; "" if it is empty, a button or a password."""
        kind = self._api.FPDFAnnot_GetFormFieldType(self._form, annotation)
        flags = self._api.FPDFAnnot_GetFormFieldFlags(self._form, annotation)
        is_password = kind == self._api.FPDF_FORMFIELD_TEXTFIELD and flags & _PASSWORD
        if kind < self._api.FPDF_FORMFIELD_CHECKBOX or is_password:
            return ""
        value = self._text(self._api.FPDFAnnot_GetFormFieldValue, self._form, annotation)
        is_box = kind in (self._api.FPDF_FORMFIELD_CHECKBOX, self._api.FPDF_FORMFIELD_RADIOBUTTON)
        if not value or (is_box and value == "Off"):
            return ""
        name = self._text(self._api.FPDFAnnot_GetFormFieldAlternateName, self._form, annotation)
        name = name or self._text(self._api.FPDFAnnot_GetFormFieldName, self._form, annotation)
        return f"{name}: {value}" if name else value

    def _text(self, get: Callable[..., int], *of: object) -> str:
        """Return a text of an annotation, whose size PDFium gives first."""
        size = get(*of, None, 0)
        self._taken += size
        if self._taken > _MAX_TYPED:
            raise LoadError(
                "too large",
                f"its form holds more than {_MAX_TYPED:,} bytes of text, notes on pages included",
            )
        buffer = ctypes.create_string_buffer(max(size, 2))
        get(*of, ctypes.cast(buffer, ctypes.POINTER(self._api.FPDF_WCHAR)), size)
        text = buffer.raw[:size].decode("utf-16-le", "replace")
        return text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n").strip()


def _image_of(page: PdfPage) -> np.ndarray:
    """Return a page as RGB; at less than 200 dots per inch if it claims to be huge."""
    width, height = page.get_size()
    scale = min(_DPI / 72, (_MAX_PIXELS / max(width * height, 1)) ** 0.5)
    bitmap = page.render(scale=scale, rev_byteorder=True)
    try:
        pixels: np.ndarray = bitmap.to_numpy()[:, :, :3].copy()
    finally:
        bitmap.close()
    return pixels


# The character sets of Windows by which PDFium asks for fonts: 0 is Western, 2 symbols.
_BUILT_IN = frozenset({0, 2})
_UNITS = 1000  # of an em, the square that a glyph stands in


def install_stand_in_font() -> None:
    """
    Give PDFium a font of plain boxes for scripts that no installed font covers.

    PDFium drops a text whose glyphs have no width: a Chinese, Japanese or Korean text whose font
    is not inside the file would be read on a desktop, which has such fonts, and vanish on a server.
    Installed fonts come first, and a handler that the program has installed stays.
    """
    import pypdfium2

    if pypdfium2.PdfSysfontBase.SINGLETON is not None:
        return
    try:
        _handler_class()().setup()
    except pypdfium2.PdfiumError:
        return  # PDFium has no list of fonts on this platform to add one to


def _handler_class() -> type:
    """Return the class of the font handler, whose base is in pypdfium2."""
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
                return int(super().GetFontData(caller, font, table, buffer, size))
            return 0 if table else _copy(self._font.raw, buffer, size)  # 0 asks for the whole file

        def GetFaceName(self, caller: object, font: int, buffer: object, size: int) -> int:  # noqa: N802
            if font != self._handle:
                return int(super().GetFaceName(caller, font, buffer, size))
            return _copy(b"Boxes\0", buffer, size)

        def GetFontCharset(self, caller: object, font: int) -> int:  # noqa: N802
            # 1 is the default character set.
            return int(super().GetFontCharset(caller, font)) if font != self._handle else 1

        def DeleteFont(self, caller: object, font: int) -> None:  # noqa: N802
            if font != self._handle:
                super().DeleteFont(caller, font)

    return StandInFont


def _copy(data: bytes, buffer: object, size: int) -> int:
    """Copy data to a C buffer if it is large enough; return the size that is needed."""
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
