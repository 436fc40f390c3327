"""HTML that no name can break out of: all text is escaped, only elements made here are not.

Covers: elements, attributes, text of any characters, bars.
Does not cover: what a page says (report_page).
"""

from __future__ import annotations

import html
from collections.abc import Iterable

_EMPTY = frozenset({"meta", "rect", "path", "line"})


class Markup(str):
    """Text that is HTML already. Only element() and raw() make it."""

    __slots__ = ()


Child = Markup | str | int | Iterable[Markup] | None


def element(tag: str, *children: Child, **attributes: str | float | None) -> Markup:
    """Return an element. class_ is class, other underscores are hyphens, None is left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _EMPTY:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{''.join(map(_content, children))}</{tag}>")


def raw(trusted: str) -> Markup:
    """Take a constant of the program as HTML."""
    return Markup(trusted)


def text(value: object) -> str:
    """Escape any text for content and attributes; what cannot be shown is written as an escape."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)
    )
    return html.escape(shown, quote=True)


def _content(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int):
        return text(child)
    return "".join(map(_content, child))


def bar(part: float, label: str) -> Markup:
    """Return a bar as SVG, so that it is printed too; part is from 0 to 1."""
    width = round(100 * min(max(part, 0.0), 1.0), 2)
    return element(
        "svg",
        element("rect", class_="track", width=100, height=8),
        element("rect", class_="fill", width=width, height=8),
        class_="bar",
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
