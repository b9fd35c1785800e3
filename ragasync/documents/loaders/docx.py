"""Word documents: the text that a reader sees with all changes accepted."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import NamedTuple, Self
from xml.etree.ElementTree import Element

from ragasync.documents.loaders.docx_elements import (
    ListNumbers,
    Styles,
    attribute,
    chart_text,
    child_of,
    diagram_text,
    elements_of,
    inserted_text,
    is_on,
    math_text,
    name_of,
    number_of,
    parse_part,
    symbol_text,
    value_of,
)
from ragasync.documents.loaders.text import Loaded, join_parts
from ragasync.documents.models import LoadError

_MAX_COLUMNS = 16_384  # columns; Word allows 63, and no spreadsheet more than this
_LEFT_OUT = frozenset(
    {f"w:{name}" for name in ("del", "moveFrom", "delText", "instrText", "delInstrText")}
    | {f"w:{part}Pr" for part in ("p", "r", "sdt", "sdtEnd", "tbl", "tr", "tc", "sect", "ruby")}
    | {"w:smartTagPr", "w:customXmlPr", "w:tblPrEx", "w:tblGrid"}
)
_LOOSE = frozenset({"w:r", "w:hyperlink", "w:fldSimple", "m:oMath", "m:oMathPara"})
_LINE_END = re.compile(r"\s*\n\s*")
_TEXTS: Mapping[str, Callable[[Element], str]] = {
    "w:t": lambda element: _on_one_line(element.text or ""),
    **dict.fromkeys(("w:tab", "w:ptab"), lambda _: "\t"),
    **dict.fromkeys(("w:br", "w:cr"), lambda _: "\n"),
    "w:noBreakHyphen": lambda _: "-",
    # Shows only where a line ends in it, and would cut the word in two for a search.
    "w:softHyphen": lambda _: "",
    "w:sym": symbol_text,
    "m:oMath": math_text,
    "v:textpath": lambda element: attribute(element, "string") or "",
}


class Block(NamedTuple):
    """A paragraph or a table; `level` is that of a heading, else 0."""

    level: int
    text: str
    is_table: bool = False


class Note(NamedTuple):
    """The target of a reference: "footnote" or "endnote", and its id."""

    kind: str
    id: str


class _Ruby(str):
    """A word with its reading, as text; it keeps both, so that the next ones can join it."""

    base: str
    reading: str

    __slots__ = ("base", "reading")

    def __new__(cls, base: str, reading: str) -> Self:
        """Write the reading in parentheses behind the word."""
        ruby = super().__new__(cls, f"{base}({reading})" if reading else base)
        ruby.base, ruby.reading = base, reading
        return ruby


class _Flow:
    """The blocks of one container: the body, a cell, a text box."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        # Paragraphs whose marks were deleted: the next one continues them. A list, because joining
        # strings one by one is quadratic.
        self.begun: list[str] = []

    @property
    def size(self) -> int:
        """Number of pieces so far, to see whether a form of something has text."""
        return len(self.blocks) + len(self.begun)

    def paragraph(self, text: str, level: int = 0, label: str = "") -> None:
        text = "".join([*self.begun, text]).strip("\n")
        self.begun = []
        if text.strip():
            mark = f"{'#' * level} " if level else ""
            line = _LINE_END.sub(" ", text) if level else text
            self.blocks.append(Block(level, f"{mark}{label}{line}"))

    def table(self, text: str) -> None:
        self.finish()
        if text.strip():
            self.blocks.append(Block(0, text, is_table=True))

    def finish(self) -> None:
        """End a paragraph that would continue."""
        if self.begun:
            self.paragraph("")


class WordText:
    """
    Read the parts of one document, in order: body, then headers and footers.

    The text is that which Word shows with all changes accepted: inserted text, moved text at its
    new place, results of fields, content controls. A table is one block with a line for each row
    and tabs between cells; rows of a table inside a cell have their own lines. A note follows the
    paragraph or table that refers to it, as `[^1]: text` for `[^1]`, and endnotes are numbered
    `[^e1]`. A text box follows the paragraph that it is anchored in.
    """

    def __init__(self, styles: Styles, numbers: ListNumbers, notes: Mapping[Note, Element]) -> None:
        self._styles = styles
        self._numbers = numbers
        self._notes = notes
        self._labels: dict[Note, str] = {}
        self._counts = {"footnote": 0, "endnote": 0}
        self._due: list[Note] = []
        self._linked: Callable[[str], str] = lambda _: ""
        self._tables = 0
        self._fields: list[bool] = []  # of each open field, whether its result has begun
        self._instructions = 0  # open fields whose result has not
        self._hides_instructions = True
        self._handlers: Mapping[str, Callable[[Element, list[str], _Flow], None]] = {
            "w:fldChar": self._field,
            "w:footnoteReference": self._reference,
            "w:endnoteReference": self._reference,
            "w:ruby": self._ruby,
            "w:txbxContent": lambda element, _, boxes: self._blocks(element, boxes),
            "w:p": lambda element, _, boxes: self._paragraph(element, boxes),
            "w:tbl": lambda element, _, boxes: self._table(element, boxes),
            "mc:AlternateContent": self._alternatives,
            "c:chart": lambda element, _, boxes: self._link(element, "id", boxes),
            "dgm:relIds": lambda element, _, boxes: self._link(element, "dm", boxes),
        }

    def read(self, root: Element, linked: Callable[[str], str]) -> list[Block]:
        """
        Return the blocks of one part, with the notes that it refers to.

        `linked` returns the text of another part that is shown in it, by a relationship's id.
        """
        flow = _Flow()
        self._linked = linked
        self._read(root, flow)
        # Not recursive: a note may refer to another one, and so on.
        while self._due:
            self._add_notes(flow)
        return flow.blocks

    def _read(self, root: Element, flow: _Flow) -> None:
        """Read a part or a note into a flow."""
        self._fields, self._instructions = [], 0
        # Each field must have an end, as an instruction without one would hide all text.
        kinds = [attribute(each, "fldCharType") for each in elements_of(root, "fldChar")]
        self._hides_instructions = kinds.count("begin") == kinds.count("end")
        self._blocks(root, flow)

    # Blocks

    def _blocks(self, parent: Element, flow: _Flow) -> None:
        """Read a container of paragraphs and tables, and end what it left open."""
        self._each_block(parent, flow)
        flow.finish()

    def _each_block(self, parent: Element, flow: _Flow) -> None:
        """Read paragraphs and tables, also inside of wrappers such as content controls."""
        for child in parent:
            name = name_of(child)
            if name == "w:p":
                self._paragraph(child, flow)
            elif name == "w:tbl":
                self._table(child, flow)
            elif name in _LOOSE:
                self._paragraph([child], flow)
            elif name == "w:altChunk":
                self._link(child, "id", flow)
            elif name == "mc:AlternateContent":
                _first_with_text(
                    child, lambda form: self._each_block(form, flow), lambda: flow.size
                )
            elif name not in _LEFT_OUT:
                self._each_block(child, flow)

    def _link(self, element: Element, name: str, flow: _Flow) -> None:
        """Read another part that is shown here: a chart, SmartArt, an inserted file."""
        if text := self._linked(attribute(element, name) or "").strip():
            flow.finish()
            flow.blocks.append(Block(0, text))

    def _paragraph(self, paragraph: Element | list[Element], flow: _Flow) -> None:
        """Read a paragraph, then the text boxes and notes that belong to it."""
        pieces: list[str] = []
        boxes = _Flow()
        self._inline(paragraph, pieces, boxes)
        text = "".join(pieces)
        properties = None if isinstance(paragraph, list) else child_of(paragraph, "w:pPr")
        mark = child_of(properties, "w:rPr")
        if any(child_of(mark, name) is not None for name in ("w:del", "w:moveFrom")):
            flow.begun += [text] if text else []
        else:
            label = self._numbers.label(properties)
            flow.paragraph(text, self._styles.level_of(properties), label)
        boxes.finish()
        flow.blocks += boxes.blocks
        if self._due and not self._tables and not flow.begun:
            self._add_notes(flow)

    def _add_notes(self, flow: _Flow) -> None:
        """Add the notes that are due, after the text that refers to them."""
        due, self._due = self._due, []
        state = (self._fields, self._instructions, self._hides_instructions)
        for note in due:
            content = _Flow()
            self._tables += 1  # what it refers to comes after it, not in its midst
            self._read(self._notes[note], content)
            self._tables -= 1
            text = "\n".join(block.text for block in content.blocks).strip()
            flow.paragraph(f"[^{self._labels[note]}]: {text}")
        self._fields, self._instructions, self._hides_instructions = state

    # Tables

    def _table(self, table: Element, flow: _Flow) -> None:
        self._tables += 1
        lines, merged = [], frozenset[int]()
        for row in _children(table, "w:tr"):
            properties = child_of(row, "w:trPr")
            if child_of(properties, "w:del") is None:
                line, merged = self._row(row, properties, merged)
                lines.append(line)
        self._tables -= 1
        flow.table("\n".join(line for line in lines if line.strip()))
        if self._due and not self._tables:
            self._add_notes(flow)

    def _row(
        self, row: Element, properties: Element | None, above: frozenset[int]
    ) -> tuple[str, frozenset[int]]:
        """Return the line of a row, and the columns in which merged cells go on below."""
        column = _span(properties, "w:gridBefore", 0)
        pieces: list[str] = []
        merged: set[int] = set()
        was_nested = False
        for cell in _children(row, "w:tc"):
            settings = child_of(cell, "w:tcPr")
            start, column = column, column + _span(settings, "w:gridSpan", 1)
            _refuse_wide(column, column)
            left = child_of(settings, "w:hMerge")  # merged into the cell to its left in old files
            continues = left is not None and attribute(left, "val") != "restart"
            if child_of(settings, "w:cellDel") is not None or (pieces and continues):
                continue
            merge = child_of(settings, "w:vMerge")
            if merge is not None:
                merged.add(start)
            text, nested = "", False
            # One that continues nothing is a cell like any other.
            if merge is None or attribute(merge, "val") == "restart" or start not in above:
                text, nested = self._cell(cell)
            if pieces:
                pieces.append("\n" if nested or was_nested else "\t")
            pieces.append(text)
            was_nested = nested
        return "".join(pieces).strip("\n"), frozenset(merged)

    def _cell(self, cell: Element) -> tuple[str, bool]:
        """Return the text of a cell, and whether it holds a table."""
        flow = _Flow()
        self._blocks(cell, flow)
        text = "\n".join(block.text for block in flow.blocks)
        return text, any(block.is_table for block in flow.blocks)

    # Inside of paragraphs

    def _inline(self, parent: Element | list[Element], pieces: list[str], boxes: _Flow) -> None:
        """Read runs, also inside of wrappers such as links, insertions and smart tags."""
        for child in parent:
            name = name_of(child)
            if handle := self._handlers.get(name):
                handle(child, pieces, boxes)
            elif text_of := _TEXTS.get(name):
                self._say(text_of(child), pieces)
            elif name not in _LEFT_OUT:
                self._inline(child, pieces, boxes)

    def _say(self, text: str, pieces: list[str]) -> None:
        """Take text, unless it is a part of a field's instruction."""
        if text and not (self._instructions and self._hides_instructions):
            pieces.append(text)

    def _field(self, element: Element, pieces: list[str], _: _Flow) -> None:
        """Follow a field from its instruction to its result."""
        kind = attribute(element, "fldCharType")
        if kind == "begin":
            self._say(_form_value(element), pieces)
            self._fields.append(False)
            self._instructions += 1
        elif kind == "separate" and self._fields and not self._fields[-1]:
            self._fields[-1] = True
            self._instructions -= 1
        elif kind == "end" and self._fields and not self._fields.pop():
            self._instructions -= 1

    def _reference(self, element: Element, pieces: list[str], _: _Flow) -> None:
        """Mark the place of a note, which follows once, after its first reference."""
        kind = name_of(element).removeprefix("w:").removesuffix("Reference")
        note = Note(kind, attribute(element, "id") or "")
        if note not in self._notes:
            return
        if note not in self._labels:
            self._counts[kind] += 1
            self._labels[note] = f"{'e' if kind == 'endnote' else ''}{self._counts[kind]}"
            self._due.append(note)
        self._say(f"[^{self._labels[note]}]", pieces)

    def _ruby(self, element: Element, pieces: list[str], boxes: _Flow) -> None:
        """Read a word with its reading above it: the word, then the reading in parentheses."""
        base, reading = "", ""
        if pieces and isinstance(pieces[-1], _Ruby):
            # Word writes a reading over each character of a word, which a search has to find whole.
            base, reading = pieces[-1].base, pieces[-1].reading
            pieces.pop()
        base += self._part_of_ruby(element, "w:rubyBase", boxes)
        reading += self._part_of_ruby(element, "w:rt", boxes)
        if base or reading:
            pieces.append(_Ruby(base, reading))

    def _part_of_ruby(self, element: Element, name: str, boxes: _Flow) -> str:
        part = child_of(element, name)
        texts: list[str] = []
        if part is not None:
            self._inline(part, texts, boxes)
        return "".join(texts)

    def _alternatives(self, element: Element, pieces: list[str], boxes: _Flow) -> None:
        """Read the first of several forms of one thing, such as a text box, that has text."""
        _first_with_text(
            element,
            lambda form: self._inline(form, pieces, boxes),
            lambda: len(pieces) + boxes.size,
        )


def _on_one_line(text: str) -> str:
    """Return a text with spaces for its line ends, which are those of the file."""
    return _LINE_END.sub(" ", text) if "\n" in text else text


def _first_with_text(
    element: Element, read: Callable[[Element], None], size: Callable[[], int]
) -> None:
    """Read one form after another until one has text."""
    before = size()
    for form in element:
        if name_of(form) in {"mc:Choice", "mc:Fallback"}:
            read(form)
            if size() != before:
                return


def _children(parent: Element, wanted: str) -> Iterator[Element]:
    """Yield the rows of a table or the cells of a row, also those inside wrappers."""
    waiting = [iter(parent)]
    while waiting:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
        elif (name := name_of(child)) == wanted:
            yield child
        elif name not in _LEFT_OUT and name not in {"mc:Fallback", "w:p", "w:tbl"}:
            waiting.append(iter(child))


def _span(properties: Element | None, name: str, default: int) -> int:
    """Return how many columns a cell claims, or raise for more than a table can have."""
    claimed = value_of(properties, name)
    if claimed is None:
        return default
    span = number_of(claimed)
    _refuse_wide(span, claimed)
    return max(span or 0, default)


def _refuse_wide(columns: int | None, claimed: object) -> None:
    """Raise for a number of columns that no table has, or for a claim that is no number."""
    if columns is None or columns > _MAX_COLUMNS:
        raise LoadError(
            "docx",
            f"a row claims {claimed!r:.40} columns, expected a number up to {_MAX_COLUMNS:,}: "
            "save the document again in Word",
        )


def _form_value(element: Element) -> str:
    """Return the value of a form's field that has no result: a box, a choice of a list."""
    data = child_of(element, "w:ffData")
    if (box := child_of(data, "w:checkBox")) is not None:
        checked = child_of(box, "w:checked")
        return "☒" if is_on(child_of(box, "w:default") if checked is None else checked) else "☐"
    if (choices := child_of(data, "w:ddList")) is not None:
        entries = [attribute(e, "val") for e in choices if name_of(e) == "w:listEntry"]
        chosen = number_of(value_of(choices, "w:result") or value_of(choices, "w:default")) or 0
        return (entries[chosen] or "") if chosen in range(len(entries)) else ""
    return ""


_MAX_UNPACKED = 200_000_000
_MAX_MEMBERS = 20_000
_MAX_TAGS = 3_000_000  # of all parts that are read; each takes about 200 bytes of memory
_MOST = {"p": 500_000, "tc": 300_000}  # paragraphs and cells; Word is unusable long before
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def load_docx(data: bytes) -> Loaded:
    """
    Load the paragraphs and tables of a Word document in order, joined by blank lines.

    The text is that which Word shows with all changes accepted: inserted and moved text, results of
    fields, content controls, text boxes, list numbers, formulas, SmartArt and charts are included,
    deleted text is not. Notes follow the paragraph that refers to them. Headers and footers come
    once, after the body. Strict files are supported.

    A heading is written as in Markdown, `## Title` for the style "heading 2", and
    `metadata["headings"]` holds the offset and level of each. `metadata["headers"]` and
    `metadata["footers"]` hold the texts of headers and footers, which end the text in this order.
    `metadata["unread_parts"]` lists inserted files that are neither Word documents, HTML nor plain
    text.

    Raises:
        LoadError: "too large" for a file that would unpack to over 200 MB or has too many parts
            or tags, "docx" for a broken or too deeply nested one, "encrypted" for a locked one.
    """
    try:
        if data.startswith(_OLE):  # the container of locked documents, and of Word before 2007
            raise LoadError(
                "encrypted",
                "locked by a password, or of Word before 2007: save it as an open .docx",
            )
        with _open_package(data) as archive:
            return _Document(_Package(archive)).text()
    except LoadError:
        raise
    except Exception as error:
        # A broken file raises whatever its zip or its parts come upon.
        raise LoadError("docx", f"not a readable Word document: {error!r:.200}") from error


def _open_package(data: bytes) -> zipfile.ZipFile:
    """Open the archive, or raise if a small one says that it holds a huge one."""
    # Counted in the bytes: only reading a long table of contents would take seconds.
    if (members := data.count(b"PK\x01\x02")) > _MAX_MEMBERS:
        raise LoadError(
            "too large", f"it has {members:,} parts, over the bound of {_MAX_MEMBERS:,}: split it"
        )
    archive = zipfile.ZipFile(io.BytesIO(data))
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MAX_UNPACKED:
        raise LoadError(
            "too large", f"it unpacks to {unpacked:,} bytes, over the bound of {_MAX_UNPACKED:,}"
        )
    return archive


def _refuse_many(part: str, data: bytes) -> None:
    """Raise for more paragraphs or cells than a document has, without the seconds of parsing."""
    for name, bound in _MOST.items():
        empty, full = (
            sum(data.count(f"{before}{name}{after}".encode()) for before in ":<")
            for after in ("/>", ">")
        )
        if empty + full // 2 > bound:  # most have a start tag and an end tag
            raise LoadError(
                "too large", f"{part} has more than {bound:,} <w:{name}>: split the document"
            )


class _Relation(NamedTuple):
    """A relationship between parts: its kind ("styles", "header"), its id, the part's name."""

    kind: str
    id: str | None
    target: str


class _Package:
    """The parts of a document by their names; what is not asked for is not unpacked."""

    def __init__(self, archive: zipfile.ZipFile, around: _Package | None = None) -> None:
        self._archive = archive
        # Tags of all parts that are read, also in documents inside of the document.
        self._counts: Counter[str] = Counter() if around is None else around._counts
        # Names are compared without case (ECMA-376, part 2), and some writers use backslashes.
        self._members = {
            member.filename.replace("\\", "/").lower(): member for member in archive.infolist()
        }

    def read(self, part: str) -> bytes | None:
        """Return the bytes of a part; None if the file has no such part."""
        member = self._members.get(part[1:].lower())
        if member is None:
            return None
        if member.flag_bits & 1:
            raise LoadError("encrypted", f"{part} is locked by a password: save it without one")
        return self._archive.read(member)

    def root_of(self, part: str) -> Element | None:
        """Return the XML of a part; None if the file has no such part."""
        data = self.read(part)
        if data is None:
            return None
        # Start and end tags are counted alike, and no text holds the sign itself.
        self._counts["tags"] += data.count(b"<")
        if self._counts["tags"] > _MAX_TAGS:
            raise LoadError(
                "too large", f"it has more than {_MAX_TAGS:,} XML tags: split the document"
            )
        _refuse_many(part, data)
        return parse_part(data, part[1:])

    def relations(self, part: str) -> Iterator[_Relation]:
        """Yield the relationships of a part to others inside the package."""
        folder, name = posixpath.split(part)
        root = self.root_of(posixpath.join(folder, "_rels", f"{name}.rels"))
        for element in () if root is None else root:
            target = attribute(element, "Target")
            if target and attribute(element, "TargetMode") != "External":
                kind = (attribute(element, "Type") or "").rpartition("/")[2]
                resolved = posixpath.normpath(posixpath.join(folder, target))
                yield _Relation(kind, attribute(element, "Id"), resolved)


class _Document:
    """The main part of a package with its other parts, as a text."""

    def __init__(self, package: _Package, *, is_inserted: bool = False) -> None:
        self._package = package
        self._is_inserted = is_inserted
        relations = package.relations("/")
        mains = (each.target for each in relations if each.kind == "officeDocument")
        main = next(mains, "/word/document.xml")
        root = package.root_of(main)
        if root is None or name_of(root) != "w:document":
            got = "no such part" if root is None else f"<{root.tag:.100}>"
            raise LoadError(
                "docx",
                f"expected a Word document in {main}, got {got}: save it in Word as .docx",
            )
        self.root = root
        self._main = main
        self._relations = list(package.relations(main))
        self._shown: set[str] = set()
        self._unread: list[str] = []

    def text(self) -> Loaded:
        styles = Styles(self._part("styles"))
        numbers = ListNumbers(self._part("numbering"), styles)
        reader = WordText(styles, numbers, self._notes())
        body = reader.read(self.root, self._linked_from(self._main))
        edges = {kind: self._edges(kind, reader) for kind in ("header", "footer")}
        blocks = [*body, *(Block(0, text) for texts in edges.values() for text in texts)]
        text, starts = join_parts([block.text for block in blocks])
        headings = tuple(
            (start, block.level) for start, block in zip(starts, blocks, strict=True) if block.level
        )
        metadata = {"headings": headings, **{f"{kind}s": edges[kind] for kind in edges}}
        metadata["unread_parts"] = tuple(self._unread)
        return text, {key: value for key, value in metadata.items() if value}

    def _part(self, kind: str) -> Element | None:
        targets = (each.target for each in self._relations if each.kind == kind)
        roots = (self._package.root_of(part) for part in targets)
        return next((root for root in roots if root is not None), None)

    def _linked_from(self, part: str) -> Callable[[str], str]:
        """Return a function from a relationship's id to the text of the part it shows."""

        @cache
        def targets() -> dict[str | None, _Relation]:
            return {each.id: each for each in self._package.relations(part)}

        return lambda key: self._linked_text(targets().get(key))

    def _linked_text(self, relation: _Relation | None) -> str:
        """Return the text of a part that is shown in another one, only the first time."""
        # By names without case, as parts are found: else one would be read under many names.
        if relation is None or relation.target.lower() in self._shown:
            return ""  # else a small file could show a large part any number of times
        self._shown.add(relation.target.lower())
        try:
            text = self._text_of(relation)
        except LoadError as error:
            if error.reason == "too large":
                raise
            text = None
        if text is None:
            self._unread.append(relation.target)
        return text or ""

    def _text_of(self, relation: _Relation) -> str | None:
        """Return the text of a chart, SmartArt or an inserted file; None if it cannot be read."""
        part = relation.target
        if relation.kind == "aFChunk":
            data = self._package.read(part) or b""
            suffix = posixpath.splitext(part)[1].lower()
            if suffix != ".docx":
                return inserted_text(data, suffix)
            return None if self._is_inserted else self._inserted_document(data)
        shown = {"diagramData": diagram_text, "chart": chart_text}.get(relation.kind)
        root = self._package.root_of(part) if shown else None
        return "" if shown is None or root is None else shown(root)

    def _inserted_document(self, data: bytes) -> str:
        with _open_package(data) as archive:
            package = _Package(archive, self._package)
            text, metadata = _Document(package, is_inserted=True).text()
        unread = metadata.get("unread_parts", ())
        self._unread += unread if isinstance(unread, tuple) else ()
        return text

    def _notes(self) -> dict[Note, Element]:
        notes = {}
        for kind in ("footnote", "endnote"):
            root = self._part(f"{kind}s")
            for element in () if root is None else root:
                if name_of(element) == f"w:{kind}":
                    notes[Note(kind, attribute(element, "id") or "")] = element
        return notes

    def _edges(self, kind: str, reader: WordText) -> tuple[str, ...]:
        """Return the texts of the headers or footers that a section uses, each text once."""
        used = {attribute(each, "id") for each in elements_of(self.root, f"{kind}Reference")}
        # By names without case, as parts are found: else one would be read under many names.
        parts = {each.target.lower(): each.target for each in self._relations if each.id in used}
        texts: dict[str, None] = {}
        for part in parts.values():
            root = self._package.root_of(part)
            blocks = [] if root is None else reader.read(root, self._linked_from(part))
            text = "\n".join(block.text for block in blocks)
            if any(letter.isalpha() for letter in text):  # not a page's number alone
                texts[text] = None
        return tuple(texts)
