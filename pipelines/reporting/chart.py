"""Line charts as inline SVG: small, and in the colours of the page, light or dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 18, 8, 38
COLOURS = 10  # named `c0` to `c9` in the page's style
POINTS = 120  # of a line; the eye sees no more at this width
DOTS = 40  # fewer points than this are marked each, with their value


@dataclass(frozen=True)
class Series:
    """One line: (x, y, lowest, highest) at each point, and what it is called."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


def line_chart(series: Sequence[Series], x_label: str, y_label: str, *, from_zero: bool = True) -> str:
    """An SVG element of lines with a band from lowest to highest where several runs are one line.

    Args:
        series: the first `COLOURS` in colours, the others grey under them; each with a point at least, and with whole
            numbers as x.
        from_zero: the y axis begins at 0.
    """
    thinned = [Series(each.name, thin(each.points)) for each in series]
    xs = [x for each in thinned for x, *_ in each.points]
    ys = [y for each in thinned for _, *values in each.points for y in values]
    x_ticks, y_ticks = ticks(min(xs), max(xs), least=1), ticks(0 if from_zero else min(ys), max(ys))
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)

    def px(x: float) -> str:
        share = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"

    def py(y: float) -> str:
        share = (y - y_low) / (y_high - y_low) if y_high > y_low else 0.5
        return f"{HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{y_label} over {x_label}")}">']
    for tick in y_ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {py(tick)}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{py(tick)}" dy=".35em" text-anchor="end">{tick:g}</text>')
    for tick in (tick for tick in x_ticks if x_low <= tick <= x_high):
        parts.append(f'<text x="{px(tick)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(
        f'<text transform="translate(11 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    for place, each in reversed(list(enumerate(thinned))):
        colour = f"c{place}" if place < COLOURS else "rest"
        parts.append(f'<g class="{colour}"><title>{escape(each.name)}</title>')
        if any(low < high for _, _, low, high in each.points):
            upper = [f"{px(x)} {py(high)}" for x, _, _, high in each.points]
            lower = [f"{px(x)} {py(low)}" for x, _, low, _ in reversed(each.points)]
            parts.append(f'<path class="band" d="M{"L".join(upper + lower)}Z"/>')
        parts.append(f'<path class="line" d="M{"L".join(f"{px(x)} {py(y)}" for x, y, *_ in each.points)}"/>')
        if len(each.points) <= DOTS and place < COLOURS:
            for x, y, *_ in each.points:
                told = escape(f"{each.name}: {y:.4g} at {x:g}")
                parts.append(f'<circle cx="{px(x)}" cy="{py(y)}" r="2.5"><title>{told}</title></circle>')
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def thin(points: Sequence[tuple[float, float, float, float]]) -> list[tuple[float, float, float, float]]:
    """At most `POINTS` of them, evenly chosen, the first and the last among them."""
    if len(points) <= POINTS:
        return list(points)
    return [points[round(index * (len(points) - 1) / (POINTS - 1))] for index in range(POINTS)]


def ticks(low: float, high: float, count: int = 5, least: float = 0) -> list[float]:
    """About `count` round numbers from the last at or below `low` to the first at or above `high`.

    Args:
        least: they are at least this far apart; 1 where only whole numbers mean something.
    """
    if high - low < 1e-12:
        return [low]
    rough = max((high - low) / count, least)
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 12) for index in range(first, last + 1)]
