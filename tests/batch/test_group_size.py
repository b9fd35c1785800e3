"""The size of groups that adapts to the time that their items take."""

import pytest

# Internals: the arithmetic, without an executor whose times would decide.
from ragasync._calls.groups import GROUP_SECONDS, GroupSize


def test_the_first_groups_have_the_size_that_was_asked_for():
    """Nobody knows yet how long an item takes."""
    assert GroupSize(64).current == 1
    assert GroupSize(64, first=4).current == 4


@pytest.mark.parametrize(
    ("item_seconds", "size"),
    [(0.0, 64), (GROUP_SECONDS / 1_000, 64), (GROUP_SECONDS / 10.5, 10), (GROUP_SECONDS * 9, 1)],
)
def test_a_group_has_as_many_items_as_fit_into_its_time(item_seconds: float, size: int):
    """At least one, and no more than the maximum."""
    group_size = GroupSize(64)
    group_size.add([item_seconds])
    assert group_size.current == size


def test_slow_items_among_quick_ones_make_the_next_groups_small():
    """The size follows the latest groups."""
    group_size = GroupSize(64)
    group_size.add([0.0001] * 64)
    group_size.add([GROUP_SECONDS] * 64)
    assert group_size.current == 1
    for _ in range(8):
        group_size.add([0.0])
    assert group_size.current == 64


def test_a_group_without_results_changes_nothing():
    """None of its items was called."""
    group_size = GroupSize(64)
    group_size.add([0.01])
    before = group_size.current
    group_size.add([])
    assert group_size.current == before
