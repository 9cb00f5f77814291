"""Draw the pictures of "How it works" and the icon, as SVG.

Usage: python docs/site/drawings.py [FOLDER]        (docs/images when left out)

Everything in them is made here: lines, letters, and the small images, which are a synthetic cell
with and without noise.  The same numbers give the same files, so a test can tell whether the files
in the repository are those of this script.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]
Point = tuple[float, float]

INK, SOFT, FAINT, PAPER = "#22303c", "#5d6b78", "#c9d1d9", "#ffffff"
MEMORY, STATE, IMAGE, NOISE = "#0072b2", "#00805d", "#22303c", "#c2500a"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
GRAINS, ZOOM = 40, 4


class Drawing:
    """An SVG that is written from left to right and top to bottom, in pixels."""

    def __init__(self, width: int, height: int, title: str, *, paper: bool = True):
        self.size = (width, height)
        self.parts = [f"<title>{title}</title>"]
        self.colours: set[str] = set()
        if paper:
            self.parts.append(f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 14,
        colour: str = INK,
        anchor: str = "middle",
        weight: int = 400,
        italic: bool = False,
    ) -> None:
        """Write words whose baseline is at ``y``."""
        style = ' font-style="italic"' if italic else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{colour}" font-weight="{weight}"'
            f' text-anchor="{anchor}"{style}>{words}</text>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        words: str = "",
        *,
        colour: str = INK,
        fill: str = PAPER,
        size: float = 14,
        weight: int = 600,
        dashed: bool = False,
    ) -> None:
        """Draw a box with rounded corners; ``x`` and ``y`` are its middle."""
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" '
            f'height="{height:g}" rx="7" fill="{fill}" stroke="{colour}" stroke-width="1.6"{dash}/>'
        )
        if words:
            self.text(x, y + size * 0.36, words, size=size, colour=colour, weight=weight)

    def dot(self, x: float, y: float, sign: str, colour: str = INK) -> None:
        """Draw a small circle with a sign in it: a sum or a product."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="11" fill="{PAPER}" stroke="{colour}" '
            'stroke-width="1.6"/>'
        )
        self.text(x, y + 5, sign, size=15, colour=colour, weight=600)

    def arrow(
        self, *points: Point, colour: str = INK, head: bool = True, dashed: bool = False
    ) -> None:
        """Draw an arrow along the points, its corners rounded."""
        self.colours.add(colour)
        path = [f"M{points[0][0]:g} {points[0][1]:g}"]
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            start, end = towards(corner, before, 9), towards(corner, after, 9)
            path.append(
                f"L{start[0]:g} {start[1]:g}Q{corner[0]:g} {corner[1]:g} {end[0]:g} {end[1]:g}"
            )
        path.append(f"L{points[-1][0]:g} {points[-1][1]:g}")
        marker = f' marker-end="url(#head-{colour[1:]})"' if head else ""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.8"{marker}'
            f"{dash}/>"
        )

    def image(self, x: float, y: float, side: float, grey: Image, colour: str = INK) -> None:
        """Draw an image (Y, X) of grey values in [0, 1]; ``x`` and ``y`` are its middle."""
        pixels = np.round(np.clip(grey, 0, 1) * 255).astype(np.uint8)
        file = io.BytesIO()
        imageio.imwrite(file, pixels.repeat(ZOOM, 0).repeat(ZOOM, 1), extension=".png")
        data = base64.b64encode(file.getvalue()).decode()
        corner = f'x="{x - side / 2:g}" y="{y - side / 2:g}" width="{side:g}" height="{side:g}"'
        self.parts.append(
            f'<image {corner} image-rendering="pixelated" href="data:image/png;base64,{data}"/>'
            f'<rect {corner} fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )

    def save(self, path: Path) -> None:
        """Write the file."""
        heads = "".join(
            f'<marker id="head-{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 .6L7.4 4L0 7.4z" fill="{colour}"/>'
            "</marker>"
            for colour in sorted(self.colours)
        )
        width, height = self.size
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="{FONT}" role="img">\n'
            f"<defs>{heads}</defs>\n" + "\n".join(self.parts) + "\n</svg>\n",
            encoding="utf-8",
        )


def towards(start: Point, end: Point, distance: float) -> Point:
    """Return the point that lies ``distance`` from ``start`` on the way to ``end``."""
    length = float(np.hypot(end[0] - start[0], end[1] - start[1])) or 1.0
    share = min(distance, length / 2) / length
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def cell(z: float) -> Image:
    """Return one slice (Y, X) of a synthetic cell: a membrane, an organelle, a few vesicles."""
    y, x = np.mgrid[0:GRAINS, 0:GRAINS] / GRAINS
    grey = np.full((GRAINS, GRAINS), 0.74)
    border = 0.2 + 0.12 * np.sin(5 * x + 0.5 * z) + 0.02 * z
    grey -= 0.55 * np.exp(-(((y - border) / 0.028) ** 2))
    radius = np.hypot((x - 0.6 - 0.02 * z) * 0.85, y - 0.64)
    grey -= 0.5 * np.exp(-(((radius - 0.22 - 0.012 * z) / 0.03) ** 2))
    inside = radius < 0.2 + 0.012 * z
    grey = np.where(inside, grey - 0.18 + 0.1 * np.sin(38 * (x + y) + z), grey)
    for cy, cx in ((0.45, 0.16), (0.8, 0.2), (0.62, 0.1)):
        grey -= 0.4 * np.exp(-(((np.hypot(x - cx, y - cy) - 0.05) / 0.022) ** 2))
    return np.clip(grey, 0.05, 0.95)


def noise(seed: int, strength: float = 0.2) -> Image:
    """Return Gaussian noise (Y, X)."""
    return strength * np.random.default_rng(seed).standard_normal((GRAINS, GRAINS))


ICON = 128
GROUND, BRIGHT = "#12303f", "#f5f7f8"


def icon_grains() -> list[tuple[int, int, str]]:
    """Return the grains of noise in the icon: x, y and colour of squares of 8 × 8."""
    random = np.random.default_rng(4)
    grains = []
    for row in range(16):
        for column in range(16 - row - 1):
            x, y = 8 * column, 8 * row
            if min(x, y) < 8 or x + y > 112:
                continue
            fade = 1 - max(0.0, (x + y - 64) / 72)
            if float(random.uniform()) < 0.62 * fade:
                colour = (GROUND, "#6d8a99", BRIGHT, "#e07b2e")[int(random.integers(4))]
                grains.append((x, y, colour))
    return grains


def icon() -> Drawing:
    """A cell that is noisy above its diagonal and clean below."""
    drawing = Drawing(ICON, ICON, "nrrn-fiji", paper=False)
    drawing.parts.append(f'<rect width="{ICON}" height="{ICON}" rx="26" fill="{GROUND}"/>')
    drawing.parts.append(
        f'<circle cx="64" cy="64" r="36" fill="none" stroke="{BRIGHT}" stroke-width="11"/>'
        f'<circle cx="72" cy="70" r="11" fill="{BRIGHT}"/>'
    )
    for x, y, colour in icon_grains():
        drawing.parts.append(f'<rect x="{x}" y="{y}" width="8" height="8" fill="{colour}"/>')
    return drawing


def icon_pixels(side: int) -> NDArray[np.uint8]:
    """Return the same icon as an image (side, side, 4): red, green, blue and opacity."""
    fine = 8  # times as fine, and then averaged
    y, x = (np.mgrid[0 : side * fine, 0 : side * fine] + 0.5) * ICON / (side * fine)
    colours = {name: [int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in (GROUND, BRIGHT)}
    image = np.empty((*x.shape, 3))
    image[:] = colours[GROUND]
    ring = np.abs(np.hypot(x - 64, y - 64) - 36) < 5.5
    image[ring | (np.hypot(x - 72, y - 70) < 11)] = colours[BRIGHT]
    for left, top, name in icon_grains():
        grain = (x >= left) & (x < left + 8) & (y >= top) & (y < top + 8)
        image[grain] = [int(name[i : i + 2], 16) for i in (1, 3, 5)]
    from_corner = [np.maximum(0, np.maximum(26 - a, a - (ICON - 26))) for a in (x, y)]
    opacity = np.where(np.hypot(*from_corner) < 26, 255.0, 0.0)
    whole = np.dstack([image, opacity]).reshape(side, fine, side, fine, 4).mean(axis=(1, 3))
    return np.round(whole).astype(np.uint8)


def three_slices() -> Drawing:
    """Two pairs, one network, a mean: how a slice becomes clean."""
    drawing = Drawing(860, 400, "A slice is denoised once with each neighbour; the mean is kept")
    side = 96.0
    left, middle = 92.0, 200.0
    for row, (z, label) in enumerate(((-1, "x[j−1]"), (0, "x[j]"), (1, "x[j+1]"))):
        y = 72 + 128 * row
        drawing.image(left, y, side, cell(z) + noise(row), MEMORY if z else STATE)
        drawing.text(left + 58, y - 36, label, anchor="start", weight=600)
        word = "the slice" if z == 0 else "its neighbour"
        drawing.text(left + 58, y - 18, word, size=12.5, colour=SOFT, anchor="start")
    for y in (136.0, 264.0):
        drawing.box(372, y, 124, 72, "", colour=INK, fill="#f4f7f9")
        drawing.text(372, y + 1, "NRRN  f", size=17, weight=700)
        drawing.text(372, y + 20, "the same weights", size=11, colour=SOFT)
    drawing.arrow((left + 52, 86), (270, 86), (270, 122), (308, 122), colour=MEMORY)
    drawing.arrow(
        (left + 52, 192), (middle + 40, 192), (middle + 40, 152), (308, 152), colour=STATE
    )
    drawing.arrow(
        (left + 52, 208), (middle + 40, 208), (middle + 40, 248), (308, 248), colour=STATE
    )
    drawing.arrow((left + 52, 346), (270, 346), (270, 278), (308, 278), colour=MEMORY)
    for y, seed, name in ((136.0, 7, "a"), (264.0, 8, "b")):
        drawing.arrow((436, y), (474, y))
        drawing.image(522, y, 88, cell(0) + noise(seed, 0.035))
        drawing.text(576, y - 28, name, size=16, weight=600, anchor="start", italic=True)
    drawing.arrow((568, 136), (636, 136), (636, 186))
    drawing.arrow((568, 264), (636, 264), (636, 214))
    drawing.box(636, 200, 82, 28, "½ (a + b)", size=13)
    drawing.arrow((678, 200), (716, 200))
    drawing.image(772, 200, 108, cell(0) + noise(9, 0.02), NOISE)
    drawing.text(772, 276, "y[j]", weight=600)
    drawing.text(772, 294, "the denoised slice", size=12.5, colour=SOFT)
    return drawing


def one_branch() -> Drawing:
    """What flows through the building units of one branch."""
    drawing = Drawing(
        860, 372, "One branch: memory, state and image run through the building units"
    )
    memory, state, image = 60.0, 168.0, 300.0
    for y, words, colour in (
        (memory, "memory m", MEMORY),
        (state, "state s", STATE),
        (image, "image x̂", IMAGE),
    ):
        place = (66, y + 24) if y == image else (16, y - 32)
        drawing.text(*place, words, size=13, colour=colour, anchor="start", weight=600)
    drawing.image(52, memory + 8, 64, cell(1) + noise(1), MEMORY)
    drawing.image(52, state + 8, 64, cell(0) + noise(2), STATE)
    drawing.text(52, memory + 56, "neighbour", size=11.5, colour=SOFT)
    drawing.text(52, state + 56, "centre", size=11.5, colour=SOFT)
    for y, colour in ((memory, MEMORY), (state, STATE)):
        drawing.arrow((86, y), (106, y), colour=colour)
        drawing.box(146, y, 78, 32, "W0, ReLU", colour=colour, size=12)
    units = (258.0, 438.0, 618.0)
    drawing.arrow((52, 232), (52, image), (212, image), colour=IMAGE, head=False)
    names = ("1", "2", "L")
    ends = (*units[1:], 784.0)
    for number, (x, following, name) in enumerate(zip(units, ends, names, strict=True)):
        drawing.box(x, 114, 92, 168, "", colour=INK, fill="#f4f7f9")
        drawing.text(x, 108, "building", size=13, weight=600)
        drawing.text(x, 126, f"unit {name}", size=13, weight=600)
        start = 186.0 if number == 0 else units[number - 1] + 46
        for y, colour in ((memory, MEMORY), (state, STATE)):
            gap = number == 2
            drawing.arrow((start, y), (x - 46, y), colour=colour, dashed=gap)
        drawing.arrow((x, 198), (x, image - 12), colour=NOISE)
        drawing.text(x - 8, 246, "NAtt(h)", size=12.5, colour=NOISE, anchor="end", weight=600)
        drawing.dot(x, image, "+", IMAGE)
        before = 212.0 if number == 0 else units[number - 1] + 11
        drawing.arrow((before, image), (x - 12, image), colour=IMAGE, dashed=number == 2)
        place = (x + following) / 2 + (8 if number < 2 else -22)
        drawing.text(place, image - 9, f"x̂[{name}]", size=12.5, colour=IMAGE, weight=600)
        if number < 2:
            drawing.arrow(
                (x + 34, image), (x + 34, 222), (x + 70, 222), (x + 70, state + 6),
                colour=STATE, dashed=True,
            )  # fmt: skip
    drawing.text(units[0] + 76, 212, "tanh", size=11.5, colour=STATE, anchor="start")
    last = units[2]
    drawing.arrow((last + 46, state), (700, state), colour=STATE)
    drawing.box(742, state, 82, 32, "W2, NAtt", colour=NOISE, size=12)
    drawing.arrow((784, 184), (784, image - 12), colour=NOISE)
    drawing.dot(784, image, "+", IMAGE)
    drawing.arrow((last + 11, image), (772, image), colour=IMAGE)
    drawing.arrow((796, image), (826, image), colour=IMAGE)
    drawing.text(838, image + 6, "f", size=18, weight=700, italic=True)
    drawing.text(
        430, 352, "Every x̂ is an image one can look at; every NAtt is what that unit took away.",
        size=12.5, colour=SOFT,
    )  # fmt: skip
    return drawing


def inside_unit() -> Drawing:
    """The gates of one building unit."""
    drawing = Drawing(860, 430, "Inside a building unit: reset, update, candidate, noise attention")
    drawing.box(412, 206, 620, 372, "", colour=FAINT, fill="#fafbfc", dashed=True)
    drawing.text(48, 76, "m[l−1]", colour=MEMORY, weight=600)
    drawing.arrow((78, 72), (126, 72), colour=MEMORY)
    drawing.box(170, 72, 84, 34, "tanh W1", colour=MEMORY, size=13)
    drawing.arrow((212, 72), (760, 72), colour=MEMORY)
    drawing.text(794, 77, "m[l]", colour=MEMORY, weight=600)
    drawing.text(48, 336, "s[l−1]", colour=STATE, weight=600)
    drawing.arrow((78, 332), (530, 332), colour=STATE, head=False)
    gates = ((246.0, "reset  r", "sigmoid"), (394.0, "update  u", "sigmoid"))
    for x, name, function in gates:
        drawing.box(x, 204, 134, 58, "", colour=INK)
        drawing.text(x, 200, name, weight=600)
        drawing.text(x, 219, f"{function}(V m + W s)", size=11, colour=SOFT)
        drawing.arrow((x - 22, 72), (x - 22, 174), colour=MEMORY)
        drawing.arrow((x - 22, 332), (x - 22, 235), colour=STATE)
    drawing.box(548, 204, 138, 58, "", colour=INK)
    drawing.text(548, 200, "candidate  c", weight=600)
    drawing.text(548, 219, "tanh(W s + r o V m)", size=11, colour=SOFT)
    drawing.arrow((514, 72), (514, 174), colour=MEMORY)
    drawing.arrow((514, 332), (514, 235), colour=STATE)
    drawing.arrow((266, 234), (266, 284), (470, 284), (470, 204), (478, 204), colour=INK)
    drawing.text(280, 301, "r", size=13, weight=600, italic=True)
    drawing.box(664, 150, 100, 46, "", colour=INK, fill="#f4f7f9")
    drawing.text(664, 146, "mix  h", weight=600)
    drawing.text(664, 163, "u m + (1−u) c", size=11, colour=SOFT)
    drawing.arrow((656, 72), (656, 126), colour=MEMORY)
    drawing.arrow((414, 174), (414, 140), (612, 140), colour=INK)
    drawing.text(428, 133, "u", size=13, weight=600, italic=True)
    drawing.arrow((618, 204), (660, 204), (660, 175), colour=INK)
    drawing.text(632, 197, "c", size=13, weight=600, italic=True)
    drawing.arrow((715, 150), (791, 150), (791, 226), colour=NOISE)
    drawing.box(791, 250, 128, 48, "", colour=NOISE)
    drawing.text(791, 246, "noise attention", size=12.5, colour=NOISE, weight=600)
    drawing.text(791, 264, "h₀ o sigmoid(max h)", size=10, colour=SOFT)
    drawing.arrow((791, 274), (791, 316), colour=NOISE)
    drawing.dot(791, 328, "+", IMAGE)
    drawing.text(610, 372, "x̂[l−1]", weight=600)
    drawing.arrow((642, 368), (700, 368), (700, 328), (779, 328), colour=IMAGE)
    drawing.arrow((803, 328), (822, 328), colour=IMAGE)
    drawing.text(841, 333, "x̂[l]", weight=600)
    drawing.text(
        404, 416, "s[l] is h with its first map replaced by tanh(x̂[l]): the next unit sees how far "
        "it has got.", size=12.5, colour=SOFT,
    )  # fmt: skip
    return drawing


def tile_and_halo() -> Drawing:
    """Why tiles leave no seams."""
    drawing = Drawing(860, 330, "A tile with L + 3 real pixels around it equals the whole image")
    drawing.image(160, 160, 260, cell(0) + noise(3, 0.16))
    for place in (-43.0, 44.0):
        drawing.arrow((160 + place, 30), (160 + place, 290), colour=PAPER, head=False)
        drawing.arrow((30, 160 + place), (290, 160 + place), colour=PAPER, head=False)
    drawing.box(160.5, 160.5, 87, 87, "", colour=NOISE, fill="none")
    drawing.box(160.5, 160.5, 125, 125, "", colour=MEMORY, fill="none", dashed=True)
    drawing.arrow((224, 132), (380, 92), colour=MEMORY)
    drawing.text(392, 86, "the tile and its halo: L + 3 real pixels on every side,", size=13.5,
                 colour=MEMORY, anchor="start", weight=600)  # fmt: skip
    drawing.text(392, 106, "exactly as far as the network sees", size=13.5, colour=MEMORY,
                 anchor="start", weight=600)  # fmt: skip
    drawing.arrow((206, 176), (380, 186), colour=NOISE)
    drawing.text(392, 182, "what is kept: equal to the image denoised as a whole,", size=13.5,
                 colour=NOISE, anchor="start", weight=600)  # fmt: skip
    drawing.text(392, 202, "whatever the size of the tiles (to 1e-5 in fp32)", size=13.5,
                 colour=NOISE, anchor="start", weight=600)  # fmt: skip
    drawing.text(392, 262, "Nothing is blended at borders, and nothing is normalised per tile:",
                 size=13, colour=SOFT, anchor="start")  # fmt: skip
    drawing.text(392, 281, "one mapping of grey values holds for the whole volume.", size=13,
                 colour=SOFT, anchor="start")  # fmt: skip
    return drawing


def masked_centre() -> Drawing:
    """How a network learns from the noisy stack alone."""
    drawing = Drawing(860, 300, "Training without clean images: hidden pixels must be predicted")
    noisy = cell(0) + noise(2)
    hidden = np.random.default_rng(5).uniform(size=noisy.shape) < 0.15
    swapped = np.where(hidden, np.roll(noisy, (1, 2), (0, 1)), noisy)
    drawing.image(106, 128, 150, swapped)
    cell_size = 150 / GRAINS
    for row, column in np.argwhere(hidden):
        x, y = 31 + cell_size * column, 53 + cell_size * row
        drawing.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{cell_size:g}" height="{cell_size:g}" '
            f'fill="none" stroke="{NOISE}" stroke-width="1"/>'
        )
    drawing.text(106, 228, "some pixels are hidden", size=13, weight=600)
    drawing.text(106, 247, "(each has a value from beside it)", size=12, colour=SOFT)
    drawing.arrow((186, 128), (238, 128))
    drawing.box(306, 128, 130, 62, "", fill="#f4f7f9")
    drawing.text(306, 126, "NRRN", size=17, weight=700)
    drawing.text(306, 145, "and both neighbours", size=10.5, colour=SOFT)
    drawing.arrow((374, 128), (424, 128))
    drawing.image(504, 128, 150, cell(0) + noise(9, 0.04))
    drawing.text(504, 228, "its prediction", size=13, weight=600)
    drawing.dot(628, 128, "−", NOISE)
    drawing.arrow((580, 128), (614, 128))
    drawing.image(752, 128, 150, noisy)
    drawing.arrow((676, 128), (642, 128))
    drawing.text(752, 228, "the noisy slice", size=13, weight=600)
    drawing.text(752, 247, "as it was recorded", size=12, colour=SOFT)
    drawing.text(
        430, 284, "The error counts at hidden pixels only. Their noise cannot be guessed, their "
        "structure can: so structure is what is learnt.", size=13, colour=SOFT,
    )  # fmt: skip
    return drawing


DRAWINGS = {
    "icon": icon,
    "method-slices": three_slices,
    "method-branch": one_branch,
    "method-unit": inside_unit,
    "method-tiles": tile_and_halo,
    "method-masked": masked_centre,
}


def main(folder: Path) -> None:
    """Draw everything into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        draw().save(folder / f"{name}.svg")
    imageio.imwrite(folder / "icon.png", icon_pixels(64))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "images")
