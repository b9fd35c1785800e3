"""How the widgets of a panel are made: with a class each, and with few models beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class WidgetFactory:
    """
    Make widgets, and know all models that came of it, for each costs a message and memory.

    Widgets share their layouts and styles where they want the same.
    """

    def __init__(self) -> None:
        import ipywidgets

        self._widgets: Any = ipywidgets
        self._owned: list[Any] = []
        self._layouts: dict[str, Any] = {}
        self._styles: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Making: {len(self._owned):,} models>"

    def box(self, kind: str, children: list[Any], name: str, **layout: str) -> Any:
        """Return widgets side by side or below each other."""
        arranged = self._layout(overflow="hidden", **layout)
        return self._made(kind, name, children=children, layout=arranged)

    def html(self, name: str, value: str) -> Any:
        """Return a place for HTML."""
        return self._made("HTML", name, value=value, layout=self._layout(margin="0"))

    def label(self, name: str, value: str) -> Any:
        """Return words of a width, so that what follows them stands below each other."""
        layout = self._layout(width="100px", margin="2px 0 2px 12px")
        return self._made("Label", name, value=value, layout=layout)

    def button(self, text: str, name: str, act: Callable[[], object], tooltip: str) -> Any:
        """Return a button that does something."""
        width = "28px" if len(text) == 1 else "72px"
        layout = self._layout(width=width, padding="0", flex="none")
        made = self._made("Button", name, description=text, tooltip=tooltip, layout=layout)
        made.on_click(lambda _: act())
        return made

    def slider(self, name: str, options: list[str], index: int, tooltip: str) -> Any:
        """Return a slider from one word to another, which tells of a drag at its end."""
        return self._made(
            "SelectionSlider",
            name,
            options=options,
            index=index,
            continuous_update=False,
            tooltip=tooltip,
            # Where there is little room, the bar gives way before words and buttons do.
            layout=self._layout(width="320px", min_width="140px", flex="0 9 auto"),
        )

    def close(self, keep: list[Any] | None = None) -> None:
        """Free all models, in the kernel and in the front end, but those that are to be kept."""
        for model in self._owned:
            if not any(model is kept for kept in keep or ()):
                model.close()

    def _layout(self, **traits: str) -> Any:
        """Return a layout, the same for all that want the same."""
        key = str(traits)
        if key not in self._layouts:
            self._layouts[key] = self._widgets.Layout(**traits)
            self._owned.append(self._layouts[key])
        return self._layouts[key]

    def _made(self, kind: str, name: str, **traits: object) -> Any:
        """Return a widget that has its class for tests and style sheets, and a style if any."""
        if kind in self._styles:
            traits["style"] = self._styles[kind]
        made = getattr(self._widgets, kind)(_dom_classes=(f"ragasync-{name}",), **traits)
        self._owned.append(made)
        if kind not in self._styles and hasattr(made, "style"):
            self._styles[kind] = made.style
            self._owned.append(made.style)
        return made
