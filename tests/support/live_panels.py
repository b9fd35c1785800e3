"""Live panels in tests: what IPython displays, and the widgets by their CSS classes."""

import html
import re
from typing import Any


class Displayed:
    """Records the bundles that IPython displays."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.updates: list[bool] = []
        self.snapshots: dict[str, list[str]] = {}

    def __call__(self, bundle: dict[str, Any], **how: Any) -> None:
        assert how["raw"] is True
        if not bundle["text/plain"]:  # a snapshot, which is hidden while the panel is live
            assert how["update"] is (how["display_id"] in self.snapshots)
            self.snapshots.setdefault(how["display_id"], []).append(bundle["text/html"])
            return
        self.bundles.append(bundle)
        self.ids.append(how["display_id"])
        self.updates.append(how["update"])


class Shown:
    """The widgets of a live panel, by their CSS classes."""

    def __init__(self, job: Any) -> None:
        job._ipython_display_()
        self.box = job._panel._controls.box

    def __getitem__(self, name: str) -> Any:
        (found,) = [w for w in all_widgets(self.box) if f"ragasync-{name}" in w._dom_classes]
        return found

    def click(self, name: str) -> None:
        """Click a button."""
        self[name].click()

    def values(self) -> list[str]:
        """The values of both sliders."""
        return [self["concurrency-slider"].label, self["rate-slider"].label]

    def drag(self, name: str, label: str) -> None:
        """Drag a slider, as the front end reports it."""
        slider = self[f"{name}-slider"]
        slider.set_state({"index": slider.options.index(label)})

    @property
    def facts(self) -> str:
        """The facts, as text."""
        return words_of(self["facts"].value)


def all_widgets(widget: Any) -> list[Any]:
    """A widget and all widgets in it."""
    return [
        widget,
        *(deep for child in getattr(widget, "children", ()) for deep in all_widgets(child)),
    ]


def words_of(fragment: str) -> str:
    """The text of HTML, without its colored squares."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", fragment)).replace("■", " ").split())
