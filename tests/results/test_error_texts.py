"""What is said of errors: the leaf and the cause, bounded, once, and whatever an error answers."""

import asyncio
import gc
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AttemptTimeout,
    BatchResult,
    Journal,
    error_summary,
    errors_dataframe,
)

# Internals: one text or figure, without the run that leads to it.
from ragasync._reports import error_groups
from ragasync._reports.error_groups import (
    ErrorGroups,
    LiveErrorGroups,
    error_template,
    group_errors,
)
from ragasync.error_text import cut, describe, error_text, safe_message, safe_text, type_name
from ragasync.notebook.panel_view import errors_html
from tests.support.hostile_classes import Silent, armed
from tests.support.results import done, failed, result_of

VIEWS: list[Callable[[BatchResult[Any]], str]] = [
    lambda result: str(result.summary()),
    lambda result: result._repr_html_(),
    lambda result: errors_dataframe(result)[["error_type", "error_message"]].to_csv(),
    lambda result: error_summary(result).to_csv(),
    lambda result: errors_html(_looked_at(result)),
]
"""Everything that shows the errors of a result."""


@pytest.fixture(autouse=True)
def arm() -> Iterator[None]:
    """Classes that break what looks at them do so in these tests only."""
    with armed():
        yield


def _looked_at(result: BatchResult[Any]) -> LiveErrorGroups:
    """Return a panel's list of errors, with all of them grouped."""
    grouped = LiveErrorGroups(result.columns)
    while grouped.ungrouped:
        grouped.update()
    return grouped


async def outcome_of(raiser: Callable[[], None]) -> BatchResult[None]:
    """Return the result of one item whose call raises."""

    async def call(_: int) -> None:
        raiser()

    return await AsyncBatchProcessor(call, retry_count=0).process([1])


def raise_from(error: BaseException, cause: BaseException) -> None:
    """Raise an error from another."""
    raise error from cause


# ---- the leaf of a group, the cause of an error -------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ExceptionGroup("unhandled errors", [ValueError("bad")]), "ValueError", "bad"),
        (ExceptionGroup("g", [ValueError("a"), OSError("b")]), "ValueError", "a (and 1 more)"),
        (
            ExceptionGroup("g", [ExceptionGroup("h", [OSError("x"), OSError("y")]), KeyError(1)]),
            "OSError",
            "x (and 2 more)",
        ),
        (BaseExceptionGroup("g", [asyncio.CancelledError()]), "CancelledError", ""),
        (ExceptionGroup("g", [ValueError(), KeyError(2)]), "ValueError", "(and 1 more)"),
    ],
)
async def test_a_group_is_named_by_its_first_leaf(error: BaseException, kind: str, message: str):
    """And by how many more it holds; what passed it on is nobody's cause."""
    result = result_of([failed(0, error)])
    frame = errors_dataframe(result)
    assert frame["error_type"].tolist() == [kind]
    assert frame["error_message"].tolist() == [message]
    for view in VIEWS:
        assert kind in view(result)
        assert "ExceptionGroup" not in view(result)


async def test_a_task_group_is_named_by_what_failed_in_it():
    """In the frame, and in the log of attempts."""

    async def fail(item: int) -> None:
        raise ValueError(f"no item {item}")

    async def call(item: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(item))

    result = await AsyncBatchProcessor(call, retry_count=1, retry_delay=0).process([7])
    assert errors_dataframe(result)["error_message"].tolist() == ["no item 7"]
    assert [attempt.error for attempt in result[0].history] == ["ValueError: no item 7"]
    assert "sub-exception" not in result.summary()


async def test_an_error_names_the_innermost_cause_that_it_was_raised_from():
    """After its own message, and with its own type."""
    middle = RuntimeError("in between")
    middle.__cause__ = KeyError("x")
    result = await outcome_of(lambda: raise_from(OSError("cannot load"), middle))
    frame = errors_dataframe(result)
    assert frame["error_type"].tolist() == ["OSError"]
    assert frame["error_message"].tolist() == ["cannot load (from KeyError: 'x')"]
    for view in VIEWS[:-1]:
        assert "from KeyError" in view(result)


@pytest.mark.parametrize(
    ("error", "cause", "said"),
    [
        (OSError("it failed: no route"), ValueError("no route"), "OSError: it failed: no route"),
        (OSError("KeyError was raised"), KeyError(), "OSError: KeyError was raised"),
        (OSError(), KeyError("x"), "OSError: (from KeyError: 'x')"),
        (OSError("a"), KeyError(), "OSError: a (from KeyError)"),
        (AttemptTimeout("too long"), TimeoutError("inner"), "AttemptTimeout: too long"),
        (ExceptionGroup("g", [OSError("a")]), KeyError("x"), "OSError: a"),
        (OSError("a"), ExceptionGroup("g", [KeyError("x")]), "OSError: a (from KeyError: 'x')"),
    ],
)
def test_a_cause_is_not_said_twice(error: Exception, cause: Exception, said: str):
    """Nor after our own errors, which have told it."""
    error.__cause__ = cause
    assert describe(error) == said


def test_an_implicit_context_is_no_cause():
    """Another error in a handler says nothing of why."""
    error = OSError("a")
    error.__context__ = KeyError("x")
    assert describe(error) == "OSError: a"


async def test_errors_with_the_same_leaf_are_of_one_kind():
    """However they were passed on."""
    errors = [ValueError("no item 1"), ExceptionGroup("g", [ValueError("no item 2")])]
    result = result_of([failed(index, error) for index, error in enumerate(errors)])
    assert error_summary(result)["count"].tolist() == [2]


async def test_a_journal_keeps_the_leaf(tmp_path):
    """A resumed run names what the first one did."""
    path = tmp_path / "run.sqlite"

    async def call(_: int) -> None:
        raise ExceptionGroup("g", [ValueError("bad"), OSError("worse")])

    for _ in range(2):
        processor = AsyncBatchProcessor(call, retry_count=0, journal=Journal(path))
        frame = errors_dataframe(await processor.process([1]))
        assert frame["error_type"].tolist() == ["ValueError"]
        assert frame["error_message"].tolist() == ["bad (and 1 more)"]


# ---- errors that break when they are asked ------------------------------------------------


class Panic(BaseException):
    """What a library in another language raises: no Exception."""


class Text(str):
    """A text with ideas of its own."""

    __slots__ = ()

    def __getitem__(self, _: Any) -> Any:
        raise ZeroDivisionError

    __len__ = __add__ = __contains__ = lower = __getitem__  # type: ignore[assignment]


class Odd(Exception):
    """An error that breaks in some way when it is asked for its message."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def __str__(self) -> str:
        answer: str = self.answer()
        return answer

    __repr__ = __str__


def endless() -> str:
    """Recurse until it cannot."""
    return endless()


class Deaf(Exception):
    """An error that raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RecursionError(name)


class Nameless(Exception, metaclass=Silent):
    """An error whose class has no name, nor anything else."""


def with_notes(notes: Any) -> Exception:
    """Return an error with these for notes."""
    error = ValueError("noted")
    error.__notes__ = notes  # type: ignore[assignment]
    return error


def circle() -> Exception:
    """Return an error that is the cause of its cause."""
    error, other = ValueError("round"), OSError("and round")
    error.__cause__, other.__cause__ = other, error
    error.__context__, other.__context__ = other, error
    return error


def deep(links: int = 5_000) -> BaseException:
    """Return an error at the head of a long chain of causes."""
    error: BaseException = ValueError("the first")
    for number in range(links):
        outer = OSError(number)
        outer.__cause__ = error
        error = outer
    return error


def nested(levels: int = 500) -> BaseException:
    """Return groups in groups."""
    error: BaseException = ValueError("the leaf")
    for _ in range(levels):
        error = BaseExceptionGroup("level", [error])
    return error


def wide() -> BaseException:
    """Return a group of many."""
    return ExceptionGroup("wide", [ValueError(number) for number in range(100_000)])


HOSTILE: dict[str, Callable[[], BaseException]] = {
    "panic": lambda: Panic("called `Option::unwrap()` on a `None` value"),
    "cancelled": asyncio.CancelledError,
    "mute": lambda: Odd(lambda: 1 / 0),
    "no text": lambda: Odd(lambda: None),
    "endless": lambda: Odd(endless),
    "odd text": lambda: Odd(lambda: Text("odd")),
    "deaf": Deaf,
    "nameless": Nameless,
    "notes": lambda: with_notes(None),
    "notes of a number": lambda: with_notes(5),
    "notes of odd things": lambda: with_notes([1, None, Text("odd"), Odd(endless)]),
    "notes without end": lambda: with_notes(["n" * 10_000_000] * 3),
    "circle": circle,
    "deep": deep,
    "nested": nested,
    "wide": wide,
    "large": lambda: ValueError("x" * 100_000_000),
    "surrogates": lambda: ValueError("\ud800 \udfff lone"),
    "control signs": lambda: ValueError("\0\x1b[31m\u202e"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff" * 100_000, 0, 1, "bad"),
    "syntax": lambda: SyntaxError("bad", ("f", 1, 1, "x" * 1_000_000, 1, 2)),
}


REFUSES_ALL = ("deaf", "nameless")
"""Errors that refuse even what isinstance asks for: only views are sure to bear them."""


def raised(error: BaseException) -> BaseException:
    """Return an error as it is after it was raised and caught: with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("name", HOSTILE)
def test_every_view_shows_whatever_error_it_is(name: str):
    """Of a few kilobytes, and with a type."""
    error = raised(HOSTILE[name]())
    result = result_of([failed(0, error), failed(1, error)])
    kind, message, _ = error_text(error)
    assert isinstance(kind, str)
    assert len(message) < 10_000
    for view in VIEWS:
        assert len(view(result)) < 200_000
    assert len(errors_dataframe(result)["traceback"][1]) < 100_000
    assert error_summary(result)["count"].tolist() == [2]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in REFUSES_ALL])
async def test_whatever_error_it_is_ends_only_its_item(name: str):
    """Its attempts are logged, its traceback is kept as text, and all views show it."""

    async def call(item: int) -> int:
        if item == 1:
            raise HOSTILE[name]()
        return item

    result = await AsyncBatchProcessor(call, retry_count=0).process(range(3))
    assert (result.success_count, result.error_count) == (2, 1)
    assert isinstance(result[1].traceback, str)
    assert len(errors_dataframe(result)) == 1


def test_a_text_of_a_class_of_its_own_becomes_a_plain_one():
    """Its methods are never called again."""
    assert type(safe_message(Odd(lambda: Text("odd")))) is str
    assert safe_message(Odd(lambda: Text("odd"))) == "odd"


def test_an_error_without_a_name_has_one():
    """A metaclass can do everything, also refuse that."""
    assert type_name(Nameless()) == "Exception"


class Payload:
    """Something large that a result holds."""


def test_views_make_no_cycle_that_keeps_a_result_alive():
    """It goes when its last name does, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        payload = Payload()
        alive = weakref.ref(payload)
        result = result_of([done(0, value=payload), failed(1, ValueError("bad"))])
        for view in VIEWS:
            view(result)
        del payload, result
        assert alive() is None
    finally:
        gc.enable()


# ---- bounds --------------------------------------------------------------------------------


def test_a_long_message_is_cut_at_a_space_and_says_how_much_was_left_out():
    """The word at the cut is dropped, and the rest counted."""
    message = "word " * 20_000
    shown = safe_message(ValueError(message))
    kept, said = shown.split(" … ")
    assert set(kept.split(" ")) == {"word"}
    assert len(kept) <= 4096
    assert said == f"({len(message) - len(kept):,} more characters)"


def test_a_message_of_a_few_kilobytes_stays_whole():
    """It is those beyond that are cut."""
    message = "word " * 800
    assert safe_message(ValueError(message)) == message


@pytest.mark.parametrize("longest", [1, 2, 5, 10, 1500, 5000])
@pytest.mark.parametrize(
    "text", ["", "one", "one two", "x" * 3000, "x " * 1500, " " * 3000, "a\nb"]
)
def test_a_cut_text_is_never_longer_than_it_may_be(text: str, longest: int):
    """But for what says that it was cut."""
    shown = cut(text, len(text), longest)
    assert (shown == text) == (len(text) <= longest)
    if shown != text:
        assert len(shown) <= longest + 40
        assert text.startswith(shown.partition("…")[0].rstrip())


def test_a_message_is_not_built_again_beyond_what_is_shown():
    """The masks see a few kilobytes of a hundred megabytes."""
    assert len(safe_text("token=" + "x" * 100_000_000)) < 5_000


def test_a_stack_of_long_messages_is_bounded():
    """With all its causes."""
    error = ValueError("y" * 1_000_000)
    for _ in range(50):
        outer = OSError("z" * 1_000_000)
        outer.__cause__ = error
        error = outer  # type: ignore[assignment]
    result = result_of([failed(0, raised(error))])
    assert len(errors_dataframe(result)["traceback"][0]) < 50_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "ab-",
        "a",
        "0",
        "'",
        '"',
        "f0-",
        "0.",
        "0x",
        "http 4",
        "utf-8-",
        "0-0000-",
        "deadbeef-",
        "'a",
    ],
)
def test_a_pattern_takes_time_in_proportion_to_the_message(piece: str):
    """A megabyte: days if it were quadratic, and the test has a timeout."""
    assert len(error_template(piece * (1_000_000 // len(piece)))) <= 1_000_000


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("commit deadbeef12 is gone", "commit # is gone"),
        ("id abcd9c27-88de-4b1f-a6f4-0123456789ab", "id #"),
        ("row c17 of 3", "row c# of #"),
        ("3files", "#files"),
        ("status: 429, error 500", "status: 429, error 500"),
        ("page 404 of 500", "page # of #"),
        ("iso-8859-1 at 3", "iso-8859-1 at #"),
    ],
)
def test_hashes_and_numbers_go_and_statuses_stay(message: str, pattern: str):
    """Beside those of the frames' own test."""
    assert error_template(message) == pattern


# ---- once ----------------------------------------------------------------------------------


class Asked(Exception):
    """An error that counts how often it is asked for its message."""

    count = 0

    def __str__(self) -> str:
        type(self).count += 1
        return f"no item {self.args[0]}, and the key is missing"


def test_all_views_of_a_result_share_one_look_at_its_errors():
    """Each error is asked once, whatever is shown of it, and however often."""
    Asked.count = 0
    result = result_of([failed(index, Asked(index)) for index in range(50)])
    for _ in range(3):
        for view in VIEWS:
            view(result)
    assert Asked.count == 50


async def test_snapshots_of_a_running_job_share_what_was_said():
    """A job that is watched asks an error once too."""
    Asked.count = 0

    async def call(item: int) -> int:
        if item < 20:
            raise Asked(item)
        await asyncio.sleep(60)
        return item

    job = AsyncBatchProcessor(call, retry_count=0).start(range(40), on_current_loop=True)
    await asyncio.sleep(1)
    told = Asked.count
    for _ in range(5):
        assert "20 × Asked" in job.result.summary()
    assert Asked.count == told + 20
    await job
    assert Asked.count == told + 20


async def test_a_snapshot_counts_the_errors_that_came_since_the_last_one():
    """What was grouped is kept with the snapshot, not for ever."""

    async def call(item: int) -> int:
        await asyncio.sleep(item + 0.5)
        raise ValueError(f"no item {item}")

    job = AsyncBatchProcessor(call, max_concurrency=10, retry_count=0).start(
        range(6), on_current_loop=True
    )
    for seconds in range(1, 6):
        await asyncio.sleep(1)
        assert f"{seconds} × ValueError" in job.result.summary()
    assert "6 × ValueError" in (await job).summary()


def test_the_commonest_kinds_are_at_hand_while_errors_come():
    """They are those that a sort of all kinds would give, after each error."""
    chance = random.Random(4)
    errors = [ValueError("abcdefghij"[: chance.randrange(1, 10)] + "!") for _ in range(300)]
    result = result_of([failed(index, error) for index, error in enumerate(errors)])
    kinds = ErrorGroups()
    for row in chance.sample(range(300), 300):
        kinds.add(result.columns, row)
        ranked = kinds.ranked()
        assert kinds.most_common() == ranked[:5]
        assert kinds.others() == (sum(kind.count for kind in ranked[5:]), len(ranked[5:]))
    assert ranked == group_errors(result.columns).ranked()


def clock(step: float) -> Callable[[], float]:
    """Return a clock that goes on by so much whenever it is read."""
    times: Iterator[float] = (step * count for count in range(10**9))
    return lambda: next(times)


def test_a_look_at_errors_that_take_long_is_cut_short(monkeypatch):
    """A loop may be drawing: the next look goes on where this one left."""
    result = result_of([failed(index, ValueError(index)) for index in range(50)])
    monkeypatch.setattr(error_groups, "perf_counter", clock(error_groups.UPDATE_SECONDS / 4))
    grouped = LiveErrorGroups(result.columns)
    assert grouped.update()
    assert 40 < grouped.ungrouped < 50
    assert grouped.backlog == grouped.ungrouped
    while grouped.ungrouped:
        assert grouped.update()
    assert grouped.groups.ranked() == group_errors(result.columns).ranked()


def test_the_first_error_of_a_look_does_not_count_towards_its_time(monkeypatch):
    """It compiles patterns, and would be the only one that a panel shows when it is opened."""
    result = result_of([failed(index, ValueError(index)) for index in range(3)])
    now = [0.0]
    monkeypatch.setattr(error_groups, "perf_counter", lambda: now[0])
    grouped = LiveErrorGroups(result.columns)
    add = grouped.groups.add

    def slow_at_first(columns: Any, row: int) -> None:
        add(columns, row)
        now[0] += 0.0 if row else 10 * error_groups.UPDATE_SECONDS

    monkeypatch.setattr(grouped.groups, "add", slow_at_first)
    grouped.update()
    assert grouped.ungrouped == 0
