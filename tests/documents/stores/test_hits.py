"""What a search finds, as a list, a table and a line."""

import pickle
import re

import pandas as pd
import pytest

from ragasync.documents import (
    Document,
    HashingEmbedder,
    Hit,
    Hits,
    MemoryStore,
    RecursiveSplitter,
    add_locations,
)
from tests.support.store_kinds import put

NASTY = "<script>alert('x')</script> & \"quotes\" \ud83d"


def hit(number=0, **parts):
    """Return a hit of this number, with these parts."""
    given = {"document_id": f"d{number}", "source": None, "text": "text", "start": 0, "end": 4}
    return Hit(**given | {"score": 1 / (number + 1)} | parts)


def test_a_hit_tells_its_place():
    """Line, page and headings, as far as the metadata of its chunk has them."""
    metadata = {"line": 3, "page": 2, "heading": "A > B", "headings": ["A", "B", 7]}
    told = hit(metadata=metadata)
    assert (told.line, told.page, told.heading, told.headings) == (3, 2, "A > B", ["A", "B"])
    odd = hit(metadata={"line": "3", "page": True, "heading": 1, "headings": "AB"})
    assert (odd.line, odd.page, odd.heading, odd.headings) == (None, None, None, [])


def test_hits_are_a_list_that_a_slice_leaves_as_it_is():
    """Equal to a list, with what was searched for."""
    hits = Hits([hit(0), hit(1), hit(2)], "bucket")
    assert hits == [hit(0), hit(1), hit(2)]
    assert (hits[0], hits[-1]) == (hit(0), hit(2))
    assert isinstance(hits[1:], Hits)
    assert (len(hits[1:]), hits[1:].query) == (2, "bucket")
    again = pickle.loads(pickle.dumps(hits))
    assert (again, again.query) == (hits, "bucket")


@pytest.mark.parametrize("query", ["bucket", "two\nlines", "x" * 10_000, NASTY])
def test_the_repr_is_one_short_line(query):
    """Whatever was searched for and found."""
    for hits in (Hits([], query), Hits([hit(document_id=query * 2)] * 3, query)):
        assert "\n" not in repr(hits)
        assert len(repr(hits)) < 250
    assert repr(Hits([], "bucket")) == "<Hits: none for 'bucket'>"
    assert repr(Hits([hit(0)], "bucket")) == "<Hits: 1 for 'bucket', the best 1.000 in 'd0'>"


def test_the_table_escapes_all_values():
    """Ids, sources, texts, headings and what was searched for."""
    metadata = {"heading": NASTY, "line": 1}
    nasty = hit(document_id=NASTY, source=NASTY, text=NASTY, metadata=metadata)
    page = Hits([nasty, hit(1, document_id=NASTY)], NASTY)._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5
    page.encode()


def test_the_table_states_scores_and_places_and_no_colour_of_its_own():
    """So that it reads on dark and on light; what is not known is a dash."""
    found = [
        hit(0, source="/a.pdf", vector_score=0.25, metadata={"page": 1234, "heading": "Rates"}),
        hit(1, keyword_score=7.125),
    ]
    page = Hits(found, "bucket")._repr_html_()
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert cells[:3] == ["1.000", "0.250", "–"]
    assert cells[5:8] == ["0.500", "–", "7.125"]
    assert re.findall(r"/a.pdf<div[^>]*>([^<]*)</div>", page) == ["page 1,234, Rates"]
    assert "2 hits" in page
    assert not re.search(r"background|#[0-9a-f]{3}|color:(?!var|inherit)", page)


def test_the_table_is_bounded():
    """In rows and in the length of a text."""
    page = Hits([hit(n, text="x" * 1_000_000) for n in range(2_000)], "x")._repr_html_()
    assert len(page) < 100_000
    assert "and 1,950 more" in page
    assert "no hits" in Hits([], "x")._repr_html_()


def test_the_frame_has_a_row_a_hit_and_the_same_types_without_any():
    """Scores that are not known are NaN, places are missing."""
    found = [
        hit(0, vector_score=0.5, metadata={"line": 7, "heading": "A", "headings": ["A"]}),
        hit(1, source="/b", keyword_score=2.0, metadata={"page": 2}),
    ]
    frame = Hits(found).to_dataframe()
    assert frame.dtypes.to_dict() == Hits().to_dataframe().dtypes.to_dict()
    assert frame.score.tolist() == [1.0, 0.5]
    assert frame.vector_score.isna().tolist() == [False, True]
    assert frame.keyword_score.tolist()[1] == 2.0
    assert frame.source.isna().tolist() == [True, False]
    assert (frame.line[0], frame.page[1], frame.heading[0]) == (7, 2, "A")
    assert frame.headings.tolist() == [["A"], []]
    assert frame.metadata.tolist()[1] == {"page": 2}


def test_what_a_store_finds_leads_to_its_place():
    """By any heading that stands above the chunk or in it."""
    text = "# Limits\n\nA bucket refills.\n\n## Retries\n\nWait, then try again."
    guide = Document("guide", text, source="/guide.md")
    embed = HashingEmbedder()
    with MemoryStore() as store:
        put(store, guide, *add_locations(guide, RecursiveSplitter()(guide)), made_by=embed)
        for title in ("Limits", "Retries"):
            [found] = store.search("try", where={"heading": title})
            assert (found.line, found.page) == (1, None)
            assert found.headings == ["Limits", "Retries"]
        with pytest.warns(UserWarning, match="key 'headign': did you mean 'heading'"):
            assert store.search("try", where={"headign": "Limits"}) == []


def test_a_small_score_is_not_shown_as_none():
    """The BM25 of a word that occurs in nearly all chunks is that small in SQLite."""
    store = MemoryStore()
    put(store, Document("a", "A bucket refills."))
    put(store, Document("b", "The bucket holds more tokens."))
    hits = store.search("bucket", mode="keyword")
    store.close()
    assert 0 < hits[0].score == hits[0].keyword_score < 0.0005
    cells = re.findall(r"<td[^>]*>(.*?)</td>", hits._repr_html_())
    assert cells[:3] == ["&lt;0.001", "–", "&lt;0.001"]
    assert "<Hit <0.001 'a'" in repr(hits[0])
    assert "the best <0.001 in 'a'" in repr(hits)


def test_a_table_of_hits_shows_three_decimals_and_keeps_all():
    """So does a selection of its columns; pickled, it is a plain DataFrame."""
    frame = Hits([hit(2, vector_score=0.52345678, keyword_score=1e-6)]).to_dataframe()
    shown = repr(frame)
    assert "0.333" in shown
    assert "0.523 " in shown
    assert "<0.001" in shown
    assert "0.3333" not in shown
    assert "<td>0.523</td>" in frame._repr_html_()
    assert "<td>&lt;0.001</td>" in frame._repr_html_()
    assert frame.vector_score[0] == 0.52345678
    assert repr(frame[frame.score > 0][["vector_score"]]).split()[-1] == "0.523"
    assert type(pickle.loads(pickle.dumps(frame))) is pd.DataFrame
