"""The site: `make docs` builds it from these pages and from the sources, offline."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the extensions beside this file

project = "ebpf-lb"
author = "the ebpf-lb authors"
release = version_of("ebpf-lb")

extensions = [
    "myst_parser",
    "sphinx_click",
    "docs.extensions.rule_pages",
    "docs.extensions.reference",
]
exclude_patterns = ["extensions"]
nitpicky = True
highlight_language = "text"

myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "ebpf-lb"
html_show_copyright = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
