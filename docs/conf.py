"""How Sphinx builds the documentation: make docs."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from hsw import __version__  # noqa: E402

project = "hsw"
release = version = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "reference_pages.sphinx_hooks",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"hsw {__version__}"

# MyST: a heading's anchor is what GitHub makes of it, and a link to one that is not there is a warning.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline", "colon_fence", "html_image"]

# Docstrings are Google's; the hooks say what a parameter may be, so that signatures need not.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
