"""Word documents to text: the parts of the package, and what is known of each."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from xml.etree.ElementTree import Element

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded, join_parts
from ragasync.documents.loaders.docx_lists import ListNumbers, Styles
from ragasync.documents.loaders.docx_parts import chart_text, diagram_text, inserted_text
from ragasync.documents.loaders.docx_text import Block, Note, WordText
from ragasync.documents.loaders.docx_xml import attribute, elements_of, name_of, parse_part
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from docx.opc.packuri import PackURI

_MAX_UNPACKED = 200_000_000
_MAX_MEMBERS = 20_000
_MAX_TAGS = 3_000_000  # of all parts that are read; each takes about 200 bytes of memory
_MOST = {"p": 500_000, "tc": 300_000}  # paragraphs and cells; Word is unusable long before
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def load_docx(data: bytes) -> Loaded:
    """
    Return the paragraphs and tables of a document in their order, joined by blank lines.

    The text is what Word shows with all changes accepted: inserted and moved text, results of
    fields, content controls, text boxes, numbers of lists, formulas, SmartArt and charts are in it,
    deleted text is not. Notes follow the paragraph that refers to them. Headers and footers come
    once, after the body. Strict files are read like others.

    A heading is written as in Markdown, `## Title` for the style "heading 2", and
    `metadata["headings"]` holds where each starts and its level. `metadata["headers"]` and
    `metadata["footers"]` hold the texts of headers and footers, which end the text in this order.
    `metadata["unread_parts"]` names files inside the document that Word inserts when it opens it,
    and that are neither Word documents, HTML nor plain text.

    Raises:
        MissingExtra: If python-docx is not installed.
        LoadError: "too large" for a file that would unpack to over 200 MB or has too many parts
            or tags, "docx" for one that is broken or nested too deeply, "encrypted" for one that
            is locked by a password.
    """
    try:
        import docx.opc.packuri as names
    except ImportError:
        raise MissingExtra("loading a Word document", "python-docx", "ingest") from None
    try:
        _refuse_locked(data)
        with _open_package(data) as archive:
            return _Document(_Package(archive, names.PackURI, _TagBudget())).text()
    except LoadError:
        raise
    except Exception as error:
        # A broken file raises whatever its zip or its parts come upon.
        raise LoadError("docx", f"not a readable Word document: {error!r:.200}") from error


def _refuse_locked(data: bytes) -> None:
    """Raise for the container that Word locks a document into, and that it used before 2007."""
    if data.startswith(_OLE):
        raise LoadError(
            "encrypted", "locked by a password, or of Word before 2007: save it as an open .docx"
        )


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


def _refuse_many(part: str, count: Callable[[str], int]) -> None:
    """Raise for more paragraphs or cells than a document has."""
    for name, bound in _MOST.items():
        if count(name) > bound:
            raise LoadError(
                "too large", f"{part} has more than {bound:,} <w:{name}>: split the document"
            )


def _count_in_bytes(data: bytes, name: str) -> int:
    """Return how many elements of a name there are at least, without the seconds of parsing."""
    empty, full = (
        sum(data.count(f"{before}{name}{after}".encode()) for before in ":<")
        for after in ("/>", ">")
    )
    return empty + full // 2  # most have a start tag and an end tag


class _Relation(NamedTuple):
    """What one part says of another: its kind ("styles", "header"), an id and the part's name."""

    kind: str
    id: str | None
    target: PackURI


class _TagBudget:
    """Counts the tags of all parts that are read, also in documents inside of the document."""

    def __init__(self) -> None:
        self._taken = 0

    def take(self, count: int) -> None:
        """Count some more, or raise."""
        self._taken += count
        if self._taken > _MAX_TAGS:
            raise LoadError(
                "too large", f"it has more than {_MAX_TAGS:,} XML tags: split the document"
            )


class _Package:
    """The parts of a document by their names; what is not asked for is not unpacked."""

    def __init__(self, archive: zipfile.ZipFile, uri: type[PackURI], tags: _TagBudget) -> None:
        self._archive = archive
        self.tags = tags
        self.uri = uri
        # Names are compared without case (ECMA-376, part 2), and some writers use backslashes.
        self._members = {
            member.filename.replace("\\", "/").lower(): member for member in archive.infolist()
        }

    def read(self, part: PackURI) -> bytes | None:
        """Return the bytes of a part, None where the file has no such part."""
        member = self._members.get(part.membername.lower())
        if member is None:
            return None
        if member.flag_bits & 1:
            raise LoadError("encrypted", f"{part} is locked by a password: save it without one")
        return self._archive.read(member)

    def root_of(self, part: PackURI) -> Element | None:
        """Return the XML of a part, None where the file has no such part."""
        data = self.read(part)
        if data is None:
            return None
        # Start and end tags are counted alike, and no text holds the sign itself.
        self.tags.take(data.count(b"<"))
        _refuse_many(part, lambda name: _count_in_bytes(data, name))
        root = parse_part(data, part.membername)
        _refuse_many(part, lambda name: sum(1 for _ in elements_of(root, name)))
        return root

    def relations(self, part: PackURI) -> Iterator[_Relation]:
        """Yield what a part says of others inside of the package."""
        root = self.root_of(part.rels_uri)
        for element in () if root is None else root:
            target = attribute(element, "Target")
            if target and attribute(element, "TargetMode") != "External":
                kind = (attribute(element, "Type") or "").rpartition("/")[2]
                resolved = self.uri.from_rel_ref(part.baseURI, target)
                yield _Relation(kind, attribute(element, "Id"), resolved)


class _Document:
    """
    The main part of a package, and those that belong to it.

    Args:
        package: The package.
        is_inserted: Whether it is inside of another document; what is inside of it is not read.
    """

    def __init__(self, package: _Package, *, is_inserted: bool = False) -> None:
        self._package = package
        self._is_inserted = is_inserted
        relations = package.relations(package.uri("/"))
        mains = (each.target for each in relations if each.kind == "officeDocument")
        main = next(mains, package.uri("/word/document.xml"))
        root = package.root_of(main)
        if root is None or name_of(root) != "w:document":
            came = "no such part" if root is None else f"<{root.tag:.100}>"
            raise LoadError(
                "docx",
                f"expected a Word document in {main}, got {came}: save it in Word as .docx",
            )
        self.root = root
        self._main = main
        self._relations = list(package.relations(main))
        self._shown: set[str] = set()
        self._unread: list[str] = []

    def text(self) -> Loaded:
        """Return its text, and what is known of it."""
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
        """Return the part of a kind, None where there is none."""
        targets = (each.target for each in self._relations if each.kind == kind)
        roots = (self._package.root_of(part) for part in targets)
        return next((root for root in roots if root is not None), None)

    def _linked_from(self, part: PackURI) -> Callable[[str], str]:
        """Return what gives the text of parts that are shown in one, by the relationship's id."""

        @cache
        def targets() -> dict[str | None, _Relation]:
            return {each.id: each for each in self._package.relations(part)}

        return lambda key: self._linked_text(targets().get(key))

    def _linked_text(self, relation: _Relation | None) -> str:
        """Return the text of a part that is shown in another one, the first time that it is."""
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
            self._unread.append(str(relation.target))
        return text or ""

    def _text_of(self, relation: _Relation) -> str | None:
        """Return the text of a chart, SmartArt or an inserted file; None if it cannot be read."""
        part = relation.target
        if relation.kind == "aFChunk":
            data = self._package.read(part) or b""
            if part.ext.lower() != "docx":
                return inserted_text(data, part.ext.lower())
            return None if self._is_inserted else self._inserted_document(data)
        shown = {"diagramData": diagram_text, "chart": chart_text}.get(relation.kind)
        root = self._package.root_of(part) if shown else None
        return "" if shown is None or root is None else shown(root)

    def _inserted_document(self, data: bytes) -> str:
        """Return the text of a Word document inside of this one."""
        with _open_package(data) as archive:
            package = _Package(archive, self._package.uri, self._package.tags)
            text, metadata = _Document(package, is_inserted=True).text()
        unread = metadata.get("unread_parts", ())
        self._unread += unread if isinstance(unread, tuple) else ()
        return text

    def _notes(self) -> dict[Note, Element]:
        """Return the elements of all footnotes and endnotes."""
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
