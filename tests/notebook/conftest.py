"""The fixture of tests that display live panels."""

import types
from collections.abc import Callable, Iterator

import pytest

from ragasync.notebook import panel

# Internals: states of a view that a live job passes too quickly.
from ragasync.notebook.panel import Refresher
from tests.support.live_panels import Displayed


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Displayed]:
    """Make IPython look like that of a kernel, and record what is displayed."""
    import IPython
    from IPython import display as module

    seen = Displayed()
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(module, "display", seen)
    monkeypatch.setattr(panel, "WIDGETS_AFTER", 0)
    refreshers: list[Refresher] = []

    def refresher(refresh: Callable[[], bool]) -> Refresher:
        refreshers.append(Refresher(refresh))
        return refreshers[-1]

    monkeypatch.setattr(panel, "Refresher", refresher)
    yield seen
    for each in refreshers:
        each.stop()  # after a failed test, a panel would draw its end into the next test
