"""The sliders of a forecast: what they show, and what they leave unchanged."""

import asyncio
from typing import Any

import pytest

from ragasync.simulation import forecast
from tests.simulation.test_forecast import run, taking

pytestmark = pytest.mark.slow  # arithmetic on simulated runs, the same with every Python


def shown(panel: Any) -> str:
    """Return what stands above the sliders."""
    answer: str = panel.box.children[0].value
    return answer


def explorer() -> Any:
    """A panel that is shown, for 1,000 items of 0.5 s, 10 of them in flight."""
    panel = forecast(run(taking(0.5), 200, max_concurrency=10), 1_000).explore()
    panel._repr_mimebundle_()
    return panel


def test_a_drag_shows_its_forecast():
    """A drag of the concurrency, of the rate, and to no rate limit."""
    panel = explorer()
    assert "1,000 items in 50.0 s" in shown(panel)
    panel.change(max_concurrency=20)
    assert "1,000 items in 25.0 s" in shown(panel)
    panel.change(rate=4.0)
    assert "limited by rate" in shown(panel)
    panel.change(rate=None)
    assert "1,000 items in 25.0 s" in shown(panel)


async def test_many_drags_are_simulated_once():
    """The last of them, after a moment: runs for each would come ever later."""
    panel = explorer()
    before = shown(panel)
    for at_once in (12, 15, 20):
        panel.change(max_concurrency=at_once)
    assert shown(panel) == before
    await asyncio.sleep(1)
    assert "1,000 items in 25.0 s" in shown(panel)


def test_a_slider_changes_the_scenario():
    """Moved to its next step, it changes the concurrency to that step."""
    panel = explorer()
    slider = panel.box.children[1].children[1]
    slider.index += 1
    assert panel.scenario.max_concurrency == 12


def test_without_widgets_it_is_text_and_still_html(monkeypatch: pytest.MonkeyPatch):
    """What ends up in a terminal, or in a notebook whose kernel has gone."""
    panel = forecast(run(taking(0.5), 40), 100).explore()
    monkeypatch.setattr(type(panel), "_make_widgets", _no_widgets)
    bundle = panel._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert "100 items in" in str(bundle["text/plain"])


def _no_widgets(_: Any) -> None:
    """Be without ipywidgets."""
    raise ImportError("ipywidgets")
