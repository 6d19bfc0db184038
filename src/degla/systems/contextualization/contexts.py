"""Contexts of triples: texts that introduce head and tail and state their relation, from templates or an LLM."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from pydantic import Field

from degla.errors import InputError
from degla.negatives.llm import ChatMessage, LanguageModel, Reply, Request, RequestKey
from degla.negatives.run.asking import replies_to, rule_name, saved_replies
from degla.negatives.run.output import Journal
from degla.records import Record, read_jsonl, write_jsonl
from degla.systems.contextualization.knowledge import KnowledgeGraph, Triple

LONGEST: Final = 4_000
"""Maximum number of characters of a context."""
_DEFINITION: Final = 1_500
"""Maximum characters of a definition in a template context, so that two of them and the names fit in `LONGEST`."""
_TEMPLATES: Final = (
    "{about_head} {about_tail} {head} is related to {tail}: {head}, {relation}, {tail}.",
    "{about_head} {about_tail} The relation {relation} leads from {head} to {tail}.",
    "{about_tail} {about_head} From {head}, {relation} leads to {tail}.",
    "{head}, {relation}, {tail}. {about_head} {about_tail}",
)
_ASK: Final = (
    "You write a short text about two things and how they are related. Introduce the first, then the second, then say "
    "the relation. Use both names to the letter. Write plain sentences and nothing else."
)


class ContextRecord(Record):
    """A line of a context file.

    Attributes:
        head: head entity as named in the graph's files.
        relation: relation as the graph says it.
        tail: tail entity, same as head.
        text: the context.
        source: "template", or the name of a language model.
    """

    head: str = Field(min_length=1)
    relation: str = Field(min_length=1)
    tail: str = Field(min_length=1)
    text: str = Field(min_length=1, max_length=LONGEST)
    source: str


def by_template(graph: KnowledgeGraph, triple: Triple, *, number: int | None = None) -> str:
    """Return a context of both definitions and the relation, in one of four orders.

    Args:
        graph: names and definitions.
        triple: triple of the graph.
        number: number of the template; by default a fixed one for each triple.
    """
    if number is None:
        number = hashlib.sha256(graph.say(triple).encode()).digest()[0]
    return _TEMPLATES[number % len(_TEMPLATES)].format(
        head=graph.names[triple.head],
        tail=graph.names[triple.tail],
        relation=graph.relations[triple.relation],
        about_head=_about(graph, triple.head),
        about_tail=_about(graph, triple.tail),
    )


def _about(graph: KnowledgeGraph, entity: int) -> str:
    definition = graph.definitions[entity]
    if len(definition) > _DEFINITION:  # Some in UMLS are pages long; cut after a word.
        definition = definition[:_DEFINITION].rpartition(" ")[0]
    return f"{graph.names[entity]}: {definition.rstrip('.')}." if definition else f"{graph.names[entity]}."


def request_of(graph: KnowledgeGraph, triple: Triple, model: LanguageModel) -> Request:
    """Return the request to a language model: to write a context, or, if it cannot, to choose among the templates."""
    # Names in the files, as in `ContextRecord`: numbers change with the files.
    names = graph.entities[triple.head], graph.relations[triple.relation], graph.entities[triple.tail]
    key = RequestKey("\t".join(names), rule_name("context", model, _ASK), 0)
    source = by_template(graph, triple, number=0)
    chat = (ChatMessage("system", _ASK), ChatMessage("user", source))
    if "write" in model.forms:
        return Request(key, "write", chat, source)
    choices = tuple(dict.fromkeys(by_template(graph, triple, number=number) for number in range(len(_TEMPLATES))))
    return Request(key, "choose", chat, source, choices=choices)


def by_model(
    graph: KnowledgeGraph, triples: Sequence[Triple], model: LanguageModel, *, journal: Journal | None = None
) -> dict[Triple, ContextRecord]:
    """Write a context for each triple with a language model; use a template if its answer lacks a name or fails.

    Args:
        graph: names and definitions.
        triples: triples of the graph.
        model: language model client, the same as for negatives.
        journal: where replies are kept, so that none is paid for twice.

    Raises:
        DeglaError: the model cannot be reached; the journal has what it answered.
    """
    requests = {triple: request_of(graph, triple, model) for triple in triples}
    replies = replies_to(requests.values(), model=model, journal=journal)
    records: dict[Triple, ContextRecord] = {}
    for triple, request in requests.items():
        text = _usable(graph, triple, replies[request.key])
        records[triple] = _record(graph, triple, text, "template" if text is None else model.name)
    return records


def _usable(graph: KnowledgeGraph, triple: Triple, reply: Reply) -> str | None:
    text = " ".join(reply.text.split())
    low = text.casefold()
    has_names = all(graph.names[entity].casefold() in low for entity in (triple.head, triple.tail))
    return text if reply.outcome == "answered" and has_names and len(text) <= LONGEST else None


def _record(graph: KnowledgeGraph, triple: Triple, text: str | None, source: str) -> ContextRecord:
    return ContextRecord(
        head=graph.entities[triple.head],
        relation=graph.relations[triple.relation],
        tail=graph.entities[triple.tail],
        text=text or by_template(graph, triple)[:LONGEST],
        source=source,
    )


def contexts_of(graph: KnowledgeGraph, *, model: LanguageModel | None, file: Path | None) -> dict[Triple, str]:
    """Return the contexts of the training triples only.

    Args:
        graph: graph of which only `train` is read.
        model: model that writes contexts missing in the file; templates are used if None.
        file: JSONL of `ContextRecord`; its contexts are used, and new ones are appended. The model's replies are kept
            beside it, so that an interrupted call resumes.

    Raises:
        InputError: the file is damaged, repeats a triple, or is being written by another process.
    """
    rows = {} if file is None or not file.exists() else _by_triple(graph, read_jsonl(ContextRecord, file), where=file)
    lacking = [triple for triple in dict.fromkeys(graph.train) if triple not in rows]
    if model is None or not lacking:
        additions: Mapping[Triple, ContextRecord] = {
            triple: _record(graph, triple, None, "template") for triple in lacking
        }
    else:
        with nullcontext() if file is None else saved_replies(file) as journal:
            additions = by_model(graph, lacking, model, journal=journal)
    if file is not None and additions:
        before = list(read_jsonl(ContextRecord, file)) if file.exists() else []
        # Relations that differ only in their identifiers are told in the same words: one line for all.
        new = {(row.head, row.relation, row.tail): row for row in additions.values()}
        write_jsonl(file, [*before, *new.values()])
    return {triple: (rows.get(triple) or additions[triple]).text for triple in graph.train}


def _by_triple(graph: KnowledgeGraph, rows: Iterable[ContextRecord], *, where: Path) -> dict[Triple, ContextRecord]:
    """Return rows by the numbers of their triples in the graph, so that texts and numbers cannot be confused."""
    entity = {name: at for at, name in enumerate(graph.entities)}
    relations: dict[str, list[int]] = {}
    for number, name in enumerate(graph.relations):
        relations.setdefault(name, []).append(number)
    records: dict[Triple, ContextRecord] = {}
    for row in rows:
        for number in relations.get(row.relation, ()) if row.head in entity and row.tail in entity else ():
            triple = Triple(entity[row.head], number, entity[row.tail])
            if triple in records:
                raise InputError(f"{where}: {graph.say(triple)} has two contexts. Remove one.")
            records[triple] = row
    return records
