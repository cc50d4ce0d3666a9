"""The site: `make docs` builds the pages of this folder, and the reference that is made from docstrings and commands."""

from importlib import metadata
from typing import Any

from docutils import nodes
from sphinx.addnodes import desc_annotation
from sphinx.application import Sphinx

project = "kappa-rtl"
author = copyright = "The kappa-rtl authors"
version = release = metadata.version("kappa-rtl")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
html_theme = "furo"
html_title = "kappa-rtl"
html_copy_source = False
smartquotes = False  # the two dashes of an option are two dashes

# The pages are read on plain git hosts too, where a heading is linked by its words.
myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "elaborate",  # how a component is built, which is no part of its contract
}
autodoc_preserve_defaults = True
autodoc_mock_imports = ["keras", "torch"]  # the site is built without them
add_module_names = False
autodoc_typehints_format = "short"
autodoc_type_aliases = {
    name: name for name in ("Array", "ArrayLike", "Codes", "DTypeLike", "Floats", "Function", "Index", "Integers", "Vector")
}
napoleon_numpy_docstring = False

# References must lead somewhere within this project; the names of other packages stay text.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!kappa_rtl\.).*")]
suppress_warnings = ["ref.python"]  # a bare name in an annotation that two rooms have, such as Estimator, leads to neither


def setup(app: Sphinx) -> None:
    """Called by Sphinx; the priority puts the handler before that of napoleon."""
    app.connect("autodoc-process-docstring", _attribute, priority=400)
    app.connect("doctree-read", _values)


def _attribute(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what in ("attribute", "data", "property"):
        # Napoleon takes what stands before a colon in the first line for the type: an empty word makes that line another one.
        lines.insert(0, "\\")


def _values(app: Sphinx, doctree: nodes.document) -> None:
    """Take long values away: what a table of the code holds is said below its name."""
    for node in list(doctree.findall(desc_annotation)):
        if node.astext().startswith(" = ") and len(node.astext()) > 130:
            node.parent.remove(node)
