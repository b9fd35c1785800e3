"""What counts as changed: edited code and settings of a stage, and nothing that only looks so."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ragasync.documents import (
    LOADERS,
    AsyncDocumentProcessor,
    CSVLoader,
    Document,
    MemoryStore,
    RecursiveSplitter,
    SqliteStore,
    Stage,
    TokenSplitter,
    load_source,
)
from tests.support.embedders import CountingEmbedder
from tests.support.notebook_cells import cell, without_source
from tests.support.pythons import needs_other_pythons

TEXTS = [("a", "one two three. four five six."), ("b", "seven eight nine")]


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """A store that ends with the test."""
    with MemoryStore() as opened:
        yield opened


async def unchanged(store: Any, sources: Any = TEXTS, **stages: Any) -> list[bool]:
    """Process with a processor of its own; return which documents were taken for unchanged."""
    embed = CountingEmbedder(0)
    result = await AsyncDocumentProcessor(**{"embed": embed, "store": store, **stages}).process(
        sources
    )
    assert result.all_succeeded, result.errors
    return [done.unchanged for done in result.get_successful()]


# Each makes a function of a text of a number; another number is another function.
KINDS = {
    "a lambda": "cut = lambda text: text.split()[:NUMBER]",
    "an edited function": "def cut(text):\n    return text.split()[:NUMBER]",
    "an async function": "async def cut(text):\n    return text.split()[:NUMBER]",
    "a generator": "def cut(text):\n    yield from text.split()[:NUMBER]",
    "a default": "def cut(text, most=NUMBER):\n    return text.split()[:most]",
    "a keyword's default": "def cut(text, *, most=NUMBER):\n    return text.split()[:most]",
    "a closure": """
        def cutter(most):
            def cut(text): return text.split()[:most]
            return cut
        cut = cutter(NUMBER)
    """,
    "a partial": """
        from functools import partial
        def cut(text, most): return text.split()[:most]
        cut = partial(cut, most=NUMBER)
    """,
    "a constant": "MOST = NUMBER\ndef cut(text):\n    return text.split()[:MOST]",
    "a constant in a dict": """
        OPTIONS = {"most": NUMBER}
        def cut(text): return text.split()[:OPTIONS["most"]]
    """,
    "a pattern": """
        import re
        WORD = re.compile(r"\\w{NUMBER,}")
        def cut(text): return WORD.findall(text)
    """,
    "a helper": """
        def words(text): return text.split()[:NUMBER]
        def cut(text): return words(text)
    """,
    "a helper behind a cache": """
        from functools import lru_cache
        @lru_cache(maxsize=None)
        def words(text): return text.split()[:NUMBER]
        def cut(text): return words(text)
    """,
    "a method behind a cache": """
        from functools import cache
        class Cutter:
            @cache
            def words(self, text): return text.split()[:NUMBER]
            def cut(self, text): return self.words(text)
        cut = Cutter().cut
    """,
    "a helper in a dict": """
        HELPERS = {"words": lambda text: text.split()[:NUMBER]}
        def cut(text): return HELPERS["words"](text)
    """,
    "a class that is called": """
        class Words:
            def of(self, text): return text.split()[:NUMBER]
        def cut(text): return Words().of(text)
    """,
    "a bound object": """
        class Cutter:
            def __init__(self, most): self.most = most
            def cut(self, text): return text.split()[:self.most]
        cut = Cutter(NUMBER).cut
    """,
    "a callable object": """
        class Cutter:
            def __init__(self, most): self._most = most
            def __call__(self, text): return text.split()[:self._most]
        cut = Cutter(NUMBER)
    """,
    "slots": """
        class Cutter:
            __slots__ = ("most",)
            def __init__(self, most): self.most = most
            def __call__(self, text): return text.split()[:self.most]
        cut = Cutter(NUMBER)
    """,
    "a dict that the constructor fills": """
        class Cutter:
            def __init__(self, most): self.options = {"most": most}
            def __call__(self, text): return text.split()[:self.options["most"]]
        cut = Cutter(NUMBER)
    """,
    "a dict that the constructor calls for": """
        class Cutter:
            def __init__(self, **options): self.options = dict(options)
            def __call__(self, text): return text.split()[:self.options["most"]]
        cut = Cutter(most=NUMBER)
    """,
    "a function that an object was given": """
        class Cutter:
            def __init__(self, words): self.words = words
            def __call__(self, text): return self.words(text)
        cut = Cutter(lambda text: text.split()[:NUMBER])
    """,
    "an object that an object was given": """
        class Words:
            def __init__(self, most): self.most = most
            def of(self, text): return text.split()[:self.most]
        class Cutter:
            def __init__(self, words): self.words = words
            def __call__(self, text): return self.words.of(text)
        cut = Cutter(Words(NUMBER))
    """,
    "code of an object that an object was given": """
        class Words:
            def of(self, text): return text.split()[:NUMBER]
        class Cutter:
            def __init__(self, words): self.words = words
            def __call__(self, text): return self.words.of(text)
        cut = Cutter(Words())
    """,
    "a global object": """
        class Words:
            def __init__(self, most): self.most = most
            def of(self, text): return text.split()[:self.most]
        words = Words(NUMBER)
        def cut(text): return words.of(text)
    """,
    "code of a global object": """
        class Words:
            def of(self, text): return text.split()[:NUMBER]
        words = Words()
        def cut(text): return words.of(text)
    """,
    "an inherited method": """
        class Words:
            def cut(self, text): return text.split()[:NUMBER]
        class Cutter(Words): pass
        cut = Cutter().cut
    """,
    "a class attribute": """
        class Cutter:
            most = NUMBER
            def __call__(self, text): return text.split()[:self.most]
        cut = Cutter()
    """,
    "a property": """
        class Cutter:
            @property
            def most(self): return NUMBER
            def __call__(self, text): return text.split()[:self.most]
        cut = Cutter()
    """,
    "a class method": """
        class Cutter:
            @classmethod
            def cut(cls, text): return text.split()[:NUMBER]
        cut = Cutter.cut
    """,
    "a dataclass": """
        from dataclasses import dataclass
        @dataclass
        class Cutter:
            most: int = 1
            def __call__(self, text): return text.split()[:self.most]
        cut = Cutter(NUMBER)
    """,
}


def made(source: str, number: int) -> Any:
    """Return the function that a cell makes with a number, below a comment of other length."""
    text = textwrap.dedent(source).replace("NUMBER", str(number))
    return cell("# moved\n" * (number + len(text) % 3) + text)["cut"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_edited_chunk_function_chunks_again_and_keeps_the_vectors(kind, store):
    """Of the texts that come again; after a restart with the same cell, nothing is done."""
    embed = CountingEmbedder(0)
    assert await unchanged(store, chunk=made(KINDS[kind], 3), embed=embed) == [False, False]
    embed.calls.clear()
    assert await unchanged(store, chunk=made(KINDS[kind], 3), embed=embed) == [True, True]
    assert await unchanged(store, chunk=made(KINDS[kind], 2), embed=embed) == [False, False]
    assert await unchanged(store, chunk=made(KINDS[kind], 2), embed=embed) == [True, True]
    assert embed.texts == []


LOADS = {
    "a lambda": "load = lambda source: source.upper()[:NUMBER]",
    "a setting": """
        class Loader:
            def __init__(self, most): self.options = {"most": most}
            async def load(self, source): return source[:self.options["most"]]
        load = Loader(NUMBER).load
    """,
    "a constant": "MOST = NUMBER\ndef load(source):\n    return [source[:MOST]]",
}


@pytest.mark.parametrize("kind", LOADS)
async def test_an_edited_load_function_loads_again(kind, store):
    """Each document, because nobody knows which of them it changes."""
    sources = ["a text", "another text"]
    made = [cell(LOADS[kind].replace("NUMBER", number))["load"] for number in "3344"]
    assert [await unchanged(store, sources, load=load) for load in made] == [
        [False, False],
        [True, True],
        [False, False],
        [True, True],
    ]


@pytest.mark.real_time
async def test_a_loader_among_our_own_counts(store, tmp_path):
    """Its settings or its code, in the dict that load_source is given."""
    (tmp_path / "t.csv").write_text("title,body\nA,one\n")

    def load(**loaders: Any) -> Any:
        return partial(load_source, loaders={**LOADERS, **loaders})

    def read(data: bytes) -> tuple[str, dict[str, object]]:
        return data.decode(), {}

    def read_more(data: bytes) -> tuple[str, dict[str, object]]:
        return data.decode() + "!", {}

    found = [
        await unchanged(store, tmp_path, load=load(**{".csv": loader}))
        for loader in (
            CSVLoader(),
            CSVLoader(),
            CSVLoader(text_columns=["body"]),
            read,
            read,
            read_more,
        )
    ]
    assert found == [[False], [True], [False], [False], [True], [False]]


LOOKS = """
MOST = 2

def words(text):
    return text.split()

def cut(text: str, most: int = MOST) -> list:
    '''Cut a text.'''
    # into words
    return words(text)[:most]
"""


@pytest.mark.parametrize(
    "same",
    [
        "\n\n\nimport os\n" + LOOKS,
        LOOKS.replace("Cut a text.", "Cut a text into its first words."),
        LOOKS.replace("    '''Cut a text.'''\n", ""),
        LOOKS.replace("# into words", "# into its words, as everybody would"),
        LOOKS.replace("text: str, most: int = MOST", "\n    text,\n    most = MOST,\n"),
        LOOKS.replace("MOST = 2", "MOST = 2\nUNUSED = 3"),
        "from __future__ import annotations\n" + LOOKS,
    ],
)
async def test_what_only_looks_otherwise_is_no_change(same, store):
    """A line further down, a docstring, a comment, a layout, what nobody reads."""
    assert await unchanged(store, chunk=cell(LOOKS)["cut"]) == [False, False]
    assert await unchanged(store, chunk=cell(same)["cut"]) == [True, True]


async def test_our_own_splitters_count_by_what_they_were_made_with(store):
    """Also one that the function calls, and the function that counts tokens."""

    def whole(text: str) -> int:
        return len(text)

    def half(text: str) -> int:
        return len(text) // 2

    splitter = "from ragasync.documents import RecursiveSplitter\ncut = RecursiveSplitter(NUMBER)"
    within = f"{splitter}\ndef chunk(text): return cut(text)"
    chunks = [
        RecursiveSplitter(500),
        RecursiveSplitter(500),
        RecursiveSplitter(501),
        TokenSplitter(20, 0, count_tokens=whole),
        TokenSplitter(20, 0, count_tokens=whole),
        TokenSplitter(20, 0, count_tokens=half),
        *[cell(within.replace("NUMBER", size))["chunk"] for size in ("500", "500", "501")],
    ]
    found = [(await unchanged(store, chunk=chunk))[0] for chunk in chunks]
    assert found == [False, True, False] * 3


async def test_a_function_counts_as_it_was_when_the_processor_was_made(store):
    """What is set afterwards is another processor's."""
    cut = made(KINDS["a bound object"], 2)
    processor = AsyncDocumentProcessor(chunk=cut, embed=CountingEmbedder(0), store=store)
    cut.__self__.most = 1
    await processor.process(TEXTS)
    assert await unchanged(store, chunk=made(KINDS["a bound object"], 2)) == [True, True]


@pytest.mark.parametrize("kind", ["a lambda", "an edited function", "a helper", "a constant"])
@pytest.mark.parametrize("by", ["the processor", "its stage", "the name of its stage"])
async def test_a_version_stands_in_place_of_the_code(kind, by, store):
    """As long as it stays; another one chunks again, and keeps the vectors of unchanged texts."""
    embed = CountingEmbedder(0)

    async def run(number: int, version: str, **more: Any) -> list[bool]:
        cut = made(KINDS[kind], number)
        stages: dict[str, Any] = {"embed": embed, **more}
        if by == "the processor":
            stages |= {"chunk": cut, "version": version}
        elif by == "its stage":
            stages["chunk"] = Stage(cut, version=version)
        else:
            stages["chunk"] = Stage(cut, name=f"cut {version}")
        return await unchanged(store, **stages)

    assert await run(3, "1") == [False, False]
    embed.calls.clear()
    # A constant is a setting, as what is given to a constructor is.
    expected = kind != "a constant"
    assert await run(2, "1") == [expected] * 2
    assert await run(2, "2") == [False, False]
    assert await run(2, "2") == [True, True]
    assert embed.texts == []
    await unchanged(
        store, [("new", "one two")], chunk=made(KINDS[kind], 2), embed=embed, version="2"
    )
    assert embed.texts == []


@pytest.mark.parametrize(
    "kind",
    ["a partial", "a closure", "a default", "a bound object", "a dict that the constructor fills"],
)
async def test_settings_count_whatever_the_version(kind, store):
    """They are what the function is given, not how it is written."""
    for number, expected in ((3, False), (3, True), (2, False)):
        stage = Stage(made(KINDS[kind], number), version="1")
        assert await unchanged(store, chunk=stage) == [expected] * 2


async def test_a_function_that_cannot_be_compared_warns_once_and_does_nothing_again(store):
    """One of C, of which there is nothing but its name; and a version ends the doubt."""
    many = [(str(number), "one two") for number in range(50)]
    assert await unchanged(store, many, chunk=str.split) == [False] * 50
    with pytest.warns(UserWarning, match="chunk=builtins.str.split has changed since 50") as caught:
        assert await unchanged(store, many, chunk=str.split) == [True] * 50
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]
    assert await unchanged(store, many, chunk=str.splitlines) == [False] * 50
    named = Stage(str.splitlines, version="1")
    assert await unchanged(store, many, chunk=named) == [False] * 50
    assert await unchanged(store, many, chunk=named) == [True] * 50


async def test_code_without_source_is_compared_by_its_bytecode(store):
    """In the same Python; against source, nobody can tell."""
    cut, other = (f"def cut(text):\n    return text.split()[:{most}]" for most in (3, 2))
    assert await unchanged(store, chunk=without_source(cut)["cut"]) == [False, False]
    assert await unchanged(store, chunk=without_source("\n\n" + cut)["cut"]) == [True, True]
    assert await unchanged(store, chunk=without_source(other)["cut"]) == [False, False]
    with pytest.warns(UserWarning, match="cannot tell whether load or chunk has changed since 2"):
        assert await unchanged(store, chunk=cell(other)["cut"]) == [True, True]


async def test_date_and_size_of_a_file_are_in_no_fingerprint(store, tmp_path):
    """A file that was only touched, or copied, is as it was."""
    (tmp_path / "a.txt").write_text("text")
    os.utime(tmp_path / "a.txt", (1, 1))
    assert await unchanged(store, tmp_path) == [False]
    os.utime(tmp_path / "a.txt", (2_000_000_000, 2_000_000_000))
    assert await unchanged(store, tmp_path) == [True]
    tagged = [Document("b", "text", {"mtime": moment, "size": 4}) for moment in (1.0, 2.0)]
    assert [await unchanged(store, [one]) for one in tagged] == [[False], [False]]  # the user's


# ── other processes, other Pythons ──────────────────────────────────────────────────────────────

STAGES = '''
import functools, re
from ragasync.documents import MemoryStore, SqliteStore, AsyncDocumentProcessor

STOP, WORD = {"the", "a", "an", "of"}, re.compile(r"[a-z]+")

@functools.lru_cache
def clean(word):
    """Clean."""
    return word.strip(".") if word not in {"x", "y", "z"} else ""

class Cutter:
    def __init__(self, most):
        self.options = {"most": most, "tags": {"p", "q", "r"}}
    def cut(self, text):
        """Cut."""
        try:
            return [f"{clean(w)!r:>{self.options['most']}}" for w in WORD.findall(text)]
        except* ValueError as group:
            raise RuntimeError from group

def load(source, *, encoding="utf-8"):
    return source if source not in STOP else "".join(c for c in source if (k := c) > "a")

calls = 0

async def embed(texts):
    global calls
    calls += 1
    return [[float(len(text)), 1.0] for text in texts]
'''

RUN = """
import json, sys, warnings
from ragasync.documents import AsyncDocumentProcessor, SqliteStore

if sys.argv[2] == "with source":
    from stages import Cutter, embed, load
else:
    exec(open("stages.py").read())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with SqliteStore(sys.argv[1]) as store:
        processor = AsyncDocumentProcessor(load, Cutter(3).cut, embed, store)
        result = processor.process_sync(["one the two", "three"])
        result.raise_for_errors()
texts = [str(warning.message) for warning in caught]
print(json.dumps([[done.unchanged for done in result.get_successful()], texts]))
"""


def run_by(python: str | Path, folder: Path, seed: str, how: str = "with source") -> Any:
    """Run a pipeline in a process of its own; return what was unchanged, and its warnings."""
    (folder / "run.py").write_text(RUN)
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(folder)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed}
    command = [str(python), "run.py", f"{how}.sqlite", how]
    ran = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_new_process_and_shifted_lines_change_nothing(tmp_path):
    """Whatever order sets have there, and whatever was counted here."""
    (tmp_path / "stages.py").write_text(STAGES)
    assert run_by(sys.executable, tmp_path, "1") == [[False, False], []]
    assert run_by(sys.executable, tmp_path, "2") == [[True, True], []]
    (tmp_path / "stages.py").write_text("# a line more\n" + STAGES)
    assert run_by(sys.executable, tmp_path, "3") == [[True, True], []]
    (tmp_path / "stages.py").write_text(STAGES.replace("[a-z]+", "[a-y]+"))
    assert run_by(sys.executable, tmp_path, "4") == [[False, False], []]


def test_another_python_finds_everything_unchanged(tmp_path):
    """Where it can read the source; where it cannot, it says so once, and goes on."""
    for python in needs_other_pythons():
        for how in ("with source", "without"):
            (tmp_path / "stages.py").write_text(STAGES)
            (tmp_path / f"{how}.sqlite").unlink(missing_ok=True)
            assert run_by(sys.executable, tmp_path, "1", how) == [[False, False], []]
            unchanged, texts = run_by(python, tmp_path, "2", how)
            assert unchanged == [True, True]
            if how == "with source":
                assert texts == []
            else:
                (said,) = texts
                assert said.startswith("cannot tell whether embed=embed is the embedder")
                assert said.endswith(
                    "The same applies to load=__main__.load and chunk=__main__.Cutter.cut"
                )


async def test_bytecode_of_another_python_is_not_compared(tmp_path):
    """One warning for all documents, and none of them is done again, unless a setting changed."""
    source = "def cut(text, most=3):\n    return text.split()[:most]"
    with SqliteStore(tmp_path / "store.sqlite") as store:
        await unchanged(store, chunk=without_source(source)["cut"])
    ours = f"bytecode-3.{sys.version_info.minor}"
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as db:
        statement = "UPDATE documents SET fingerprint = replace(fingerprint, ?, 'bytecode-3.8')"
        db.execute(statement, (ours,))
        db.commit()
    with SqliteStore(tmp_path / "store.sqlite") as store:
        edited = without_source(source.replace("split()", "split(' ')"))["cut"]
        with pytest.warns(UserWarning, match="since 2 documents were stored") as caught:
            assert await unchanged(store, chunk=edited) == [True, True]
        assert len(caught) == 1
        other = without_source(source.replace("most=3", "most=2"))["cut"]
        assert await unchanged(store, chunk=other) == [False, False]
