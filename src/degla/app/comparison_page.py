"""The comparison page: models side by side in the browser, on the user's own images, changed items and a folder."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from threading import Lock
from typing import Any, Final, ParamSpec, cast

from degla.app.comparison_html import (
    bad_html,
    complaint,
    gallery_html,
    hint,
    legend,
    look_html,
    search_html,
    short_names,
)
from degla.app.serving import guarded, mount, open_gradio, open_port, serve_at
from degla.errors import DeglaError, InputError
from degla.evaluation.changes import DIRECTIONS, Direction, Gallery
from degla.evaluation.image_files import thumbnail
from degla.evaluation.models import EmbeddingModel
from degla.look import look
from degla.negatives.review import MOST_CHARACTERS
from degla.pages.words import counted
from degla.records import ItemImage
from degla.search import ImageSearch
from degla.stopping import SIGNALS

UPLOAD_BYTES: Final = 32 << 20
"""Largest image that can be uploaded."""
MOST_CAPTIONS: Final = 100
"""Largest number of captions ranked at a time."""
_ITEMS, _ITEM_SIDE = 24, 320
_HITS, _HIT_SIDE = 12, 320
_ALL = "all benchmarks"
_NO_ROOT = "To see texts and images, start the page with --root DATA, the folder with the benchmarks' files."
_OTHER_ROOT = "No texts or images of these items are in {root} (--root); the terminal may say why."
_NAMES: Final = {"fixed": "fixed", "broken": "broken", "all": "moved most"}

Parameters = ParamSpec("Parameters")


def _shown(render: Callable[Parameters, str]) -> Callable[Parameters, str]:
    """Decorate a function that returns HTML to return an error message instead of raising one."""

    @wraps(render)
    def shown(*arguments: Parameters.args, **options: Parameters.kwargs) -> str:
        try:
            return render(*arguments, **options)
        except DeglaError as error:
            return complaint(str(error))

    return shown


class ComparisonPage:
    """Content and actions of the page; the widgets of `build` only pass its answers on.

    Attributes:
        models: models to compare; the first is the baseline.
        names: display names of the models.
        gallery: gallery of results; None without results.
        search: search over a folder of images; None without a folder.
    """

    def __init__(
        self, models: Sequence[EmbeddingModel], *, gallery: Gallery | None = None, search: ImageSearch | None = None
    ) -> None:
        if not models:
            raise InputError("no models: give --models BASE TUNED.")
        self.models, self.gallery, self.search = tuple(models), gallery, search
        self.names = short_names([model.name for model in self.models])
        self._lock = Lock()  # One forward pass at a time; parallel ones would only compete for the CPU.
        self._thumbnail = lru_cache(512)(self._make_thumbnail)

    @_shown
    def show_look(self, picture: str | None, true: str, false: str, rules: bool, rewrites: bool = False) -> str:
        """Render how the models rank captions of an image as HTML, or an error message.

        Args:
            picture: path of an image file.
            true: true captions, one per line.
            false: false captions, one per line.
            rules: whether to add false captions made by the grammar rules.
            rewrites: whether to add true captions made by the grammar rules.
        """
        right, wrong = _lines(true), _lines(false)
        if not picture:
            raise InputError("no image yet. Drop one into the field, or click the field to choose one.")
        if not right:
            raise InputError("no true caption yet. Describe what the image shows.")
        if max(map(len, (*right, *wrong))) > MOST_CHARACTERS:
            raise InputError(f"a caption is longer than {MOST_CHARACTERS:,} characters. Use a single sentence.")
        if len(right) + len(wrong) > MOST_CAPTIONS:
            raise InputError(f"more than {MOST_CAPTIONS} captions. Remove some.")
        with self._lock, _collect_warnings() as warnings:
            try:
                result = look([Path(picture)], right, self.models, false=wrong, negatives=rules, positives=rewrites)
            except DeglaError as error:  # The upload's folder means nothing to the reader.
                raise InputError(str(error).replace(picture, Path(picture).name)) from None
        return "".join([*map(hint, warnings), look_html(result, self.names)])

    @_shown
    def show_gallery(self, label: str, benchmark: str, kind: str) -> str:
        """Render the items that changed most as HTML.

        Args:
            label: label of a method of the gallery.
            benchmark: title of a benchmark, or "all benchmarks".
            kind: "fixed", "broken" or "moved most".
        """
        if self.gallery is None:
            return hint(
                "To see the items that changed most, start the page with --results FILES, the results of degla "
                "evaluate for both models, and --root DATA, the folder with the benchmarks' files."
            )
        gallery = self.gallery
        name = next((name for name, title in gallery.benchmarks.items() if title == benchmark), None)
        direction = next((key for key in DIRECTIONS if _NAMES[key] == kind), "all")
        items, total = gallery.items(
            label, benchmark=name, direction=cast(Direction, direction), count=_ITEMS, side=_ITEM_SIDE
        )
        cards = gallery_html(items, total=total, titles=gallery.benchmarks, names=(gallery.baseline, label))
        if items and not any(change.thumbnail or change.false for change in items):
            cards = hint(_NO_ROOT if gallery.root is None else _OTHER_ROOT.format(root=gallery.root)) + cards
        return str(cards)

    @_shown
    def show_search(self, text: str) -> str:
        """Render each model's best images of the folder for a text as HTML."""
        search = self.search
        if search is None:
            return hint("Start the page with --folder IMAGES to search a folder of images.")
        if len(text) > MOST_CHARACTERS:
            raise InputError(f"the text is longer than {MOST_CHARACTERS:,} characters.")
        with self._lock:
            hits = search.search(text, count=_HITS)
        return str(search_html(hits, self.names, self._thumbnail, text))

    def _make_thumbnail(self, path: str) -> str | None:
        assert self.search is not None
        return thumbnail(ItemImage(path=path), root=self.search.images.folder, side=_HIT_SIDE)


def serve(page: ComparisonPage, *, port: int = 7861) -> None:
    """Serve the page on 127.0.0.1 until the process is stopped (Ctrl-C); then delete the uploaded images.

    Args:
        page: the page.
        port: TCP port; 0 picks a free one.

    Raises:
        InputError: gradio is not installed, or the port cannot be used.
    """
    # On SIGTERM and a closed terminal, too, the block below is left normally, so that uploads are deleted.
    for each in SIGNALS:
        if each != signal.SIGINT and signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, lambda number, _: sys.exit(128 + number))
    with open_port(port) as listener, tempfile.TemporaryDirectory(prefix="degla-app-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # read when the page is built
        serve_at(listener, build(page), title="Model comparison", note="stop with Ctrl-C")


def build(page: ComparisonPage) -> Any:
    """Build the web application (ASGI) of a page.

    Raises:
        InputError: gradio is not installed.
    """
    gradio = open_gradio("Or use `degla look` in the terminal, which needs no extra package.")
    application = guarded(upload_bytes=UPLOAD_BYTES)
    return mount(gradio, application, _lay_out(gradio, page), css="comparison_page.css")


def _lay_out(gradio: Any, page: ComparisonPage) -> Any:
    quiet: dict[str, Any] = {"queue": False, "show_progress": "minimal", "api_visibility": "private"}
    with gradio.Blocks(analytics_enabled=False, title="degla: model comparison") as blocks:
        gradio.HTML(f"<h1>Model comparison</h1>{legend(page.names)}", elem_id="head")
        with gradio.Tabs():
            with gradio.Tab("Look"):
                _lay_out_look(gradio, page, quiet)
            with gradio.Tab("Gallery"):
                _lay_out_gallery(gradio, page, quiet)
            with gradio.Tab("Retrieval"):
                _lay_out_search(gradio, page, quiet)
    return blocks


def _lay_out_look(gradio: Any, page: ComparisonPage, quiet: dict[str, Any]) -> None:
    with gradio.Row():
        picture = gradio.Image(
            label="Image", sources=["upload", "clipboard"], type="filepath", image_mode=None, height=300, buttons=[],
            elem_id="look-picture",
        )  # fmt: skip
        # Pass on the uploaded file: `look` decodes it as everywhere in this package, and reports errors.
        picture.preprocess = lambda payload: payload and payload.path
        with gradio.Column():
            true = gradio.Textbox(label="True captions, one per line", lines=2, max_lines=6, elem_id="look-true")
            false = gradio.Textbox(
                label="False captions, one per line (optional)", lines=2, max_lines=6, elem_id="look-false"
            )
            rules = gradio.Checkbox(
                value=True, label="Add hard negatives of the true captions, made by grammar rules", elem_id="look-rules"
            )
            rewrites = gradio.Checkbox(
                value=False, label="Add true rewrites of the true captions, made by grammar rules",
                elem_id="look-rewrites",
            )  # fmt: skip
            button = gradio.Button("Compare", variant="primary", elem_id="look-go")
    shown = gradio.HTML(elem_id="look-shown")
    picture.change(None, None, [shown], js="() => ''", **quiet)  # The ranking is of the image before.
    button.click(page.show_look, [picture, true, false, rules, rewrites], [shown], **quiet)


def _lay_out_gallery(gradio: Any, page: ComparisonPage, quiet: dict[str, Any]) -> None:
    gallery = page.gallery
    if gallery is None:
        gradio.HTML(page.show_gallery("", "", ""), elem_id="gallery-shown")
        return
    with gradio.Row():
        labels = list(gallery.labels)
        label = gradio.Dropdown(
            labels, value=labels[0], label="Model", elem_id="gallery-model", visible=len(labels) > 1
        )
        benchmark = gradio.Dropdown(
            [_ALL, *gallery.benchmarks.values()],
            value=_ALL,
            label="Benchmark",
            elem_id="gallery-benchmark",
            min_width=260,
        )
        kind = gradio.Radio(
            list(_NAMES.values()), value=_NAMES["fixed"], label="Items", elem_id="gallery-kind", min_width=340
        )
    shown = gradio.HTML(elem_id="gallery-shown")
    # No triggers given: update when the page is loaded, and on every change.
    gradio.on(None, page.show_gallery, [label, benchmark, kind], [shown], **quiet)


def _lay_out_search(gradio: Any, page: ComparisonPage, quiet: dict[str, Any]) -> None:
    if page.search is None:
        gradio.HTML(page.show_search(""), elem_id="search-shown")
        return
    images = page.search.images
    with gradio.Row(elem_id="search-ask"):
        label = f"Search {counted(len(images.paths), 'image')} in {images.folder}"
        text = gradio.Textbox(
            label=label, placeholder="a dog on a beach", max_lines=1, scale=4, min_width=260, elem_id="search-text"
        )
        button = gradio.Button("Search", variant="primary", scale=0, min_width=120, elem_id="search-go")
    shown = gradio.HTML(elem_id="search-shown")
    gradio.HTML(str(bad_html(images.bad)), elem_id="search-bad", visible=bool(images.bad))
    for ask in (button.click, text.submit):
        ask(page.show_search, [text], [shown], **quiet)


@contextmanager
def _collect_warnings() -> Iterator[list[str]]:
    """Collect the warnings of `look`, which go to the terminal otherwise."""
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(look.__module__)
    logger.addHandler(handler)
    try:
        yield warnings
    finally:
        logger.removeHandler(handler)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
