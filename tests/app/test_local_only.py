"""Other pages in the same browser cannot reach the review: no requests, no files, no large bodies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from degla.app.review_page import ReviewPage, build
from degla.app.serving import MOST_BYTES, LocalOnly
from degla.errors import InputError
from degla.negatives.review import MOST_CHARACTERS, Draft, Review, draft_key
from degla.records import write_jsonl
from tests.launch import run

DRAFT = Draft(
    rule="swap_nouns",
    caption="A dog stands behind a cat.",
    negative="A cat stands behind a dog.",
    accepted=True,
    source="scripted",
)
HERE = "http://127.0.0.1:7860"
UPLOAD = "/gradio_api/upload"
RUN = "/gradio_api/run/predict"
WITHOUT_GRADIO = """
import sys
sys.modules |= dict.fromkeys(("fastapi", "gradio", "starlette", "uvicorn"))
from degla.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[ReviewPage]:
    with Review([DRAFT], log=folder / "log.jsonl", out=folder / "out") as review:
        yield ReviewPage(review)


@pytest.fixture(scope="module")
def served(page: ReviewPage, folder: Path) -> Iterator[Any]:
    """The page, built once; every request to it is rejected or changes nothing."""
    from fastapi.testclient import TestClient

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        yield TestClient(build(page), base_url=HERE)


@pytest.fixture
def client(served: Any, folder: Path) -> Iterator[Any]:
    served.cookies.clear()
    yield served
    stayed = [path for path in folder.glob("uploads/**/*") if path.is_file() and path.stat().st_size]
    assert not stayed, "whatever was sent, nothing stays"


def test_the_page_itself_is_served(client: Any) -> None:
    for origin in ({}, {"origin": HERE}, {"sec-fetch-site": "same-origin"}):
        assert client.get("/", headers=origin).status_code == 200
        assert client.get("/config", headers=origin).status_code == 200
    # A link in a mail or on another page may lead here; a form there may not post.
    led = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=led).status_code == 200
    assert client.post(RUN, headers=led, json={}).text == "Refused: the request comes from another page.\n"


def test_without_javascript_the_page_says_what_it_needs(client: Any) -> None:
    for headers in ({}, {"accept-encoding": "br, gzip"}):
        page = client.get("/", headers=headers).text
        assert "<script" in page and page.count("<noscript><p>This page needs JavaScript. Allow it for this ") == 1
    assert "noscript" not in client.get("/config").text


@pytest.mark.parametrize("path", ["/", "/config", "/picture/x", RUN, UPLOAD, "/gradio_api/queue/data", "/nowhere"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:7860"},
        {"origin": "https://127.0.0.1:7860"},
        {"origin": ""},
        {"host": "elsewhere.example"},
        {"host": "elsewhere.example:7860", "origin": "http://elsewhere.example:7860"},
        {"host": "127.0.0.1.elsewhere.example"},
        {"host": "127.0.0.1@elsewhere.example"},
        {"host": "[::1"},
        {"host": ""},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
)
def test_other_pages_are_refused_on_every_route(path: str, headers: dict[str, str], client: Any) -> None:
    assert client.get(path, headers=headers).status_code == 403
    assert client.post(path, headers=headers, json={}).status_code == 403
    assert client.options(path, headers=headers).status_code == 403


@pytest.mark.parametrize("path", ["/gradio_api/file=http://elsewhere.example/x", "/gradio_api/proxy=elsewhere.example"])
def test_nothing_is_fetched_from_elsewhere(path: str, client: Any) -> None:
    # A link on another page may lead here, but may not use this machine as a proxy.
    led = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get(path, headers=led).status_code == client.get(path).status_code == 403


@pytest.mark.parametrize(
    "path", [UPLOAD, UPLOAD + "?upload_id=1", "/upload", RUN, "/login", "/gradio_api/run/../upload"]
)
def test_no_file_is_taken(path: str, client: Any) -> None:
    for headers in ({}, {"origin": HERE}):
        answer = client.post(path, files={"files": ("a.txt", b"x" * 1000)}, headers=headers)
        assert answer.status_code in (403, 404)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "{folder}/../secret.txt", "http://127.0.0.1:9/a.png", "a\0", 3, "{folder}/a.png"]
)
def test_a_file_that_was_not_dropped_is_not_read(path: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    folder = tmp_path / "uploads"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    named = path.format(folder=folder) if isinstance(path, str) else path
    request = {"data": [[{"image": {"path": named, "meta": {"_type": "gradio.FileData"}}}, "a cat"]], "fn_index": 0}
    statuses = []
    for upload_bytes in (0, 1000):
        page = FastAPI()
        page.add_middleware(LocalOnly, upload_bytes=upload_bytes)
        page.post(RUN)(lambda: "read")
        statuses.append(TestClient(page, base_url=HERE).post(RUN, json=request).status_code)
    assert statuses == [403, 200 if path == "{folder}/a.png" else 403]


@pytest.mark.parametrize(
    ("path", "request_body"),
    [(RUN, {"fn_index": 999, "data": []}), ("/gradio_api/run/nope", {"data": []}),
     ("/gradio_api/queue/join", {"fn_index": 999, "data": [], "session_hash": "x"})],
)  # fmt: skip
def test_an_unknown_button_prints_no_traceback(path: str, request_body: dict[str, Any], client: Any) -> None:
    # The client raises what the server would print.
    assert client.post(path, json=request_body).status_code == 500


def test_an_error_of_the_page_itself_is_not_hidden() -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    page, pictures = FastAPI(), dict[int, str]()
    page.add_middleware(LocalOnly)
    page.get("/picture")(lambda: pictures[3])
    with pytest.raises(KeyError, match="3"):
        TestClient(page, base_url=HERE).get("/picture")


def test_bodies_are_bounded(client: Any) -> None:
    answer = client.post(RUN, content=b"x" * 30_000_000, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.text == "Refused: more than 256 KiB.\n"

    def pieces() -> Iterator[bytes]:  # without a Content-Length header
        for _ in range(MOST_BYTES // 1000 + 2):
            yield b"x" * 1000

    assert client.post(RUN, content=pieces(), headers={"content-type": "application/json"}).status_code == 413
    for length in ("x", "-1", "9" * 5000):
        headers = {"content-type": "application/json", "content-length": length}
        assert client.post(RUN, content=b"{}", headers=headers).status_code == 413


def test_a_text_of_megabytes_is_refused_in_words(page: ReviewPage) -> None:
    key, text = draft_key(DRAFT), "dog " * 8_000_000
    texts, verdict = page.judge(key, text)
    assert "longer than 2,000 characters" in verdict and len(texts) < 2_000
    with pytest.raises(InputError, match="longer than 2,000 characters"):
        page.act("accept", key, text)
    assert "checks passed" in page.judge(key, DRAFT.negative)[1] and len(DRAFT.negative) < MOST_CHARACTERS


def test_a_page_that_takes_files_bounds_them() -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    page = FastAPI()
    page.add_middleware(LocalOnly, upload_bytes=1000)
    page.post(UPLOAD)(lambda: "taken")
    client, limit = TestClient(page, base_url=HERE), MOST_BYTES + 1000

    def send(size: int, **headers: str) -> int:
        return int(client.post(UPLOAD, files={"files": ("a.png", b"x" * size)}, headers=headers).status_code)

    assert send(1000) == send(1000, origin=HERE) == 200
    too_long = {"content-length": str(40 << 20), "content-type": "multipart/form-data"}
    page = FastAPI()
    page.add_middleware(LocalOnly, upload_bytes=32 << 20)
    refused = TestClient(page, base_url=HERE).post(UPLOAD, content=b"", headers=too_long)
    assert refused.text == "Refused: more than 32 MiB.\n"
    assert send(limit) == 413 and send(1000, origin="https://elsewhere.example") == 403
    assert client.post(UPLOAD, json={}).status_code == 403
    assert client.post(RUN, files={"files": ("a.png", b"x")}).status_code == 403


def test_without_gradio_the_pages_say_what_to_install(tmp_path: Path) -> None:
    drafts = tmp_path / "drafts.jsonl"
    write_jsonl(drafts, [DRAFT])
    for words in (["app"], ["examples", "review", str(drafts), "--out", str(tmp_path / "out"), "--page"]):
        done = run(["-c", WITHOUT_GRADIO, *words])
        assert done.wait() == 2
        assert "degla: the page needs gradio: pip install 'degla[app]'. Or " in done.stderr
        assert "Traceback" not in done.stderr
