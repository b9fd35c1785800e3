"""The DataFrames of a result: their columns, their dtypes, and the kinds of errors."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest

from ragasync import (
    AsyncBatchProcessor,
    BatchResult,
    Outcome,
    error_summary,
    errors_dataframe,
    to_dataframe,
)

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.columns import Columns
from ragasync._reports.error_groups import error_template
from ragasync._reports.summary import one_line
from ragasync.error_text import safe_message, type_name
from tests.support.results import COLUMNS, ERROR_COLUMNS, done, failed, pending, result_of

DTYPES = {
    "item": "object",
    "status": "category",
    "value": "object",
    "error_type": "category",
    "error_message": "string",
    "attempts": "Int32",
    "started": "float64",
    "seconds": "float64",
    "waited": "float64",
    "backed_off": "float64",
    "batch": "Int32",
    "stage": "category",
    "worker": "Int32",
    "traceback": "string",
}


def mixed() -> BatchResult[int]:
    """A result with an item of each status."""
    facts = {"started": 0.5, "seconds": 2.0, "waited": 0.25, "backed_off": 1.0, "attempts": 3}
    return result_of(
        [
            done(0, started=0.1, seconds=0.2, worker=2),
            failed(1, ValueError("too\nlong"), **facts, batch=7, stage="embed", worker=1),
            Outcome(2, "item 2", "cancelled", attempts=1, started=1.5, worker=0),
            pending(3),
        ]
    )


@pytest.mark.parametrize("frame_of", [to_dataframe, errors_dataframe])
@pytest.mark.parametrize(
    "result", [mixed(), BatchResult([], [], 0, 0), BatchResult([1], [None], 1, 0)]
)
def test_every_table_has_the_same_columns_and_dtypes(frame_of, result):
    """For any result, also an empty one; a table of errors begins with what a reader looks for."""
    frame = frame_of(result)
    expected = COLUMNS if frame_of is to_dataframe else ERROR_COLUMNS
    assert list(frame.columns) == expected
    assert {name: frame[name].dtype.name for name in expected} == {
        name: DTYPES[name] for name in expected
    }
    assert frame.index.name == "item_index"
    assert frame.index.dtype == "int64"


def test_a_row_says_what_the_outcome_says():
    """The table and the outcomes are the same facts."""
    frame = to_dataframe(mixed())
    assert frame["item"].tolist() == ["item 0", "item 1", "item 2", "item 3"]
    assert frame["status"].tolist() == ["done", "failed", "cancelled", "pending"]
    assert frame["value"].tolist() == [0, pd.NA, pd.NA, pd.NA]
    statuses = ["pending", "done", "failed", "cancelled"]
    assert list(frame["status"].cat.categories) == statuses
    row = frame.loc[1]
    assert (row["error_type"], row["error_message"]) == ("ValueError", "too\nlong")
    assert (row["attempts"], row["started"], row["seconds"]) == (3, 0.5, 2.0)
    assert (row["waited"], row["backed_off"], row["batch"]) == (0.25, 1.0, 7)
    assert (row["stage"], row["worker"]) == ("embed", 1)


def test_what_an_item_does_not_have_is_missing():
    """No zeros that look like measurements, no empty strings that look like messages."""
    row = to_dataframe(mixed()).loc[3]
    assert row["attempts"] == 0
    assert all(math.isnan(row[name]) for name in ("started", "seconds", "waited", "backed_off"))
    assert all(row[name] is pd.NA for name in ("batch", "worker", "error_message", "traceback"))
    assert pd.isna(row["error_type"])
    assert pd.isna(row["stage"])


def test_an_item_that_was_refused_before_any_call_has_no_times():
    """It failed, with no attempt."""
    row = to_dataframe(result_of([failed(0, ValueError("heavy"), attempts=0)])).loc[0]
    assert (row["status"], row["attempts"]) == ("failed", 0)
    assert math.isnan(row["started"])


def test_the_index_leads_back_to_the_items_of_the_whole_job():
    """Also in the table of a part."""
    part: Columns[str, int] = Columns(items=["x", "y"], source_index=[30, 10])
    part.record(Outcome(1, "y", "failed", error=OSError("no"), attempts=1))
    result = BatchResult.of(part)
    assert to_dataframe(result).index.tolist() == [30, 10]
    assert errors_dataframe(result).index.tolist() == [10]


def test_the_table_of_errors_has_the_failed_rows_of_the_whole():
    """The same rows, with the same facts."""
    result = mixed()
    whole = to_dataframe(result)
    expected = whole.loc[whole["status"] == "failed", ERROR_COLUMNS]
    pd.testing.assert_frame_equal(errors_dataframe(result), expected)


def test_values_that_are_sequences_stay_one_value_each():
    """Lists and arrays of equal length do not become a matrix."""
    values = [np.zeros(3), np.ones(3), [1, 2]]
    result = result_of([done(index, value=value) for index, value in enumerate(values)])
    assert [
        value is kept for value, kept in zip(values, to_dataframe(result)["value"], strict=True)
    ] == [True] * 3


def test_a_returned_none_is_a_value_and_not_missing():
    """`value` tells a call that returned None from an item without a value."""
    frame = to_dataframe(result_of([done(0, value=None), pending(1)]))
    assert frame["value"].tolist() == [None, pd.NA]


def test_items_that_are_not_known_are_missing():
    """A result of four arguments, and a source that was not read to its end."""
    assert to_dataframe(BatchResult([1], [None], 1, 0))["item"].tolist() == [pd.NA]
    columns: Columns[str, int] = Columns(items=["a"])
    columns.grow_to(3)
    assert to_dataframe(BatchResult.of(columns))["item"].tolist() == ["a", pd.NA, pd.NA]


@pytest.mark.parametrize("column", COLUMNS)
def test_what_is_written_into_a_column_changes_nothing_else(column):
    """No two columns share their memory, nor does one with the index or the result."""
    result = mixed()
    frame, before = to_dataframe(result), to_dataframe(result)
    frame.iloc[0, frame.columns.get_loc(column)] = frame[column].iloc[-1]
    frame[column].array[:1] = frame[column].array[-1:]
    others = [name for name in COLUMNS if name != column]
    pd.testing.assert_frame_equal(frame[others], before[others])
    pd.testing.assert_frame_equal(to_dataframe(result), before)


def test_a_frame_is_a_copy():
    """The job's columns stay free to grow, and a frame may be changed."""
    result = mixed()
    frame = to_dataframe(result)
    frame.loc[0, "seconds"] = 99.0
    result.columns.grow_to(100)
    assert result[0].seconds == 0.2


def test_a_traceback_that_was_kept_as_text_is_there_in_full():
    """Stack and message."""
    outcome = failed(0, ValueError("no"), traceback="Traceback: here\n")
    assert errors_dataframe(result_of([outcome]))["traceback"][0] == (
        "Traceback: here\nValueError: no\n"
    )


def test_a_traceback_that_an_error_still_carries_is_shown():
    """A result of four arguments has no texts."""
    try:
        raise ValueError("carried")
    except ValueError as error:
        result = BatchResult([None], [error], 0, 1)
    text = errors_dataframe(result)["traceback"][0]
    assert text.startswith("Traceback (most recent call last)")
    assert text.endswith("ValueError: carried\n")


def test_a_message_that_is_no_valid_text_is_kept():
    """File names in broken encodings stand in messages as lone surrogates."""
    frame = errors_dataframe(result_of([failed(0, OSError("no file \udcff"))]))
    assert frame["error_message"][0] == "no file \udcff"


def test_errors_that_differ_in_numbers_and_quoted_values_are_one_kind():
    """Grouped by cause, the commonest first, with the first of each."""
    errors = [
        KeyError("a"),
        *[ValueError(f"item {n} of 'set {n}' is too long") for n in (17, 18, 19)],
        TypeError("item 20 of 'set 20' is too long"),
        KeyError("a"),
    ]
    outcomes = [done(0, seconds=2.0), *(failed(i, e, seconds=1.0) for i, e in enumerate(errors, 1))]
    summary = error_summary(result_of(outcomes))
    assert summary["error_type"].tolist() == ["ValueError", "KeyError", "TypeError"]
    assert summary["message"].tolist() == [
        "item # of … is too long",
        "'a'",
        "item 20 of 'set 20' is too long",
    ]
    assert summary["count"].tolist() == [3, 2, 1]
    assert summary["share"].tolist() == [3 / 6, 2 / 6, 1 / 6]
    assert summary["first_index"].tolist() == [2, 1, 5]
    assert summary["first_item"].tolist() == ["item 2", "item 1", "item 5"]
    assert summary["seconds"].tolist() == [3.0, 2.0, 1.0]
    assert summary["share_of_time"].tolist() == [3 / 8, 2 / 8, 1 / 8]


def test_the_summary_of_no_errors_has_the_same_columns():
    """Empty, with the dtypes of a full one."""
    empty = error_summary(BatchResult([1], [None], 1, 0))
    full = error_summary(mixed())
    assert len(empty) == 0
    assert empty.dtypes.astype(str).to_dict() == full.dtypes.astype(str).to_dict()


def test_a_message_of_many_lines_stays_whole_in_tables():
    """Bounds are for displays."""
    message = "first\n" + "x" * 4_000
    result = result_of([failed(0, ValueError(message)), failed(1, ValueError(message))])
    assert errors_dataframe(result)["error_message"][1] == message
    assert error_summary(result)["message"].tolist() == [message]


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("Error code: 429 - in 12 s", "Error code: 429 - in # s"),
        ("503, message='Unavailable'", "503, message=…"),
        ("HTTP 500", "HTTP 500"),
        ("can't open 3 files, don't ask", "can't open # files, don't ask"),
        ("request 1f3a9c27-88de-4b1f-a6f4-0123456789ab", "request #"),
        ("<object at 0x7f00aa>", "<object at #>"),
        ("took 1.25 s of 1", "took # s of #"),
        ("417 items", "417 items"),
    ],
)
def test_a_pattern_keeps_what_tells_kinds_apart(message, pattern):
    """Statuses and words stay; numbers, quoted values and hashes go."""
    assert error_template(message) == pattern


def test_a_type_is_named_without_module_and_enclosing_function():
    """A nested class keeps the class around it."""

    class Outer:
        class Inner(Exception):
            pass

    assert type_name(Outer.Inner()) == "Outer.Inner"
    assert type_name(ValueError()) == "ValueError"


def test_an_error_that_cannot_say_its_message_is_still_a_row():
    """A broken `__str__` spoils no table."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert safe_message(Mute()) == "<message of Mute cannot be shown>"
    frame = errors_dataframe(result_of([failed(0, Mute())]))
    assert frame["error_message"][0] == "<message of Mute cannot be shown>"


def test_a_line_of_a_display_is_bounded_and_printable():
    """No line breaks, control signs or lone surrogates; a cut is visible."""
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("\x1b[31mred \udcff") == "�[31mred \\udcff"
    assert one_line("x" * 200, 10) == "xxxxxxxxx…"
    assert len(one_line("y " * 10**6)) == 160


# ── how a table of errors is shown ──────────────────────────────────────────────────────────────


class Unshowable:
    """An item whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def failures(*items: object) -> BatchResult[object]:
    """The result of calls that all fail with a long message."""

    def call(item: object) -> None:
        raise ValueError(f"<b>expected</b> a vector, {'got a page ' * 100}END")

    return AsyncBatchProcessor(call, retry_count=0).process_sync(list(items))


def test_a_table_of_errors_is_narrow_and_its_data_is_whole():
    """Only the display is cut; a note says where the rest is."""
    long = "a text " * 1_000
    frame = failures(long, {"id": 1, "text": long}, Unshowable()).errors_dataframe()
    lines = repr(frame).splitlines()
    assert max(map(len, lines)) < 160
    assert lines[0].split() == ["item", "error_type", "error_message", "attempts", "seconds"]
    html = frame._repr_html_()
    assert "&lt;b&gt;expected&lt;/b&gt; a vector" in html
    assert "END" not in html
    assert "a whole message: result.errors_dataframe().error_message[0]" in html
    assert "traceback" in html
    assert frame.item[0] == long
    assert frame.error_message[0].endswith("END")


def test_a_table_of_errors_shows_items_that_are_none():
    """What failed is worth a column, also if it was nothing."""
    frame = failures(None, None).errors_dataframe()
    assert frame.item.isna().all()
    assert repr(frame).splitlines()[0].split()[0] == "item"
    assert frame._repr_html_().count(">None</td>") == 2


def test_a_table_of_errors_has_texts_on_the_left_and_times_of_three_digits():
    """Long messages are not ragged; whole messages are pointed to only if one is cut."""
    error = ValueError("no <td> in it")
    frame = result_of([failed(0, error, seconds=0.000414205)]).errors_dataframe()
    html = frame._repr_html_()
    assert "0.000414<" in html
    assert '<td style="text-align:left">no &lt;td&gt; in it</td>' in html
    assert "<td>" not in html
    assert "a whole message" not in html
    assert frame.seconds.tolist() == [0.000414205]


def test_a_table_of_many_errors_shows_the_first_and_the_last():
    """As pandas does."""
    frame = failures(*range(1_000)).errors_dataframe()
    assert len(repr(frame).splitlines()) < 20
    assert len(frame._repr_html_()) < 20_000


def test_what_is_derived_from_a_table_of_errors_is_a_plain_dataframe():
    """Its own display, a pickled copy, and an empty table too."""
    frame = failures("a", "b").errors_dataframe()
    for derived in (
        frame[["item"]],
        frame.copy(),
        frame.head(1),
        pickle.loads(pickle.dumps(frame)),
    ):
        assert type(derived) is pd.DataFrame
    pd.testing.assert_frame_equal(pd.DataFrame(frame), frame.copy())
    empty = AsyncBatchProcessor(str).process_sync(["a"]).errors_dataframe()
    assert "item" in repr(empty)
    assert empty._repr_html_()
    del frame["item"]
    assert "error_type" in repr(frame)
