"""Pages of the tutorial: how a step becomes one, and those that the site has."""

from pathlib import Path

import pytest

from ebpf_lb.lessons.tutorial import course, page
from ebpf_lb.lessons.tutorial.course import STEPS, Step
from ebpf_lb.lessons.tutorial.page import Manifest, Picture

PAGES = Path(__file__).parents[3] / "docs" / "tutorial"


def test_sentences_what_was_seen_and_pictures(tmp_path: Path) -> None:
    told = [
        "\nOne sentence in\ntwo lines with __init__:",
        "  $ command",
        "    {",
        "      x",
        "    ",
        "    }",
        Picture("drawing", "What it shows", "<svg/>"),
        "\nAnother.",
        Manifest("\nkind: Service\n"),
        "  $ command",
        "",
    ]
    path = page.write(tmp_path, "name", "3. Title", "What it is about.", told)
    assert path.read_text() == (
        "# 3. Title\n\n"
        "What it is about.\n\n"
        "One sentence in two lines with \\_\\_init\\_\\_:\n\n"
        "```text\n$ command\n  {\n    x\n\n  }\n```\n\n"
        "![What it shows](drawing.svg)\n\n"
        "Another.\n\n"
        "<details><summary>The manifest</summary>\n\n"
        "```yaml\nkind: Service\n```\n\n</details>\n\n"
        "```text\n$ command\n```\n"
    )
    assert (tmp_path / "drawing.svg").read_text() == "<svg/>"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_site_has_a_page_of_each_step(step: Step) -> None:
    """`ebpf-lb lab tutorial --pages docs/tutorial` writes it anew."""
    text = (PAGES / f"{step.name}.md").read_text()
    assert text.startswith(page.page(course.title(step), step.text, []))
    assert "```text\n$ ebpf-lb lab " in text
    pictures = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if "](" in line]
    assert all((PAGES / name).read_text().startswith("<svg") for name in pictures)
    assert bool(pictures) is (step.name in ("outside", "network"))


def test_the_index_leads_to_each_page_in_order() -> None:
    lines = (PAGES / "index.md").read_text().splitlines()
    names = [step.name for step in STEPS]
    assert [line for line in lines if line in names] == names
