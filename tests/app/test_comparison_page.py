"""The comparison page: in a browser on a phone, and the functions behind it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import degla
from degla.app import comparison_page
from degla.app.comparison_html import gallery_html, short_names
from degla.app.comparison_page import ComparisonPage, build, serve
from degla.app.serving import open_port
from degla.cli import main
from degla.errors import InputError
from degla.evaluation.cache import DiskCache
from degla.evaluation.changes import Gallery
from degla.look import GIVEN, look
from degla.model.load import load_encoder
from degla.pages.words import minus
from degla.search import ImageFolder, ImageSearch
from degla.stopping import SIGNALS
from tests.app.visitor import Visitor, served_here
from tests.tiny import CAPTIONS, write_model

MOST: dict[str, Any] = {"count": 100, "side": 32}


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [str(tiny_model), str(write_model(tmp_path_factory.mktemp("tuned") / "tuned", seed=1))]


@pytest.fixture(scope="module")
def photos(tiny_pairs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, one of them in a subfolder, and files that cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number, path in enumerate(sorted(tiny_pairs["images"].glob("*.png"))):
        (folder / ("more" if number == 3 else "") / path.name).write_bytes(path.read_bytes())
    (folder / "cut.png").write_bytes(path.read_bytes()[:100])
    (folder / "text<b>.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("is not called a picture")
    (folder / ".hidden.png").write_text("nor is it looked at")
    return folder


@pytest.fixture(scope="module")
def results(models: list[str], photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Result files of both models on our own captions."""
    root = tmp_path_factory.mktemp("root")
    (root / "own").mkdir()
    rows = [
        {"image": f"{number:03d}.png", "caption": CAPTIONS[number % 6], "negative": f"no <i>{CAPTIONS[number % 5]}"}
        for number in range(12)
        if number != 3
    ]
    (root / "own/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "own/images").symlink_to(photos)
    files = [root / f"{label}.json" for label in ("base", "tuned")]
    for model, file in zip(models, files, strict=True):
        degla.evaluate(model, ["own"], root, out=file, label=file.stem)
    return files


@pytest.fixture(scope="module")
def page(models: list[str], results: list[Path], photos: Path) -> ComparisonPage:
    loaded = [load_encoder(name) for name in models]
    gallery = Gallery(results, root=results[0].parent)
    return ComparisonPage(loaded, gallery=gallery, search=ImageSearch(ImageFolder.read(photos), loaded))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record (and block) the page's requests to other machines."""
    hosts: list[Any] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def is_here(host: Any) -> bool:
        if host not in (None, "127.0.0.1", "::1", "localhost"):
            hosts.append(host)
            raise OSError(f"{host} lies elsewhere")
        return True

    monkeypatch.setattr(
        socket.socket,
        "connect",
        lambda own, at: is_here(at[0] if own.family != socket.AF_UNIX else None) and connect(own, at),
    )
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **named: is_here(host) and look_up(host, *more, **named)
    )
    return hosts


@pytest.fixture
def address(
    page: ComparisonPage, elsewhere: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("NO_PROXY", "*")
    with served_here(build(page)) as address:
        yield address


def test_all_of_it_on_a_phone(browser: Any, address: str, elsewhere: list[Any], photos: Path, tmp_path: Path) -> None:
    person = Visitor(browser, address, until="#look-picture", viewport={"width": 420, "height": 860})
    tab = person.tab
    tab.click("#look-go")
    person.expect("#look-shown [role=alert]", "No image yet")
    tab.set_input_files("#look-picture input[type=file]", str(photos / "000.png"))
    tab.wait_for_function("document.querySelector('#look-picture img')?.naturalWidth == 36")
    tab.fill("#look-true textarea", "a black dog chases a white cat")
    tab.fill("#look-false textarea", "a red bus")
    tab.click("#look-go")
    person.expect("#look-shown", "a white dog chases a black cat")
    assert tab.locator("#look-shown .captions li").count() > 3
    assert tab.locator("#look-shown .bar").count() == 2 * tab.locator("#look-shown .captions li").count()
    assert [path.name for path in (tmp_path / "uploads").rglob("*.*")] == ["000.png"]
    # gradio rewrites the rules, which once dropped the frame.
    assert tab.evaluate("getComputedStyle(document.querySelector('.verdict')).borderWidth") == "1px 1px 1px 4px"
    tab.get_by_label("Remove Image").click()
    tab.wait_for_function("!document.querySelector('#look-shown .captions')")  # the ranking was of that image

    tab.get_by_role("tab", name="Gallery").click()
    tab.get_by_label("moved most").click()
    person.expect("#gallery-shown", "11 items")
    tab.wait_for_function("document.querySelector('#gallery-shown img')?.naturalWidth > 20")
    assert tab.locator("#gallery-shown i").count() == 0  # captions are escaped
    tab.get_by_label("broken").click()
    tab.wait_for_function("!document.querySelector('#gallery-shown .card.up')")

    tab.get_by_role("tab", name="Retrieval").click()
    tab.fill("#search-text input, #search-text textarea", "two small dogs")
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.querySelectorAll('#search-shown figure img').length == 24")
    assert tab.evaluate("getComputedStyle(document.querySelector('.hits img')).objectFit") == "contain", "cut off"
    person.expect("#search-bad summary", "2 files cannot be read")
    tab.fill("#search-text input, #search-text textarea", "w" * 200)
    tab.click("#search-go")
    person.expect("#search-shown h2", "www")
    assert tab.evaluate("(one => one.scrollWidth <= one.clientWidth)(document.querySelector('#search-shown h2'))")
    label, box = (tab.locator(each).first.bounding_box() for each in ("#search-text label span", "#search-text"))
    assert label and box and label["x"] + label["width"] <= box["x"] + box["width"], "the label is cut off"
    assert tab.evaluate("document.documentElement.scrollWidth") == 420
    assert person.troubles == [] and elsewhere == []
    tab.context.close()
    with pytest.raises(OSError, match="elsewhere"):  # the recorder works
        socket.create_connection(("192.0.2.1", 9), timeout=1)
    assert elsewhere == ["192.0.2.1"]


def test_a_look_has_the_numbers_of_degla_look(page: ComparisonPage, models: list[str], photos: Path) -> None:
    path = photos / "001.png"
    expected = look([path], CAPTIONS[:2], models, false=[CAPTIONS[4]], negatives=True)
    shown = page.show_look(str(path), "\n".join(CAPTIONS[:2]), f" {CAPTIONS[4]} \n\n", True)
    cosines = re.findall(r"</b><small>([−.\d]+)</small>", shown)
    by_caption = zip(*(each.cosines[0] for each in expected.models), strict=True)
    assert cosines == [f"{value:.3f}".replace("-", "−") for pair in by_caption for value in pair]
    assert len(expected.captions) > 3 and shown.count('<li class="false">') == len(expected.captions) - 2
    assert expected.captions[2].rule == GIVEN and "ranks a" in shown
    plain = page.show_look(str(path), CAPTIONS[0], "", False)
    assert "ranks first" in plain and "✓" not in plain


@pytest.mark.parametrize(
    ("picture", "true", "false", "message"),
    [
        (None, "a dog", "", "No image yet"),
        ("001.png", " \n", "a cat", "No true caption yet"),
        ("001.png", "a dog", "a dog", "among the true captions"),
        ("cut.png", "a dog", "", "cut.png is damaged or cut off"),
        ("001.png", "dog " * 600, "", "longer than 2,000 characters"),
        ("001.png", "\n".join(map(str, range(101))), "", "More than 100 captions"),
    ],
)
def test_what_is_wrong_is_reported_on_the_page(
    picture: str | None, true: str, false: str, message: str, page: ComparisonPage, photos: Path
) -> None:
    shown = page.show_look(picture and str(photos / picture), true, false, False)
    assert 'role="alert"' in shown and message in shown and str(photos) not in shown


def test_what_a_look_warns_of_is_on_the_page(page: ComparisonPage, photos: Path) -> None:
    shown = page.show_look(str(photos / "001.png"), "qwerty", "", True)
    assert shown.count('<p class="hint">The rules made no negatives') == 1 and "ranks first" in shown


def test_texts_are_shown_as_text(page: ComparisonPage, photos: Path) -> None:
    attack = "<script>alert(1)</script> & so on"
    for shown in (page.show_look(str(photos / "001.png"), attack, f"no {attack}", False), page.show_search(attack)):
        assert "<script>" not in shown and "&lt;script&gt;" in shown
    look = page.show_look(str(photos / "001.png"), "a dog", "a cat", False)
    assert look.count('<p class="text" dir="auto">') == 2, "a caption in any script"
    assert all(look.count(f'aria-label="{name}"') == 2 for name in page.names), "not by colour only"


def test_the_gallery_filters(page: ComparisonPage, results: list[Path]) -> None:
    gallery = page.gallery
    assert gallery is not None and gallery.labels == ("tuned",) and list(gallery.benchmarks) == ["own"]
    everything, total = gallery.items("tuned", **MOST)
    assert total == len(everything) == 11
    changes = [abs(each.change) for each in everything]
    assert changes == sorted(changes, reverse=True) and all(each.thumbnail and each.true for each in everything)
    for direction, right in (("fixed", 1), ("broken", 0)):
        some, count = gallery.items("tuned", benchmark="own", direction=direction, **MOST)  # type: ignore[arg-type]
        assert some == tuple(each for each in everything if (each.before.right, each.after.right) == (1 - right, right))
        assert count == len(some)
    assert len(gallery.items("tuned", count=3, side=32)[0]) == 3
    assert gallery.items("tuned", benchmark="x", **MOST) == ((), 0)
    bare = Gallery(results[::-1])
    assert bare.baseline == "tuned" and not bare.items("base", **MOST)[0][0].thumbnail
    shown = gallery_html(bare.items("base", **MOST)[0], total=11, titles={}, names=("tuned", "base"))
    assert "image not available" in shown and "own/" in shown


def test_a_gallery_without_texts_and_images_says_why(page: ComparisonPage, results: list[Path], tmp_path: Path) -> None:
    assert page.gallery is not None
    for root, why in ((None, "start the page with --root DATA"), (tmp_path, f"are in {tmp_path} (--root)")):
        shown = ComparisonPage(page.models, gallery=Gallery(results, root=root)).show_gallery("tuned", "", "moved most")
        assert why in shown and "image not available" in shown
    shown = page.show_gallery("tuned", "", "moved most")
    places = [shown.index(minus(f"{each.before.margin:+.3f}")) for each in page.gallery.items("tuned", **MOST)[0]]
    assert "--root" not in shown and places == sorted(places), "those that moved most come first"


def test_results_without_a_gallery(results: list[Path]) -> None:
    with pytest.raises(InputError, match="no results found"):
        Gallery([])
    with pytest.raises(InputError, match="no item's margin differs from"):
        Gallery(results[:1])
    with pytest.raises(InputError, match="no such folder of the benchmarks' data"):
        Gallery(results, root=results[0])


def test_a_search_ranks_by_cosine(page: ComparisonPage, models: list[str], photos: Path) -> None:
    search = page.search
    assert search is not None and len(search.images.paths) == 12 and "more/003.png" in search.images.paths
    hits = search.search("two small dogs", count=12)
    for place, name in enumerate(models):
        model = load_encoder(name)
        images = degla.encode_images(model, [photos / hit.path for hit in hits[place]])
        cosines = (images @ degla.encode_captions(model, ["two small dogs"]).T)[:, 0].tolist()
        values = [hit.cosine for hit in hits[place]]
        assert cosines == pytest.approx(values, abs=1e-5)
        assert values == sorted(values, reverse=True), "the best stand first"
        assert [hit.ranks[place] for hit in hits[place]] == list(range(1, 13))
    assert {hit.path: hit.ranks for hit in hits[0]} == {hit.path: hit.ranks for hit in hits[1]}
    with pytest.raises(InputError, match="the text is empty"):
        search.search(" ", count=3)


def test_an_embedding_that_is_not_finite_is_named_by_its_picture(
    page: ComparisonPage, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.full((1, 4), torch.nan)
    monkeypatch.setattr(type(page.models[0]), "encode_images", lambda model, images: rows)
    shown = page.show_look(str(photos / "001.png"), "a dog", "", False)
    assert "the embedding of &#39;001.png&#39; is zero or not finite" in shown


def test_pictures_that_cannot_be_read_are_named(page: ComparisonPage, photos: Path, tmp_path: Path) -> None:
    assert page.search is not None
    bad = page.search.images.bad
    assert len(bad) == 2 and "cut.png is damaged or cut off" in bad[0] and "text<b>.jpg is not in a format" in bad[1]
    with pytest.raises(InputError, match="no such folder"):
        ImageFolder.read(tmp_path / "gone")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / ".thumbnails").mkdir()
    shutil.copy(photos / "000.png", tmp_path / ".thumbnails")
    with pytest.raises(InputError, match=r"contains no readable image\. text\.png is not in a format"):
        ImageFolder.read(tmp_path)


def test_pictures_are_embedded_once(models: list[str], photos: Path, tmp_path: Path) -> None:
    loaded, pictures = [load_encoder(models[0])], ImageFolder.read(photos)
    counts = []
    for _ in range(2):
        with DiskCache(tmp_path / "cache") as cache:
            hits = ImageSearch(pictures, loaded, cache=cache).search("a cat", count=12)
        counts.append((cache.read, cache.written, hits))
    assert counts[0][:2] == (0, 12) and counts[1][:2] == (12, 0) and counts[0][2] == counts[1][2]


def test_the_command(
    models: list[str],
    results: list[Path],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    served: list[tuple[ComparisonPage, int]] = []
    monkeypatch.setattr("degla.app.comparison_page.serve", lambda page, *, port: served.append((page, port)))
    assert main(["app", "--models", *models, "--port", "5"]) == 0
    root = str(results[0].parent)
    words = ["--results", root, "--root", root, "--folder", str(photos), "--no-cache", "--baseline", "tuned"]
    assert main(["app", "--models", *models, *words]) == 0
    (bare, port), (whole, _) = served
    assert port == 5 and "Start the page with --folder" in bare.show_search("a dog")
    assert "start the page with --results" in bare.show_gallery("", "", "")
    assert whole.names == ["tiny", "tuned"] and whole.gallery is not None and whole.gallery.labels == ("base",)
    assert "figure" in whole.show_search("a dog")
    assert main(["app", "--folder", "gone"]) == 2 and "no such folder" in capsys.readouterr().err
    assert main(["app", "--root", "data"]) == 2 and "--root requires --results" in capsys.readouterr().err


def test_a_port_that_is_in_use() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(InputError, match=r"port \d+ cannot be used: .*Use another --port"):
            open_port(listener.getsockname()[1])
    with pytest.raises(InputError, match="port 70000 cannot be used"):
        open_port(70000)


def test_names_are_short_where_they_still_differ() -> None:
    assert short_names(["world", "runs/first/"]) == ["world", "first"]
    assert short_names(["a/run", "b/run"]) == ["a/run", "b/run"]


@pytest.mark.parametrize("number", SIGNALS)
def test_uploads_are_deleted_however_the_page_is_stopped(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed terminal left the visitors' pictures on the disk."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    uploads: list[Path] = []

    def stop(*_: Any, **__: Any) -> None:
        uploads.append(Path(os.environ["GRADIO_TEMP_DIR"]))
        assert uploads[0].is_dir()
        signal.raise_signal(number)

    monkeypatch.setattr(comparison_page, "build", lambda page: None)
    monkeypatch.setattr(comparison_page, "serve_at", stop)
    before = {each: signal.signal(each, signal.default_int_handler) for each in SIGNALS}
    try:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as ended:
            serve(None, port=0)  # type: ignore[arg-type]  # `build` reads no page
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert number == signal.SIGINT or ended.value.code == 128 + number  # type: ignore[union-attr]
    assert not uploads[0].exists()


def test_a_closed_terminal_lets_the_server_end_by_itself() -> None:
    """An exit within the event loop left a traceback of the server's."""
    script = """
import os, signal, sys, threading
from degla.app.serving import open_port, serve_at

async def application(scope, receive, send):
    for _ in range(2):
        event = (await receive())["type"]
        print(event, file=sys.stderr)
        await send({"type": f"{event}.complete"})
        if event == "lifespan.startup":
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGHUP)).start()

signal.signal(signal.SIGHUP, lambda number, _: sys.exit(128 + number))
with open_port(0) as listener:
    serve_at(listener, application, title="", note="")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGHUP, "lifespan.startup\nlifespan.shutdown\n")


def test_a_page_under_nohup_outlives_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(comparison_page, "build", lambda page: None)
    monkeypatch.setattr(comparison_page, "serve_at", lambda *_, **__: None)
    before = {each: signal.signal(each, signal.SIG_IGN) for each in SIGNALS}
    try:
        serve(None, port=0)  # type: ignore[arg-type]  # `build` reads no page
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_IGN] * len(SIGNALS)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
