"""What a front end makes of a kernel's messages: displays that are replaced, widgets that live."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass
class FrontEnd:
    """
    The displays and the widgets that a kernel's messages have left.

    Attributes:
        displays: the latest bundle of each display, by its id.
        widgets: the state of each widget that lives, by its id.
        updates: how many messages have changed a widget or a display.
    """

    displays: dict[str, dict[str, Any]] = field(default_factory=dict)
    widgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    updates: int = 0

    def take(self, kind: str, content: dict[str, Any]) -> None:
        """Take in one message, whatever cell it belongs to."""
        if kind in ("display_data", "update_display_data"):
            display = content.get("transient", {}).get("display_id", f"#{len(self.displays)}")
            self.displays[display] = content["data"]
            self.updates += kind == "update_display_data"
        elif kind == "comm_open":
            self.widgets[content["comm_id"]] = dict(content["data"].get("state", {}))
        elif kind == "comm_close":
            self.widgets.pop(content["comm_id"], None)
        elif kind == "comm_msg" and content["data"].get("method") == "update":
            if content["comm_id"] in self.widgets:
                self.widgets[content["comm_id"]].update(content["data"]["state"])
            self.updates += 1

    def widget(self, css_class: str) -> str:
        """Return the id of the widget that has this class; the latest, of several."""
        for comm_id in reversed(self.widgets):
            if css_class in self.widgets[comm_id].get("_dom_classes", ()):
                return comm_id
        raise LookupError(f"no widget has the class {css_class!r}")

    def has(self, css_class: str) -> bool:
        """Return whether there is a widget of this class."""
        return any(css_class in each.get("_dom_classes", ()) for each in self.widgets.values())

    def state(self, css_class: str, name: str) -> Any:
        """Return something of the state of the widget that has this class; None without one."""
        return self.widgets[self.widget(css_class)].get(name) if self.has(css_class) else None

    @property
    def last(self) -> dict[str, Any]:
        """The bundle of the display that came last, of those that say something as text."""
        return [bundle for bundle in self.displays.values() if bundle["text/plain"]][-1]

    @property
    def is_live(self) -> bool:
        """Whether some display is a view of a widget, which can be clicked."""
        return any(VIEW in bundle for bundle in self.displays.values())

    @property
    def is_still(self) -> bool:
        """Whether all is at its end: no view of a widget, no button, no job that runs."""
        buttons = [w for w in self.widgets.values() if w.get("_model_name") == "ButtonModel"]
        words = [str(bundle["text/plain"]) for bundle in self.displays.values()]
        running = [each for each in words if each.startswith(("Job running", "Job paused"))]
        return not self.is_live and not buttons and not running
