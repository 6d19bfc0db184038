"""A page: title, warnings, sections of tables, figures and sentences; as one HTML file, or as Markdown.

Sentences may hold `code` and **bold**, written so. Whatever else a page needs is a part of its own with `__html__`,
as markupsafe takes it, and `markdown`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from markupsafe import Markup, escape

from degla.files import write_text
from degla.pages import open_templates
from degla.pages.plot import PAGE, PHONE, Mark
from degla.pages.table import html_mark
from degla.version import __version__


class Part(Protocol):
    """Anything that stands on a page."""

    def __html__(self) -> str:
        """As HTML."""

    def markdown(self) -> str:
        """As Markdown without an empty line at its ends; "" where Markdown has nothing of it."""


_CODE_OR_TAG = re.compile(r"(```.*?```|`[^`\n]*`)|<(?=[A-Za-z/!?])", re.DOTALL)
Parts = Sequence[Part | str]
"""Parts of a page; a plain string is a quiet paragraph."""


@dataclass(frozen=True)
class Paragraph:
    """Sentences; quiet ones explain what stands above them."""

    text: str
    quiet: bool = True

    def __html__(self) -> str:
        return Markup("<p{}>{}</p>").format(Markup(' class="soft"') if self.quiet else "", _inline(self.text))

    def markdown(self) -> str:
        """The text itself."""
        return self.text


@dataclass(frozen=True)
class Section:
    """Parts below a heading."""

    title: str
    parts: Parts

    def __html__(self) -> str:
        return Markup("<h2>{}</h2>\n{}").format(self.title, _html(self.parts))

    def markdown(self) -> str:
        """With a heading of the second level; nothing where none of its parts has Markdown."""
        return _below(f"## {self.title}", self.parts)


@dataclass(frozen=True)
class Fold:
    """Parts that a click shows; in Markdown below a heading of the third level."""

    title: str
    parts: Parts
    open: bool = False
    mark: Mark | None = None

    def __html__(self) -> str:
        return Markup("<details{}><summary>{}{}</summary>\n{}</details>").format(
            Markup(" open") if self.open else "", html_mark(self.mark), self.title, _html(self.parts)
        )

    def markdown(self) -> str:
        """With a heading of the third level; nothing where none of its parts has Markdown."""
        return _below(f"### {self.title}", self.parts)


@dataclass(frozen=True)
class Grid:
    """Parts side by side as far as the page is wide."""

    parts: Parts

    def __html__(self) -> str:
        return Markup('<div class="grid">\n{}\n</div>').format(_html(self.parts))

    def markdown(self) -> str:
        """One after another."""
        return _joined(map(_markdown, self.parts))


@dataclass(frozen=True)
class Figure:
    """A plot with its caption; nothing is drawn where a page becomes Markdown.

    Attributes:
        draw: gives an `<svg>` element of a width in inches.
        caption: below it.
        title: above it.
        file: of the same picture, for Markdown, which shows none without.
        key: names the plot for programs that read the page (`data-row`).
        widths: those of the drawings: one, or a page's and a phone's.
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
        """A link to the file, and the caption."""
        return _joined([f"![{self.title or 'Plot'}]({self.file})", self.caption]) if self.file else ""


@dataclass(frozen=True)
class Facts:
    """Names and what they are, such as where numbers come from."""

    facts: Mapping[str, str] | Sequence[tuple[str, str]]
    title: str = ""
    mark: Mark | None = None

    def _pairs(self) -> list[tuple[str, str]]:
        return list(self.facts.items()) if isinstance(self.facts, Mapping) else list(self.facts)

    def __html__(self) -> str:
        head = Markup("<h3>{}{}</h3>").format(html_mark(self.mark), self.title) if self.title else ""
        lines = (Markup("<dt>{}</dt><dd>{}</dd>").format(name, _inline(text)) for name, text in self._pairs())
        return Markup('<div class="card">{}<dl>{}</dl></div>').format(head, Markup("\n").join(lines))

    def markdown(self) -> str:
        """A line of a list where it has a title, a list of its own where it has none."""
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
        """Between fences."""
        return f"```{self.language}\n{self.text.rstrip()}\n```"


@dataclass(frozen=True)
class PageOnly:
    """What Markdown leaves out."""

    part: Part | str

    def __html__(self) -> str:
        return _html([self.part])

    def markdown(self) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True)
class Raw:
    """HTML as it is; Markdown has nothing of it."""

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
        title: at its top.
        lead: what it is about.
        warnings: what a reader must know before believing a number, in sentences.
        parts: what it shows.
        tab: title of the browser's tab.
        foot: last line; the package's version stands before it.
    """

    title: str
    parts: Parts
    lead: Parts = ()
    warnings: Sequence[str] = ()
    tab: str = ""
    foot: str = ""

    def html(self) -> str:
        """The whole page; nothing outside it is needed."""
        return (
            open_templates("degla.pages")
            .get_template("page.html.j2")
            .render(
                page=self,
                lead=_html(self.lead),
                warnings=[_inline(warning) for warning in self.warnings],
                body=_html(self.parts),
                foot=f"degla {__version__}" + (f", {self.foot}" if self.foot else ""),
            )
        )

    def markdown(self) -> str:
        """The same as Markdown, with figures as links to their files."""
        notes = [f"> **Note.** {warning}" for warning in self.warnings]
        text = _joined([f"# {self.title}", *map(_markdown, self.lead), *notes, *map(_markdown, self.parts)])
        # A name such as "lr<max>" is no HTML, which viewers would swallow, or run; code is shown as it is.
        return _CODE_OR_TAG.sub(lambda found: found[1] or "\\<", text) + "\n"

    def write(self, path: Path) -> None:
        """Write the HTML file, and Markdown beside it with the ending ".md"; raises like `write_text`."""
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
    """Escaped, with `code` and **bold** as HTML has them."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", marked))
