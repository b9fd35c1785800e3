"""
Build the API reference out of the docstrings, as pages of HTML in `site/`.

    python tests/reference/reference.py

pdoc makes the pages, one per public module, and `start.md` is the text of the start page. The rest
is what pdoc cannot know: that some names are loaded on first use, where the docstring of a value
is, and that arguments with an underscore are private.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from inspect import Signature
from pathlib import Path
from typing import get_type_hints

import pandas as pd
import pdoc.render
from pdoc.doc import Class, Function, Module

from tests.reference.public import PAGES, carries_its_docstring, docstring_of, names_of

UNTIL = {"ragasync": "The layers, top down"}
"""The words that end the part of a docstring that is for users, if it is more than a sentence."""

SITE = Path(__file__).parents[2] / "site"


def build(folder: Path) -> Path:
    """Write the pages into a folder, and return the start page."""
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        footer_text=f"ragasync {version('ragasync')}",
        template_directory=Path(__file__).parent,
    )
    # The annotation `pd.Series[Any]` is one for type checkers.
    setattr(pd.Series, "__class_getitem__", classmethod(lambda cls, _: cls))  # noqa: B010
    pages = {name: page_of(name) for name in PAGES}
    text = Path(__file__).with_name("start.md").read_text(encoding="utf-8")
    pdoc.render.env.globals["start"] = f"{text}\n{list_of(pages)}"
    for name, page in pages.items():
        path = folder / f"{name.replace('.', '/')}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pdoc.render.html_module(page, pages), encoding="utf-8")
    (folder / "search.js").write_text(pdoc.render.search_index(pages), encoding="utf-8")
    index = folder / "index.html"
    index.write_text(pdoc.render.html_index(pages), encoding="utf-8")
    return index


def list_of(pages: dict[str, Module]) -> str:
    """Write a table of the pages, in Markdown."""
    links = ((f"[`{name}`]({name.replace('.', '/')}.html)", page) for name, page in pages.items())
    rows = (f"| {link} | {summary_of(page)} |" for link, page in links)
    return "\n".join(["## Modules", "", "| | |", "|---|---|", *rows])


def summary_of(page: Module) -> str:
    """Extract the first sentence of a module's docstring."""
    return " ".join(page.docstring.partition("\n\n")[0].split())


def page_of(name: str) -> Module:
    """Prepare the page of a module."""
    module = import_module(name)
    public_names = names_of(name)
    for public in public_names:
        setattr(module, public, getattr(module, public))  # pdoc reads no `__getattr__` of modules
    module.__all__ = public_names  # type: ignore[attr-defined]
    page = Module(module)
    if name != "ragasync.errors":  # its tree of errors is for readers, the maps are for developers
        page.docstring = page.docstring.partition(UNTIL.get(name, "\n\n"))[0]
    for public in public_names:
        member = page.members[public]
        if not carries_its_docstring(getattr(module, public)):
            member.docstring = docstring_of(name, public)
        if isinstance(member, Class):
            complete(member)
        for each in (member, *getattr(member, "members", {}).values()):
            if isinstance(each, Class | Function):
                without_wrapper(each)
    return page


def complete(of: Class) -> None:
    """Show the members that a class inherits from ours, and leave private arguments out."""
    if hasattr(of.obj, "_fields"):  # a NamedTuple's `__new__` has its types as texts, in no module
        of.obj.__new__.__annotations__ = get_type_hints(of.obj)
    for name, member in of.members.items():
        if member.taken_from[0].startswith("ragasync"):
            member.taken_from = (of.modulename, f"{of.qualname}.{name}")
        if name == "__init__" and isinstance(member, Function):
            member.signature = without_private(member.signature)


def without_wrapper(of: Class | Function) -> None:
    """Hide the decorator that answers wrong arguments, for it keeps the signature."""
    of.decorators = [name for name in of.decorators if name != "@explains_arguments"]


def without_private(signature: Signature) -> Signature:
    """Remove private arguments from a signature."""
    kept = [each for each in signature.parameters.values() if not each.name.startswith("_")]
    return signature.replace(parameters=kept)


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE))
