"""Sphinx settings: MyST pages, Furo, every reference checked (`-W -n`)."""

from __future__ import annotations

import tinker_officer


project = "tinker_officer"
author = "the tinker_officer authors"
release = version = tinker_officer.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "tinker_officer"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
default_role = "code"
# What other packages document on their own sites.
nitpick_ignore_regex = [(r"py:.*", r"(?!tinker_officer\.).*")]
