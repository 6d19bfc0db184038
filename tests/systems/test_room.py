"""The room of systems: what a run writes, keeps and rejects; the command line; every system folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from degla.cli import main
from degla.config.fields import to_plain
from degla.errors import DeglaError, InputError
from degla.pages.page import Figure, Page
from degla.pages.words import UNKNOWN
from degla.ranges import AtLeastOne
from degla.shelf import SYSTEMS, Shelf
from degla.systems.conduct import cases_of, load_weights, run_system
from degla.systems.learning import with_weights
from degla.systems.page import page_of
from degla.systems.record import CaseRecord, SystemRecord, load_record, read_settings, save_record
from degla.systems.system import Case, Expectation, ScoreColumn, System, SystemSettings, Weights
from degla.verbs import system as verb

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class _Settings(SystemSettings):
    data: tuple[str, ...] = ("plain", "some/folder")
    """Of the test."""
    steps: AtLeastOne = 3
    """Steps."""


TRAINED: list[Case] = []


def _train(settings: _Settings, data: tuple[str, int], method: str) -> Weights:
    name, seed = data
    TRAINED.append(Case(name, method, seed))
    return {"value": torch.rand(1) + (method == "better") * settings.steps}


def _measure(settings: _Settings, data: tuple[str, int], method: str, weights: Weights) -> dict[str, float]:
    value = float(weights["value"])
    return {"score": value / 10, "error": 4 - value + settings.steps}


SYSTEM = System(
    title="A test",
    paper="0000.00000",
    settings=_Settings(),
    quick=_Settings(data=("plain",), steps=1),
    methods={"base": "Nothing is learnt.", "better": "Steps are added."},
    columns=(ScoreColumn("score", "Share."), ScoreColumn("error", "Number.", better="lower", percent=False)),
    made=("plain",),
    read=lambda settings, name, seed: (name, seed),
    train=_train,
    measure=_measure,
    expected=(Expectation("better", "base", "score", 0.25), Expectation("better", "base", "error", -4.0)),
)


@pytest.fixture(autouse=True)
def shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    TRAINED.clear()
    fake = SimpleNamespace(
        names=lambda: ["fake"],
        require=lambda name: None,
        load=lambda name: SimpleNamespace(SYSTEM=SYSTEM),
        summary=lambda name: "a fake",
        docstrings=lambda name: ["a fake"],
    )
    monkeypatch.setattr(verb, "SYSTEMS", fake)


def _run(out: Path, *, settings: _Settings | None = None, seeds: int = 3, models: Path | None = None):
    settings = settings or SYSTEM.settings
    cases = cases_of(SYSTEM, settings, seeds=range(seeds), methods=())
    return run_system(SYSTEM, settings, cases, name="fake", out=out, command="degla", models=models)


def test_a_run_trains_every_case_with_its_seed_and_writes_a_page(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    record = _run(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [row.case for row in record.cases] == TRAINED and len(TRAINED) == 2 * 2 * 3
    # The same seed gives both methods the same random numbers: they differ only by the steps.
    base, better = (record.scores("plain", method, "score") for method in SYSTEM.methods)
    assert all(better[seed] - base[seed] == pytest.approx(0.3) for seed in range(3)) and len(set(base.values())) == 3
    assert load_record(tmp_path, system="fake") == record
    text = (tmp_path / "system.md").read_text()
    assert "| better − base | plain | score | +30.0 [+30.0, +30.0] | ≥ +25.0 | yes | 3 of 3 |" in text
    assert "| better − base | plain | error | −3 [−3, −3] | ≤ −4 | no | 0 of 3 |" in text
    assert "some/folder" in (tmp_path / "system.html").read_text()


def test_a_picture_is_the_same_whatever_was_drawn_before(tmp_path: Path) -> None:
    draws: list[float] = []
    system = replace(SYSTEM, draw=lambda settings, data, models, name: draws.append(torch.rand(1).item()))
    for out in ("one", "other"):
        torch.rand(3)
        cases = cases_of(system, system.quick, seeds=[4], methods=())
        run_system(system, system.quick, cases, name="fake", out=tmp_path / out, command="")
    assert len(draws) == 2 and draws[0] == draws[1]


def test_a_page_tells_that_its_bounds_are_for_other_settings(tmp_path: Path) -> None:
    _run(tmp_path / "run", seeds=2)
    _run(tmp_path / "quick", settings=SYSTEM.quick, seeds=1)
    usual, quick = ((tmp_path / name / "system.md").read_text() for name in ("run", "quick"))
    note = "The expected bounds are for the default settings; these differ here: steps."
    assert note in quick and "default settings" not in usual
    assert "± is half of a 95 % interval" in usual
    assert "One seed, so there is no interval. Below: the difference from `base`." in quick and "±" not in quick


def test_a_page_says_what_each_method_is_and_which_have_no_scores(tmp_path: Path) -> None:
    """A method without scores used to be left out of the table without a note."""
    data = SYSTEM.settings.data
    odd = replace(
        SYSTEM, measure=lambda settings, data, *rest: _measure(settings, data, *rest) if data[0] == "plain" else {}
    )
    cases = [*cases_of(SYSTEM, SYSTEM.settings, seeds=[0], methods=["base"]), Case(data[1], "better", 0)]
    record = run_system(odd, SYSTEM.settings, cases, name="fake", out=tmp_path, command="")
    page = page_of(odd, record).markdown()
    plain, other = page.split(f"## {data[1]}")
    assert "Not run: `better`." in plain and "gives no score on this data: `base`, `better`." in other
    assert "* base: Nothing is learnt.\n* better: Steps are added." in other
    assert page.count("gives no score") == 1 and "| better |" not in page and "fewer seeds" not in page
    more = cases_of(SYSTEM, SYSTEM.settings, seeds=[1], methods=["base"])
    longer = run_system(odd, SYSTEM.settings, more, name="fake", out=tmp_path, command="")
    plain, other = page_of(odd, longer).markdown().split(f"## {data[1]}")
    assert "fewer seeds" not in plain and "Over fewer seeds: `better` (1 seed)." in other
    # Expectations are shown only if both methods were run.
    alone = cases_of(SYSTEM, SYSTEM.quick, seeds=[0], methods=["better"])
    record = run_system(SYSTEM, SYSTEM.quick, alone, name="fake", out=tmp_path / "alone", command="")
    assert "What was expected" not in page_of(SYSTEM, record).markdown()
    seconds = {"plain": 30.0, data[1]: 90.0}
    cases = tuple(row.model_copy(update={"seconds": seconds[row.data]}) for row in record.cases)
    assert "| 30 s |" in page_of(odd, record.model_copy(update={"cases": cases})).markdown()
    # The mean over the seeds, not their sum.
    twice = tuple(cases[0].model_copy(update={"seed": seed, "seconds": 20.0 + 20 * seed}) for seed in (0, 1))
    assert "| 30 s |" in page_of(odd, record.model_copy(update={"cases": twice})).markdown()


def test_only_a_difference_that_is_sure_is_coloured() -> None:
    """For one column; the other has no number."""

    def page(*better: float, column: str = "score") -> Page:
        scores = {"base": (0.5, 0.6, 0.7), "better": better}
        cases = [
            CaseRecord(data="plain", method=method, seed=seed, values={column: value}, seconds=1.0)
            for method, values in scores.items()
            for seed, value in enumerate(values)
        ]
        record = SystemRecord(system="fake", command="", settings=to_plain(SYSTEM.settings), cases=tuple(cases))
        return page_of(replace(SYSTEM, expected=()), record)

    assert 'class="up"' in page(0.6, 0.71, 0.79).html() and 'class="down"' in page(0.4, 0.49, 0.61).html()
    fewer = page(0.4, 0.49, 0.61, column="error").html()
    assert 'class="up"' in fewer and 'class="down"' not in fewer, "of errors"
    unsure = page(0.7, 0.5, 0.75)
    assert 'class="up"' not in unsure.html() and 'class="down"' not in unsure.html()
    assert re.search(rf"^\| better \| [^|]+ \| {UNKNOWN} \|", unsure.markdown(), re.MULTILINE)


def test_what_is_done_is_kept_and_other_settings_are_refused(tmp_path: Path) -> None:
    first = _run(tmp_path, seeds=1)
    _run(tmp_path, seeds=2)
    assert len(TRAINED) == 8
    assert load_record(tmp_path, system="fake").cases[:4] == first.cases
    # If package versions differ, both are listed once.
    save_record(first.model_copy(update={"versions": first.versions | {"torch": "2.0"}}), tmp_path)
    for _ in range(2):
        assert _run(tmp_path, seeds=1).versions == first.versions | {"torch": f"2.0, then {first.versions['torch']}"}
    with pytest.raises(InputError, match=r"was made with other settings\. Choose another --out"):
        _run(tmp_path, settings=_Settings(steps=5))
    save_record(first.model_copy(update={"degla": "0.0.1"}), tmp_path)
    with pytest.raises(InputError, match=r"was made by degla 0\.0\.1, but this is .*\. Choose another --out"):
        _run(tmp_path)
    with pytest.raises(InputError, match=r"system.json: belongs to system 'fake', not 'other'"):
        load_record(tmp_path, system="other")


def test_a_second_call_adds_its_data_and_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for flags in ("--data plain --seeds 2", "--data other --seeds 1", "--data plain --seeds 2"):
        assert verb.run_words(["fake", "run", *flags.split()]) == 0
    record = load_record(tmp_path / "fake", system="fake")
    commands = ["degla system fake run --data plain --seeds 2", "degla system fake run --data other --seeds 1"]
    assert record.settings["data"] == ["plain", "other"] and record.command.splitlines() == commands
    assert "\n".join(["```sh", *commands, "```"]) in (tmp_path / "fake" / "system.md").read_text()
    evaluated = verb.read_command(["fake", "evaluate"])
    assert evaluated.cases == [row.case for row in record.cases], "with the seeds that each has"
    assert len(verb.read_command(["fake", "evaluate", "--seeds", "2"]).cases) == 8
    unknown = verb.read_command(["fake", "evaluate", "--data", "plain", "mistyped"]).cases
    assert {case.data for case in unknown} == {"plain", "mistyped"}, "not left out: run_system says that it lacks one"
    # A method of the other data only is asked for, so that its absence is an error as well.
    save_record(record.model_copy(update={"cases": (record.cases[0], record.cases[-1])}), tmp_path / "fake")
    lacking = verb.read_command(["fake", "evaluate", "--data", "plain", "--methods", "better"]).cases
    assert lacking == [Case("plain", "better", 0)]


def test_a_picture_is_of_the_first_seed_of_its_data(tmp_path: Path) -> None:
    drawn: dict[str, set[str]] = {}
    system = replace(SYSTEM, draw=lambda settings, data, models, name: drawn.update({f"{data}": set(models)}))
    cases = [Case("plain", "base", 5), Case("other", "base", 0), Case("other", "better", 1)]
    run_system(system, _Settings(data=("plain", "other")), cases, name="fake", out=tmp_path, command="")
    assert drawn == {"('plain', 5)": {"base"}, "('other', 0)": {"base"}}


def test_pictures_of_earlier_calls_stay_on_the_page_unless_their_data_changed(tmp_path: Path) -> None:
    drawn: dict[str, set[str]] = {}
    system = replace(SYSTEM, draw=lambda settings, data, models, name: drawn.update({name: set(models)}))
    own, gone = tmp_path / "own.npz", tmp_path / "gone.npz"
    for file in (own, gone):
        file.write_bytes(b"one")

    def run(data: str, method: str) -> dict[str, set[str]]:
        drawn.clear()
        settings, cases = _Settings(data=(data,)), [Case(data, method, 0)]
        run_system(system, settings, cases, name="fake", out=tmp_path / "out", command="")
        return dict(drawn)

    run(str(gone), "base")
    gone.unlink()
    assert run(str(own), "base") == {str(own): {"base"}}
    assert run("plain", "better") == {str(own): {"base"}, "plain": {"better"}}
    (model,) = (tmp_path / "out" / "models").glob("*own.npz/*")
    weights = model.read_bytes()
    model.unlink()
    assert run("plain", "better") == {"plain": {"better"}}, "a model that is gone has no picture"
    model.write_bytes(weights)
    own.write_bytes(b"two")
    assert run("plain", "base") == {"plain": {"base", "better"}}


def test_a_model_that_does_not_fit_the_settings_is_refused() -> None:
    network = torch.nn.Linear(2, 3)
    with pytest.raises(InputError, match=r"the model was trained with other settings, or other data.*size mismatch"):
        with_weights(torch.nn.Linear(2, 4), network.state_dict())


def test_bounds_are_said_to_be_for_the_defaults_only_beside_them() -> None:
    case = CaseRecord(data="plain", method="base", seed=0, values={"score": 0.5}, seconds=1.0)
    record = SystemRecord(system="fake", command="", settings=to_plain(_Settings(steps=5)), cases=(case,))
    assert "expected bounds" not in page_of(SYSTEM, record).markdown()
    both = record.model_copy(update={"cases": (case, case.model_copy(update={"method": "better"}))})
    assert (
        "The expected bounds are for the default settings; these differ here: steps" in page_of(SYSTEM, both).markdown()
    )


def test_a_file_of_data_that_has_changed_is_not_taken_for_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    settings = _Settings(data=(str(file),))
    file.write_bytes(b"one")
    first = _run(tmp_path / "out", settings=settings, seeds=1)
    assert _run(tmp_path / "out", settings=settings, seeds=1) == first and len(TRAINED) == 2
    file.write_bytes(b"two")
    for out, models in ((tmp_path / "out", None), (tmp_path / "evaluation", tmp_path / "out")):
        with pytest.raises(InputError, match=r"out.system\.json: the data of .*mine\.npz have changed. Choose an"):
            _run(out, settings=settings, seeds=1, models=models)


def test_a_folder_of_data_has_a_digest_and_one_beside_made_data_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "plain"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.txt").write_text("one")
    settings = _Settings(data=("mine", "plain"))
    assert _run(tmp_path / "mine/out", settings=settings, seeds=1).digests.keys() == {"mine"}
    (tmp_path / "plain/train.txt").write_text("two")
    _run(tmp_path / "mine/out", settings=settings, seeds=1)
    _run(tmp_path, settings=settings, seeds=1)
    (tmp_path / "mine/train.txt").rename(tmp_path / "mine/test.txt")
    for out in (tmp_path / "mine/out", tmp_path):
        with pytest.raises(InputError, match=r"the data of .*mine have changed\. Choose another --out"):
            _run(out, settings=settings, seeds=1)


@pytest.mark.parametrize("data", ["mine", "plain"])
def test_data_beside_the_path_has_a_digest_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text("one")
    Path("split").write_text("two")
    system = replace(SYSTEM, beside=lambda settings, name: [Path(name).with_name("split")])
    settings = _Settings(data=(data,))
    cases = cases_of(system, settings, seeds=(0,), methods=())
    run_system(system, settings, cases, name="fake", out=tmp_path / "out", command="degla")
    (tmp_path / "split").write_text("three")
    with pytest.raises(InputError, match=r"the data of .*split have changed\. Choose another --out"):
        run_system(system, settings, cases, name="fake", out=tmp_path / "out", command="degla")


def test_texts_of_a_file_that_grows_have_a_digest_for_each_seed(tmp_path: Path) -> None:
    texts = {0: "one", 1: "two", 2: "three"}
    settings = _Settings(data=("plain",))
    system = replace(SYSTEM, digest=lambda settings, name, seed: texts[seed])

    def run(seeds: int, out: str = "out", models: Path | None = None) -> SystemRecord:
        cases = cases_of(system, settings, seeds=range(seeds), methods=())
        return run_system(system, settings, cases, name="fake", out=tmp_path / out, command="degla", models=models)

    assert list(run(2).digests.values()) == ["one", "two"]
    assert list(run(3).digests.values()) == ["one", "two", "three"]
    texts[1] = "other"
    assert len(run(1).digests) == 3
    texts[1] = "two"
    drawn: list[str] = []
    system = replace(system, draw=lambda settings, data, models, name: drawn.append(name))
    settings = _Settings(data=("other",))
    run(1)
    assert drawn == ["plain", "other"], "pictures of earlier data stay"
    texts[1], settings = "other", _Settings(data=("another",))
    drawn.clear()
    run(1)
    assert drawn == ["other", "another"], "unless their texts have changed"
    settings = _Settings(data=("plain",))
    for models in (None, tmp_path / "out"):
        with pytest.raises(InputError, match=r"the data of plain, texts of seed 1 have changed\. Choose another --out"):
            run(2, "out" if models is None else "evaluation", models)


def test_data_sets_whose_models_would_lie_in_one_folder_are_refused(tmp_path: Path) -> None:
    _run(tmp_path, seeds=1)
    trained = list(TRAINED)
    with pytest.raises(InputError, match="some/folder and some folder: both would store models in models/some_fold"):
        _run(tmp_path, settings=_Settings(data=("some folder",)), seeds=1)
    assert trained == TRAINED


def test_models_are_measured_again_with_other_settings(tmp_path: Path) -> None:
    run = _run(tmp_path, seeds=1)
    TRAINED.clear()
    again = _run(tmp_path / "evaluation", settings=_Settings(steps=5), seeds=1, models=tmp_path)
    assert not TRAINED
    assert again.cases[0].values["error"] == pytest.approx(run.cases[0].values["error"] + 2)
    assert again.cases[0].seconds == run.cases[0].seconds > 0, "the original training time"
    with pytest.raises(InputError, match=r"base-1.safetensors: .*Train it first: degla system NAME run"):
        _run(tmp_path / "more", seeds=2, models=tmp_path)
    (tmp_path / "models" / "plain" / "base-0.safetensors").write_bytes(b"nothing of use")
    with pytest.raises(InputError, match=r"base-0.safetensors: not a model: .* Delete it and run again"):
        load_weights(tmp_path, Case("plain", "base", 0))


def test_a_score_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    broken = replace(SYSTEM, measure=lambda settings, data, method, weights: {"score": float("nan"), "error": 1.0})
    cases = cases_of(broken, broken.settings, seeds=[4], methods=["better"])
    with pytest.raises(DeglaError, match="better on plain, seed 4: score is nan"):
        run_system(broken, broken.settings, cases, name="fake", out=tmp_path, command="")


def test_weights_that_are_not_finite_end_the_run_before_they_are_kept(tmp_path: Path) -> None:
    broken = replace(SYSTEM, train=lambda settings, data, method: {"value": torch.tensor([1.0, float("inf")])})
    cases = cases_of(broken, broken.settings, seeds=[4], methods=["better"])
    with pytest.raises(DeglaError, match="better on plain, seed 4: the trained weights are not finite"):
        run_system(broken, broken.settings, cases, name="fake", out=tmp_path, command="")
    assert not (tmp_path / "models").exists()


def test_settings_survive_a_file(tmp_path: Path) -> None:
    settings = _Settings(steps=7, data=("x",))
    assert read_settings(_Settings, json.loads(json.dumps(to_plain(settings))), where="here") == settings
    with pytest.raises(InputError, match="here: settings: "):
        read_settings(_Settings, {"steps": 0}, where="here")


def test_the_command_runs_and_evaluates(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["system", "fake", "run", "--quick", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["settings"] == {"data": ["plain"], "steps": 1} and len(record["cases"]) == 2
    assert record["command"] == "degla system fake run --quick --json"
    assert main(["system", "fake", "evaluate", "--steps", "4"]) == 0
    assert "better" in capsys.readouterr().out
    again = load_record(tmp_path / "fake" / "evaluation", system="fake")
    assert again.settings == {"data": ["plain"], "steps": 4} and len(again.cases) == 2
    command = verb.read_command(
        ["fake", "run", "--seeds", "2", "--first-seed", "7", "--methods", "better", "--data", "a"]
    )
    assert command.cases == [Case("a", "better", 7), Case("a", "better", 8)]


def test_pictures_are_of_the_first_seed_and_each_data_set_s_own_models(tmp_path: Path) -> None:
    calls = []

    def draw(settings: _Settings, *arguments: Any) -> Figure:
        calls.append(arguments)
        return Figure(lambda width: "<svg></svg>", f"Drawn of {arguments[2]}.")

    system = replace(SYSTEM, made=("one", "other"), draw=draw)
    settings = _Settings(data=("one", "other"))
    cases = cases_of(system, settings, seeds=(4, 5), methods=())
    run_system(system, settings, cases, name="fake", out=tmp_path, command="degla")
    assert [(data, name) for data, _, name in calls] == [(("one", 4), "one"), (("other", 4), "other")]
    text = (tmp_path / "system.html").read_text()
    assert all(f"Drawn of {name}." in text for name in settings.data)
    for (name, seed), models, _ in calls:
        weights = {method: load_weights(tmp_path, Case(name, method, seed)) for method in system.methods}
        assert models == weights


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fake"], "degla system fake needs one of run, evaluate."),
        (["fake", "run", "--seeds", "0"], "--seeds is 0; it must be 1 or more."),
        (["fake", "run", "--first-seed", "-1"], "--first-seed is -1"),
        (["fake", "run", "--seeds", "9" * 20], "the last seed must be below"),
        (["fake", "run", "--step", "4"], "unknown flag --step. Did you mean 'steps'?"),
        (["fake", "run", "--steps", "few"], "--steps is 'few'; it must be 1 or more, an integer."),
        (["fake", "run", "--steps"], "--steps needs a value."),
        (["fake", "run", "--steps", "0"], "--steps is 0; it must be 1 or more, an integer."),
        (["fake", "run", "--methods", "bettr"], "unknown method 'bettr'. Did you mean 'better'?"),
        (["fake", "run", "--models", "x"], "--models applies only to degla system NAME evaluate"),
        (["fake", "evaluate", "--quick"], "--quick applies only to degla system NAME run"),
        (
            ["fake", "evaluate", "--first-seed", "5"],
            "--first-seed requires --seeds: evaluate uses the seeds of the run",
        ),
        (["fake", "evaluate", "--models", "nowhere"], "Create it: degla system fake run --out nowhere."),
        (["fake", "run", "--data"], "--data names no data set"),
    ],
)
def test_wrong_words_say_what_is_right(words: list[str], says: str, capsys: Capture) -> None:
    assert main(["system", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_help_names_methods_and_settings(capsys: Capture) -> None:
    assert main(["system", "--help"]) == 0
    assert "fake" in capsys.readouterr().out
    assert main(["system", "fake", "--help"]) == 0
    output = capsys.readouterr().out
    assert "Methods: base, better." in output and "--first-seed" in output
    assert re.search(r"\n--steps\n  .*\n  Allowed: .*\. Default: \d+\.\n", output), "as fields of training"


def test_folders_are_members_and_files_beside_them_are_not() -> None:
    shelf = Shelf("degla.systems", "system", folders=True)
    assert not {"system", "record", "conduct", "page"} & set(shelf.names())


@pytest.mark.parametrize("name", SYSTEMS.names())
def test_every_system_keeps_to_the_form(name: str) -> None:
    system = SYSTEMS.load(name).SYSTEM
    assert isinstance(system, System) and type(system.settings) is type(system.quick)
    columns = {column.name for column in system.columns}
    for each in system.expected:
        assert {each.first, each.second} <= set(system.methods) and each.column in columns
        assert set(each.data) <= set(system.settings.data)
    assert read_settings(type(system.settings), to_plain(system.settings), where=name) == system.settings
    texts = "\n".join(SYSTEMS.docstrings(name))
    assert all(f"\n{section}: " in texts for section in ("Formula", "Source", "Differs", "Cost")), name


def test_a_page_of_nothing_but_names_is_a_page() -> None:
    from degla.systems.record import SystemRecord

    assert "A test" in page_of(SYSTEM, SystemRecord(system="fake", command="", settings={})).html()
