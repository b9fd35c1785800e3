"""Usage: what a report may say, what a response says, and how usage is divided."""

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync import AsyncBatchProcessor, Usage, note_usage, usage_of

# Internals: how usage is divided, without a run.
from ragasync.usage import shares
from tests.support.requirements import needs

# ── reports ─────────────────────────────────────────────────────────────────────────────────


def test_outside_of_a_call_a_report_does_nothing():
    """A function that reports can be called by hand."""
    note_usage(tokens=10, cost=0.5)
    result = AsyncBatchProcessor(str).process_sync([1])
    assert (result.usage.tokens, result[0].tokens) == (0, 0)


@pytest.mark.parametrize(
    "report",
    [
        {"tokens": -1},
        {"cost": -0.1},
        {"cost": float("nan")},
        {"cost": float("inf")},
        {"input_tokens": -3},
        {"output_tokens": -3},
        {"tokens": 2**60},
    ],
)
def test_a_number_out_of_range_is_refused(report):
    """A sum would be wrong for good."""
    with pytest.raises(ValueError, match=next(iter(report))):
        note_usage(**report)


@pytest.mark.parametrize(
    "report", [{"tokens": 1.5}, {"tokens": "7"}, {"cost": "1 EUR"}, {"tokens": True}]
)
def test_what_is_no_number_is_refused(report):
    """The error names the argument."""
    with pytest.raises(TypeError, match=next(iter(report))):
        note_usage(**report)


def test_three_numbers_of_tokens_that_contradict_each_other_are_refused():
    """The error has all three of them."""
    with pytest.raises(ValueError, match=r"7 \+ 4 = 11.*tokens=10"):
        note_usage(tokens=10, input_tokens=7, output_tokens=4)
    note_usage(tokens=11, input_tokens=7, output_tokens=4)


# ── responses ───────────────────────────────────────────────────────────────────────────────


def counts(tokens, input_tokens, output_tokens):
    """What usage_of returns."""
    return {"tokens": tokens, "input_tokens": input_tokens, "output_tokens": output_tokens}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}, (21, 9, 12)),
        ({"prompt_tokens": 8, "total_tokens": 8}, (8, 8, 0)),
        ({"total_tokens": 8}, (8, 8, 0)),
        ({"input_tokens": 36, "output_tokens": 87, "total_tokens": 123}, (123, 36, 87)),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_creation_input_tokens": 100,
                "cache_read_input_tokens": 1000,
            },
            (1115, 1110, 5),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 40}, (40, 5, 35)),
        ({"input_tokens": None, "output_tokens": "7"}, (0, 0, 0)),
        ({"input_tokens": 10**30, "output_tokens": -4, "prompt_tokens": True}, (0, 0, 0)),
        (None, (0, 0, 0)),
    ],
)
def test_the_usage_of_a_response_in_a_dict(usage, expected):
    """Chat, embeddings, responses, messages with a cache, hidden reasoning, and nonsense."""
    read = usage_of({"usage": usage})
    assert read == counts(*expected)
    note_usage(**read)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2}, counts(7, 5, 2)),
        ({"input_tokens": 5, "output_tokens": 2, "usage": None}, counts(7, 5, 2)),
        (SimpleNamespace(input_tokens=5, output_tokens=2), counts(7, 5, 2)),
        (SimpleNamespace(total_tokens=9), counts(9, 9, 0)),
        ({"prompt_tokens": "5"}, counts(0, 0, 0)),
    ],
)
def test_the_usage_itself_has_the_counts_of_its_response(usage, expected):
    """`usage_of(response.usage)` is no silent zero."""
    assert usage_of(usage) == expected


def test_a_response_that_raises_has_no_usage():
    """Foreign objects are read with care."""

    class Hostile:
        @property
        def usage(self):
            raise RuntimeError("no")

    assert usage_of(Hostile()) == usage_of(None) == usage_of("text") == counts(0, 0, 0)


def test_the_usage_of_the_responses_of_openai():
    """The classes of the real package."""
    needs("openai")
    from openai.types import CompletionUsage, CreateEmbeddingResponse
    from openai.types.chat import ChatCompletion
    from openai.types.create_embedding_response import Usage as EmbeddingUsage
    from openai.types.responses import Response, ResponseUsage

    usage = CompletionUsage(prompt_tokens=9, completion_tokens=12, total_tokens=21)
    assert usage_of(ChatCompletion.model_construct(usage=usage)) == counts(21, 9, 12)
    embedded = EmbeddingUsage(prompt_tokens=8, total_tokens=8)
    assert usage_of(CreateEmbeddingResponse.model_construct(usage=embedded)) == counts(8, 8, 0)
    answered = ResponseUsage.model_construct(input_tokens=36, output_tokens=87, total_tokens=123)
    assert usage_of(Response.model_construct(usage=answered)) == counts(123, 36, 87)
    assert usage_of(ChatCompletion.model_construct(usage=None)) == counts(0, 0, 0)


def test_the_usage_of_the_messages_of_anthropic():
    """The classes of the real package; its input tokens leave out those of the cache."""
    needs("anthropic")
    from anthropic.types import Message
    from anthropic.types import Usage as MessageUsage

    usage = MessageUsage(input_tokens=10, output_tokens=5, cache_read_input_tokens=1000)
    assert usage_of(Message.model_construct(usage=usage)) == counts(1015, 1010, 5)
    assert "anthropic" in sys.modules


# ── shares ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("whole", "weights", "parts"),
    [
        (10, [1, 1], [5, 5]),
        (10, [3, 1], [7, 3]),
        (1, [1, 1, 1], [0, 0, 1]),
        (5, [0, 0], [2, 3]),
        (0, [2, 3], [0, 0]),
        (7, [0, 9], [0, 7]),
        (7, [0.5, 1.5], [1, 6]),
    ],
)
def test_a_whole_number_is_divided_by_weight(whole, weights, parts):
    """To the unit."""
    assert shares(whole, weights) == parts


@given(st.integers(0, 10**9), st.lists(st.floats(0, 1e9, allow_nan=False), min_size=1, max_size=40))
def test_shares_add_up_and_none_is_negative(whole, weights):
    """Whatever the weights."""
    parts = shares(whole, weights)
    assert sum(parts) == whole
    assert min(parts) >= 0


@pytest.mark.parametrize("weights", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_usage_without_useful_weights_is_divided_equally(weights):
    """Each part belongs to all of the requests."""
    assert Usage(2, 10, 1.0).divided(weights) == [Usage(2, 5, 0.5)] * 2
