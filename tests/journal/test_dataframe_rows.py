"""Rows of DataFrames in a journal: equal rows are found again, whatever they hold."""

import datetime
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ragasync import AsyncBatchProcessor, Journal


def a_frame() -> pd.DataFrame:
    """A frame with values of many kinds, some of them missing."""
    return pd.DataFrame(
        {
            "n": [0, 1, 2],
            "real": [0.5, np.nan, 2.5],
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "text": ["a", None, "c"],
            "kind": pd.Categorical(["x", "y", None]),
            "when": pd.to_datetime(["2024-05-01 12:00", None, "2024-05-02 12:00"]),
            "zoned": pd.date_range("2024-03-30", periods=3, tz="Europe/Berlin"),
            "took": pd.to_timedelta(["1s", None, "1ns"]),
            "month": pd.period_range("2024-01", periods=3, freq="M"),
            "day": [datetime.date(2024, 5, 1), None, datetime.date(2024, 5, 2)],
            "money": [Decimal("1.10"), Decimal("NaN"), None],
            "id": [uuid.UUID(int=7), None, uuid.UUID(int=8)],
            "words": [["a", "b"], [], None],
            "facts": [{"b": 1, "a": datetime.date(2024, 5, 1)}, {}, None],
            "vector": [np.array([1.0, 2.0]), np.array([]), None],
            7: [True, False, None],
        },
        index=["k", "l", "m"],
    )


def processor_of(path: Path, calls: list[int]) -> AsyncBatchProcessor[Any, int]:
    """A processor with a journal that notes its calls."""

    def triple(row: dict[str, Any]) -> int:
        calls.append(row["n"])
        return int(row["n"]) * 3

    return AsyncBatchProcessor(triple, journal=Journal(path, name="rows"))


def test_rows_of_all_kinds_are_found_again_after_a_restart(tmp_path: Path):
    """In whatever order they come; the result has the index of the frame that was passed."""
    calls: list[int] = []
    first = processor_of(tmp_path / "run.sqlite", calls).process_sync(a_frame().iloc[:2])
    assert first.results == [0, 3]
    shuffled = a_frame().loc[["m", "l", "k"]]
    result = processor_of(tmp_path / "run.sqlite", calls).process_sync(shuffled)
    assert sorted(calls) == [0, 1, 2]
    assert result.to_series().to_dict() == {"m": 6, "l": 3, "k": 0}
    assert [outcome.attempts for outcome in result] == [1, 0, 0]
    assert [outcome.label for outcome in result] == ["m", "l", "k"]


@pytest.mark.parametrize("column", [name for name in a_frame().columns if name != "n"])
def test_a_row_that_differs_in_any_column_is_another_item(tmp_path: Path, column: Any):
    """No two values of a column have the same canonical form."""
    frame = pd.DataFrame({column: a_frame()[column], "n": 1})
    calls: list[int] = []
    processor_of(tmp_path / "run.sqlite", calls).process_sync(frame)
    assert len(calls) == 3
    keys = processor_of(tmp_path / "run.sqlite", calls)
    assert keys.process_sync(frame.iloc[::-1]).success_count == 3
    assert len(calls) == 3
    assert Journal(tmp_path / "run.sqlite").to_dataframe()["occurrence"].tolist() == [0, 0, 0]


def test_equal_instants_of_any_library_are_one_item(tmp_path: Path):
    """A Timestamp is a datetime; what is missing is None."""
    calls: list[int] = []
    path = tmp_path / "run.sqlite"
    when = datetime.datetime(2024, 5, 1, 12)
    processor_of(path, calls).process_sync([{"n": 1, "when": when, "text": None}])
    frame = pd.DataFrame({"n": [1], "when": pd.to_datetime([when]), "text": [pd.NA]})
    assert processor_of(path, calls).process_sync(frame).results == [3]
    item = {"n": 1, "when": pd.Timestamp(when), "text": pd.NA}
    assert processor_of(path, calls).process_sync([item]).results == [3]
    assert calls == [1]


def test_a_row_without_a_canonical_form_asks_for_a_key(tmp_path: Path):
    """Objects of any class are not compared by what they show of themselves."""
    frame = pd.DataFrame({"n": [1], "object": [object()]})
    with pytest.raises(TypeError, match="pass key="):
        processor_of(tmp_path / "run.sqlite", []).process_sync(frame)
