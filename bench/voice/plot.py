"""A picture of figures over time, as an SVG that needs no library and no browser to be made."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

COLOURS = ("#0b62a8", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 360, 56, 190, 40, 36


def draw(title: str, unit: str, lines: dict[str, list[tuple[float, float]]], out: Path) -> None:
    """`lines`: name -> (seconds, value) in order. The axis of values begins at 0, so that flat looks flat."""
    last = max((points[-1][0] for points in lines.values() if points), default=0) or 1
    most = max((value for points in lines.values() for _, value in points), default=0) * 1.15 or 1

    def x(at: float) -> float:
        return LEFT + at / last * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>']
    for step in range(5):
        value = most / 1.15 * step / 4
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>')
    for step in range(7):
        at = last * step / 6
        parts.append(f'<text x="{x(at):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{at / 60:.0f} min</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{TOP - 4}" text-anchor="end">{escape(unit)}</text>')
    for place, (name, points) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        way = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label_y = TOP + 14 + place * 20
        parts.append(f'<path d="M{WIDTH - RIGHT + 12} {label_y - 4}h18" stroke="{colour}" stroke-width="3"/>')
        ends = f"{points[0][1]:.0f} → {points[-1][1]:.0f}" if points else ""
        parts.append(f'<text x="{WIDTH - RIGHT + 36}" y="{label_y}">{escape(name)} {ends}</text>')
    out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )
