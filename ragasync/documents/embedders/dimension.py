"""The dimension of an embedder's vectors: asked for, or learnt from the first that come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragasync.arguments import check_count
from ragasync.documents.embedders.openai_errors import WrongDimension, WrongVector
from ragasync.documents.embedders.openai_responses import (
    Reply,
    checked_rows,
    usual_dimension,
    vectors_of,
)


class Dimension:
    """
    Makes rows of answers, all of one length.

    Args:
        asked: the length that the service is asked for; None for its own.

    Attributes:
        known: the length asked for, or that of most vectors of the first answer; None before it.
    """

    def __init__(self, asked: int | None) -> None:
        if asked is not None:
            check_count("dimensions", asked, at_least=1)
        self._asked = asked
        self._confirmed = False
        self.known = asked

    @property
    def confirmed(self) -> int | None:
        """The length that an answer had; None before the first."""
        return self.known if self._confirmed else None

    def rows_of(self, reply: Reply, expected: int) -> NDArray[np.float32]:
        """
        Return the vectors of an answer as rows in the order of the texts.

        Raises:
            ResultCountError: there are not as many as texts.
            WrongVector: one of them has another dimension, or is not finite.
            WrongDimension: the service has never given the dimension that it is asked for.
        """
        vectors = vectors_of(reply, expected)
        usual = usual_dimension(vectors)
        if usual is None:
            raise WrongVector(f"expected vectors for {expected} texts, got none that can be read")
        if self._asked is not None and not self._confirmed and usual != self._asked:
            raise WrongDimension(
                f"expected vectors of dimensions={self._asked}, got {usual} from the service: "
                "leave dimensions out, or name a model that can shorten its vectors"
            )
        known = self.known or usual
        rows = checked_rows(vectors, known)
        self.known, self._confirmed = known, True
        return rows
