"""Balanced negatives: chosen pairs have zero mean signs, so that text-only classifiers fail, or the rule is dropped."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, product
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rich.console import Console

from degla.cli import main
from degla.errors import InputError
from degla.negatives.balance import balance
from degla.negatives.balance.balance import REWARDS, Balancer, Chooser, Groups, signs
from degla.negatives.balance.outcome import (
    Balance,
    BalanceSettings,
    RuleBalance,
    TextAccuracy,
    measure_text_accuracy,
    render,
)
from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.report.blind import CaptionNegative, NgramLikelihood, ngram_likelihoods
from degla.negatives.report.counts import Draws
from degla.negatives.report.examine import examine_file, explain
from degla.negatives.run.summary import Summary
from degla.records import CaptionRecord, NegativeRecord, read_jsonl, write_jsonl

COLOURS = ("red", "blue", "green", "black", "white", "brown")
THINGS = ("dog", "cat", "ball", "boat", "car", "bench")


def made_captions(count: int) -> list[CaptionRecord]:
    """Colours and things, the first colours far more often than the last."""
    rng = Random(5)
    texts = [f"a {rng.choices(COLOURS, (9, 5, 3, 2, 1, 1))[0]} {rng.choice(THINGS)} on a street" for _ in range(count)]
    return [CaptionRecord(id=str(at), image=f"{at}.jpg", text=text, image_id=str(at)) for at, text in enumerate(texts)]


def made_rows(captions: Iterable[CaptionRecord]) -> list[NegativeRecord]:
    """Two rules: one inserts rare colours, one always adds a word."""
    rows = []
    for caption in captions:
        colour = caption.text.split()[1]
        replaced = [caption.text.replace(colour, other) for other in COLOURS[2:] if other != colour]
        for rule, texts in (("colours", replaced), ("adds", [caption.text + " today"])):
            rows.append(
                NegativeRecord(
                    caption_id=caption.id, rule=rule, kind="attribute", text="a zorblax", source="rules",
                    accepted=False, reason="unknown_word",
                )
            )  # fmt: skip
            rows += [
                NegativeRecord(
                    caption_id=caption.id,
                    rule=rule,
                    kind="attribute",
                    text=text,
                    source="rules",
                    accepted=True,
                    draw=at,
                )
                for at, text in enumerate(texts)
            ]
        rows.append(
            NegativeRecord(
                caption_id=caption.id, rule="none", kind="order", text=None, source="rules", accepted=False,
                reason="no_candidate",
            )
        )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Balancer, list[NegativeRecord]]:
    captions = made_captions(400)
    rows = made_rows(captions)
    out = tmp_path_factory.mktemp("balance") / "balanced.jsonl"
    with CaptionIndex(captions) as index:
        balancer = Balancer(lambda: rows, index, BalanceSettings(), ngram_likelihoods(index))
        balancer.write(out)
    return balancer, list(read_jsonl(NegativeRecord, out))


def test_what_words_gave_away_is_given_away_no_longer(balanced: tuple[Balancer, list[NegativeRecord]]) -> None:
    report = balanced[0].report
    colours = report.rules["colours"]
    assert colours.before is not None and colours.before.most > 0.7
    assert colours.after is not None and colours.after.most <= 0.6 and colours.stays
    assert colours.kept > 0.3 * colours.captions == 0.3 * 400
    assert report.after == colours.after, "of the rules that stay"
    assert report.before is not None and report.before.n == 800


def test_a_rule_whose_form_betrays_it_is_left_out(balanced: tuple[Balancer, list[NegativeRecord]]) -> None:
    balancer, rows = balanced
    assert not balancer.report.rules["adds"].stays
    adds = [row for row in rows if row.rule == "adds"]
    assert len(adds) == 400 and {row.reason for row in adds} == {"text_solvable"} and not any(r.accepted for r in adds)


def test_every_caption_and_rule_has_its_row(balanced: tuple[Balancer, list[NegativeRecord]]) -> None:
    balancer, rows = balanced
    assert [(row.caption_id, row.rule) for row in rows] == [
        (str(at), rule) for at in range(400) for rule in ("colours", "adds", "none")
    ]
    count = sum(row.accepted for row in rows)
    assert balancer.report.negatives == (800, count) and count == balancer.report.rules["colours"].kept
    assert balancer.report.covered == (400, count)
    candidates = sum(row.accepted and row.rule == "colours" for row in made_rows(made_captions(400)))
    assert balancer.report.rules["colours"].candidates == candidates
    assert not any(row.text == "a zorblax" for row in rows), "no candidate, so neither kept nor left out for its text"
    assert {row.reason for row in rows if row.rule == "none"} == {"no_candidate"}
    assert {row.reason for row in rows if row.rule == "colours"} == {"", "unbalanced"}


def test_a_large_file_is_chosen_from_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "_BLOCK", 700)
    captions = made_captions(400)
    rows = [row for row in made_rows(captions) if row.rule == "colours"]
    with CaptionIndex(captions) as index:
        balancer = Balancer(lambda: rows, index, BalanceSettings(), ngram_likelihoods(index))
        balancer.write(tmp_path / "balanced.jsonl")
    written = list(read_jsonl(NegativeRecord, tmp_path / "balanced.jsonl"))
    state = balancer.report.rules["colours"]
    assert [row.caption_id for row in written] == [caption.id for caption in captions]
    assert state.captions == 400 and state.candidates == sum(row.accepted for row in rows)
    assert state.kept == sum(row.accepted for row in written) > 120
    assert state.after is not None and state.after.most < 0.65 < 0.7 < state.before.most  # type: ignore[union-attr]


def test_the_greatest_reward_is_chosen_at_which_texts_give_away_little_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = made_captions(400)
    rows = [row for row in made_rows(captions) if row.rule == "colours"]
    sizes = []

    def accuracy(learned: Sequence[CaptionNegative], others: Sequence[CaptionNegative]) -> float:
        sizes.append(min(len(learned), len(others)))
        return (0.58, 0.57, 0.58)[len(sizes) - 1]  # of eight rewards the fourth, the sixth and the fifth

    monkeypatch.setattr(balance, "accuracy_by_words", accuracy)
    with CaptionIndex(captions) as index:
        report = Balancer(lambda: rows, index, BalanceSettings(text_only=0.57), ngram_likelihoods(index)).report
    assert report.rules["colours"].reward == REWARDS[5] and len(sizes) == 3 and min(sizes) >= 40


def test_a_reward_that_chooses_too_little_to_be_tested_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "REWARDS", (2.0, 0.0))
    monkeypatch.setattr(balance, "accuracy_by_words", lambda *halves: 1.0)
    captions = made_captions(300)
    rows = [row for row in made_rows(captions) if row.rule == "colours"]
    with CaptionIndex(captions) as index:
        report = Balancer(lambda: rows, index, BalanceSettings(), ngram_likelihoods(index)).report
    assert report.rules["colours"].reward == 2.0 and report.rules["colours"].after is not None


def test_several_a_caption_are_kept_and_counted(tmp_path: Path) -> None:
    captions = made_captions(60)
    rows = made_rows(captions)
    with CaptionIndex(captions) as index:
        balancer = Balancer(
            lambda: rows, index, BalanceSettings(per_rule=2, text_only_rule=1), ngram_likelihoods(index)
        )
        balancer.write(tmp_path / "balanced.jsonl")
    picks = [row for row in read_jsonl(NegativeRecord, tmp_path / "balanced.jsonl") if row.accepted]
    each = Counter((row.caption_id, row.rule) for row in picks)
    assert set(each.values()) == {1, 2} and len({(row.caption_id, row.text) for row in picks}) == len(picks)
    state = balancer.report.rules["colours"]
    assert state.kept == sum(rule == "colours" for _, rule in each) and balancer.report.negatives == (120, len(picks))


def test_a_texts_likelihood_is_learned_from_the_other_half_of_the_images(tmp_path: Path) -> None:
    """Every caption has a unique word, which only its own half contains."""
    names = ["".join(letters) for letters in islice(product("bdgkmpt", repeat=3), 120)]
    captions = [
        CaptionRecord(id=name, image=f"{name}.jpg", text=f"a {name} on a street", image_id=name) for name in names
    ]
    rows = [
        NegativeRecord(
            caption_id=name,
            rule="r",
            kind="object",
            text=text,
            source="rules",
            accepted=True,
        )
        for name in names
        for text in (f"a {name[::-1]}ff on a street", "a street")
    ]
    with CaptionIndex(captions) as index:
        report = Balancer(lambda: rows, index, BalanceSettings(), ngram_likelihoods(index)).report
        examination = examine_file(tmp_path / "n.jsonl", rows[::2], index, label="", draws=Draws(tested=120))
    before = report.rules["r"].before  # of first candidates
    assert before is not None and before.likelihood == 0.5 and examination.giveaways["r"].likelier.share == 0.5


def test_signs_of_a_pair_turned_round_are_its_signs_with_the_other_sign() -> None:
    pair = CaptionNegative("a red dog", "a very blue dog", "", -1.0, -1.4)
    back = CaptionNegative(pair.negative, pair.caption, "", pair.negative_likely, pair.caption_likely)
    assert signs(back) == {place: -value for place, value in signs(pair).items()}
    assert signs(CaptionNegative("a dog", "A dog", "", -1.0, -1.0)) == {}
    words = [1.0] * 3 + [-1.0] * 5  # red, a red, red dog; very, blue, a very, very blue, blue dog
    cues = [
        -3.0,
        -3 / 3,
        -3.0,
        -3 * 6 / 10,
        3.0,
        3 * 0.4,
        3.0,
        3 * 3 / 5,
    ]  # words, letters; nats a word, and in all with the ends
    assert sorted(signs(pair).values()) == pytest.approx(sorted(words + cues))


def test_choices_cancel_and_a_reward_of_nothing_chooses_nothing() -> None:
    groups = Groups.of([[{0: 1.0}, {0: -1.0}] for _ in range(40)] + [[{0: 1.0}] for _ in range(10)] + [[]])
    picks = Chooser("a", reward=1.0).choose(groups)
    value = [groups.value[groups.start[pick]] for pick in picks.ravel() if pick >= 0]
    assert len(value) == 50 and abs(sum(value)) <= 1 and picks[-1] == -1
    assert (Chooser("a", reward=0.0).choose(groups) == -1).all()
    assert (Chooser("a", reward=1.0).choose(groups) == picks).all()


@pytest.mark.parametrize("reward", [0.1, 0.2, 0.3])
def test_no_other_choice_of_one_group_is_worth_more(reward: float) -> None:
    """The squared norm of the sum of signs minus the reward for each choice, by the slow formula."""
    rng = Random(3)
    candidates = [
        [{rng.randrange(12): rng.choice((-2.0, -1.0, 1.0, 3.0)) for _ in range(4)} for _ in range(rng.randint(1, 4))]
        for _ in range(60)
    ]
    share = Counter[int]()
    for group in candidates:
        for candidate in group:
            share.update(dict.fromkeys(candidate, 1 / len(group)))  # type: ignore[arg-type]

    def value(chosen: Sequence[dict[int, float]]) -> float:
        total = Counter[int]()
        for candidate in chosen:
            total.update(candidate)  # type: ignore[arg-type]
        return sum(times**2 / (share[place] + 20) for place, times in total.items()) - reward * len(chosen)

    groups = Groups.of(candidates)
    flat = [candidate for group in candidates for candidate in group]
    (picks,) = Chooser("c", reward=reward).choose(groups).T
    assert (picks >= 0).sum() > 0
    for number in range(len(candidates)):
        others = [flat[pick] for at, pick in enumerate(picks) if pick >= 0 and at != number]
        own = value(others + [flat[pick] for pick in picks[number : number + 1] if pick >= 0])
        assert own <= min(value([*others, *more]) for more in ([], *([each] for each in candidates[number]))) + 1e-6


def test_several_a_group_are_different_candidates() -> None:
    groups = Groups.of([[{at: 1.0}, {at: -1.0}, {at + 90: 1.0}] for at in range(20)] + [[{200: 1.0}]])
    *several, alone = Chooser("b", per_group=2, reward=9.0).choose(groups)
    picks = np.array(several)
    assert sorted(alone) == [-1, 60]
    assert (picks >= 0).all() and (picks[:, 0] != picks[:, 1]).all()
    assert ((picks >= groups.first[:-2, None]) & (picks < groups.first[1:-1, None])).all()


def test_the_n_grams_are_probabilities_and_know_their_captions() -> None:
    captions = [caption.text for caption in made_captions(200)]
    model = NgramLikelihood(captions)
    likely, exchanged, unknown = model(["a red dog on a street", "a street on a red dog", "zorblax of of"])
    assert likely > exchanged > unknown
    pieces = ("a", "red")
    following = [*{word for text in captions for word in text.split()}, ">"]
    total = sum(np.exp(model._word((*pieces, word), 2)) for word in following)
    assert 0.95 < total <= 1


def test_the_n_grams_by_a_slow_loop() -> None:
    texts = ["a dog runs", "a dog", "a cat runs", "the dog runs on the dog"]
    padded = [("<", "<", *text.split(), ">") for text in texts]
    model = NgramLikelihood(texts)
    for text in (*texts, "a cat runs on a dog", "zorblax"):
        pieces = ("<", "<", *text.split(), ">")
        logs = []
        for place in range(2, len(pieces)):
            likely = 1e-5
            for prior, size in ((1, 1), (4, 2), (4, 3)):
                gram = pieces[place - size + 1 : place + 1]
                grams = [each[at - size + 1 : at + 1] for each in padded for at in range(2, len(each))]
                times = sum(one[:-1] == gram[:-1] for one in grams)
                likely = (grams.count(gram) + prior * likely) / (times + prior)
            logs.append(math.log(likely))
        assert model([text]) == pytest.approx([sum(logs) / len(logs)]), text


def test_the_text_classifiers_find_one_planted_cue() -> None:
    rng = Random(1)
    texts = [(f"a {rng.choice(THINGS)}", f"a {rng.choice(THINGS)}") for _ in range(160)]
    pairs = [CaptionNegative(*each, "", -8.999, -9.0) for each in texts]
    accuracy = measure_text_accuracy((pairs[:80], pairs[80:]))
    assert accuracy is not None and accuracy.likelihood == 1.0 and accuracy.all > 0.9 and accuracy.words < 0.7
    assert measure_text_accuracy((pairs[:39], pairs[39:])) is None


def test_a_name_in_square_brackets_is_shown_as_it_is() -> None:
    report = Balance(3, rules={"[/b]": RuleBalance(captions=1), "[red]": RuleBalance(captions=1)})
    named = {"not_english": ["a[/b]", "[red]"]}
    summary = Summary(("swap_nouns",), 2, skipped=Counter(not_english=2), skipped_ids=named)
    for table in (render(report), summary.render()):
        shown = io.StringIO()
        Console(file=shown, width=90).print(table)
        assert {"[/b]", "[red]"} <= {each.strip("a,") for each in shown.getvalue().split()}


@pytest.mark.parametrize("cue", ["words", "length", "likelihood", "all"])
def test_a_rule_is_judged_by_the_cue_that_tells_most(cue: str) -> None:
    cues = {"words": 0.5, "length": 0.5, "likelihood": 0.5, "all": 0.5}
    assert TextAccuracy(80, **{**cues, cue: 0.9}).most == 0.9


def test_a_direction_is_learned_from_the_other_half() -> None:
    shorter, longer = (CaptionNegative(*texts) for texts in (("a cat", "a tiger"), ("a tiger", "a cat")))
    accuracy = measure_text_accuracy(([shorter] * 30 + [longer] * 20, [shorter] * 20 + [longer] * 30))
    assert accuracy is not None and (accuracy.n, accuracy.length, accuracy.likelihood) == (100, 0.4, 0.5)
    assert TextAccuracy(1, words=0.5, length=0.5, likelihood=0.5, all=0.9).most == 0.9


def test_the_explanation_says_whether_balance_can_help() -> None:
    longer = explain("negation", [CaptionNegative("a", "four", str(at)) for at in range(50)], None)
    assert "drop the rule" in longer.sentences[-1] and "deny_other" in longer.sentences[-1]
    unlikely = explain("swap_nouns", [CaptionNegative("a", "b", str(at), 1.0) for at in range(50)], None)
    assert "degla negatives balance" in unlikely.sentences[-1]
    for few in (
        [CaptionNegative("a", "b")],
        [CaptionNegative("a", "b", str(at), 1.0 if at else -1.0) for at in range(6)],
    ):
        untested = explain("swap_nouns", few, None)  # 5 of 6 may be chance.
        assert untested.sentences == (
            "Neither length nor likelihood reliably identifies over 65 % of pairs; words were not tested.",
        )


def test_the_command_writes_source_settings_and_digest(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for gap in ("_SOONEST", "_LATEST"):
        monkeypatch.setattr(f"degla.progress.{gap}", 0.0)
    captions = made_captions(120)
    write_jsonl(tmp_path / "captions.jsonl", captions)
    write_jsonl(tmp_path / "all.jsonl", made_rows(captions))
    argv = ["negatives", "balance", str(tmp_path / "all.jsonl"), "--captions", str(tmp_path / "captions.jsonl")]
    argv += ["--text-only-rule", "1"]
    assert main([*argv, "--out", str(tmp_path / "one.jsonl")]) == 0
    assert main([*argv, "--out", str(tmp_path / "two.jsonl"), "--json"]) == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    entry = json.loads((tmp_path / "one.jsonl.manifest.json").read_text())["balanced"]
    assert entry["file"] == "all.jsonl" and len(entry["sha256"]) == 64 and entry["seed"] == 0
    assert entry["likelihood"] == "n-grams" and set(entry["kept"]) == {"colours", "adds"}
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert {"colours", "adds"} < set(lines) and lines["together"][0] == "100.0"
    assert "choosing among candidates, rules: 1 of 2" in caplog.text
    assert "testing the selection, rules: 2 of 2" in caplog.text


def test_a_text_without_likelihood_is_chosen_by_the_rest(tmp_path: Path) -> None:
    captions = made_captions(120)
    rows = [row for row in made_rows(captions) if row.rule == "colours"]
    unread = {row.text for row in rows if row.accepted and row.draw == 0}

    def balanced_file(score: Callable[[str], float]) -> tuple[str, Balance]:
        with CaptionIndex(captions) as index:
            likelihoods = [lambda texts: [score(text) for text in texts]] * 2
            balancer = Balancer(lambda: rows, index, BalanceSettings(text_only_rule=1), likelihoods)
            balancer.write(tmp_path / "balanced.jsonl")
            return (tmp_path / "balanced.jsonl").read_text(), balancer.report

    without, all_read = balanced_file(lambda _: -4.0)
    for some in (unread, {caption.text for caption in captions}):
        selection, report = balanced_file(lambda text, some=some: math.nan if text in some else -4.0)  # type: ignore[misc]
        assert report.unread > 100 and not all_read.unread
        assert selection == without
        console = Console(record=True, width=80, file=io.StringIO())
        console.print(render(report))
        assert f"{report.unread} candidates balanced without likelihood" in console.export_text()


def test_true_texts_are_not_balanced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = made_captions(2)
    write_jsonl(tmp_path / "captions.jsonl", captions)
    write_jsonl(tmp_path / "p.jsonl", [row.model_copy(update={"kind": "positive"}) for row in made_rows(captions)])
    argv = ["negatives", "balance", str(tmp_path / "p.jsonl"), "--captions", str(tmp_path / "captions.jsonl")]
    assert main([*argv, "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "a true text. Give a file of negatives, not" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "numbers, wrong", [((2,), "caption_id '2' is not among "), ((1, 0), "caption '0': rows must be")]
)
def test_rows_that_do_not_fit_the_captions_name_the_files(
    numbers: Sequence[int], wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions, file = tmp_path / "captions.jsonl", tmp_path / "candidates.jsonl"
    write_jsonl(captions, made_captions(2))
    rows = made_rows(made_captions(3))
    write_jsonl(file, [row for number in numbers for row in rows if row.caption_id == str(number)])
    argv = ["negatives", "balance", str(file), "--captions", str(captions), "--out", str(tmp_path / "out.jsonl")]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert f"{file}: {wrong}" in error and (f"the captions of {captions}. Give" in error) == (2 in numbers)


@pytest.mark.parametrize("numbers", [(1, 0), (0, 1, 0), (0, 99)])
def test_rows_that_do_not_fit_the_captions_are_refused(numbers: Sequence[int]) -> None:
    captions = made_captions(2)
    rows = [
        NegativeRecord(caption_id=str(at), rule="r", kind="order", text="b", source="rules", accepted=True)
        for at in numbers
    ]
    with CaptionIndex(captions) as index, pytest.raises(InputError, match=r"is not among the captions|captions' order"):
        Balancer(lambda: rows, index, BalanceSettings(), ngram_likelihoods(index))


@pytest.mark.parametrize("wrong", [{"per_rule": 0}, {"text_only": 0.5}, {"text_only": 0.7}, {"text_only_rule": 1.1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        BalanceSettings(**wrong)  # type: ignore[arg-type]


def balance_command(folder: Path, captions: list[CaptionRecord], rows: list[NegativeRecord]) -> int:
    write_jsonl(folder / "captions.jsonl", captions)
    write_jsonl(folder / "all.jsonl", rows)
    argv = ["negatives", "balance", str(folder / "all.jsonl"), "--captions", str(folder / "captions.jsonl")]
    return main([*argv, "--out", str(folder / "out.jsonl")])


@pytest.mark.parametrize(
    ("count", "keep", "message"),
    [
        (1, "colours", "too few negatives to balance: no rule has 40"),
        (1, "colours", "Balance a larger file, or keep every rule with --text-only-rule 1."),
        (120, "adds", "no rule can be kept: text-only classifiers reach adds 100 %"),
        (120, "adds", "or keep every rule with --text-only-rule 1, for example for a small file."),
        (3, "none", "has no accepted negatives"),
    ],
)
def test_a_file_of_which_nothing_could_stay_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, keep: str, message: str
) -> None:
    captions = made_captions(count)
    assert balance_command(tmp_path, captions, [row for row in made_rows(captions) if row.rule == keep]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "all.jsonl: " in lines[0] and message in lines[0]
    assert not (tmp_path / "out.jsonl").exists()


def test_a_rule_with_too_few_is_left_out_by_that_name() -> None:
    accuracy = measure_text_accuracy(([CaptionNegative("a", "b c")] * 40,) * 2)
    assert accuracy is not None and accuracy.length == 1.0
    assert RuleBalance(stays=False).reason == "too_few"
    assert RuleBalance(stays=False, before=accuracy).reason == "text_solvable"
    assert RuleBalance(before=accuracy, after=accuracy).reason == ""
    # With two negatives of each of 20 captions: enough to test, and they failed the test.
    several = RuleBalance(stays=False, after=accuracy)
    assert several.reason == "text_solvable"
    assert "text-only classifiers reach adds 100 %" in Balance(20, rules={"adds": several}).complaint(BalanceSettings())


def test_the_table_says_what_became_of_a_rule() -> None:
    def printed(**rules: RuleBalance) -> str:
        shown = io.StringIO()
        Console(file=shown, width=90).print(render(Balance(20, rules=rules)))
        return " ".join(shown.getvalue().split())

    legend = "too few: dropped, as it has fewer than 40 captions in a half."
    assert legend in printed(few=RuleBalance(stays=False), stays=RuleBalance())
    assert "dropped" not in printed(stays=RuleBalance())
