"""A small OpenAI-compatible server for tests that misbehaves on request, in this process or a separate one.

What it *answers*, including refusals and nonsense, depends only on the chat, the caption and the choices, not on the
requested answer format: after a failure that the schema may have caused, a request is sent in plain words. *Whether it
fails* is drawn anew for every arrival. Retries thus end with the answer of an undisturbed server.

`python tests/negatives/flaky_server.py --faults 0.3 --seed 1 --log FILE` prints its port and serves until it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

FAULTS = ("500", "503", "429", "429 later", "hang", "half", "garbage", "wrong json", "drop")


@dataclass(frozen=True)
class Received:
    """One request: its path, headers in lower case, JSON body, and the number of earlier requests."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    number: int

    @property
    def key(self) -> str:
        """The digest by which the client identifies its request, without the number of the attempt."""
        return self.headers.get("x-client-request-id", "").partition("-")[0]

    @property
    def last(self) -> str:
        """The content of the last turn."""
        return str(self.body["messages"][-1]["content"])

    @property
    def caption(self) -> str:
        """The last turn without choices and answer format."""
        return self.last.partition("\n\n")[0]

    @property
    def choices(self) -> list[str]:
        """The texts to choose among, from the schema or the numbered list; none for form "write"."""
        schema = schema_of(self.body)
        if schema is not None:
            return list(schema["properties"]["negative"].get("enum", []))
        return list(dict.fromkeys(re.findall(r"^\d+\. (.*)$", self.last, re.MULTILINE)))


@dataclass(frozen=True)
class Response:
    """A response: status, body, headers; sent after `delay` seconds, and not before `until` is true; with `keep`, the
    connection drops after that many bytes.

    With `endless`, the body is followed by these bytes repeatedly, `pause` seconds apart, until the client disconnects.
    """

    status: int = 200
    body: dict[str, Any] | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    until: Callable[[], bool] = lambda: True
    keep: int | None = None
    endless: bytes = b""
    pause: float = 0.0


def schema_of(body: dict[str, Any]) -> dict[str, Any] | None:
    """The JSON schema of a request, in either of the two places where servers look for it."""
    response = body.get("response_format") or {}
    schema: dict[str, Any] | None = response.get("schema") or response.get("json_schema", {}).get("schema")
    return schema


def completion(text: str | None, *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """The body of an answer."""
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 60}},
    }


def failure(status: int, message: str, **more: Any) -> Response:
    """An error in OpenAI's form."""
    return Response(status, {"error": {"message": message, **more}})


def say(received: Received) -> Response:
    """A correct answer: a choice by the caption, or the caption with its words rotated."""
    digest = int.from_bytes(hashlib.sha256(received.caption.encode()).digest()[:4], "big")
    if choices := received.choices:
        text = choices[digest % len(choices)]
    else:
        first, *rest = received.caption.split()
        text = " ".join([*rest, first])
    if schema_of(received.body) is not None:
        text = json.dumps({"negative": text})
    return Response(body=completion(text))


@dataclass
class Flaky:
    """Answers as `say`, with a share of nonsense fixed by the request, and a share of faults drawn for each arrival."""

    seed: int = 0
    faults: float = 0.3
    nonsense: float = 0.1
    delay: float = 0.0
    hang: float = 5.0

    def __post_init__(self) -> None:
        self._rng = Random(self.seed)

    def __call__(self, received: Received) -> Response:
        if self._rng.random() < self.faults:
            return self._fault(self._rng.choice(FAULTS), received)
        answer = self._say(received)
        return Response(answer.status, answer.body, answer.headers, delay=self.delay * self._rng.uniform(0.5, 1.5))

    def _say(self, received: Received) -> Response:
        text = json.dumps([*received.body["messages"][:-1], received.caption, received.choices])
        digest = hashlib.sha256(text.encode()).digest()
        if digest[0] >= 256 * self.nonsense:
            return say(received)
        return [
            Response(body=completion("I'm sorry, but I can't help with that.")),
            Response(body=completion(None, refusal="No.")),
            Response(body=completion("")),
            Response(body=completion('{"answer": 12}')),
            Response(body=completion('{"negative": 12, "why": 3}')),
            Response(body=completion("It is cut o", finish="length")),
        ][digest[1] % 6]

    def _fault(self, kind: str, received: Received) -> Response:
        if kind == "half":
            return Response(body=say(received).body, keep=60)
        return {
            "500": failure(500, "the model fell over"),
            "503": failure(503, "loading"),
            "429": Response(429, {"error": {"message": "slow down"}}, {"retry-after": "0"}),
            "429 later": Response(429, {"error": {"message": "slow down"}}, {"retry-after": "0.05"}),
            "hang": Response(body=say(received).body, delay=self.hang),
            "garbage": Response(body=b"<html>Bad gateway</html>"),
            "wrong json": Response(body={"choices": "none"}),
            "drop": Response(keep=0),
        }[kind]


class Server:
    """Serves `respond` on a loopback port in a separate thread; `received` lists the requests in order."""

    def __init__(self, respond: Callable[[Received], Response], *, log: Path | None = None, port: int = 0) -> None:
        self.received: list[Received] = []
        self.most_at_once = 0
        self._respond = respond
        self._log = log
        self._at_once = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", port), self._loop
        ).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def requests(self) -> list[Received]:
        """The requests for answers, without those for the list of models."""
        return [received for received in self.received if received.path.endswith("/chat/completions")]

    def close(self) -> None:
        """Stop listening and drop every line."""

        async def stop() -> None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            current = asyncio.current_task()
            for task in asyncio.all_tasks():
                if task is not current:
                    task.cancel()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while (received := await self._read(reader)) is not None:
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    response = self._respond(received)
                    if response.delay:
                        await asyncio.sleep(response.delay)
                    while not response.until():
                        await asyncio.sleep(0.001)
                finally:
                    self._at_once -= 1
                if not await self._write(writer, response):
                    break
        self._writers.discard(writer)
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Received | None:
        first = (await reader.readline()).split()
        if not first:
            return None
        headers = {}
        while line := (await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        received = Received(first[1].decode(), headers, json.loads(body or b"{}"), len(self.received))
        self.received.append(received)
        if self._log:
            with self._log.open("a") as log:
                log.write(f"{received.headers.get('x-client-request-id', '')}\n")
        return received

    async def _write(self, writer: asyncio.StreamWriter, response: Response) -> bool:
        """Whether the connection is to be kept."""
        body = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        length = "connection: close" if response.endless else f"content-length: {len(body)}"
        headers = {"content-type": "application/json", **response.headers}
        head = f"HTTP/1.1 {response.status} X\r\n{length}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if response.keep == 0:
            return False
        writer.write(head.encode() + b"\r\n" + body[: response.keep])
        await writer.drain()
        while response.endless:  # the client's leaving shows as a ConnectionError
            writer.write(response.endless)
            await writer.drain()
            await asyncio.sleep(response.pause)
        return response.keep is None


@contextlib.contextmanager
def serving(respond: Callable[[Received], Response]) -> Iterator[Server]:
    """A server for the length of a test."""
    server = Server(respond)
    try:
        yield server
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.3, help="share of arrivals that fail")
    parser.add_argument("--nonsense", type=float, default=0.1, help="share of requests whose answer is of no use")
    parser.add_argument("--delay", type=float, default=0.0, help="mean seconds before an answer")
    parser.add_argument("--hang", type=float, default=5.0, help="seconds before the answer where it hangs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="one line for each request: the client's name of it")
    parser.add_argument("--hold", type=Path, help="while it is there, this file says how many arrivals are answered")
    arguments = parser.parse_args()
    flaky = Flaky(arguments.seed, arguments.faults, arguments.nonsense, arguments.delay, arguments.hang)

    def respond(received: Received) -> Response:
        with contextlib.suppress(FileNotFoundError):
            if arguments.hold and received.number >= int(arguments.hold.read_text()):
                return Response(delay=1e6)
        return flaky(received)

    server = Server(respond, log=arguments.log, port=arguments.port)
    print(server.port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
