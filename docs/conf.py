"""How Sphinx builds the site: ``python -m sphinx -W --keep-going docs docs/_build``."""

import inspect
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import pages  # noqa: E402
from docutils import nodes  # noqa: E402

import graphunlearn  # noqa: E402

pages.write(HERE / "generated")

project = "graphunlearn"
copyright = author = "the graphunlearn developers"
release = version = graphunlearn.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
exclude_patterns = ["_build", "generated/tables", "generated/which-method.md"]

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # those of torch.nn.Module say nothing of ours
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes that are properties as well are documented once
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

myst_enable_extensions = ["deflist", "dollarmath", "substitution"]
myst_substitutions = pages.figures()
myst_heading_anchors = 3
nb_execution_mode = "off"  # the outputs are stored in the notebooks, and the tests run them

html_theme = "furo"
html_title = f"graphunlearn {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
COLON = "\N{RATIO}"


def documented(app, what, name, value, options, lines):
    """Make docstrings what they are written as, before their sections are read."""
    if what == "function" and not inspect.isroutine(value):  # called like a function, such as ``encode``
        lines[:] = [*inspect.cleandoc(type(value).__call__.__doc__).splitlines(), ""]
    if what in ("attribute", "data", "property") and lines:  # the words before a colon are not its type
        lines[0] = lines[0].replace(": ", COLON)


def restored(app, what, name, value, options, lines):
    """Put the colons back."""
    lines[:] = [line.replace(COLON, ": ") for line in lines]


def unposted(app, doctree):
    """Leave ``Recall@20`` and the like without a link: they are no addresses to write to."""
    for node in list(doctree.findall(nodes.reference)):
        if node.get("refuri", "").startswith("mailto:"):
            node.parent.replace(node, nodes.Text(node.astext()))


def resolved(app, env, node, contnode):
    """Find what docstrings name without its module, or by the module that it is defined in."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    name = target.rpartition(".")[2] if target.startswith("graphunlearn.") else target
    domain = env.domains["py"]
    found = [known for known, entry in domain.objects.items() if known.endswith(f".{name}") and not entry.aliased]
    if len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, contnode)


def setup(app):
    """Connect them."""
    app.connect("autodoc-process-docstring", documented, priority=400)
    app.connect("autodoc-process-docstring", restored, priority=600)
    app.connect("doctree-read", unposted)
    app.connect("missing-reference", resolved)
