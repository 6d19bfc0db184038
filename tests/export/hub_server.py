"""A stand-in for the Hugging Face hub's HTTP service on this machine: models to fetch, and uploads to one commit."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SHA = "0" * 40


class FakeHub(ThreadingHTTPServer):
    """Implements the hub's endpoints used by create_repo, upload_folder and snapshot_download.

    Attributes:
        models: name to folder of each model that can be fetched.
        refuse: error status for every upload; 0 for none.
        cut: names of models whose weights always break off after a hundred bytes.
        files: path to content of uploaded files.
        asked: method and path of every request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.models: dict[str, Path] = {}
        self.refuse = 0
        self.cut: set[str] = set()
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.tokens: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""

    def _answer(self, content: Any = None, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content if content is not None else {}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is not None:
            return self.rfile.read(int(length))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self) -> None:
        body, path = self._body(), self.path.partition("?")[0]
        self.server.asked.append(("POST", path))
        self.server.tokens.append(self.headers.get("Authorization", ""))
        if self.server.refuse:
            self._answer({"error": "Forbidden"}, status=self.server.refuse)
        elif path == "/api/repos/create":
            request = json.loads(body)
            self._answer({"url": f"{self.server.address}/{request['organization']}/{request['name']}", "name": "x"})
        elif path == "/api/validate-yaml":
            self._answer({})
        elif "/preupload/" in path:
            files = [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".onnx")) else "regular"}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self._answer({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.server.address}/large/{entry['oid']}", "header": {}}}}
                for entry in json.loads(body)["objects"]
            ]
            self._answer({"objects": objects, "transfer": "basic"}, headers={"Content-Type": "application/json"})
        elif "/commit/" in path:
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    self.server.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                elif row["key"] == "lfsFile":
                    self.server.files[row["value"]["path"]] = self.server.large[row["value"]["oid"]]
            name = "/".join(path.split("/")[3:5])
            self._answer({"commitUrl": f"{self.server.address}/{name}/commit/{SHA}", "commitOid": SHA, "success": True})
        else:
            self._answer({"error": "unknown"}, status=404)

    def do_PUT(self) -> None:
        body = self._body()
        self.server.asked.append(("PUT", self.path))
        self.server.large[hashlib.sha256(body).hexdigest()] = body
        self._answer({})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            parts = parts[2:]
        name, rest = "/".join(parts[:2]), parts[2:]
        folder = self.server.models.get(name)
        if folder is None:
            missing = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self._answer({"error": "Repository not found"}, status=404, headers=missing)
        elif rest[:1] == ["resolve"]:
            file = folder / "/".join(rest[2:])
            if not file.is_file():
                missing = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA}
                self._answer({"error": "Entry not found"}, status=404, headers=missing)
                return
            content = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": SHA}
            if name in self.server.cut and file.suffix == ".safetensors" and self.command == "GET":
                self.close_connection = True
                self._answer(content[:100], headers=headers | {"Content-Length": str(len(content))})
            else:
                self._answer(content, headers=headers)
        elif rest[:1] == ["tree"]:
            self._answer([
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": SHA}
                for file in sorted(folder.iterdir())
            ])  # fmt: skip
        else:
            siblings = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
            self._answer({"id": name, "modelId": name, "sha": SHA, "siblings": siblings, "private": False, "tags": []})

    do_HEAD = do_GET  # noqa: N815


@contextlib.contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    """Run the stand-in with huggingface_hub pointed at it, an empty cache and a token."""
    from huggingface_hub import constants, file_download

    from degla.model import hub

    server = FakeHub()
    # Poll interval for shutdown in seconds: with the default each test would wait half a second.
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    for module in (constants, file_download):  # The second has a copy before version 1.
        place = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", place, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    # transformers 5 makes one client of a process: of an earlier test's server, whose calls are tried for 40 s.
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
    hub._forget_connections()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        hub._forget_connections()
