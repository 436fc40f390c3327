"""Charts of a report: rates over time as inline SVG, with labels that stay readable on a phone.

Covers: steps of an axis, areas, labels.
Does not cover: the figures (report_figures), colours (report_style).

The drawing is stretched to the width that there is; labels are therefore HTML beside it, not text
in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.markup import Markup, element
from cluster.output import show_duration

_UNITS = ("B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s")
TICKS = 4
TIME_LABELS_MAX = 7  # besides the one at 0; every second one is left out on a phone
NEAR_END = 3.0  # percent
TIME_STEPS_S = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600),
    *(7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800),
)


@dataclass(frozen=True, slots=True)
class Axis:
    """The vertical axis: from 0 to top in whole steps."""

    unit: str
    scale: float  # a rate divided by this has the unit
    step: float
    steps: int

    @property
    def top(self) -> float:
        return self.step * self.steps

    def labels(self) -> list[str]:
        digits = max(0, -math.floor(math.log10(self.step))) if self.step < 1 else 0
        return [f"{number * self.step:,.{digits}f}" for number in range(self.steps + 1)]


def axis(largest: float, *, size: bool) -> Axis:
    """Choose an axis that holds a largest rate: of bytes, or of names."""
    scale, unit = 1.0, "names/s"
    if size:
        power = min(int(math.log(max(largest, 1.0), 1024)), len(_UNITS) - 1)
        scale, unit = float(1024**power), _UNITS[power]
    elif largest >= 1e6:
        scale, unit = 1e6, "million names/s"
    value = max(largest / scale, 1.0)
    raw = value / TICKS
    power_of_ten = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power_of_ten for m in (1, 2, 5, 10) if m * power_of_ten >= raw * 0.999)
    if scale == 1.0:
        step = max(1.0, step)  # of what is counted one by one
    return Axis(unit, scale, step, max(1, math.ceil(value / step - 1e-9)))


def chart(title: str, style: str, rates: Sequence[float], seconds: float, *, size: bool) -> Markup:
    """Return a chart of rates, by sample, over so many seconds; of bytes or of names."""
    chosen = axis(max(rates, default=0.0), size=size)
    heights = [100 * step / chosen.steps for step in range(chosen.steps + 1)]
    grid = [
        element("line", class_="grid", x1=0, x2=len(rates), y1=100 - height, y2=100 - height)
        for height in heights
    ]
    plot = element(
        "svg",
        grid,
        element("path", class_=f"area {style}", d=_path(rates, chosen)),
        viewBox=f"0 0 {len(rates)} 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title} over time",
    )
    scale = [
        element("span", label, style=f"bottom:{height:.2f}%")
        for label, height in zip(chosen.labels(), heights, strict=True)
    ]
    return element(
        "figure",
        element("figcaption", element("strong", title), f", {chosen.unit}"),
        element("div", element("div", scale, class_="scale"), plot, class_="plot"),
        element("div", _times(seconds), class_="times"),
        class_="chart",
    )


def _path(rates: Sequence[float], chosen: Axis) -> str:
    top = chosen.top * chosen.scale
    heights = [f"{100 - 100 * min(rate / top, 1.0):.2f}" for rate in rates]
    steps = "".join(f"V{height}H{number + 1}" for number, height in enumerate(heights))
    return f"M0 100{steps}V100Z"


def time_step(seconds: float) -> float:
    """Return how far apart the labels of an axis of time are."""
    return next((step for step in TIME_STEPS_S if seconds / step <= TIME_LABELS_MAX), seconds)


def _times(seconds: float) -> list[Markup]:
    step = time_step(seconds)
    made = []
    for number in range(int(seconds / step + 1e-9) + 1):
        place = 100 * number * step / seconds
        # Near an end a label is not centred below its moment: it would stand out of the page.
        side = "first" if place < NEAR_END else "last" if place > 100 - NEAR_END else "inner"
        minor = " minor" if number % 2 else ""
        label = show_duration(number * step)
        made.append(element("span", label, class_=f"{side}{minor}", style=f"left:{place:.2f}%"))
    return made
