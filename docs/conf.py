"""Sphinx configuration: Markdown by MyST, pages generated from the package by `_ext`."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]
# help texts of the commands wrap at the terminal's width, which a build has none of
os.environ["COLUMNS"] = "84"

from mu.utils.version import __version__  # noqa: E402

project = "mu"
author = "The mu contributors"
copyright = author
version = __version__
release = version

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.doctest",
    "sphinx_design",
    "sphinx_copybutton",
    "docstring_markup",
    "generated_pages",
]
source_suffix = {".md": "myst-nb"}
exclude_patterns = ["_build", "_ext", "_generated", "examples"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# tutorials are executed once and then taken from the cache; without MU_EXECUTE they have no output
nb_execution_mode = "cache" if os.environ.get("MU_EXECUTE") else "off"
nb_execution_cache_path = str(DOCS / "_build/jupyter_cache")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 1800
suppress_warnings = ["misc.highlighting_failure"]

autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "code"
highlight_language = "python"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"mu {version}"
html_static_path = ["_static"]
html_css_files = ["mu.css"]
html_copy_source = False
html_show_sourcelink = False
