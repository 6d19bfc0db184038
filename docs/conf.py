"""The documentation: Markdown pages as they stand, built by `make docs`; what it is and why, in decisions/0008-documentation.md."""

from __future__ import annotations

import re
from pathlib import Path

import degla

project = "degla"
author = "The degla authors"
copyright = "2026 The degla authors, MIT licence"
version = release = degla.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist"]
myst_fence_as_directive = ["math"]
html_math_renderer = "mathml"
myst_heading_anchors = 6
# Not every page of a study need be in the navigation; tests/test_docs.py holds which must.
# Sizes in shapes ("batch text") are looked up as names, and several losses have a field of such a name.
suppress_warnings = ["toc.not_included", "ref.python"]
highlight_language = "none"

html_theme = "pydata_sphinx_theme"
html_title = f"degla {version}"
html_copy_source = False
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["degla.css"]
html_js_files = [("copy.js", {"defer": "defer"})]
html_sidebars = {"**": ["navigation"]}
html_context = {"default_mode": "auto"}
# Summaries of what a search finds would be fetched, which no browser does for pages opened as files.
html_show_search_summary = False
html_use_index = html_domain_indices = False
html_theme_options = {
    "logo": {"text": "degla"},
    # Every page shows all of the navigation at its side; the header holds none.
    "navbar_start": ["navbar-logo", "versions"],
    "navbar_center": [],
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": False,
    # Not beside studies: their tables have more use for the width than their few headings.
    "secondary_sidebar_items": {"*": ["page-toc"], "decisions/*": ["page-toc"]},
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

# Docstrings write `code` in single backquotes.
default_role = "code"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True

NAVIGATION = """
```{toctree}
:hidden:
:caption: Start

Overview <self>
Quick start <quick-start>
Which method, which settings? <choosing>
Papers and recipes <papers>
```
```{toctree}
:hidden:
:caption: Guides

Negatives <negatives>
Inspecting and exporting negatives <negatives-report>
Balanced negatives and hard positives <negatives-balance>
Negatives from a server <negatives-server>
The embedded language model <negatives-embedded>
In-context examples <negatives-examples>
Data <data>
Models <model>
Losses <losses>
Training <training>
Evaluation <evaluation>
Models in the browser <app>
Import and export <export>
Studies <studies>
The paper's tables <reproduce>
The embedded world <world>
Photographs <photographs>
Related systems <systems>
ExCon <systems-excon>
PointACL <systems-pointacl>
UGCL <systems-ugcl>
Contextualization <systems-contextualization>
FREE <systems-free>
Python API <api>
```
```{toctree}
:hidden:
:caption: Results in the embedded world

Overview <results>
All methods <studies/methods/study>
Methods, standardised <studies/methods_standardised/study>
Main methods in three worlds <studies/headline/study>
Ablation of DeGLA's losses <studies/degla_ablation/study>
Gain-loss frontiers <studies/frontier/study>
Frontiers at chosen settings <studies/frontier_chosen/study>
Effect of the negatives <studies/rules/study>
Checked and unchecked negatives <studies/negatives/world-1000/study>
Newer methods <studies/rivals/study>
Sigmoid loss <studies/sigmoid/study>
degla_plus against degla <studies/held_out/study>
Search for degla_plus <studies/degla_plus/search>
Tasks in sequence <studies/continual/continual>
Related systems with negclip <studies/clip_forms/study>
Related systems with degla <studies/clip_forms_degla/study>
Settings of related systems <studies/clip_search/study>
```
```{toctree}
:hidden:
:caption: Results on photographs

Methods <studies/photographs/study>
Learning rates <studies/photographs_rates/study>
Sigmoid loss <studies/photographs_sigmoid/study>
Learning rates of the sigmoid loss <studies/photographs_sigmoid_rates/study>
Ablation of DeGLA's losses <studies/photographs_degla/study>
Search for a recipe <studies/photographs_search/study>
Questions that text does not answer <studies/photographs_balanced_questions/study>
Questions that text does not answer: all captions <studies/photographs_balanced_second_half/study>
Questions that text does not answer: first half of dev <studies/photographs_balanced_first_half/study>
Questions that text does not answer: other photographs <studies/photographs_balanced_other_photographs/study>
Methods, standardised <studies/photographs_standardised/study>
Questions that text does not answer: all captions, standardised <studies/photographs_balanced_second_half_standardised/study>
Questions that text does not answer: first half of dev, standardised <studies/photographs_balanced_first_half_standardised/study>
Half-truths and negation <studies/photographs_truths/study>
Balanced negatives <studies/photographs_balance/study>
Image tower trained <studies/photographs_image/study>
Image tower trained, standardised <studies/photographs_image_standardised/study>
Image tower trained: all captions <studies/photographs_image_second_half/study>
Image tower trained: first half of dev <studies/photographs_image_first_half/study>
Image tower trained: all captions, standardised <studies/photographs_image_second_half_standardised/study>
Image tower trained: first half of dev, standardised <studies/photographs_image_first_half_standardised/study>
What is learnt: new photographs <studies/photographs_fit/study>
What is learnt: trained pairs <studies/photographs_fit_pairs/study>
What is learnt: other captions <studies/photographs_fit_photographs/study>
More captions: new photographs <studies/photographs_more/study>
More captions: first half of dev <studies/photographs_more_first_half/study>
More captions: trained pairs <studies/photographs_more_pairs/study>
Text tower of language: new photographs <studies/photographs_minilm/study>
Text tower of language: trained pairs <studies/photographs_minilm_pairs/study>
Text tower of language, 1,000 steps: new photographs <studies/photographs_minilm_long/study>
Text tower of language, 1,000 steps: first half of dev <studies/photographs_minilm_long_first_half/study>
Text tower of language, 1,000 steps: trained pairs <studies/photographs_minilm_long_pairs/study>
Learning rates of the text tower of language <studies/photographs_minilm_rates/study>
```
```{toctree}
:hidden:
:caption: Records

Log <log>
```
```{toctree}
:hidden:
:caption: Decisions
:glob:

decisions/*
```
"""


def _navigate(app, name, source):
    """The navigation stands here, so that the front page reads well elsewhere too."""
    if name == "index":
        source[0] += NAVIGATION


def _keep_columns(app, what, name, thing, options, lines):
    """Formula, Shapes, ... of a docstring are columns of plain text: keep them as they are written. So is what a module indents."""
    text = re.sub(
        r"(?m)^(?:(?:Formula|Shapes|Scope|Source|Differs|Cost):.*\n(?:[ \t]+\S.*\n?)*)+",
        lambda found: "::\n\n" + re.sub(r"(?m)^", "    ", found[0]) + "\n",
        "\n".join(lines),
    )
    if what == "module":
        text = re.sub(r"(?m)(^\S.*)\n\n(?=    \S)", r"\1\n\n::\n\n", text)
    lines[:] = text.split("\n")


def _keep_sentences(app, what, name, thing, options, lines):
    """Napoleon takes what stands before a colon in an attribute's first line for its type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # An empty comment is now the first line.


def breakable(code):
    """The same code, in which no line breaks behind the dashes of a flag, nor inside of a note that spaces set apart."""

    def note(line):
        balanced = line[2].count("<span") == line[2].count("</span")
        return f'{line[1]}<span class="note">{line[2]}</span>' if balanced else line[0]

    code = re.sub(r"(?<=[ >])--[\w.]+", r'<span class="flag">\g<0></span>', code)
    return re.sub(r"(?m)^( *\S.*? {4,})(\S.*)$", note, code)


def _break_code(app, page, template, context, tree):
    if "body" in context:
        context["body"] = re.sub(
            r'(?s)<pre>.*?</pre>|<span class="pre">.*?</span>', lambda found: breakable(found[0]), context["body"]
        )


def whole_numbers(text):
    """The same text with spaces that no line breaks at, between a number and its unit or interval, and inside of it."""
    return re.sub(r"(?<=[\d%]) (?=[±%]|\[[+−-]?\d)|(?<=±) |(?<=\d,) (?=[+−-]?[\d.]+\])", "\N{NO-BREAK SPACE}", text)


def interval_below(text):
    """The same text of `whole_numbers`, where an interval may stand on the line below its number."""
    return re.sub(r"(?<=[\d%])\N{NO-BREAK SPACE}(?=[±\[])", " ", text)


def _keep_numbers_whole(app, tree):
    """A number in a cell stands on one line with its interval; of many columns the interval may stand below it."""
    from docutils import nodes

    for table in tree.findall(nodes.tgroup):
        fit = interval_below if table["cols"] > 6 else str
        for cell in table.findall(nodes.entry):
            for code in cell.findall(nodes.literal):
                if "::" in code.astext():  # The path of a test: no column is as wide.
                    code["classes"].append("path")
            for text in list(cell.findall(nodes.Text)):
                if not isinstance(text.parent, nodes.literal):  # Code is copied as it stands.
                    text.parent.replace(text, nodes.Text(fit(whole_numbers(text))))


def _show_math(writer, node):
    """A formula as MathML, which browsers show without a script or a font from elsewhere."""
    from docutils import nodes
    from docutils.utils.math.latex2mathml import tex2mathml

    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    writer.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def _list_versions(app, problem):
    """Each version is built into a folder of its own; the page beside the folders leads to them."""
    if problem is None and app.builder.name == "html":
        folder = Path(app.outdir).parent
        found = sorted((file.parent.name for file in folder.glob("*/objects.inv")), reverse=True)
        links = "".join(f'<li><a href="{name}/index.html">{name}</a></li>' for name in found)
        (folder / "index.html").write_text(
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
            f"<title>degla: versions</title><h1>degla</h1><p>Documentation of version</p><ul>{links}</ul></html>\n",
            encoding="utf-8",
        )


def setup(app):
    app.add_html_math_renderer("mathml", (_show_math, None), (_show_math, None))
    app.connect("source-read", _navigate)
    app.connect("autodoc-process-docstring", _keep_sentences, priority=400)  # Before napoleon.
    app.connect("autodoc-process-docstring", _keep_columns)
    app.connect("doctree-read", _keep_numbers_whole)
    app.connect("html-page-context", _break_code)
    app.connect("build-finished", _list_versions)
