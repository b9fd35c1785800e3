"""Labels: the index of a Series or DataFrame whose values or rows are the items of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 256
"""Labels that are converted together."""


class Labels:
    """
    The labels of a run's items: the index of their Series or DataFrame, by position.

    Args:
        index: the index, which is shared with the pandas object.
    """

    def __init__(self, index: pd.Index[Any]) -> None:
        self.index = index
        self._latest: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        return len(self.index)

    def at(self, position: int) -> Any:
        """The label at a position; of a MultiIndex, a tuple."""
        # A stream asks for one label after the other: converting them in blocks is much faster.
        start = position - position % BLOCK
        latest, labels = self._latest
        if latest != start:
            labels = self._converted(self.index[start : start + BLOCK])
            self._latest = start, labels
        return labels[position - start]

    def at_all(self, positions: Sequence[int]) -> list[Any]:
        """The labels at some positions."""
        return self._converted(self.take(positions))

    def _converted(self, part: pd.Index[Any]) -> list[Any]:
        """A part of the index as a list of Python values."""
        import pandas as pd

        if isinstance(part, pd.MultiIndex):  # as a list, its whole numbers may become floats
            return [_plain_label(part[place]) for place in range(len(part))]
        return list(map(_plain_label, part.tolist()))

    def take(self, positions: Sequence[int]) -> pd.Index[Any]:
        """The part of the index at these positions; the index itself for all of them in order."""
        if positions == range(len(self.index)):
            return self.index
        import numpy as np

        return self.index.take(np.fromiter(positions, dtype="int64", count=len(positions)))

    def same_as(self, other: Labels) -> bool:
        """Whether two runs have the same labels in the same order."""
        return self.index is other.index or bool(self.index.equals(other.index))

    def positions_in(self, other: Labels, positions: Sequence[int]) -> list[int]:
        """
        Find the positions that some of another run's labels have here.

        Raises:
            ValueError: a label is unknown here, or labels are not unique.
        """
        if not self.index.is_unique or not other.index.is_unique:
            raise ValueError(
                "the two results have different indexes with duplicate labels, so their rows "
                "cannot be matched: use retry_failed(processor, only=labels) instead of merge"
            )
        wanted = other.take(positions)
        found = self.index.get_indexer_for(wanted)
        if (found < 0).any():
            unknown = wanted[found < 0][:5].tolist()
            raise ValueError(
                f"the other result has labels that this one does not have: {unknown!r:.200}; "
                f"merge takes the result of a later run of the same rows, or of some of them"
            )
        return [int(position) for position in found]

    def not_labels(self, only: object) -> str | None:
        """Describe an object that cannot be meant as labels, though it may hold equal values."""
        import pandas as pd

        if isinstance(only, str | bytes) or not isinstance(only, Iterable):
            return f"{only!r:.200}, which is not a collection"
        if isinstance(only, pd.DataFrame):
            return "a DataFrame"
        if not isinstance(only, pd.Series | pd.Index):
            return None
        if only.dtype in ("bool", "boolean") and self.index.inferred_type != "boolean":
            return "a mask"
        # `reset_index` calls a level without a name `index`, or `level_0`.
        names = {*self.index.names, None, "index", "level_0", "first_index"}
        if isinstance(only, pd.Series):
            return None if only.name in names else f"the column {only.name!r}"
        if not names.issuperset(only.names):
            return f"an index of {only.name!r}"
        # A part of an index is a RangeIndex from 0 only if the whole is one.
        is_new = isinstance(only, pd.RangeIndex) and only.start == 0 and only.step == 1
        if not is_new or not len(only) or isinstance(self.index, pd.RangeIndex):
            return None
        return f"{only!r}, which may be new row numbers (if it is meant, pass a list)"

    def find(self, only: Iterable[Any]) -> list[int]:
        """
        Find the positions of labels, in the order given; a duplicate label has several.

        Raises:
            KeyError: a label is unknown.
        """
        # Each label once: a label that n items share and that is given n times has n * n matches.
        wanted = self._as_index(only).unique()
        if not len(wanted):
            return []
        found = self.index.get_indexer_for(wanted)
        is_mask = wanted.inferred_type == "boolean" and self.index.inferred_type != "boolean"
        if is_mask:
            raise TypeError(
                "only= takes labels, got a mask: of a DataFrame df, pass df.index[mask]"
            )
        if (found < 0).any():
            known = wanted.isin(self.index)
            unknown = wanted[~known][:5].tolist() or "another kind of label"
            raise KeyError(
                f"only= names labels that the items' index does not have: {unknown!r:.200}, "
                f"expected labels such as {self.index[:3].tolist()!r:.200}"
            )
        return list(dict.fromkeys(map(int, found)))

    def groups(self, positions: Sequence[int]) -> list[int]:
        """A number for the label of each position, the same for equal labels."""
        if not positions:  # which pandas 2 cannot factorize in a MultiIndex
            return []
        codes, _ = self.take(positions).factorize(use_na_sentinel=False)
        return [int(code) for code in codes]

    def _as_index(self, only: Iterable[Any]) -> pd.Index[Any]:
        """Labels as an index of the kind of these ones."""
        import pandas as pd

        if isinstance(only, pd.Index):
            return only
        labels = list(only)
        if isinstance(self.index, pd.MultiIndex) and labels:
            if not all(isinstance(label, tuple) for label in labels):
                raise KeyError(
                    f"only= must have a tuple for each item, because the items have a MultiIndex, "
                    f"got {labels[:3]!r:.200}"
                )
            return pd.MultiIndex.from_tuples(labels)
        made: pd.Index[Any] = pd.Index(labels, tupleize_cols=False)
        return made


def _plain_label(label: Any) -> Any:
    """Convert numbers of numpy in a label to Python's; a missing label is kept."""
    if type(label) in (str, int, float):
        return label
    if isinstance(label, tuple):
        return tuple(map(_plain_label, label))
    import numpy as np

    is_number = isinstance(label, np.generic) and label.dtype.kind in "biufc"
    return label.item() if is_number else label
