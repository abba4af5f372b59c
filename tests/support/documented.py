"""The commands that the pages for operators tell to type."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("installing.md", "taking-over.md", "operating.md")


def commands(page: str) -> list[str]:
    """Those after `$` in a page's console blocks."""
    text = (DOCS / page).read_text()
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
