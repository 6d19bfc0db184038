"""Compare pacing by `ServerModel` with a fixed number of connections and the client library's retries on busy servers.

Every server runs in a separate process and only sleeps, so other load hardly affects the figures. It drops requests
whose client no longer waits, as vLLM and llama.cpp do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import openai

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.local_server import local_server
from degla.cli import exit_status_of
from degla.negatives.llm import ChatMessage, Request, RequestKey
from degla.negatives.llm.server import ServerModel
from degla.verbs._arguments import at_least

ANSWER = json.dumps({"choices": [{"message": {"content": "A mat on a dog."}, "finish_reason": "stop"}]}).encode()


@dataclass(frozen=True)
class Busy:
    """A server that handles `slots` requests at once, each for `seconds`; others wait, or are rejected with 429.

    After `until` answers it has `later` slots.
    """

    slots: int
    seconds: float
    refuses: bool = False
    retry_after: str = ""
    until: int = 1 << 30
    later: int = 0
    timeout: float = 60.0
    requests: int = 600


SERVERS = {
    "429 above 16 at once": Busy(16, 0.3, refuses=True),
    "429 above 16 at once, Retry-After 1": Busy(16, 0.3, refuses=True, retry_after="1"),
    "429 above 4 at once": Busy(4, 0.3, refuses=True, requests=200),
    "8 slots, the others wait": Busy(8, 0.2),
    "32 slots, after 200 answers 6": Busy(32, 0.3, until=200, later=6),
    "2 slots of 1 s, time-out 8 s": Busy(2, 1.0, timeout=8.0, requests=100),
    "16 slots of 0.5 s, then 1; time-out 8 s": Busy(16, 0.5, until=200, later=1, timeout=8.0, requests=260),
    "as many as come": Busy(1000, 0.3),
}


class Served:
    """Serve on a loopback port; count requests, rejections and the largest number at once."""

    def __init__(self, busy: Busy) -> None:
        self.busy = busy
        self.came = self.refused = self.dropped = self.answered = self.working = self.at_once = self.most = 0
        self.turn = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                length = 0
                while header := (await reader.readline()).strip():
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                await reader.readexactly(length)
                if line.startswith(b"GET"):
                    counts = {name: number for name, number in vars(self).items() if isinstance(number, int)}
                    self._send(writer, 200, json.dumps(counts).encode())
                elif await self._work(reader):
                    self._send(writer, 200, ANSWER)
                else:
                    after = f"retry-after: {self.busy.retry_after}\r\n" if self.busy.retry_after else ""
                    self._send(writer, 429, b'{"error": {"message": "too many requests"}}', after)
                await writer.drain()
        writer.close()

    async def _work(self, reader: asyncio.StreamReader) -> bool:
        self.came += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if self.busy.refuses and self.at_once > self.busy.slots:
                self.refused += 1
                return False
            async with self.turn:
                await self.turn.wait_for(lambda: reader.at_eof() or self.working < self._slots())
                if reader.at_eof():
                    self.dropped += 1
                    raise ConnectionError
                self.working += 1
            await asyncio.sleep(self.busy.seconds)
            async with self.turn:
                self.working -= 1
                self.answered += 1
                self.turn.notify_all()
            return True
        finally:
            self.at_once -= 1

    def _slots(self) -> int:
        return self.busy.slots if self.answered < self.busy.until else self.busy.later

    def _send(self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode() + body)


async def serve_for_good(name: str) -> None:
    server = await asyncio.start_server(Served(SERVERS[name]).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def fixed(url: str, busy: Busy, *, connections: int, retries: int) -> int:
    """Use the client library's own retries with a limit on connections; return the number of unanswered requests."""

    async def run() -> int:
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=retries, timeout=busy.timeout)
        gate = asyncio.Semaphore(connections)

        async def one(number: int) -> bool:
            async with gate:
                turns = [{"role": "user", "content": f"A dog number {number} on a mat."}]
                with contextlib.suppress(openai.OpenAIError):
                    await client.chat.completions.create(model="m", messages=turns, max_tokens=160)  # type: ignore
                    return True
                return False

        answered = await asyncio.gather(*(one(number) for number in range(busy.requests)))
        await client.close()
        return answered.count(False)

    return asyncio.run(run())


def own(url: str, busy: Busy, *, connections: int, retries: int) -> int:
    """Use `ServerModel`; return the number of unanswered requests."""
    model = ServerModel([url], "m", concurrency=connections, retries=retries, timeout=busy.timeout)
    for number in range(busy.requests):
        text = f"A dog number {number} on a mat."
        model.start(Request(RequestKey(f"c{number}", "swap_nouns", 0), "write", (ChatMessage("user", text),), text))
    failed = 0
    while replies := model.finished():
        failed += sum(reply.outcome != "answered" for reply in replies)
    model.close()
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", choices=SERVERS, default=list(SERVERS), metavar="SERVER")
    parser.add_argument("--way", nargs="+", choices=("own", "fixed"), default=("fixed", "own"))
    parser.add_argument("--connections", type=at_least(1), default=64)
    parser.add_argument("--retries", type=at_least(0), default=8)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve_for_good(given.serve))
        return
    print(f"at most {given.connections} connections, {given.retries} retries; load {os.getloadavg()[0]:.0f}")
    print(f"{'server':<42} {'way':<6} {'seconds':>8} {'unanswered':>11} {'sent/request':>13} {'most at once':>13}")
    for name in given.only:
        busy = SERVERS[name]
        for way in given.way:
            with local_server(__file__, "--serve", name) as (url, _):
                began = time.perf_counter()
                ask = own if way == "own" else fixed
                failed = ask(url, busy, connections=given.connections, retries=given.retries)
                seconds = time.perf_counter() - began
                counts = read_counts(url)
            sent = counts["came"] / busy.requests
            print(f"{name:<42} {way:<6} {seconds:8.1f} {failed:11} {sent:13.2f} {counts['most']:13}", flush=True)


def read_counts(url: str) -> dict[str, int]:
    from urllib.request import urlopen

    with urlopen(url) as response:
        counts: dict[str, int] = json.load(response)
    return counts


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
