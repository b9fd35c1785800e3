"""A journal and the function that wrote it: another one warns, by name, and goes on."""

import asyncio
import functools
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, Journal, JournalError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a journal may be written."""
    return tmp_path / "run.sqlite"


class Embedder:
    """An embedder with a model, which counts its calls."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.calls = 0

    async def embed(self, text: str) -> str:
        """The vector of a text by this model."""
        self.calls += 1
        return f"{self.model} {text}"


async def embed(text: str, model: str = "small") -> str:
    """The vector of a text by a model."""
    return f"{model} {text}"


def closed_over(model: str) -> Callable[[str], Any]:
    """Return a function with a model in its closure."""

    async def embed(text: str) -> str:
        return f"{model} {text}"

    return embed


def edited(model: str) -> Callable[[str], Any]:
    """Return a function of the same name with other code."""
    if model == "small":

        async def embed(text: str) -> str:
            return f"small {text}"
    else:

        async def embed(text: str) -> str:
            return f"large {text}"

    return embed


KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "partial": (
        lambda model: functools.partial(embed, model=model),
        r"the argument model: 'small' -> 'large'",
    ),
    "method": (
        lambda model: Embedder(model).embed,
        r"the setting model of Embedder: 'small' -> 'large'",
    ),
    "closure": (closed_over, r"the closure's model: 'small' -> 'large'"),
    "code": (edited, r"the source of 'embed' has changed .*the code of 'embed'"),
}


def run(path: Path, function: Callable[[str], Any], items: str = "a") -> list[Any]:
    """Run a job to its end, and return its values."""
    processor = AsyncBatchProcessor(function, journal=Journal(path, name="embed"))
    return processor.process_sync([*items]).results


@pytest.fixture
def caught() -> Iterator[list[warnings.WarningMessage]]:
    """Collect the warnings of a test."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


@pytest.mark.real_time
@pytest.mark.parametrize("kind", KINDS)
def test_another_model_behind_the_same_name_warns_and_names_it(
    kind: str, path: Path, caught: list[warnings.WarningMessage]
):
    """The old values come back as the warning says, which each run repeats that mixes the two."""
    make, named = KINDS[kind]
    assert run(path, make("small")) == ["small a"]
    assert run(path, make("small")) == ["small a"]
    assert caught == []
    assert run(path, make("large"), "ab") == ["small a", "large b"]
    (warning,) = caught
    with pytest.raises(UserWarning, match=named):
        raise warning.message  # type: ignore[misc]  # a warning is an exception
    assert "pass another version=" in str(warning.message)
    run(path, make("large"))
    assert len(caught) == 2
    run(path, make("small"))
    assert len(caught) == 3


@pytest.mark.real_time
@pytest.mark.parametrize("how", ["process", "process_sync", "start", "stream"])
async def test_the_warning_points_at_the_line_that_made_the_processor(
    how: str, path: Path, caught: list[warnings.WarningMessage]
):
    """On whichever loop and thread the job runs: nobody looks for it in contextlib."""
    await asyncio.to_thread(run, path, Embedder("small").embed)
    method = Embedder("large").embed
    journal = Journal(path, name="embed")
    processor = AsyncBatchProcessor(method, journal=journal)  # this line
    if how == "process":
        await processor.process(["a"])
    elif how == "process_sync":
        await asyncio.to_thread(processor.process_sync, ["a"])
    elif how == "start":
        await processor.start(["a"])
    else:
        assert [outcome.value async for outcome in processor.stream(["a"])] == ["small a"]
    (warning,) = caught
    assert warning.filename == __file__
    line = Path(__file__).read_text().splitlines()[warning.lineno - 1]  # noqa: ASYNC240
    assert line.endswith("# this line")


@pytest.mark.real_time
@pytest.mark.parametrize("change", [lambda one: one.embed, lambda one: one])
def test_a_used_embedder_is_the_same(
    change: Callable[[Any], Any], path: Path, caught: list[warnings.WarningMessage]
):
    """Its counter is not its setting."""
    embedder = Embedder("small")
    for items in ("ab", "abc", "abcd"):
        run(path, embedder.embed, items)
    assert embedder.calls == 4
    assert caught == []


@pytest.mark.real_time
def test_a_function_that_cannot_be_compared_warns_of_nothing(
    path: Path, caught: list[warnings.WarningMessage]
):
    """Once from a file, once from code that nobody can read again."""
    names: dict[str, Any] = {}
    exec("async def embed(text):\n    return 'other ' + text\n", names)
    run(path, embed)
    run(path, names["embed"])
    assert caught == []


def test_a_journal_of_the_first_schema_is_refused_with_advice(path: Path):
    """It has no id to know it by; nothing is migrated, and nothing is changed."""
    run(path, embed)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(JournalError, match=r"has version 1 .* start again with another file"):
        run(path, embed)


async def test_outcomes_of_two_models_warn_at_every_run(path: Path):
    """In either direction, and also where the first warning was raised as an error."""

    async def run(model: str, items: range) -> None:
        await AsyncBatchProcessor(functools.partial(embed, model=model), journal=path).process(
            map(str, items)
        )

    await run("small", range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="'small' -> 'large'"):
            await run("large", range(4))
        await run("small", range(2))  # nothing is of the large one yet
    for _ in range(2):
        with pytest.warns(UserWarning, match="'small' -> 'large'"):
            await run("large", range(4))
    with pytest.warns(UserWarning, match="'large' -> 'small'"):
        await run("small", range(4))
