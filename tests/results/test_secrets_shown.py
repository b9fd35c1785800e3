"""No secret that an error quotes is in anything that is shown, logged or kept of it."""

import asyncio
import gc
import logging
import multiprocessing
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.support.requirements import needs

needs("httpx")

import httpx  # noqa: E402

from ragasync import (  # noqa: E402
    FATAL,
    AsyncBatchProcessor,
    AsyncRetry,
    BatchResult,
    Journal,
    Outcome,
    error_summary,
    errors_dataframe,
    to_dataframe,
)

# Internals: one text or figure, without the run that leads to it.
from ragasync._reports.error_groups import LiveErrorGroups  # noqa: E402
from ragasync.documents import LoadError, SqliteStore  # noqa: E402
from ragasync.documents.__main__ import _report  # noqa: E402
from ragasync.notebook.panel_view import static_bundle  # noqa: E402

SECRETS = ("pa55word", "sk-abcd1234efgh", "quErYkey", "abcd1234efgh")
ADDRESS = "http://ann:pa55word@api.test/v1/embed?api_key=quErYkey"


def refused() -> httpx.HTTPStatusError:
    """Return what httpx raises of a 401, noted with the headers that were sent."""
    request = httpx.Request("POST", ADDRESS, headers={"Authorization": "Bearer sk-abcd1234efgh"})
    try:
        httpx.Response(401, request=request).raise_for_status()
    except httpx.HTTPStatusError as error:
        headers = {name.decode(): value.decode() for name, value in request.headers.raw}
        error.add_note(f"sent {headers}")
        return error
    raise AssertionError


async def embed(_: str) -> None:
    """Fail as a client does, with literals in the lines of code and a cause that says it too."""
    await asyncio.sleep(0.1)
    try:
        raise ConnectionError(f"cannot reach {ADDRESS}")
    except ConnectionError as cause:
        raise (await as_with_key(api_key="sk-abcd1234efgh")) from cause


async def as_with_key(api_key: str) -> httpx.HTTPStatusError:
    """Return the error of a call with this key."""
    assert api_key
    return refused()


ONCE_MORE = AsyncRetry(1, 0.0, retry_on=Exception)
ITEMS = ["a", "sk-abcd1234efgh as an item"]


async def result() -> BatchResult[None]:
    """Return two failures, each at its second attempt."""
    return await AsyncBatchProcessor(embed, retry=ONCE_MORE).process(ITEMS)


def check(shown: object) -> None:
    """Check that what is shown says what failed, and no secret."""
    text = str(shown)
    assert "ann:***@api.test" in text
    assert [secret for secret in SECRETS if secret in text] == []


async def test_tables_hold_none():
    """The item is the user's own and stays."""
    done = await result()
    frame = errors_dataframe(done)
    for column in ("error_message", "traceback"):
        for text in frame[column]:
            check(text)
    for text in error_summary(done)["message"]:
        check(text)
    assert to_dataframe(done)["item"][1] == ITEMS[1]


async def test_words_and_html_hold_none():
    """The summary, and what a notebook shows."""
    done = await result()
    check(done.summary())
    check(done._repr_html_())


async def test_outcomes_hold_none():
    """As the last line of a cell, alone or in a list."""
    done = await result()
    check(done[0])
    check(done.get_failed())
    assert "\n" not in repr(done[0])


class Unshown:
    """An item whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Unsaid(Exception):
    """An error that cannot be shown."""

    __repr__ = Unshown.__repr__
    __str__ = Unshown.__repr__


def deep_group() -> BaseException:
    """Return groups within groups, deeper than Python recurses."""
    error: Exception = ValueError("innermost")
    for _ in range(3000):
        error = ExceptionGroup("outer", [error])
    return error


@pytest.mark.parametrize("error", [Unsaid(), deep_group(), ValueError("word " * 100_000)])
@pytest.mark.parametrize("item", [Unshown(), "word " * 100_000, None])
def test_an_outcome_can_always_be_shown(item: object, error: BaseException):
    """In one line of a few words, whatever its item and its error are."""
    shown = repr(Outcome(3, item, "failed", item, error, attempts=1))
    assert shown.startswith("Outcome(index=3, item=")
    assert len(shown) < 1000


async def test_an_outcomes_traceback_holds_none_in_messages_notes_causes_and_code():
    """And what is masked can be told: the scheme, the header, the sort of the key."""
    text = (await result())[0].traceback
    check(text)
    assert text is not None
    assert "ConnectionError: cannot reach http://ann:***@api.test/v1/embed?api_key=***" in text
    assert "'Authorization': 'Bearer sk-***'" in text
    assert 'as_with_key(api_key="sk-***")' in text


async def test_the_log_of_attempts_holds_none():
    """Each earlier error is kept as a text."""
    (attempt,) = (await result())[0].history
    check(attempt.error)


async def test_why_a_job_stopped_holds_none():
    """Also in the repr of the result, and of the job."""
    processor = AsyncBatchProcessor(embed, retry=AsyncRetry(1, retry_on=lambda _: FATAL))
    job = processor.start(ITEMS, on_current_loop=True)
    done = await job
    check(done.stopped_because)
    check(done)
    check(job)


async def test_a_panel_holds_none():
    """Neither as text nor as HTML."""
    job = AsyncBatchProcessor(embed, retry=ONCE_MORE).start(ITEMS, on_current_loop=True)
    failures = LiveErrorGroups((await job).columns)
    failures.update()
    for text in static_bundle(job._view(), failures).values():
        check(text)


async def test_the_exceptions_themselves_are_as_they_were_raised():
    """Code that looks at them needs all they say."""
    done = await result()
    with pytest.raises(ExceptionGroup) as caught:
        done.raise_for_errors()
    for error in (done.errors[0], caught.value.exceptions[0]):
        assert isinstance(error, httpx.HTTPStatusError)
        assert "pa55word" in str(error)
        assert error.request.headers["authorization"] == "Bearer sk-abcd1234efgh"


def broken_source():
    """Give one item, then fail with a secret."""
    yield "a"
    raise refused()


async def test_a_log_of_an_exception_that_nobody_fetched_holds_none(caplog):
    """However the log is formatted by logging's own formatters."""
    job = AsyncBatchProcessor(embed, retry_count=0).start(broken_source(), on_current_loop=True)
    await job._future.wait()
    del job
    gc.collect()
    (record,) = caplog.records
    check(logging.Formatter("%(message)s").format(record))
    check(caplog.text)


def complain(*_: object) -> None:
    """Fail with a secret, as a callback."""
    raise refused()


@pytest.mark.parametrize("policy", [AsyncRetry(0), AsyncRetry(1, 0.0, on_retry=complain)])
async def test_warnings_of_callbacks_hold_none(policy: AsyncRetry):
    """Of a progress callback, and of `on_retry`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await AsyncBatchProcessor(fail, retry=policy).process([1], complain)
    assert len(caught) == (1 if policy.on_retry is None else 2)
    for warning in caught:
        check(warning.message)


async def fail(_: int) -> None:
    """Raise what is tried again."""
    raise OSError


class Odd(Exception):
    """An error that does not survive pickling."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one}{two}")


def fail_on_a_worker(_: int) -> None:
    """Raise what has to be made anew on its way back."""
    raise Odd("cannot reach ", ADDRESS)


def fail_by_a_class_that_stays(_: int) -> None:
    """Raise what has to be replaced."""

    class Local(Exception):
        lock = threading.Lock()

    raise Local(f"cannot reach {ADDRESS}")


@pytest.mark.real_time
async def test_a_journal_holds_none(tmp_path):
    """None of its files, nor what is read from them: the message, the notes, the stack."""
    journal = Journal(tmp_path / "run.sqlite")
    await AsyncBatchProcessor(embed, retry=ONCE_MORE, journal=journal).process(["a"])
    (row,) = journal.to_dataframe().itertuples()
    check(row.error_message)
    check(row.traceback)
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    check(data.decode("latin-1"))


@pytest.mark.real_time
@pytest.mark.parametrize("function", [fail_on_a_worker, fail_by_a_class_that_stays])
async def test_what_comes_back_from_a_worker_holds_none(function: Callable[[int], None]):
    """Neither the stand-in of an error nor the stack that is noted on it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        processor = AsyncBatchProcessor(function, retry_count=0, executor=executor)
        done = await processor.process([1])
    check(done.errors[0])
    check(done[0].traceback)


async def test_the_report_of_the_command_holds_none(tmp_path):
    """It has the messages of loaders, and of everything else."""
    with SqliteStore(tmp_path / "s.sqlite") as store:
        for error in (refused(), LoadError("odd", f"cannot reach {ADDRESS}")):

            async def load(_: str, error: Exception = error) -> None:
                raise error

            done = await AsyncBatchProcessor(load, retry_count=0).process(["a"])
            check("\n".join(_report(done, store, "a")))  # type: ignore[arg-type]
