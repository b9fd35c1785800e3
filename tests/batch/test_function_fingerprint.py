"""What counts as a change of a function: its code and what that works with, and nothing else."""

import ast
import functools
import json
import linecache
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ragasync import AsyncRetry

# Internals: a run shows only whether a function has changed, not what was compared.
from ragasync._function_fingerprint import (
    FunctionFingerprint,
    differences,
    fingerprint_of,
    is_same_digest,
)

NUMBER = iter(range(10_000))


def module(source: str, filename: str | None = None, **names: Any) -> dict[str, Any]:
    """Run source as a module or a notebook's cell would be run, and return its names."""
    text = textwrap.dedent(source)
    filename = filename or f"<cell {next(NUMBER)}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": "a_module", **names}
    exec(compile(text, filename, "exec"), namespace)
    return namespace


def without_source(source: str, **names: Any) -> dict[str, Any]:
    """Run source that cannot be read again."""
    namespace: dict[str, Any] = {"__name__": "a_module", **names}
    exec(compile(textwrap.dedent(source), "<string>", "exec"), namespace)
    return namespace


def changes(before: Any, after: Any) -> list[str]:
    """Differences of two functions, after their fingerprints went through JSON."""
    one, other = (
        FunctionFingerprint.from_json(fingerprint_of(function).to_json())
        for function in (before, after)
    )
    return differences(one, other)


MADE = pytest.mark.parametrize("make", [module, without_source])
Make = Callable[..., dict[str, Any]]

PLAIN = """
def embed(text, size=3):
    '''Embed a text.'''
    # as it should be
    if size in {"a", "b", "c"}:
        return [len(text)] * size
    return [f"{text:>{size}}" for _ in range(size)]
"""


@pytest.mark.parametrize(
    "same",
    [
        "\n\n\nimport os\n" + PLAIN,
        PLAIN.replace("Embed a text.", "Embed a text, as a list of numbers."),
        PLAIN.replace("    '''Embed a text.'''\n", ""),
        PLAIN.replace("# as it should be", "# as it should not be"),
        PLAIN.replace("text, size=3", "\n    text,\n    size = 3,\n"),
        PLAIN.replace('"a"', "'a'"),
    ],
)
@MADE
def test_looks_are_no_change(make: Make, same: str):
    """A line further down, a comment, a docstring, another layout."""
    assert changes(make(PLAIN)["embed"], make(same)["embed"]) == []


def test_annotations_are_no_change():
    """They say what a call does, and do nothing."""
    same = PLAIN.replace("text, size=3)", "text: str, size: int = 3) -> list[str]")
    assert changes(module(PLAIN)["embed"], module(same)["embed"]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("return [len(text)]", "return [len(text) + 1]"),
        ('"c"', '"d"'),
        ("range(size)", "range(size - 1)"),
        (":>{size}", ":<{size}"),
        ("def embed(text, size=3)", "def embed(text, length=3)"),
        ("if size", "if not size"),
    ],
)
@MADE
def test_other_code_is_a_change_by_name(make: Make, one: str, other: str):
    """Whatever is done otherwise."""
    found = changes(make(PLAIN)["embed"], make(PLAIN.replace(one, other))["embed"])
    assert found[0] == "the code of 'embed'"


@MADE
def test_a_default_is_named_with_its_values(make: Make):
    """Positional or by keyword; and the code is the same."""
    one = "def embed(text, size=3, *, model='small'): return text, size, model"
    other = "def embed(text, size=4, *, model='large'): return text, size, model"
    assert changes(make(one)["embed"], make(other)["embed"]) == [
        "the default size: 3 -> 4",
        "the default model: 'small' -> 'large'",
    ]


@MADE
def test_a_closure_is_named_with_its_values(make: Make):
    """Texts, functions, and the settings of objects."""
    made = make("""
        def embedder(model):
            async def embed(text):
                return model, text
            return embed
    """)["embedder"]
    assert changes(made("small"), made("small")) == []
    assert changes(made("small"), made("large")) == ["the closure's model: 'small' -> 'large'"]
    assert changes(made(["a"] * 30), made(["a"] * 29 + ["b"])) in (["the closure's model"], [])
    assert changes(made(("a",) * 30), made(("a",) * 29 + ("b",))) == ["the closure's model"]
    assert changes(made(len), made(max)) == ["the closure's model: builtins.len -> builtins.max"]


def test_partials_are_named_by_the_arguments_of_their_function():
    """By position or by name, also nested; the code is that of the function."""

    def embed(text: str, model: str = "", *, size: int = 3) -> object:
        return text, model, size

    small, large = (functools.partial(embed, model=model) for model in ("small", "large"))
    assert changes(small, large) == ["the argument model: 'small' -> 'large'"]
    assert changes(functools.partial(small, size=1), functools.partial(small, size=2)) == [
        "the argument size: 1 -> 2"
    ]
    assert changes(functools.partial(embed, "a"), functools.partial(embed, "b")) == [
        "the argument text: 'a' -> 'b'"
    ]
    assert changes(functools.partial(int, base=8), functools.partial(int, base=16)) == [
        "the argument base: 8 -> 16"
    ]


class Model(Enum):
    """Two of them."""

    SMALL, LARGE = 1, 2


@dataclass
class Config:
    """Settings of settings."""

    model: Model = Model.SMALL
    folder: Path = Path("a")
    pattern: re.Pattern[str] = re.compile("a")
    sizes: dict[str, list[int]] = field(default_factory=dict)


class Embedder:
    """An embedder as people write them: settings, and what it has come to."""

    scale = 2

    def __init__(self, model: str, config: Config | None = None, calls: int = 0) -> None:
        self.model, self._config, self.calls = model, config, calls
        self.url = f"https://example.org/{model}"
        self.seen: list[str] = []
        self.last: str | None = None
        self.hits = 0

    async def embed(self, text: str) -> object:
        self.calls += 1
        self.hits += 1
        self.seen.append(text)
        self.last = text
        return self.clean(text), self.scale

    def clean(self, text: str) -> str:
        return text.strip()

    async def __call__(self, text: str) -> object:
        return await self.embed(text)


class Slotted:
    """An embedder with slots."""

    __slots__ = ("__model", "count")

    def __init__(self, model: str) -> None:
        self.__model = model
        self.count = 0

    def embed(self, text: str) -> object:
        self.count += 1
        return self.__model, text


@pytest.mark.parametrize("get", [lambda one: one, lambda one: one.embed])
def test_the_settings_of_an_object_count_and_its_counters_do_not(get: Callable[[Any], Any]):
    """A method of another instance is another function; that of a used one is the same."""
    used = Embedder("small")
    used.calls, used.hits, used.seen, used.last = 17, 4, ["a"], "a"
    assert changes(get(Embedder("small")), get(used)) == []
    assert changes(get(Embedder("small")), get(Embedder("large"))) == [
        "the setting model of Embedder: 'small' -> 'large'",
        "the setting url of Embedder: 'https://example.org/small' -> 'https://example.org/large'",
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": Model.LARGE}, "the setting model of Config: Model.SMALL -> Model.LARGE"),
        ({"folder": Path("b")}, "the setting folder of Config"),
        ({"pattern": re.compile("b")}, "the setting pattern of Config"),
        ({"sizes": {"a": [1]}}, "the setting sizes of Config"),
    ],
)
def test_the_settings_of_settings_count(change: dict[str, Any], named: str):
    """Dataclasses, enums, paths, patterns, and plain data in plain data."""
    one, other = Embedder("a", Config()), Embedder("a", Config(**change))
    assert changes(one.embed, other.embed) == [named]


def test_slots_and_private_names_are_settings():
    """However an object keeps its arguments."""
    used = Slotted("small")
    used.embed("a")
    assert changes(Slotted("small").embed, used.embed) == []
    assert changes(used.embed, Slotted("large").embed) == [
        "the setting model of Slotted: 'small' -> 'large'"
    ]


@MADE
def test_methods_and_constants_that_a_method_reads_count(make: Make):
    """Edited anywhere in the class or its bases, if the method comes by."""
    source = """
        class Base:
            scale = 1
            def clean(self, text): return text.strip()
            def unused(self): return 1
        class Embedder(Base):
            @property
            def limit(self): return 10
            def embed(self, text): return self.clean(text), self.scale, self.limit
    """
    before = make(source)["Embedder"]().embed
    for one, other, named in [
        ("text.strip()", "text.lower()", ["the code of 'Base.clean'"]),
        ("return 10", "return 11", ["the code of 'Embedder.limit'"]),
        ("scale = 1", "scale = 2", ["the class attribute scale of Base: 1 -> 2"]),
        ("return 1\n", "return 2\n", []),
    ]:
        assert changes(before, make(source.replace(one, other))["Embedder"]().embed) == named


@MADE
def test_globals_that_code_reads_count(make: Make):
    """Constants and functions of its own module, and what these read; circles end."""
    source = """
        LIMIT, PROMPT, UNUSED = 10, "Say it:", 1
        def clean(text): return text[:LIMIT] if text else embed("a")
        def embed(text): return [PROMPT + clean(word) for word in text.split()]
    """
    before = make(source)["embed"]
    for one, other, named in [
        ("= 10,", "= 20,", ["the global LIMIT: 10 -> 20"]),
        ("Say it:", "Tell:", ["the global PROMPT"]),
        ("text[:LIMIT]", "text[LIMIT:]", ["the code of 'clean'"]),
        (", 1\n", ", 2\n", []),
    ]:
        assert changes(before, make(source.replace(one, other))["embed"]) == named


def test_what_code_changes_itself_does_not_count():
    """Lists it adds to, counters it counts: whatever they have come to, it is the same code."""
    source = """
        COUNT, SEEN, CACHE, KNOWN = 0, [], {}, {"model": "small"}
        def note(text): SEEN.append(text)
        def make():
            calls, total = [], 0
            def embed(text, seen=[]):
                global COUNT
                nonlocal total
                COUNT, total = COUNT + 1, total + 1
                calls.append(text); note(text); seen.extend(text)
                CACHE[text] = KNOWN["model"]
                return CACHE, SEEN
            return embed
        embed = make()
    """
    before, used = module(source)["embed"], module(source)["embed"]
    used("abc")
    assert changes(before, used) == []
    other = module(source.replace('"small"', '"large"'))["embed"]
    assert changes(before, other) == ["the global KNOWN"]


def test_two_lambdas_on_one_line_are_different():
    """Also nested ones, and those over several lines."""
    made = module("pair = (lambda x: x + 1), (lambda x: x + 2)\nnested = lambda: (lambda x: x + 3)")
    one, other = made["pair"]
    assert changes(one, other) == ["the code of '<lambda>'"]
    assert changes(made["nested"], made["nested"]()) != []
    again = module("\n# moved\npair = (lambda x: (x + 1)), (lambda x: x+2)")["pair"]
    assert [changes(one, again[0]), changes(other, again[1])] == [[], []]


def test_decorated_functions_are_known_by_what_they_decorate():
    """Decorators of ragasync, of Python, or of the user with values of their own."""
    source = """
        import functools
        def tagged(tag):
            def decorate(function):
                @functools.wraps(function)
                def wrapper(*arguments): return tag, function(*arguments)
                return wrapper
            return decorate
        def plain(text): return text * 2
        @tagged("a")
        def embed(text): return text + "!"
    """
    one, other = module(source), module(source.replace('"!"', '"?"'))
    assert changes(one["embed"], other["embed"]) == ["the code of 'embed'"]
    tagged = module(source.replace('tagged("a")', 'tagged("b")'))["embed"]
    assert changes(one["embed"], tagged) == ["the closure's tag: 'a' -> 'b'"]
    edited = module(source.replace("text * 2", "text * 3"))["plain"]
    for decorate in (AsyncRetry(3), functools.lru_cache(maxsize=None), functools.cache):
        assert changes(decorate(one["plain"]), decorate(edited)) == ["the code of 'plain'"]
    assert changes(AsyncRetry(3)(one["plain"]), AsyncRetry(5)(one["plain"])) == []


def test_classes_and_functions_of_c_are_known_by_name():
    """A class by its constructor, a function of C by nothing else."""
    source = "class Record:\n    def __init__(self, row): self.row = row\n"
    edited = source.replace("= row", "= [row]")
    assert changes(module(source)["Record"], module(edited)["Record"]) == [
        "the code of 'Record.__init__'"
    ]
    assert changes(len, len) == []
    assert changes(str.upper, str.lower) != []
    assert changes(re.compile("a").sub, re.compile("b").sub) == ["the object"]
    assert changes({"a": 1}.get, {"a": 2}.get) == ["the object"]


def test_what_cannot_be_compared_is_no_change():
    """Bytecode of another Python, or source against bytecode."""
    with_source, without = module(PLAIN)["embed"], without_source(PLAIN)["embed"]
    assert changes(with_source, without) == []
    edited = without_source(PLAIN.replace("[len(text)]", "[0]"))["embed"]
    ours, theirs = fingerprint_of(without), fingerprint_of(edited)
    assert differences(ours, theirs) == ["the code of 'embed'"]
    code = theirs.parts["the code"].replace("bytecode-3.", "bytecode-4.")
    assert differences(ours, FunctionFingerprint("embed", {**theirs.parts, "the code": code})) == []
    assert differences(ours, FunctionFingerprint("embed", {})) == []
    later = json.dumps([99, "embed", {"the code": "other"}])
    assert differences(ours, FunctionFingerprint.from_json(later)) == []
    with pytest.raises(ValueError, match="not a fingerprint"):
        FunctionFingerprint.from_json("3")


def test_a_file_that_was_edited_since_is_not_taken_for_the_code(tmp_path: Path):
    """What runs is what was loaded; what the file says now is another function."""
    file = tmp_path / "edited.py"
    file.write_text("def embed(text):\n    return text\n")
    namespace: dict[str, Any] = {"__name__": "edited"}
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    before = fingerprint_of(namespace["embed"])
    assert before.parts["the code"].startswith("source:")
    file.write_text("def embed(text):\n    return text + text\n")
    linecache.clearcache()
    now = fingerprint_of(namespace["embed"])
    assert differences(before, now) == []
    assert now.parts["the code"].startswith("bytecode-")


def test_a_file_is_parsed_once_even_if_its_code_differs_from_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As after pytest has rewritten its asserts, or somebody has edited it."""
    file = tmp_path / "rewritten.py"
    names = [f"step_{number}" for number in range(9)]
    file.write_text("".join(f"def {name}(x):\n    return x + 1\n" for name in names))
    namespace: dict[str, Any] = {"__name__": "rewritten"}
    exec(compile(file.read_text().replace("+", "*"), str(file), "exec"), namespace)
    exec(f"def embed(x):\n    return {'('.join(names)}(x{')' * len(names)}", namespace)
    parsed, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda *args: parsed.append(args) or parse(*args))
    assert len(fingerprint_of(namespace["embed"]).parts) > len(names)
    assert len(parsed) == 1


SECRETS = [
    ("api_key", "hunter2"),
    ("password", "hunter2"),
    ("headers", {"Authorization": "hunter2"}),
    ("model", "sk-proj-abcdefghijklmnopqrstuv0123456789"),
    ("prompt", "hunter2 " * 10),
    ("config", {"token": "hunter2"}),
    ("azure", "9f86d081884c7d659a2feaa0hunter2"),
    ("tok", "hunter"),
    ("pw", "hunter"),
    ("API", "hunter"),
    ("value", "hunter2"),
    ("value", ["hunter"]),
    ("value", {"a": "hunter"}),
    ("value", b"hunter"),
    ("value", "HunTerxQz"),
    ("value", "hunter two"),
]


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_what_may_be_a_secret_is_kept_as_a_digest(name: str, value: object):
    """By its name, its look, or its length; and that it is another is seen all the same."""

    def embed(text: str, **settings: Any) -> object:
        return text, settings

    bound = functools.partial(embed, **{name: value})
    written = fingerprint_of(bound).to_json()
    assert "hunter" not in written.lower()
    assert "sk-proj" not in written
    other = functools.partial(embed, **{name: "another"})
    (said,) = changes(bound, other)
    assert said == f"the argument {name}"


MODELS = [
    "gpt-4o-mini",
    "text-embedding-3-small",
    "claude-3-5-sonnet-20241022",
    "all-MiniLM-L6-v2",
    "o3",
    "BAAI/bge-small-en-v1.5",
    "intfloat/multilingual-e5-large",
    "mixtral:8x7b",
    "voyage-3.5-lite",
]


@pytest.mark.parametrize("model", MODELS)
def test_the_name_of_a_model_is_shown(model: str):
    """So that a warning says which model it was."""

    def embed(text: str, model: str) -> object:
        return text, model

    bound = functools.partial(embed, model=model)
    assert fingerprint_of(bound).parts["the argument model"] == f"value:{model!r}"


class Hostile:
    """Counts whatever of the user's is run."""

    ran: ClassVar[list[str]] = []

    def __init__(self, model: str = "small") -> None:
        object.__setattr__(self, "model", model)

    def __getattribute__(self, name: str) -> Any:
        Hostile.ran.append(name)
        raise RuntimeError(name)

    def __getattr__(self, name: str) -> Any:
        Hostile.ran.append(name)
        raise RuntimeError(name)

    __repr__ = __eq__ = __hash__ = __len__ = __bool__ = __iter__ = __str__ = __getattr__  # type: ignore[assignment]

    @property
    def __class__(self) -> Any:
        Hostile.ran.append("__class__")
        raise RuntimeError

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise RuntimeError

    def __call__(self, text: str) -> str:
        return text


def test_no_code_of_the_users_is_run():
    """Not of a class, a metaclass, a property, nor of what lies in a closure or a container."""

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            Hostile.ran.append(name)
            return super().__getattribute__(name)

        def __instancecheck__(cls, other: object) -> bool:
            Hostile.ran.append("instancecheck")
            return False

    class Metered(metaclass=Meta):
        def __init__(self, model: str) -> None:
            self.model = model

        def embed(self, text: str) -> str:
            return text

    one, metered = Hostile(), Metered("small")
    bound = metered.embed
    Hostile.ran.clear()

    def embed(text: str, given: object = one) -> object:
        return text, given, metered, [one]

    for function in (one, bound, embed, functools.partial(embed, one, [one], key={"a": one})):
        assert fingerprint_of(function).is_known
    assert Hostile.ran == []
    assert changes(Hostile("small"), Hostile("large")) == [
        "the setting model of Hostile: 'small' -> 'large'"
    ]


class Holder:
    """Holds whatever it is given."""

    def __init__(self, *given: object) -> None:
        self.given = given


@pytest.mark.slow
def test_size_and_depth_are_bounded():
    """Of the huge and the endless, a digest of their beginning."""
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    huge = [["text " * 1000] * 10_000 for _ in range(1000)]
    twice: list[Any] = ["a", object()]
    for _ in range(60):
        twice = [twice, twice]
    whole = ("a",)
    for _ in range(60):
        whole = (whole, whole)  # type: ignore[assignment]
    names = {f"name{number}": object() for number in range(10_000)}

    def embed(text: str) -> object:
        return text, circle, deep, huge, names, twice, whole, embed

    def around(text: str) -> object:
        return text, around

    around.__wrapped__ = around  # type: ignore[attr-defined]
    assert fingerprint_of(module("def read(): return looped", looped=around)["read"]).is_known
    given: list[Any] = []
    itself = functools.partial(embed, given)
    given.append(itself)
    assert fingerprint_of(itself).is_known
    taken = fingerprint_of(embed)
    assert taken.is_known
    assert len(taken.to_json()) < 50_000
    bound = functools.partial(Holder, deep, circle, huge, names, twice, whole)
    assert len(fingerprint_of(bound).to_json()) < 50_000
    while deep:
        deep = deep.pop()


def test_numpy_is_known_by_value():
    """Its numbers and small arrays are as plain as Python's own."""
    import numpy as np

    def embed(text: str, value: object) -> object:
        return text, value

    one, other = (functools.partial(embed, value=np.float32(value)) for value in (1, 2))
    assert changes(one, other) == ["the argument value"]
    one, other = (functools.partial(embed, value=np.arange(size)) for size in (3, 4))
    assert changes(one, other)[0] == "the argument value"
    assert changes(one, functools.partial(embed, value=np.arange(3))) == []


@MADE
def test_helpers_behind_a_cache_count(make: Make):
    """Of the module, of a class, and in a closure."""
    source = """
        from functools import cache, lru_cache
        @lru_cache(maxsize=8)
        def clean(text): return text.strip()
        class Embedder:
            @cache
            def scale(self): return 1
            def embed(self, text): return clean(text), self.scale()
        def made(clean):
            def embed(text): return clean(text)
            return embed
        closed = made(clean)
    """
    before = make(source)
    edited = make(source.replace("strip()", "lower()"))
    other = make(source.replace("return 1", "return 2"))
    cleaned = ["the code of 'clean'"]
    assert changes(before["Embedder"]().embed, edited["Embedder"]().embed) == cleaned
    assert changes(before["closed"], edited["closed"]) == cleaned
    scaled = ["the code of 'Embedder.scale'"]
    assert changes(before["Embedder"]().embed, other["Embedder"]().embed) == scaled


def test_a_dict_that_a_constructor_fills_is_a_setting():
    """One that begins empty, or that a method changes, is a memory."""
    source = """
        from collections import defaultdict
        class Embedder:
            def __init__(self, size):
                self.options = {"size": size}
                self.words = ["a", "b"]
                self.more = dict(size=size)
                self.known, self.seen, self.count = {}, list(), defaultdict(int)
                self.aliased = {"calls": size}
            def embed(self, text):
                self.known[text] = self.seen
                aliased = self.aliased
                aliased["calls"] += 1
                return self.options, self.words, self.more
    """
    made = module(source)["Embedder"]
    used = made(1)
    used.embed("text")
    assert changes(made(1).embed, used.embed) == []
    assert changes(made(1).embed, made(2).embed) == [
        "the setting more of Embedder",
        "the setting options of Embedder",
    ]
    other = module(source.replace('"b"', '"c"'))["Embedder"]
    assert changes(made(1).embed, other(1).embed) == ["the setting words of Embedder"]


def test_objects_that_objects_were_given_count_with_their_code():
    """The user's own, and of libraries what they were made with; not what is about running."""
    source = """
        import logging, threading
        class Words:
            def __init__(self, most, log, lock): self.most, self.log, self.lock = most, log, lock
            def of(self, text): return text.split()[:self.most]
        class Cutter:
            def __init__(self, words, known): self.words, self.known = words, known
            def cut(self, text):
                self.known[text] = 1
                return self.words.of(text)
        def cutter(most, level=10):
            log = logging.getLogger("a")
            log.setLevel(level)
            return Cutter(Words(most, log, threading.Lock()), {}).cut
    """
    made = module(source)["cutter"]
    used = made(1)
    used("a text")
    assert changes(made(1), used) == []
    assert changes(made(1, 10), made(1, 40)) == []
    assert changes(made(1), made(2)) == ["the setting most of Words: 1 -> 2"]
    other = module(source.replace("split()", "split(' ')"))["cutter"]
    assert changes(made(1), other(1)) == ["the code of 'Words.of'"]


def test_a_memory_that_is_changed_from_outside_is_no_setting():
    """A number or a list of an object that the function itself changes."""
    source = """
        class Stats:
            def __init__(self, limit): self.calls, self.seen, self.limit = 0, ["first"], limit
        def made(limit):
            stats = Stats(limit)
            def embed(text):
                stats.calls += 1
                stats.seen.append(text)
                return stats
            return embed
    """
    made = module(source)["made"]
    used = made(3)
    used("a")
    assert changes(made(3), used) == []
    assert changes(made(3), made(4)) == ["the setting limit of Stats: 3 -> 4"]


def test_entries_of_a_container_count_one_by_one():
    """Functions and objects in a dict, by their keys; whatever else is in it."""

    def one(text: str) -> str:
        return text

    def other(text: str) -> str:
        return text + "!"

    def embed(text: str, parts: object) -> object:
        return text, parts

    def bound(*parts: object) -> Any:
        return functools.partial(embed, parts={"a": parts[0], "b": parts[1], "c": object()})

    assert changes(bound(one, 1), bound(one, 1)) == []
    assert "the code of 'other' is new" in changes(bound(one, 1), bound(other, 1))
    assert changes(bound(one, 1), bound(one, 2)) == ["the argument parts['b']: 1 -> 2"]
    assert changes(bound(Holder("a"), 1), bound(Holder("b"), 1)) == ["the setting given of Holder"]
    assert changes(bound(one, other), bound(other, one)) != []


def test_a_function_of_c_is_known_by_its_name_alone():
    """Another name is a change; the same one says nothing about its code."""
    assert changes(str.split, str.splitlines) == [
        "the code of 'builtins.str.splitlines': builtins.str.split -> builtins.str.splitlines"
    ]
    digest = fingerprint_of(str.split).digest()
    assert is_same_digest(digest, digest) is None
    assert is_same_digest(digest, fingerprint_of(str.splitlines).digest()) is False


@MADE
def test_a_digest_tells_what_a_fingerprint_tells(make: Make):
    """In a few characters, for each document of a store."""
    source = "LIMIT = 3\ndef embed(text, size=2):\n    return text[:LIMIT] * size"
    digest = fingerprint_of(make(source)["embed"]).digest()
    assert len(digest) < 100
    same = fingerprint_of(make("\n\n" + source)["embed"]).digest()
    assert is_same_digest(digest, same) is True
    for one, other in (
        ("LIMIT = 3", "LIMIT = 4"),
        ("size=2", "size=3"),
        ("* size", "+ size * ' '"),
    ):
        edited = fingerprint_of(make(source.replace(one, other))["embed"]).digest()
        assert is_same_digest(digest, edited) is False
    without = fingerprint_of(without_source(source)["embed"])
    assert is_same_digest(digest, without.digest()) is (None if make is module else True)
    theirs = {
        part: value.replace("bytecode-3.", "bytecode-2.") for part, value in without.parts.items()
    }
    assert is_same_digest(FunctionFingerprint("", theirs).digest(), without.digest()) is None


def test_settings_alone_do_not_depend_on_code():
    """Of a function, a partial, a method: what it was made with."""
    source = """
        from functools import partial
        LIMIT = 1
        class Embedder:
            def __init__(self, model): self.model = model
            def embed(self, text, size=3): return text[:LIMIT]
        def scaled(text, scale, size=3): return text
        made = {"method": Embedder("small").embed, "partial": partial(scaled, scale=2)}
    """
    edited = source.replace("text[:LIMIT]", "text").replace("return text", "return text * 2")
    for kind in ("method", "partial"):
        one, other = (
            fingerprint_of(module(text)["made"][kind], with_code=False) for text in (source, edited)
        )
        assert one == other
    large = module(source.replace('"small"', '"large"').replace("scale=2", "scale=3"))["made"]
    before = module(source)["made"]
    for kind, named in [
        ("method", "the setting model of Embedder: 'small' -> 'large'"),
        ("partial", "the argument scale: 2 -> 3"),
    ]:
        found = [fingerprint_of(one[kind], with_code=False) for one in (before, large)]
        assert differences(*found) == [named]


MORE_SETTINGS = {
    "a dict of the class": """
        class Embedder:
            options = {"size": NUMBER}
            def __call__(self, text): return self.options["size"]
        embed = Embedder()
    """,
    "a number that the function counts down": """
        def embed(text, size=NUMBER):
            size -= 1
            return size
    """,
    "a number that goes by another name": """
        SIZE = NUMBER
        def embed(text):
            size = SIZE
            size -= 1
            return size
    """,
    "a read-only dict": """
        from types import MappingProxyType
        OPTIONS = MappingProxyType({"size": NUMBER})
        def embed(text): return OPTIONS["size"]
    """,
    "a simple namespace": """
        from types import SimpleNamespace
        options = SimpleNamespace(size=NUMBER)
        def embed(text): return options.size
    """,
    "a method of a base class": """
        class Base:
            def embed(self, text): return NUMBER
        class Embedder(Base):
            def embed(self, text): return super().embed(text)
        embed = Embedder().embed
    """,
    "a cached property": """
        from functools import cached_property
        class Embedder:
            @cached_property
            def size(self): return NUMBER
            def __call__(self, text): return self.size
        embed = Embedder()
    """,
    "a text that it assigns to": """
        last = None
        def embed(text):
            global last
            last = text
            return NUMBER
    """,
    "a memory of the class": """
        class Embedder:
            known = {}
            def __call__(self, text):
                self.known[text] = 1
                return NUMBER
        embed = Embedder()
    """,
    "a memory by another name": """
        KNOWN = {}
        def embed(text):
            known = KNOWN
            known[text] = 1
            return NUMBER
    """,
}


@pytest.mark.parametrize("kind", MORE_SETTINGS)
def test_what_is_set_counts_and_what_is_made_of_it_does_not(kind: str):
    """However a number comes into a function, and whatever was called meanwhile."""
    one, same, other = (
        module(MORE_SETTINGS[kind].replace("NUMBER", number))["embed"] for number in "112"
    )
    same("text")
    assert changes(one, same) == []
    assert len(changes(one, other)) == 1


# ── other processes, other Pythons ──────────────────────────────────────────────────────────────

EVERYTHING = '''
from __future__ import annotations
import asyncio, functools
from dataclasses import dataclass

LIMIT, NAMES = 3, frozenset({"a", "b", "c", "d"})

@dataclass
class Config:
    """Settings of settings."""

    model: str = "small"
    sizes: tuple = (1, 2)

def clean(text, *, words={"the", "a"}):
    """Clean."""
    return [w for w in text.split() if w not in words and w not in {"x", "y", "z"}]

class Embedder:
    scale: float = 0.5
    def __init__(self, config):
        self.config, self.tags = config, {"p", "q", "r", "s"}
    async def embed(self, text, *rest, **more):
        """Embed."""
        try:
            async with asyncio.timeout(LIMIT):
                found = {w: i async for i, w in self.numbered(text)}
        except* (ValueError, TypeError) as group:
            raise RuntimeError(f"{text!r:>{LIMIT}} {group=} {{}} {'a' 'b'}" f"{LIMIT:02}") from None
        match found:
            case {"a": [1, *others], **kw} if others: return others, kw
            case str() | int(): pass
        return [*map(lambda x, /, y=1: x if x else ~y, found)], self.scale, NAMES
    async def numbered(self, text):
        for pair in enumerate(clean(text)): yield pair

embed = functools.partial(Embedder(Config()).embed, extra=b"bytes")
squares = lambda n: sum(i ** 2 for i in range(n) if (k := i) > 1 and k not in NAMES)
'''

PRINTED = """
import sys
from ragasync._function_fingerprint import fingerprint_of
from everything import embed, squares
print(fingerprint_of(embed).to_json())
print(fingerprint_of(squares).to_json())
"""

PYTHONS = [
    Path.home() / ".pyenv" / "versions" / version / "bin" / "python"
    for version in ("3.12.1", "3.13.0")
]


def printed_by(python: str | Path, folder: Path, seed: str) -> list[FunctionFingerprint]:
    """Return the fingerprints that a Python takes of the same file."""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(folder)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed}
    command = [str(python), "-c", PRINTED]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    return [FunctionFingerprint.from_json(line) for line in ran.stdout.splitlines()]


def test_every_process_and_every_python_finds_the_same(tmp_path: Path):
    """Whatever order its sets have, and however its trees and its bytecode look."""
    (tmp_path / "everything.py").write_text(EVERYTHING)
    first = printed_by(sys.executable, tmp_path, "1")
    assert all(taken.parts["the code"].startswith("source:") for taken in first)
    assert "the code of 'Embedder.numbered'" in first[0].parts
    assert printed_by(sys.executable, tmp_path, "2") == first
    for python in filter(Path.exists, PYTHONS):
        assert printed_by(python, tmp_path, "3") == first


def test_bytecode_has_no_order_of_sets(tmp_path: Path):
    """Where there is no source, each process finds the same too."""
    source = "f = lambda x: x in {'a', 'b', 'c', 'd', 'e'} and x not in {('p', 'q'), ('r', 's')}"
    script = f"""
from ragasync._function_fingerprint import fingerprint_of
names = {{}}
exec({source!r}, names)
print(fingerprint_of(names["f"]).to_json())
"""
    found = set()
    for seed in ("1", "2", "3", "4"):
        paths = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script]
        found.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(found) == 1
    assert b"bytecode-3." in found.pop()
