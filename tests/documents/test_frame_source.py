"""DataFrames as sources of documents: ids, texts, metadata, and the index of the result."""

import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ragasync import AsyncDocumentProcessor, BatchResult
from ragasync.documents import (
    FrameSource,
    IdConflictError,
    LoadError,
    MemoryStore,
    SqliteStore,
    documents_dataframe,
)
from tests.support.embedders import CountingEmbedder
from tests.support.requirements import needs


def a_frame(**columns: Any) -> pd.DataFrame:
    """A frame of three documents, with metadata of several kinds."""
    facts = {
        "id": ["a", "b", "c"],
        "text": ["a bucket", "a tap", "a pipe"],
        "pages": [1, 2, 3],
        "when": pd.to_datetime(["2024-05-01", None, "2024-05-03"]),
        "score": [0.5, np.nan, 0.25],
    }
    return pd.DataFrame(facts | columns, index=["x", "y", "z"])


def errors_of(result: BatchResult[Any]) -> list[BaseException]:
    """The errors of a result."""
    return [outcome.error for outcome in result.get_failed() if outcome.error is not None]


async def test_rows_become_documents_with_their_index():
    """Ids and texts of their columns, the rest as metadata without missing values."""
    result = await AsyncDocumentProcessor().process(a_frame())
    assert [outcome.label for outcome in result] == ["x", "y", "z"]
    first, second, _ = (value.document for value in result.results)
    assert (first.id, first.text, first.source) == ("a", "a bucket", None)
    assert dict(first.metadata) == {"pages": 1, "when": pd.Timestamp("2024-05-01"), "score": 0.5}
    assert dict(second.metadata) == {"pages": 2}
    for table in (result.to_dataframe(), documents_dataframe(result)):
        assert table.index.tolist() == ["x", "y", "z"]
    assert result.to_dataframe()["item"].tolist() == ["a", "b", "c"]
    attached = result.attach(a_frame(), ["status"])
    assert attached["status"].tolist() == ["done"] * 3


async def test_other_columns_are_named_by_a_frame_source():
    """Ids may be whole numbers; metadata can be chosen."""
    frame = a_frame().rename(columns={"text": "body"}).assign(number=[7, 8, 9])
    source = FrameSource(frame, id="number", text="body", metadata=["pages"])
    assert repr(source) == "<FrameSource of 3 rows, id='number', text='body'>"
    result = await AsyncDocumentProcessor().process(source)
    documents = [value.document for value in result.results]
    assert [document.id for document in documents] == ["7", "8", "9"]
    assert [dict(document.metadata) for document in documents] == [
        {"pages": 1},
        {"pages": 2},
        {"pages": 3},
    ]


async def test_a_second_run_embeds_only_the_rows_that_have_changed(tmp_path: Path):
    """In any order; a changed text or a changed fact is another version of its document."""
    embedder = CountingEmbedder()
    with SqliteStore(tmp_path / "store.sqlite") as store:
        processor = AsyncDocumentProcessor(embed=embedder, store=store)
        await processor.process(a_frame())
        frame = a_frame(text=["a bucket", "a new tap", "a pipe"]).loc[["z", "y", "x"]]
        result = await processor.process(frame)
        unchanged = {each.label: each.value.unchanged for each in result if each.value}
        assert unchanged == {"z": True, "y": False, "x": True}
        assert store.search("new tap", k=1)[0].document_id == "b"
        [hit] = store.search("bucket", k=1, where={"when": {"$lt": "2024-05-02"}})
        assert hit.document_id == "a"


async def test_rows_without_id_or_text_fail_alone():
    """Each error names the row and the column; the other rows are processed."""
    frame = a_frame(id=["a", None, "c"], text=["a bucket", "a tap", np.nan])
    result = await AsyncDocumentProcessor().process(frame)
    assert [outcome.status for outcome in result] == ["done", "failed", "failed"]
    no_id, no_text = errors_of(result)
    assert isinstance(no_id, LoadError)
    assert isinstance(no_text, LoadError)
    assert (no_id.reason, no_text.reason) == ("no id", "missing")
    assert "the row 'y' has no id in the column 'id'" in str(no_id)
    assert "the row 'z' has no text in the column 'text'" in str(no_text)
    assert result.errors_dataframe()["stage"].tolist() == ["load", "load"]
    assert result.unfinished == ["y", "z"]


async def test_rows_with_other_values_than_ids_and_texts_fail_alone():
    """A fraction is no id, and a number is no text."""
    frame = a_frame(id=["a", 1.5, "c"], text=["a bucket", "a tap", 7])
    result = await AsyncDocumentProcessor().process(frame)
    no_id, no_text = errors_of(result)
    assert "has the id 1.5 in the column 'id'" in str(no_id)
    assert "has the value 7 in the column 'text'" in str(no_text)
    assert [error.reason for error in (no_id, no_text) if isinstance(error, LoadError)] == [
        "wrong type",
        "wrong type",
    ]


@pytest.mark.parametrize("numbers", [[1, 2, None], [2**53 - 1, -7, None], [10.0, 2, np.nan]])
async def test_whole_numbers_stay_ids_if_one_is_missing(numbers: list[Any]):
    """Although pandas makes floats of them; a column of Int64 gives the same ids."""
    for column in (pd.Series(numbers, dtype="float64"), pd.Series(numbers, dtype="Int64")):
        result = await AsyncDocumentProcessor().process(a_frame(id=column.array))
        ids = [value.id for value in result.results if value]
        assert ids == [str(int(number)) for number in numbers[:2]]
        [error] = errors_of(result)
        assert isinstance(error, LoadError)
        assert error.reason == "no id"
        assert ("Int64" in str(error)) == (column.dtype == "float64")


@pytest.mark.parametrize("given", [2.0**53, -1e300, np.inf, 0.5, True, pd.Timestamp("2024-05-01")])
async def test_values_that_are_no_ids_are_not_skipped_as_missing_ones(given: Any):
    """A policy that skips missing values leaves these as failures; large floats may be rounded."""
    frame = a_frame(id=pd.Series(["a", given, "c"], dtype=object).array)
    result = await AsyncDocumentProcessor(on_unreadable={"missing", "no id"}).process(frame)
    assert [outcome.status for outcome in result] == ["done", "failed", "done"]
    [error] = errors_of(result)
    assert isinstance(error, LoadError)
    assert error.reason == "wrong type"
    assert ("Int64" in str(error)) == isinstance(given, float)


async def test_texts_of_another_type_are_not_skipped_as_missing_ones():
    """A column of numbers is a slip; a missing text in it is missing."""
    frame = a_frame(text=[1.5, 2.0, np.nan])
    result = await AsyncDocumentProcessor(on_unreadable={"missing"}).process(frame)
    assert [outcome.status for outcome in result] == ["failed", "failed", "done"]


def test_unreadable_rows_can_be_pickled():
    """With the reason of their error."""
    _, row, _ = FrameSource(a_frame(id=["a", None, "c"])).documents().items
    assert pickle.loads(pickle.dumps(row)).refusal().reason == "no id"


async def test_rows_without_text_can_be_skipped():
    """By the reason of their error."""
    frame = a_frame(text=["a bucket", None, "a pipe"])
    result = await AsyncDocumentProcessor(on_unreadable={"missing"}).process(frame)
    assert [value.skipped for value in result.results if value] == [None, "missing", None]


async def test_of_two_rows_with_one_id_the_later_fails():
    """The error names both; a row that is repeated as it was is no conflict."""
    frame = a_frame(id=["a", "a", "c"])
    result = await AsyncDocumentProcessor().process(frame)
    assert [outcome.status for outcome in result] == ["done", "failed", "done"]
    [error] = errors_of(result)
    assert isinstance(error, IdConflictError)
    assert "(item 0)" in str(error)
    twice = pd.concat([a_frame(), a_frame()])
    assert (await AsyncDocumentProcessor(store=MemoryStore()).process(twice)).all_succeeded


@pytest.mark.parametrize(
    ("frame", "missing"),
    [
        (a_frame().drop(columns="id"), r"\['id'\]"),
        (a_frame().drop(columns=["id", "text"]), r"\['id', 'text'\]"),
    ],
)
def test_missing_columns_are_refused_before_anything_runs(frame: pd.DataFrame, missing: str):
    """The error names the columns that there are, and how to name them."""
    processor = AsyncDocumentProcessor()
    with pytest.raises(ValueError, match=f"{missing} of these are not in .*FrameSource"):
        processor.process_sync(frame)
    assert processor.last_result is None


def test_other_things_than_frames_are_refused():
    """A Series has no ids."""
    with pytest.raises(TypeError, match=r"got a Series: pass a DataFrame"):
        AsyncDocumentProcessor().process_sync(a_frame()["text"])
    with pytest.raises(TypeError, match="takes a DataFrame of pandas or polars, got 7"):
        FrameSource(7)
    with pytest.raises(ValueError, match=r"\['topic'\] of these are not in"):
        FrameSource(a_frame(), metadata="topic")


async def test_rows_that_failed_are_run_again_by_label():
    """After the embedder was fixed."""
    embedder = CountingEmbedder(poison={"tap": ValueError("no vector")})
    store = MemoryStore()
    processor = AsyncDocumentProcessor(embed=embedder, store=store, retry_count=0)
    result = await processor.process(a_frame())
    assert result.unfinished == ["y"]
    embedder.poison.clear()
    whole = await result.retry_failed(processor, only=result.unfinished)
    assert whole.all_succeeded
    assert [outcome.label for outcome in whole] == ["x", "y", "z"]


async def test_jobs_streams_and_journals_take_frames(tmp_path: Path):
    """With labels; a run with the same journal takes up what is done."""
    processor = AsyncDocumentProcessor(store=MemoryStore(), journal=tmp_path / "run.sqlite")
    pilot = await processor.start(a_frame(), max_items=2)
    assert [outcome.status for outcome in pilot] == ["done", "done", "pending"]
    labels = [(each.label, each.attempts) async for each in processor.stream(a_frame())]
    assert sorted(labels) == [("x", 0), ("y", 0), ("z", 1)]


async def test_a_file_is_shown_as_its_path(tmp_path: Path):
    """Not as the object that stands for it."""
    file = tmp_path / "empty.md"
    file.touch()
    result = await AsyncDocumentProcessor().process(tmp_path)
    assert result.errors_dataframe()["item"].tolist() == [str(file)]
    assert result.to_dataframe()["item"].tolist() == [str(file)]


async def test_frames_of_polars_have_positions():
    """Polars has no index."""
    needs("polars")
    pl: Any = import_module("polars")
    frame = pl.DataFrame({"id": ["a", "b"], "text": ["a bucket", None], "pages": [1, 2]})
    result = await AsyncDocumentProcessor().process(frame)
    assert [outcome.status for outcome in result] == ["done", "failed"]
    assert "the row 1 has no text" in str(errors_of(result)[0])
    assert result[0].label is None
