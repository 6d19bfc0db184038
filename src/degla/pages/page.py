"""A page: title, warnings, sections of tables, figures and sentences; as one HTML file, or as Markdown.

Sentences may contain `code` and **bold** in this notation. Anything else is a custom part with `__html__`, as in
markupsafe, and `markdown`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from markupsafe import Markup

from degla.files import write_text
from degla.pages import open_templates
from degla.pages.plot import PAGE, PHONE, Mark
from degla.pages.table import html_mark, isolated
from degla.version import __version__


class Part(Protocol):
    """A part of a page."""

    def __html__(self) -> str:
        """Return the part as HTML."""

    def markdown(self) -> str:
        """Return the part as Markdown without leading or trailing empty lines; "" if it has no Markdown form."""


_CODE_OR_TAG = re.compile(r"(^```.*?^```|(?<![`\\])`(?!`)[^`\n]*`(?!`))|<(?=[A-Za-z/!?])", re.DOTALL | re.MULTILINE)
"""Code exactly where Markdown sees it: a name with a lone or escaped backtick opens none."""
Parts = Sequence[Part | str]
"""Parts of a page; a plain string is a paragraph in muted colour."""


@dataclass(frozen=True)
class Paragraph:
    """Sentences; `quiet` ones, in muted colour, explain what is above them."""

    text: str
    quiet: bool = True

    def __html__(self) -> str:
        return Markup("<p{}>{}</p>").format(Markup(' class="soft"') if self.quiet else "", _inline(self.text))

    def markdown(self) -> str:
        """Return the text itself."""
        return self.text


@dataclass(frozen=True)
class Section:
    """Parts under a heading."""

    title: str
    parts: Parts

    def __html__(self) -> str:
        return Markup("<h2>{}</h2>\n{}").format(isolated(self.title), _html(self.parts))

    def markdown(self) -> str:
        """Return the parts under a second-level heading; "" if none of them has Markdown."""
        return _below(f"## {self.title}", self.parts)


@dataclass(frozen=True)
class Fold:
    """Collapsible parts; in Markdown under a third-level heading."""

    title: str
    parts: Parts
    open: bool = False
    mark: Mark | None = None

    def __html__(self) -> str:
        return Markup("<details{}><summary>{}{}</summary>\n{}</details>").format(
            Markup(" open") if self.open else "", html_mark(self.mark), isolated(self.title), _html(self.parts)
        )

    def markdown(self) -> str:
        """Return the parts under a third-level heading; "" if none of them has Markdown."""
        return _below(f"### {self.title}", self.parts)


@dataclass(frozen=True)
class Grid:
    """Parts side by side, as many as fit the page's width."""

    parts: Parts

    def __html__(self) -> str:
        return Markup('<div class="grid">\n{}\n</div>').format(_html(self.parts))

    def markdown(self) -> str:
        """Return the parts one after another."""
        return _joined(map(_markdown, self.parts))


@dataclass(frozen=True)
class Figure:
    """A plot with its caption; it is not drawn for Markdown.

    Attributes:
        draw: returns an `<svg>` element of a width in inches.
        caption: text below it.
        title: text above it.
        file: file of the same picture, needed to show it in Markdown.
        key: identifies the plot for programs that read the page (`data-row`).
        widths: widths of the drawings: one, or a page's and a phone's.
    """

    draw: Callable[[float], str]
    caption: str = ""
    title: str = ""
    file: str = ""
    key: str = ""
    widths: tuple[float, ...] = (PAGE, PHONE)

    @cached_property
    def drawings(self) -> tuple[str, ...]:
        """The `<svg>` elements, in the order of the widths."""
        return tuple(self.draw(width) for width in self.widths)

    def __html__(self) -> str:
        names = ("wide", "narrow") if len(self.drawings) > 1 else ("",)
        drawings = Markup("\n").join(
            Markup('<div class="{}">{}</div>').format(name, Markup(drawing))
            for name, drawing in zip(names, self.drawings, strict=True)
        )
        return Markup('<figure class="card"{}>{}{}{}</figure>').format(
            Markup(' data-row="{}"').format(self.key) if self.key else "",
            Markup("<h3>{}</h3>").format(self.title) if self.title else "",
            Markup('<div role="img" aria-label="{}">{}</div>').format(self.title or self.caption or "Plot", drawings),
            Markup("<figcaption>{}</figcaption>").format(_inline(self.caption)) if self.caption else "",
        )

    def markdown(self) -> str:
        """Return a link to the file, and the caption."""
        return _joined([f"![{self.title or 'Plot'}]({self.file})", self.caption]) if self.file else ""


@dataclass(frozen=True)
class Facts:
    """A list of names and values, such as the provenance of numbers."""

    facts: Mapping[str, str] | Sequence[tuple[str, str]]
    title: str = ""
    mark: Mark | None = None

    def _pairs(self) -> list[tuple[str, str]]:
        return list(self.facts.items()) if isinstance(self.facts, Mapping) else list(self.facts)

    def __html__(self) -> str:
        head = Markup("<h3>{}{}</h3>").format(html_mark(self.mark), isolated(self.title)) if self.title else ""
        lines = (Markup("<dt>{}</dt><dd>{}</dd>").format(name, _inline(text)) for name, text in self._pairs())
        return Markup('<div class="card">{}<dl>{}</dl></div>').format(head, Markup("\n").join(lines))

    def markdown(self) -> str:
        """Return one list item if it has a title, else a list."""
        if self.title:
            return f"* {self.title}: " + "; ".join(f"{name}: {text}" for name, text in self._pairs())
        return "\n".join(f"* {name}: {text}" for name, text in self._pairs())


@dataclass(frozen=True)
class Code:
    """Lines of a file or a command."""

    text: str
    language: str = ""

    def __html__(self) -> str:
        return Markup('<div class="card"><pre>{}</pre></div>').format(self.text)

    def markdown(self) -> str:
        """Return the text as a fenced block."""
        return f"```{self.language}\n{self.text.rstrip()}\n```"


@dataclass(frozen=True)
class PageOnly:
    """A part that Markdown leaves out."""

    part: Part | str

    def __html__(self) -> str:
        return _html([self.part])

    def markdown(self) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True)
class Raw:
    """Raw HTML, left out of Markdown."""

    html: str

    def __html__(self) -> str:
        return Markup(self.html)

    def markdown(self) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        title: heading.
        lead: introduction.
        warnings: caveats, in sentences.
        parts: its content.
        tab: title of the browser tab.
        foot: last line, after the package's version.
    """

    title: str
    parts: Parts
    lead: Parts = ()
    warnings: Sequence[str] = ()
    tab: str = ""
    foot: str = ""

    def html(self) -> str:
        """Return the whole self-contained page."""
        template = open_templates("degla.pages").get_template("page.html.j2")
        warnings = list(map(_inline, self.warnings))
        foot = f"degla {__version__}" + (f", {self.foot}" if self.foot else "")
        return template.render(page=self, lead=_html(self.lead), warnings=warnings, body=_html(self.parts), foot=foot)

    def markdown(self) -> str:
        """Return the page as Markdown, with figures as links to their files."""
        notes = [f"> **Note.** {warning}" for warning in self.warnings]
        text = _joined([f"# {self.title}", *map(_markdown, self.lead), *notes, *map(_markdown, self.parts)])
        # Escape "<" in names such as "lr<max>", which viewers would take for HTML; code stays as it is.
        return _CODE_OR_TAG.sub(lambda match: match[1] or "\\<", text) + "\n"

    def write(self, path: Path) -> None:
        """Write the HTML file, and Markdown beside it with the extension ".md"; raises like `write_text`."""
        html, markdown = self.html(), self.markdown()
        write_text(path, html)
        write_text(path.with_suffix(".md"), markdown)


def _part(part: Part | str) -> Part:
    return Paragraph(part) if isinstance(part, str) else part


def _html(parts: Parts) -> Markup:
    return Markup("\n").join(Markup(_part(part).__html__()) for part in parts)


def _markdown(part: Part | str) -> str:
    return _part(part).markdown()


def _below(heading: str, parts: Parts) -> str:
    inside = _joined(map(_markdown, parts))
    return f"{heading}\n\n{inside}" if inside else ""


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)


def _inline(text: str) -> Markup:
    """Escape the text, and convert `code` and **bold** to HTML."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(isolated(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", marked))
