"""A scenario of your own, from its folder."""

from pathlib import Path

import pytest

from ebpf_lb.lessons.scenarios.catalog import (
    BadScenarioError,
    NoSuchScenarioError,
    load,
    names,
)

GOOD = """\
title: Mine
lesson: What it shows.
client: pod/asker
service: web
address: clusterIP
outcome: answered
"""


def folder(where: Path, text: str | None = GOOD, name: str = "mine") -> str:
    path = where / name
    path.mkdir()
    (path / "manifests.yaml").write_text("")
    if text is not None:
        (path / "scenario.yaml").write_text(text)
    return str(path)


def test_it_is_read_from_its_folder(tmp_path: Path) -> None:
    mine = load(folder(tmp_path))
    assert (mine.name, mine.namespace, mine.title) == ("mine", "scenario-mine", "Mine")
    assert mine.manifests == tmp_path / "mine" / "manifests.yaml"


def test_those_of_the_catalog_are_found_by_name() -> None:
    assert all(load(name).manifests.is_file() for name in names())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "has no scenario.yaml"),
        ("[", "cannot be read"),
        ("- 1", "is not a mapping"),
        (GOOD + "colour: red\n", "'colour' is not known"),
        (GOOD + "nodes: many\n", "nodes must be a number"),
        (GOOD.replace("title: Mine\n", ""), "title is missing"),
        (GOOD.replace("clusterIP", "anywhere"), "address must be one of clusterIP"),
        (GOOD.replace("answered", "lost"), "outcome must be one of answered"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str | None, sentence: str) -> None:
    with pytest.raises(BadScenarioError, match=sentence):
        load(folder(tmp_path, text))


def test_names_that_cannot_be_a_namespaces(tmp_path: Path) -> None:
    with pytest.raises(BadScenarioError, match="lower-case"):
        load(folder(tmp_path, name="My_Own"))


def test_neither_a_name_nor_a_folder() -> None:
    with pytest.raises(NoSuchScenarioError, match="by its folder"):
        load("nowhere")
