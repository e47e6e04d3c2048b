"""Names as text that matplotlib draws as they are written."""

from bisect import bisect_right

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

__all__ = ["fitted", "size_of", "text_width"]

LONGEST = 80  # letters; no title has room for more


def fitted(name: str, points: float, size: float, before: str = "", after: str = "") -> str:
    r"""Return text that is drawn as ``before + name + after`` and is at most so wide.

    No formula: a dollar begins one, and ``\$`` is drawn as a dollar. No control character, no
    letter that the font lacks. The middle of a long name is left out: names often differ in
    their ends.
    """
    shown = _drawable(_cut(name, LONGEST))
    if text_width(before + shown + after, size) > points:
        lengths = range(2, len(shown))
        fits = bisect_right(
            lengths, points, key=lambda kept: text_width(before + _cut(shown, kept) + after, size)
        )
        shown = _cut(shown, 1 + max(1, fits))
    return (before + shown + after).replace("$", r"\$")


def text_width(text: str, size: float) -> float:
    """Return how wide text is in points, in a font of ``size`` points."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0]


def size_of(ax: Axes) -> tuple[float, float]:
    """Return the width and height of Axes in points."""
    inch = ax.figure.dpi
    return ax.bbox.width * 72 / inch, ax.bbox.height * 72 / inch


def _drawable(text: str) -> str:
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    families = FontProperties().get_family()
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    return "".join(c if any(f.get_char_index(ord(c)) for f in fonts) else "□" for c in printable)


def _cut(text: str, kept: int) -> str:
    """Return so many letters from both ends of a text that is longer."""
    if len(text) <= kept:
        return text
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
