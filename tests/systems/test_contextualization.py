"""Contextualization: ranks and corruption by hand, each triple's own context, both file formats, language models."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from degla.errors import DeglaError, InputError
from degla.negatives.llm import Request
from degla.negatives.run.asking import saved_replies
from degla.systems.contextualization import SYSTEM
from degla.systems.contextualization.cases import read
from degla.systems.contextualization.contexts import (
    LONGEST,
    ContextRecord,
    by_model,
    by_template,
    contexts_of,
    request_of,
)
from degla.systems.contextualization.encoder import (
    BREAK,
    MASK,
    PAD,
    SPECIAL,
    START,
    UNKNOWN_WORD,
    TextEncoder,
    Words,
    corrupt,
    unseen_words,
    writing_task,
)
from degla.systems.contextualization.knowledge import (
    KnowledgeGraph,
    Triple,
    embedded_graph,
    read_knowledge,
    split,
    walk,
)
from degla.systems.contextualization.settings import ContextSettings
from degla.systems.contextualization.training import (
    ContextCorpus,
    Query,
    context_loss,
    filtered_rank,
    masked_perplexity,
    queries_of,
    query_loss,
    rank_means,
    ranks_of,
    train_completion,
)
from tests.negatives.scripted_runs import UnsteadyModel
from tests.official import SHARED

NAMES = ("dog", "animal", "tail", "wolf")
KNOWN = (Triple(0, 0, 1), Triple(3, 0, 1), Triple(0, 1, 2))
GRAPH = KnowledgeGraph(
    name="small",
    entities=("e0", "e1", "e2", "e3"),
    names=NAMES,
    definitions=("a tame wolf", "a living thing", "", "a wild dog"),
    relations=("is a", "has part"),
    train=KNOWN,
    validation=(),
    test=(Triple(3, 1, 2),),
)
SMALL = ContextSettings(dim=8, layers=1, epochs=1, warm_up=1, batch=2)


def test_filtered_ranks_of_four_entities_by_hand() -> None:
    scores = torch.tensor([0.9, 0.5, 0.7, 0.5])
    assert filtered_rank(scores, 0, ()) == 1
    # Entity 1: 0 and 2 are better, 3 is as good: a tie counts half.
    assert filtered_rank(scores, 1, ()) == 3.5
    # 0 is right as well and is left out; the answer itself never is.
    assert filtered_rank(scores, 1, {0, 1}) == 2.5 and filtered_rank(scores, 1, {0, 1, 2, 3}) == 1
    assert scores.tolist() == pytest.approx([0.9, 0.5, 0.7, 0.5])


def test_means_of_ranks_by_hand() -> None:
    means = rank_means([1, 2, 4, 20])
    assert means["mrr"] == pytest.approx((1 + 0.5 + 0.25 + 0.05) / 4)
    assert [means[f"hits_{most}"] for most in (1, 3, 10)] == [0.25, 0.5, 0.75]


def test_answers_of_all_parts_step_aside_in_both_directions(completion: ContextCorpus) -> None:
    assert queries_of(Triple(0, 1, 2)) == ((Query(0, 1, False), 2), (Query(2, 1, True), 0))
    answers = completion.right
    assert answers[Query(1, 0, True)] == {0, 3} and answers[Query(2, 1, True)] == {0, 3}


def test_one_word_in_seven_is_selected_and_eight_of_ten_of_these_are_masked() -> None:
    torch.manual_seed(0)
    words, rows = 1_000, torch.randint(len(SPECIAL), 1_000, (200, 500))
    hidden, selected = corrupt(rows, words=words)
    count = int(selected.sum())
    assert abs(count - 0.15 * rows.numel()) < 4 * math.sqrt(rows.numel() * 0.15 * 0.85)
    for share, places in ((0.8, hidden == MASK), (0.1, hidden == rows)):
        number = int((places & selected).sum())
        # A random word is the word itself once in a thousand, far within four deviations.
        assert abs(number - share * count) < 4 * math.sqrt(count * share * (1 - share)) + 0.001 * count
    other = hidden[selected & (hidden != MASK) & (hidden != rows)]
    assert abs(len(other) - 0.1 * count) < 4 * math.sqrt(count * 0.09) and other.min() >= len(SPECIAL)
    assert torch.equal(hidden[~selected], rows[~selected])


def test_words_are_known_in_any_case() -> None:
    words = Words.of(["Dog"], [])
    assert words.numbers("DOG dog cat") == [len(SPECIAL), len(SPECIAL), UNKNOWN_WORD]


def test_special_words_are_known_and_never_selected() -> None:
    words = Words.of(["dog"], ["a dog, a wolf"])
    assert words.vocabulary == (*SPECIAL, "a", "dog"), "from texts, words that occur twice"
    row = words.rows([("dog", "a cat")], longest=9)
    assert row.tolist() == [
        [START, words.vocabulary.index("dog"), BREAK, words.vocabulary.index("a"), UNKNOWN_WORD, BREAK]
    ]
    special = torch.arange(len(SPECIAL)).repeat(50, 50)
    assert not corrupt(special, words=9)[1].any()
    assert words.rows([("a a a a a a a a a a",), ("a",)], longest=4).tolist()[1] == [START, 5, BREAK, PAD]


def test_every_training_triple_finds_its_own_context_and_no_other_triple_has_one(tmp_path: Path) -> None:
    graph = embedded_graph(120, seed=0)
    contexts = contexts_of(graph, model=None, file=tmp_path / "contexts.jsonl")
    assert set(contexts) == set(graph.train), "the corpus is made of training triples alone"
    for triple, text in contexts.items():
        names = (graph.names[triple.head], graph.relations[triple.relation], graph.names[triple.tail])
        assert all(name in text for name in names) and text == by_template(graph, triple)
    completion = ContextCorpus(graph, contexts)
    assert completion.contexts == [contexts[triple] for triple in graph.train]
    # Keys are numbers on both sides. In the released code one side had texts: each look-up failed and chose at random.
    assert all(isinstance(part, int) for triple in contexts for part in triple)
    assert contexts_of(graph, model=None, file=tmp_path / "contexts.jsonl") == contexts


def test_a_file_of_contexts_is_read_completed_and_never_mixed_up(tmp_path: Path) -> None:
    file = tmp_path / "contexts.jsonl"
    own = ContextRecord(head="e3", relation="is a", tail="e1", text="A wolf is an animal.", source="me")
    tested = ContextRecord(head="e3", relation="has part", tail="e2", text="A test triple.", source="me")
    file.write_text("".join(f"{row.model_dump_json()}\n" for row in (tested, own)))
    contexts = contexts_of(GRAPH, model=None, file=file)
    assert contexts[Triple(3, 0, 1)] == "A wolf is an animal." and "A test triple." not in contexts.values()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["head"], row["source"]) for row in rows] == [("e3", "me"), ("e3", "me"), *[("e0", "template")] * 2]
    file.write_text(f"{own.model_dump_json()}\n" * 2)
    with pytest.raises(InputError, match=r"contexts.jsonl: wolf \| is a \| animal has two contexts\. Remove one"):
        contexts_of(GRAPH, model=None, file=file)


def test_relations_of_the_same_name_share_a_context_and_long_names_are_cut(tmp_path: Path) -> None:
    file = tmp_path / "contexts.jsonl"
    twins = replace(GRAPH, names=("dog " * 700, *NAMES[1:]), relations=("is a", "is a"),
                    train=(*KNOWN, Triple(0, 1, 1)))  # fmt: skip
    first = contexts_of(twins, model=None, file=file)
    assert len(first) == 4 and max(map(len, first.values())) == LONGEST
    assert contexts_of(twins, model=None, file=file) == first and len(file.read_text().splitlines()) == 3
    numbers = count()
    model = _answering(lambda request: f"dog dog, animal, wolf, tail {next(numbers)}")
    written = contexts_of(replace(twins, names=NAMES), model=model, file=tmp_path / "written.jsonl")
    assert len(model.requests) == 3 and written[Triple(0, 0, 1)] == written[Triple(0, 1, 1)]
    assert contexts_of(replace(twins, names=NAMES), model=None, file=tmp_path / "written.jsonl") == written


def _answering(answer: Callable[[Request], str]) -> UnsteadyModel:
    return UnsteadyModel(answer, forms=("write",), capacity=2, shuffle=1)


def test_a_language_model_reads_the_whole_triple_and_its_answer_is_checked() -> None:
    def answer(request: Request) -> str:
        names = [NAMES[int(number)] for number in (request.key.caption_id[1], request.key.caption_id[-1])]
        return "No names here." if names == ["wolf", "animal"] else f"{names[0].upper()} and {names[1]} are related."

    model = _answering(answer)
    rows = by_model(GRAPH, GRAPH.train, model)
    assert rows[Triple(0, 1, 2)].text == "DOG and tail are related." and rows[Triple(0, 1, 2)].source == "scripted"
    wolf = rows[Triple(3, 0, 1)]
    assert wolf.source == "template" and wolf.text == by_template(GRAPH, Triple(3, 0, 1))
    # The source includes the answer, the tail, which the released code masks.
    for request in model.requests:
        assert request.form == "write"
        head, relation, tail = request.key.caption_id.split("\t")
        prompt = request.chat[-1].content
        assert all(name in prompt for name in (NAMES[int(head[1:])], relation, NAMES[int(tail[1:])]))


def test_an_interrupted_call_keeps_what_the_model_wrote(tmp_path: Path) -> None:
    file = tmp_path / "contexts.jsonl"
    model = _answering(lambda request: "dog, animal, wolf and tail.")
    model.fail_after = 2
    with pytest.raises(DeglaError, match="cannot be reached any more"):
        contexts_of(GRAPH, model=model, file=file)
    assert len(model.requests) == 3
    model.fail_after, model.requests[:] = None, []
    assert set(contexts_of(GRAPH, model=model, file=file).values()) == {"dog, animal, wolf and tail."}
    assert len(model.requests) == 1, "only the one without a reply is asked again"
    with saved_replies(file):  # A file that is complete is read, even while another process holds its replies.
        assert len(contexts_of(GRAPH, model=model, file=file)) == 3
    file.unlink()
    model.name = "another"
    contexts_of(GRAPH, model=model, file=file)
    assert len(model.requests) == 4, "replies of another model are not this one's"


def test_a_model_that_cannot_write_chooses_among_templates() -> None:
    model = UnsteadyModel(lambda request: request.choices[-1], forms=("fill", "choose"))
    contexts = by_model(GRAPH, GRAPH.train, model)
    assert contexts[Triple(0, 0, 1)].text == by_template(GRAPH, Triple(0, 0, 1), number=3)
    request = request_of(GRAPH, Triple(0, 0, 1), model)
    assert request.form == "choose" and len(set(request.choices)) == 4


def test_a_context_by_template_says_both_definitions_whole() -> None:
    context = "dog: a tame wolf. tail. dog is related to tail: dog, has part, tail."
    assert by_template(GRAPH, Triple(0, 1, 2), number=0) == context


def test_definitions_of_pages_are_cut_to_a_context() -> None:
    graph = replace(GRAPH, definitions=("word " * 1000, "other " * 1000, *GRAPH.definitions[2:]))
    text = contexts_of(graph, model=None, file=None)[Triple(0, 0, 1)]
    assert len(text) <= LONGEST and {"dog", "animal", "word", "other"} <= set(re.findall(r"\w+", text))
    assert not {"wor", "wo", "w", "othe", "oth", "ot", "o"} & set(re.findall(r"\w+", text)), "cut behind a word"


def test_the_writing_task_begins_behind_the_whole_triple() -> None:
    words = Words.of(["dog", "is a", "animal", "tail", "has part"], ["x y", "x y"])
    rows, begins = writing_task(
        words, [("dog", "is a", "animal"), ("dog", "has part", "tail")], ["x y", "x"], longest=20
    )
    tokens = [[words.vocabulary[number] for number in row] for row in rows.tolist()]
    assert tokens[0] == ["[CLS]", "dog", "[SEP]", "is", "a", "[SEP]", "animal", "[SEP]", "x", "y", "[SEP]"]
    assert begins.tolist() == [8, 8] and [row[8] for row in tokens] == ["x", "x"]


def test_words_of_the_context_see_what_stands_before_them() -> None:
    hidden = unseen_words(torch.tensor([2]), 4)[0]
    assert (~hidden).long().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    torch.manual_seed(0)
    encoder, rows = TextEncoder(12, SMALL).eval(), torch.tensor([[2, 6, 7, 8, 9]])
    other = torch.tensor([[2, 6, 7, 8, 11]])
    begins = torch.tensor([2])
    first, second = encoder(rows, begins), encoder(other, begins)
    torch.testing.assert_close(first[:, :4], second[:, :4])
    assert not torch.allclose(encoder(rows)[:, 2], encoder(other)[:, 2])


def test_the_first_word_of_a_context_is_learnt_too(completion: ContextCorpus) -> None:
    completion.contexts = ["tail"] * len(KNOWN)
    encoder = TextEncoder(len(completion.words.vocabulary), SMALL)
    assert context_loss(encoder, completion, [0, 1, 2], "write").item() > 0


def test_padding_changes_nothing() -> None:
    encoder = TextEncoder(12, SMALL).eval()
    torch.testing.assert_close(encoder.embed(torch.tensor([[2, 6, 3]])), encoder.embed(torch.tensor([[2, 6, 3, 0, 0]])))


@pytest.fixture
def completion() -> ContextCorpus:
    return ContextCorpus(GRAPH, contexts_of(GRAPH, model=None, file=None))


def test_other_right_answers_are_no_negatives(completion: ContextCorpus) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(len(completion.words.vocabulary), SMALL).eval()
    value = query_loss(encoder, completion, GRAPH.train, scale=7.0)
    queries = [query for triple in GRAPH.train for query in queries_of(triple)]
    rows = encoder.embed(completion.rows_of([query for query, _ in queries])) @ encoder.embed(completion.entities).T
    expected = []
    # Answers of this batch are dog, animal, tail and wolf; heads of (?, is a, animal) are dog and wolf.
    for number, (query, answer) in enumerate(queries):
        away = {0, 3} - {answer} if query == Query(1, 0, True) else set()
        candidates = torch.stack([rows[number, each] for each in range(4) if each not in away])
        expected.append((7 * candidates).logsumexp(0) - 7 * rows[number, answer])
    assert value.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


@pytest.mark.parametrize("task", ["reconstruct", "write"])
def test_both_tasks_learn(completion: ContextCorpus, task: str) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(len(completion.words.vocabulary), replace(SMALL, dim=32))
    optimiser = torch.optim.Adam(encoder.parameters(), lr=1e-2)

    def value() -> torch.Tensor:
        return torch.stack([context_loss(encoder, completion, [0, 1, 2], task) for _ in range(4)]).mean()  # type: ignore[arg-type]

    before = value().item()
    for _ in range(30):
        optimiser.zero_grad()
        value().backward()
        optimiser.step()
    assert value().item() < 0.7 * before


def test_a_context_without_a_selected_word_is_nothing(
    completion: ContextCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degla.systems.contextualization.encoder.SELECTED", 0.0)
    encoder = TextEncoder(len(completion.words.vocabulary), SMALL)
    value = context_loss(encoder, completion, [0], "reconstruct")
    assert value.item() == 0 and value.requires_grad


def test_the_warm_up_is_the_same_for_every_task_that_has_one(completion: ContextCorpus) -> None:
    def trained(task: str, alpha: float = 1.0) -> torch.Tensor:
        torch.manual_seed(0)
        settings = replace(SMALL, alpha=alpha)
        return train_completion(completion, settings, warm=True, task=task).words.weight  # type: ignore[arg-type]

    assert torch.equal(trained(""), trained("")) and not torch.equal(trained(""), trained("reconstruct"))


def test_perplexity_by_frequencies_by_hand(completion: ContextCorpus) -> None:
    encoder = TextEncoder(len(completion.words.vocabulary), SMALL).eval()
    with torch.no_grad():
        encoder.words.weight.zero_()
    # The third word after [CLS] is masked, once in this text: "a". With uniform words their number is the perplexity.
    perplexity, guessed = masked_perplexity(encoder, completion, ["dog wolf a"])
    assert perplexity == pytest.approx(len(completion.words.vocabulary))
    counts = [number for text in completion.contexts for number in completion.words.numbers(text)]
    share = (counts.count(completion.words.vocabulary.index("a")) + 1) / (
        len(counts) + len(completion.words.vocabulary)
    )
    assert guessed == pytest.approx(1 / share)
    # For two masked words it is the geometric mean.
    words = ["dog wolf a", "dog wolf is"]
    apart = [masked_perplexity(encoder, completion, [each])[1] for each in words]
    assert masked_perplexity(encoder, completion, words)[1] == pytest.approx(math.sqrt(apart[0] * apart[1]))


def test_ranks_are_those_of_names_alone(completion: ContextCorpus) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(len(completion.words.vocabulary), SMALL).eval()
    ranks = ranks_of(encoder, completion, GRAPH.test)
    rows = (
        encoder.embed(completion.rows_of([Query(3, 1, False), Query(2, 1, True)]))
        @ encoder.embed(completion.entities).T
    )
    assert ranks == [filtered_rank(rows[0], 2, ()), filtered_rank(rows[1], 3, {0})]
    torch.testing.assert_close(encoder.embed(completion.entities).norm(dim=1), torch.ones(4))
    assert ranks_of(encoder, completion, KNOWN * 50) == ranks_of(encoder, completion, KNOWN) * 50, "more than one batch"


def test_no_context_is_read_where_contexts_are_for_nothing(
    completion: ContextCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[str] = []
    monkeypatch.setattr(
        "degla.systems.contextualization.training.context_loss",
        lambda encoder, completion, some, task: tasks.append(task) or context_loss(encoder, completion, some, task),
    )
    train_completion(completion, SMALL, warm=False, task="")
    assert tasks == []
    train_completion(completion, SMALL, warm=False, task="write")
    assert tasks == ["write", "write"]


def test_a_split_asks_for_nothing_that_is_not_trained_on() -> None:
    graph = embedded_graph(300, seed=4)
    entities = {entity for triple in graph.train for entity in (triple.head, triple.tail)}
    questions = [*graph.test, *graph.validation]
    assert all({triple.head, triple.tail} <= entities for triple in questions)
    everything = [*graph.train, *questions]
    assert len(set(everything)) == len(everything) == 595 and len(graph.test) == 89
    pairs = {frozenset((triple.head, triple.tail)) for triple in everything}
    assert len(pairs) == len(everything), "no triple is another one reversed"
    assert split(everything, seed=1)[0] != split(everything, seed=2)[0]
    assert graph.test != embedded_graph(300, seed=5).test


def test_a_walk_finds_neighbours_first_and_a_part_keeps_what_it_can_ask() -> None:
    graph = replace(
        GRAPH, train=(Triple(0, 0, 1), Triple(1, 0, 2), Triple(0, 1, 2)), test=(Triple(2, 0, 0), Triple(3, 0, 1))
    )
    assert walk(graph, 3) == [1, 0, 2] and sorted(walk(graph, 9)) == [0, 1, 2, 3]
    # Distant neighbours of the first come before the second most connected.
    apart = tuple(
        Triple(*each) for each in ((0, 0, 1), (0, 0, 2), (2, 0, 3), (0, 0, 4), (5, 0, 6), (5, 0, 7), (5, 0, 8))
    )
    names = tuple("abcdefghi")
    many = KnowledgeGraph("many", names, names, names, ("is",), (*apart, Triple(0, 0, 3)), (), (Triple(4, 0, 0),))
    assert walk(many, 5) == [0, 1, 2, 4, 3]
    part = graph.within([0, 2, 1], name="part")
    assert part.names == ("dog", "tail", "animal") and part.entities == ("e0", "e2", "e1")
    assert part.train == (Triple(0, 0, 2), Triple(2, 0, 1), Triple(0, 1, 1)) and part.test == (Triple(1, 0, 0),)


def _write_words(folder: Path, **changed: str) -> None:
    files = {
        "train.tsv": "d\t_is_a\ta\nw\t_is_a\ta\n", "dev.tsv": "d\t_is_a\tw\n", "test.tsv": "w\t_is_a\td\n",
        "entity2text.txt": "d\tdog, a tame wolf, mostly\nw\twolf, a wild dog\na\tanimal\n",
        "relation2text.txt": "_is_a\tis a\n", **changed,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_files_by_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_words(tmp_path / "wn")
    graph = read_knowledge(tmp_path / "wn")
    assert graph.names == ("dog", "wolf", "animal") and graph.relations == ("is a",)
    assert graph.definitions == ("a tame wolf, mostly", "a wild dog", "")
    assert (graph.train, graph.validation, graph.test) == (
        (Triple(0, 0, 2), Triple(1, 0, 2)), (Triple(0, 0, 1),), (Triple(1, 0, 0),),
    )  # fmt: skip
    # A longer text is the definition, and the short one the whole name.
    _write_words(tmp_path / "wn", **{"entity2textlong.txt": "d\tA dog barks.\n"})
    long = read_knowledge(tmp_path / "wn")
    assert long.names[0] == "dog, a tame wolf, mostly" and long.definitions[:1] == ("A dog barks.",)
    for path in list((tmp_path / "wn").iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_knowledge(tmp_path / "wn") == long
    monkeypatch.setattr("degla.parse.LARGEST_FILE", 1000)
    (tmp_path / "wn" / "entity2textlong.txt.gz").write_bytes(gzip.compress(bytes(10**5)))
    with pytest.raises(
        InputError, match=r"textlong.txt.gz: more than 1,000 bytes when unpacked\. Download or recreate"
    ):
        read_knowledge(tmp_path / "wn")


def test_an_empty_name_is_the_identifier(tmp_path: Path) -> None:
    _write_words(tmp_path, **{"entity2text.txt": "d\tdog\nw\t\na\tanimal\n", "relation2text.txt": "_is_a\t\n"})
    graph = read_knowledge(tmp_path)
    assert graph.names == ("dog", "w", "animal") and graph.relations == ("is a",)
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    _write_numbers(
        numbered, **{"entityid2name.txt": "3\n0\tdog\nw\t\n2\tanimal\n", "relationid2name.txt": "1\n/is_a\t\n"}
    )
    graph = read_knowledge(numbered)
    assert graph.names == ("dog", "w", "animal") and graph.relations == ("is a",)


def test_a_whole_graph_asks_about_entities_that_no_training_triple_has(tmp_path: Path) -> None:
    _write_words(tmp_path, **{
        "test.tsv": "w\t_is_a\td\nc\t_is_a\ta\n", "entity2text.txt": "d\tdog\nw\twolf\na\tanimal\nc\tcat\n"
    })  # fmt: skip
    whole = read(ContextSettings(entities=4), str(tmp_path), 0).graph
    assert whole.test == (Triple(1, 0, 0), Triple(3, 0, 2))
    part = read(ContextSettings(entities=3), str(tmp_path), 0).graph
    assert [part.say(triple) for triple in part.test] == ["wolf | is a | dog"]


def test_a_part_asks_for_no_entity_that_it_does_not_train_on() -> None:
    # Nothing is trained about entity 2, which two of the triples ask for.
    tests = (Triple(3, 1, 2), Triple(2, 0, 3), Triple(0, 0, 3))
    part = replace(GRAPH, train=KNOWN[:2], test=tests).within(range(4), name="part")
    assert part.test == (Triple(0, 0, 3),)


def test_files_without_texts_have_names_of_their_own(tmp_path: Path) -> None:
    for name, text in (
        ("train", "big_dog\tis_a\tanimal"),
        ("valid", "animal\tis_a\tanimal"),
        ("test", "animal\tis_a\tbig_dog"),
    ):
        (tmp_path / f"{name}.txt").write_text(f"{text}\n")
    graph = read_knowledge(tmp_path)
    assert graph.names == ("big dog", "animal") and graph.relations == ("is a",)
    (tmp_path / "entity2textlong.txt").write_text("big_dog\tA dog.\n")
    assert read_knowledge(tmp_path).names == graph.names and read_knowledge(tmp_path).definitions == ("A dog.", "")


def _write_numbers(folder: Path, **changed: str) -> None:
    files = {
        "train2id.txt": "2\n0 2 0\n1 2 0\n", "valid2id.txt": "1\n0 1 0\n", "test2id.txt": "1\n1 0 0\n",
        "entityid2name.txt": "3\n0\tdog\n1\twolf\n2\tanimal\n", "relationid2name.txt": "1\n0\t/animal/is_a\n",
        "entityid2description.txt": "3\n0\tA dog.\n1\t\n2\tAn animal.\n", **changed,
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text)


def test_files_by_numbers_have_the_relation_last_and_their_count_first(tmp_path: Path) -> None:
    _write_numbers(tmp_path)
    graph = read_knowledge(tmp_path)
    assert graph.train == (Triple(0, 0, 2), Triple(1, 0, 2)) and graph.test == (Triple(1, 0, 0),)
    assert graph.relations == ("animal is a",) and graph.definitions == ("A dog.", "", "An animal.")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"train2id.txt": "3\n0 2 0\n1 2 0\n"}, "train2id.txt: its first line says '3' triples, but 2 follow"),
        ({"train2id.txt": "2\n0 2 0\n1 7 0\n"}, "train2id.txt line 3: refers to a number without a name"),
        ({"test2id.txt": "1\ndog wolf 0\n"}, "test2id.txt line 2: must be numbers of head, tail and relation"),
        ({"entityid2name.txt": "3\n0\tdog\n0\twolf\n2\tanimal\n"}, "entityid2name.txt line 3: '0' is repeated, which"),
        ({"entityid2name.txt": "1\n0 dog\n"}, "entityid2name.txt line 2: must be two tab-separated columns"),
    ],
)
def test_bad_numbers_are_named(tmp_path: Path, changed: dict[str, str], says: str) -> None:
    _write_numbers(tmp_path, **changed)
    with pytest.raises(InputError, match=says):
        read_knowledge(tmp_path)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"test.tsv": "x\t_is_a\td\n"}, "test.tsv line 1: entity 'x' is not in entity2text.txt; add its name there"),
        ({"train.tsv": "d _is_a a\n"}, "train.tsv line 1: must be tab-separated head, relation and tail"),
        ({"train.tsv": "d\t\ta\n"}, "train.tsv line 1: must be tab-separated head, relation and tail"),
        ({"dev.tsv": ""}, "dev.tsv: is empty"),
        ({"train.tsv": "\n\nd\t_is_a\ta\nw\n"}, "train.tsv line 4: must be tab-separated head, relation and tail"),
        ({"test.tsv": "d\t_is_a\ta\n"}, r"dog \| is a \| animal is in both train and test"),
        ({"test.tsv": "d\t_is_a\tw\n"}, r"dog \| is a \| wolf is in both validation and test"),
    ],
)
def test_bad_words_are_named(tmp_path: Path, changed: dict[str, str], says: str) -> None:
    _write_words(tmp_path, **changed)
    with pytest.raises(InputError, match=says) as error:
        read_knowledge(tmp_path)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has none of train.tsv, train.txt. Use the folder"):
        read_knowledge(tmp_path)
    _write_numbers(tmp_path)
    (tmp_path / "relationid2name.txt").unlink()
    with pytest.raises(InputError, match=r"relationid2name.txt: no such file; this graph format needs it"):
        read_knowledge(tmp_path)
    (tmp_path / "relationid2name.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"relationid2name.txt: cannot be read as text"):
        read_knowledge(tmp_path)


def test_published_graphs_with_texts() -> None:
    if not (SHARED / "wn18rr").is_dir():
        pytest.skip("wn18rr is not there")
    graph = read_knowledge(SHARED / "wn18rr")
    assert tuple(map(len, (graph.train, graph.validation, graph.test))) == (86_835, 3_034, 3_134)
    assert len(graph.names) == 40_943 and len(graph.relations) == 11
    stool = graph.entities.index("14854262")
    assert (graph.names[stool], graph.definitions[stool]) == (
        "stool",
        "solid excretory product evacuated from the bowels",
    )
    umls = read_knowledge(SHARED / "umls_text")
    assert len(umls.names) == 135 and len(umls.train) == 5_216 and umls.definitions[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (ContextSettings(writer="gpt"), "--writer gpt: use template, embedded, or a server address together"),
        (ContextSettings(writer="http://localhost:1"), "with --writer-model"),
        (ContextSettings(entities=1), "--entities is 1; it must be 2 or more"),
    ],
)
def test_settings_that_do_not_go_together(settings: ContextSettings, says: str) -> None:
    with pytest.raises(InputError, match=says):
        SYSTEM.read(settings, "wordnet", 0)


def test_contexts_come_from_the_file_and_the_writer_that_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []

    def writer(kind: str) -> Callable[..., UnsteadyModel]:
        return lambda *arguments: (
            calls.append((kind, *arguments)) or UnsteadyModel(lambda request: request.choices[-1], forms=("choose",))
        )

    monkeypatch.setattr("degla.negatives.llm.embedded.EmbeddedModel", writer("embedded"))
    monkeypatch.setattr("degla.negatives.llm.server.ServerModel", writer("server"))
    settings = ContextSettings(entities=250, contexts=str(tmp_path / "contexts.jsonl"), writer="embedded")
    first = SYSTEM.read(settings, "wordnet", 0)
    lines = (tmp_path / "contexts.jsonl").read_text().splitlines()
    assert {json.loads(line)["source"] for line in lines} == {"scripted"} and len(lines) == len(first.contexts)
    again = replace(settings, writer="https://here/v1", writer_model="gpt")
    assert SYSTEM.read(again, "wordnet", 0).contexts == first.contexts
    assert SYSTEM.digest(settings, "wordnet", 0) == SYSTEM.digest(again, "wordnet", 0) != ""
    last = json.loads(lines[-1])
    other = [*lines[:-1], json.dumps(last | {"text": f"{last['text']} Indeed."})]
    (tmp_path / "other.jsonl").write_text("\n".join(other))
    changed = replace(settings, contexts=str(tmp_path / "other.jsonl"))
    assert SYSTEM.digest(changed, "wordnet", 0) != SYSTEM.digest(settings, "wordnet", 0)
    assert SYSTEM.digest(replace(settings, contexts=""), "wordnet", 0) == "", "which asks no writer"
    assert SYSTEM.read(replace(settings, writer="template", contexts=""), "wordnet", 0).contexts != first.contexts
    assert calls == [("embedded", None), ("server", ["https://here/v1"], "gpt"), ("embedded", None)]


def test_each_method_has_its_own_training_and_each_part_its_score(
    completion: ContextCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        "degla.systems.contextualization.cases.train_completion",
        lambda data, settings, **options: calls.append(options) or TextEncoder(len(data.words.vocabulary), settings),
    )
    models = [SYSTEM.train(SMALL, completion, method) for method in SYSTEM.methods]
    assert [tuple(each.values()) for each in calls] == [(True, ""), (False, ""), (True, "reconstruct"), (True, "write")]
    monkeypatch.setattr(
        "degla.systems.contextualization.cases.ranks_of",
        lambda encoder, data, triples: [1.0] if triples == data.graph.test else [4.0],
    )
    monkeypatch.setattr("degla.systems.contextualization.cases.masked_perplexity", lambda *arguments: (6.0, 3.0))
    scores = SYSTEM.measure(SMALL, completion, "names", models[1])
    assert (scores["mrr"], scores["perplexity_ratio"]) == (1.0, 2.0) and "validation_mrr" not in scores
    completion.graph = replace(GRAPH, validation=(Triple(3, 1, 0),))
    assert SYSTEM.measure(SMALL, completion, "names", models[1])["validation_mrr"] == 0.25


def test_every_method_runs_and_is_drawn() -> None:
    settings = ContextSettings(entities=250, dim=8, layers=1, epochs=1, warm_up=1, batch=160)
    data = SYSTEM.read(settings, "wordnet", 0)
    models = {method: SYSTEM.train(settings, data, method) for method in SYSTEM.methods}
    for method, weights in models.items():
        scores = SYSTEM.measure(settings, data, method, weights)
        assert set(scores) == {column.name for column in SYSTEM.columns}
        assert 0 < scores["mrr"] <= 1 and scores["hits_1"] <= scores["hits_3"] <= scores["hits_10"]
    figure = SYSTEM.draw(settings, data, models, "wordnet")
    assert figure is not None
    drawing = figure.draw(figure.widths[0])
    assert "250 entities" in figure.caption and "<svg" in drawing
    assert ">100</text>" in drawing and "mathdefault" not in drawing
    assert "#000000" not in drawing, "nothing is lost on a dark page"
