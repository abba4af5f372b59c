"""Rules on the site: ids that can be linked to, and the page from each to its code and tests."""

from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from docs.extensions import rules

_PAGE = "semantics"


class RuleRole(SphinxRole):
    """{rule}`EP-1`: a link to where the law defines it."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        one = self.text.strip()
        if one not in {rule.id for rule in rules.defined(rules.LAW.read_text())}:
            message = self.inliner.reporter.error(f"no rule has the id {one}", line=self.lineno)
            return [], [message]
        link = pending_xref(
            "",
            nodes.inline("", one, classes=["rule"]),
            refdomain="",
            reftype="rule",
            refdoc=self.env.docname,
            reftarget=one,
        )
        return [link], []


class DefinedRole(SphinxRole):
    """The same where it is defined: the anchor."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return [nodes.inline("", self.text, ids=[self.text.lower()], classes=["rule"])], []


def _tell_definitions(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == _PAGE:
        source[0] = rules.DEFINITION.sub(
            lambda match: match[0].replace("{rule}", "{defined-rule}", 1), source[0]
        )


class RulesTable(SphinxDirective):
    """Every rule with the code that carries it and the tests that hold it."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        code, tests = rules.in_code(), rules.in_tests()
        waiting = rules.not_held_yet(rules.NOT_HELD_YET.read_text())
        rows = ["| Rule | Carried by, held by |", "|---|---|"]
        for rule in rules.defined(rules.LAW.read_text()):
            lines = [
                *_lines(code.get(rule.id, ())),
                *_lines(tests.get(rule.id, ())),
                *([f"*not held yet*: {waiting[rule.id]}"] if rule.id in waiting else ()),
            ]
            rows.append(f"| {{rule}}`{rule.id}`<br>{rule.title} | {'<br>'.join(lines)} |")
        return self.parse_text_to_nodes("\n".join(rows))


def _lines(places: Iterable[rules.Place]) -> list[str]:
    return [f"`{place}`" for place in sorted(places)]


def _resolve(app: Sphinx, env: Any, node: pending_xref, content: nodes.Element) -> Any:
    if node.get("reftype") != "rule":
        return None
    assert app.builder is not None
    uri = app.builder.get_relative_uri(node["refdoc"], _PAGE) + "#" + node["reftarget"].lower()
    return nodes.reference("", "", content, internal=True, refuri=uri, classes=["rule"])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("rule", RuleRole())
    app.add_role("defined-rule", DefinedRole())
    app.connect("source-read", _tell_definitions)
    app.add_directive("rules-table", RulesTable)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "version": "1"}
