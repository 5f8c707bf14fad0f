"""How `make docs` builds the pages: from the clone's own files, in place, without a network.

The source folder is the clone's root, so that a link between pages is the same one here and where the repository is
browsed. Pages are those under docs/, the notebooks with what they showed when they were committed, the tables of
experiments/results, and the changelog.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_extensions"))

import xbm_jax

project = "xbm_jax"
author = copyright = "The xbm_jax authors"
version = release = xbm_jax.__version__
language = "en"

root_doc = "docs/index"
include_patterns = ["docs/**.md", "notebooks/*.ipynb", "experiments/results/**.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "build", "dist", "runs", "src", "tests", "**/.ipynb_checkpoints", "**/__pycache__"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "public_names", "plain"]

nb_execution_mode = "off"  # a notebook stands as it was committed; tests run it
nb_ipywidgets_js = {}  # no script from elsewhere
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "sphinx_book_theme"
html_title = "xbm_jax"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_additional_pages = {"index": "to_first_page.html"}
templates_path = ["_templates"]
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
}
html_copy_source = False
html_show_sourcelink = False
