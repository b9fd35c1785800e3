"""Word documents written by hand, part by part, for what python-docx cannot write."""

import io
import zipfile

_OFFICE = "http://schemas.openxmlformats.org"
_STRICT = "http://purl.oclc.org/ooxml"
_TRANSITIONAL = {
    "w": f"{_OFFICE}/wordprocessingml/2006/main",
    "m": f"{_OFFICE}/officeDocument/2006/math",
    "r": f"{_OFFICE}/officeDocument/2006/relationships",
}
_STRICT_NAMES = {
    "w": f"{_STRICT}/wordprocessingml/main",
    "m": f"{_STRICT}/officeDocument/math",
    "r": f"{_STRICT}/officeDocument/relationships",
}
_OTHERS = {
    "mc": f"{_OFFICE}/markup-compatibility/2006",
    "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
    "v": "urn:schemas-microsoft-com:vml",
    "a": f"{_OFFICE}/drawingml/2006/main",
    "c": f"{_OFFICE}/drawingml/2006/chart",
    "dgm": f"{_OFFICE}/drawingml/2006/diagram",
}
_ROOTS = {"styles": "styles", "numbering": "numbering", "header": "hdr", "footer": "ftr"}


def word_of(body: str, *, strict: bool = False, **parts: str) -> bytes:
    """
    Write a Word document of a body and of parts named `styles`, `footnotes`, `header1`, ...

    A part is given as the XML inside of its root; a header's relationship id is its name.
    """
    names = _STRICT_NAMES if strict else _TRANSITIONAL
    declared = " ".join(f'xmlns:{key}="{uri}"' for key, uri in (names | _OTHERS).items())

    def part(root: str, inside: str) -> str:
        return f'<?xml version="1.0"?><w:{root} {declared}>{inside}</w:{root}>'

    def relations(targets: dict[str, tuple[str, str]]) -> str:
        rows = "".join(
            f'<Relationship Id="{key}" Type="{names["r"]}/{kind}" Target="{target}"/>'
            for key, (kind, target) in targets.items()
        )
        uri = f"{_OFFICE}/package/2006/relationships"
        return f'<Relationships xmlns="{uri}">{rows}</Relationships>'

    kinds = {name: name.rstrip("0123456789") for name in parts}
    kind_of_main = (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    )
    content = (
        f'<Types xmlns="{_OFFICE}/package/2006/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{kind_of_main}"/></Types>'
    )
    files = {
        "[Content_Types].xml": content,
        "_rels/.rels": relations({"d": ("officeDocument", "word/document.xml")}),
        "word/document.xml": part("document", f"<w:body>{body}</w:body>"),
        "word/_rels/document.xml.rels": relations(
            {name: (kind, f"{name}.xml") for name, kind in kinds.items()}
        ),
    }
    for name, inside in parts.items():
        kind = kinds[name]
        files[f"word/{name}.xml"] = part(_ROOTS.get(kind, kind), inside)
    return zip_of(files)


def with_parts(data: bytes, **parts: tuple[str, str, str | bytes]) -> bytes:
    """Add parts to a Word document by their relationship's id: a kind, a name, and the content."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files: dict[str, str | bytes] = {each: archive.read(each) for each in archive.namelist()}
    names = "word/_rels/document.xml.rels"
    rows = "".join(
        f'<Relationship Id="{key}" Type="{_TRANSITIONAL["r"]}/{kind}" Target="{name}"/>'
        for key, (kind, name, _) in parts.items()
    )
    relations = files[names]
    assert isinstance(relations, bytes)
    files[names] = relations.replace(b"</Relationships>", f"{rows}</Relationships>".encode())
    files |= {f"word/{name}": content for _, name, content in parts.values()}
    return zip_of(files)


def drawn(root: str, inside: str) -> str:
    """Write a part of DrawingML, such as a chart."""
    declared = " ".join(f'xmlns:{key}="{uri}"' for key, uri in _OTHERS.items())
    return f"<{root} {declared}>{inside}</{root}>"


def zip_of(files: dict[str, str | bytes]) -> bytes:
    """Write an archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def p(*inside: str, properties: str = "") -> str:
    """Write a paragraph of texts and of XML."""
    runs = "".join(each if each.startswith("<") else r(each) for each in inside)
    return f"<w:p><w:pPr>{properties}</w:pPr>{runs}</w:p>"


def r(text: str, tag: str = "t") -> str:
    """Write a run."""
    return f'<w:r><w:{tag} xml:space="preserve">{text}</w:{tag}></w:r>'


def table(*rows: list[str]) -> str:
    """Write a table of cells, each given as XML or as a text."""
    return "<w:tbl><w:tblPr/>" + "".join(row(*cells) for cells in rows) + "</w:tbl>"


def row(*cells: str, properties: str = "") -> str:
    """Write a row."""
    written = "".join(each if each.startswith("<w:") else cell(each) for each in cells)
    return f"<w:tr><w:trPr>{properties}</w:trPr>{written}</w:tr>"


def cell(inside: str = "", properties: str = "") -> str:
    """Write a cell of a text or of XML."""
    content = inside if inside.startswith("<") else p(*([inside] if inside else []))
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{content}</w:tc>"


def field(instruction: str, result: str) -> str:
    """Write a complex field; instruction and result are XML of runs."""
    begin, middle, end = (
        f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>' for kind in ("begin", "separate", "end")
    )
    return begin + instruction + middle + result + end


def text_box(inside: str, fallback: str | None = None) -> str:
    """Write a text box as Word does: a drawing, and the same as VML for old readers."""
    content = f"<w:txbxContent>{inside}</w:txbxContent>"
    old = content if fallback is None else f"<w:txbxContent>{fallback}</w:txbxContent>"
    return (
        '<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wps:wsp><wps:txbx>'
        f"{content}</wps:txbx></wps:wsp></w:drawing></mc:Choice><mc:Fallback><w:pict><v:shape>"
        f"<v:textbox>{old}</v:textbox></v:shape></w:pict></mc:Fallback></mc:AlternateContent></w:r>"
    )


def numbering(*levels: str, lists: str = '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'):
    """Write lists; the levels are those of the one pattern, and list 1 follows it."""
    written = "".join(f'<w:lvl w:ilvl="{n}">{level}</w:lvl>' for n, level in enumerate(levels))
    return f'<w:abstractNum w:abstractNumId="0">{written}</w:abstractNum>{lists}'


def level(format_: str, pattern: str, start: int = 1, more: str = "") -> str:
    """Write what a level says of its numbers."""
    return (
        f'<w:start w:val="{start}"/><w:numFmt w:val="{format_}"/>{more}'
        f'<w:lvlText w:val="{pattern}"/>'
    )


def item(text: str, at: int = 0, of: int = 1) -> str:
    """Write a paragraph of a list."""
    numbers = f'<w:numPr><w:ilvl w:val="{at}"/><w:numId w:val="{of}"/></w:numPr>'
    return p(*([text] if text else []), properties=numbers)
