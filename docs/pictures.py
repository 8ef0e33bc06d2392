"""The pictures of README and the pages: `python docs/pictures.py` draws them all; reports need Chromium.

`terminal.svg` shows the README's own console blocks, which the tests execute, line by line as they appear; a test
compares it with them. The photos are of the live reports of the site, light and dark.
"""

from __future__ import annotations

import html
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
IMAGES = FOLDER / "images"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = ("calibrate", "quantize", "evaluate")
"""Verbs whose first block in the README is in the recording."""
COLUMNS = 88
CHARACTER, LINE, MARGIN = 8.43, 20, 22
"""Pixels of a character of 14 pixels, between two lines, and around the text."""
TYPED, PRINTED, PAUSE = 0.025, 0.07, 0.9
"""Seconds for a typed character, for a printed line, and before the next command."""
COLOURS = (
    (r"\$ ", "p"),
    (r"• |.*(?<!\S)(?:gains|loses) ", "v"),
    (r"⋮", "d"),
    (r"wrote ", "w"),
    (r"(?:model|tensor|class)  ", "h"),
)
STYLE = """
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d6deeb;white-space:pre}
.p{fill:#fff;font-weight:600}.v{fill:#9be15d}.d{fill:#6b7f92}.w{fill:#7fdbca}.h{fill:#8fa6bd}
text{animation:a .12s backwards}@keyframes a{from{opacity:0}}
@media (prefers-reduced-motion:reduce){text{animation:none}}
"""
WIDTH = 1000
PHOTOS = {
    "report": ("evaluation", "", 1130),
    "map": ("map", "", 780),
    "layers": ("layers", "", 860),
    "detector": ("detector", "scenes", 590),
}
"""Picture → the live report, its one section that is shown (all if empty), and the height of the window."""
SCALE = 0.8


def recorded(readme: str) -> list[str]:
    """The lines of the recording, as in the bundled folder; elided lines are a vertical ellipsis."""
    lines: list[str] = []
    blocks = BLOCK.findall(readme)
    for verb in SHOWN:
        block = next(text for text in blocks if text.startswith(f"$ quantkit {verb} "))
        lines += ["", *(first_command(block).replace("calibration_data/", "").splitlines())]
    return [part for line in lines[1:] for part in wrapped("⋮" if line == "..." else line)]


def first_command(block: str) -> str:
    """A console block as far as its second command."""
    return "$ " + block.removeprefix("$ ").split("\n$ ")[0].rstrip("\n")


def wrapped(line: str) -> list[str]:
    """A line in pieces that fit the picture, broken at spaces."""
    pieces = []
    while len(line) > COLUMNS:
        cut = line.rfind(" ", 0, COLUMNS)
        pieces.append(line[:cut])
        line = f"  {line[cut + 1 :]}"
    return [*pieces, line]


def terminal_svg(readme: str) -> str:
    """The recording as an SVG that plays once, without scripts."""
    lines = recorded(readme)
    width, height = round(COLUMNS * CHARACTER + 2 * MARGIN), len(lines) * LINE + 2 * MARGIN + 24
    texts, clock, kind = [], 0.3, ""
    for number, line in enumerate(lines):
        if not line.startswith("  "):
            kind = next((name for pattern, name in COLOURS if re.match(pattern, line)), "")
        if line:
            place = f'x="{MARGIN}" y="{MARGIN + 24 + number * LINE + 14}"'
            mark = f' class="{kind}"' if kind else ""
            texts.append(f'<text {place}{mark} style="animation-delay:{clock:.2f}s">{html.escape(line)}</text>')
        clock += PAUSE + TYPED * len(line) if line.startswith("$ ") else PRINTED if line else PAUSE
    dots = "".join(f'<circle cx="{x}" cy="20" r="6" fill="#34495a"/>' for x in (24, 44, 64))
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
        "<title>quantkit calibrates, quantizes and evaluates the bundled network</title>\n"
        f"<style>{STYLE}</style>\n"
        f'<rect width="{width}" height="{height}" rx="10" fill="#0b1b26"/>{dots}\n' + "\n".join(texts) + "\n</svg>\n"
    )


def screenshot(page: str, section: str, height: int, *, dark: bool) -> bytes:
    """The head of a page, or of a section of it, as a small PNG."""
    from PIL import Image

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = f"header, nav, section:not(#{section}) {{ display: none; }}" if section else ""
        (folder / "page.html").write_text(page.replace("</head>", f"<style>{others}</style></head>"), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        options += ["--blink-settings=preferredColorScheme=0", "--force-dark-mode"] if dark else []
        options += [f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{height}"]
        command = [browser, *options, f"--screenshot={folder / 'page.png'}", (folder / "page.html").as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        with Image.open(folder / "page.png") as taken:
            small = taken.convert("RGB").resize((round(WIDTH * SCALE), round(height * SCALE)), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    small.quantize(96, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(written, "png", optimize=True)
    return written.getvalue()


def main() -> None:
    """Draw all pictures."""
    sys.path.insert(0, str(FOLDER))
    from example_reports import reports

    (IMAGES / "terminal.svg").write_text(terminal_svg((FOLDER.parent / "README.md").read_text("utf-8")), "utf-8")
    pages = reports()
    for picture, (name, section, height) in PHOTOS.items():
        for dark in (False, True):
            target = IMAGES / f"{picture}{'-dark' if dark else ''}.png"
            target.write_bytes(screenshot(pages[name], section, height, dark=dark))


if __name__ == "__main__":
    main()
