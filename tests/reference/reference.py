"""
Build the API reference out of the docstrings, as pages of HTML in `site/`.

    python tests/reference/reference.py

pdoc makes the pages. Here is what it cannot know: that some names are loaded when they are asked
for, where the docstring of a value stands, and that arguments with an underscore are private.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from inspect import Signature
from pathlib import Path
from typing import get_type_hints

import pdoc.render
from pdoc.doc import Class, Function, Module

from tests.reference.public import MODULES, carries_its_docstring, docstring_of

SITE = Path(__file__).parents[2] / "site"


def build(folder: Path) -> Path:
    """Write the pages into a folder, and return that of their list."""
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        footer_text=f"ragasync {version('ragasync')}",
        template_directory=Path(__file__).parent,
    )
    pages = {name: page_of(name) for name in MODULES}
    for name, page in pages.items():
        path = folder / f"{name.replace('.', '/')}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pdoc.render.html_module(page, pages), encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(pages), encoding="utf-8")
    index = folder / "index.html"
    index.write_text(pdoc.render.html_index(pages), encoding="utf-8")
    return index


def page_of(name: str) -> Module:
    """Return what is to be on the page of a module."""
    module = import_module(name)
    for public in module.__all__:
        setattr(module, public, getattr(module, public))  # pdoc reads no `__getattr__` of modules
    page = Module(module)
    page.docstring = page.docstring.partition("\n\n")[0]  # below it is the map for who works on it
    for public in module.__all__:
        member = page.members[public]
        if not carries_its_docstring(getattr(module, public)):
            member.docstring = docstring_of(name, public)
        if isinstance(member, Class):
            complete(member)
    return page


def complete(of: Class) -> None:
    """Show with a class what it has from our other classes, and leave private arguments out."""
    if hasattr(of.obj, "_fields"):  # a NamedTuple's `__new__` has its types as texts, in no module
        of.obj.__new__.__annotations__ = get_type_hints(of.obj)
    for name, member in of.members.items():
        if member.taken_from[0].startswith("ragasync"):
            member.taken_from = (of.modulename, f"{of.qualname}.{name}")
        if name == "__init__" and isinstance(member, Function):
            member.signature = without_private(member.signature)


def without_private(signature: Signature) -> Signature:
    """Return a signature without the arguments that are nobody's business."""
    kept = [each for each in signature.parameters.values() if not each.name.startswith("_")]
    return signature.replace(parameters=kept)


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE))
