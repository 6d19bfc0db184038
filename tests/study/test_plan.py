"""Plans: what a file may contain, what is rejected and how, and which runs result."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from degla.config.fields import change
from degla.config.run import recipe_config
from degla.errors import InputError
from degla.shelf import PUBLISHED_RULES, RECIPES
from degla.study import conduct, sequence
from degla.study.grid import expand
from degla.study.plan import Plan, read_plan
from degla.study.sequence_plan import read_sequence_plan
from tests.study.committed import tables

PLANS = sorted((Path(__file__).parents[2] / "docs" / "studies" / "plans").glob("*.yaml"))


def _plan(tmp_path: Path, overrides: list[str] | None = None, **fields: Any) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"world": {"scenes": 10}, "arms": [{"recipe": "degla"}]} | fields, sort_keys=False))
    return read_plan(path, overrides=overrides or [])


def test_lists_span_a_grid_and_labels_say_what_varies(tmp_path: Path) -> None:
    arm = {"recipe": "degla", "optim.lr": ["1e-4", 4e-4], "train.steps": [20, 50], "teacher.kind": ["frozen"]}
    plan = _plan(tmp_path, arms=[arm, {"recipe": "clip", "average": [0.5, 1]}], seeds=2, average=[0.7])
    runs = expand(plan, where="plan")
    assert len(runs) == 2 * (4 + 1)
    assert [run.seed for run in runs] == [0] * 5 + [1] * 5
    assert [run.label for run in runs[:5]] == [
        "degla lr 1e-4, steps 20",
        "degla lr 1e-4, steps 50",
        "degla lr 0.0004, steps 20",
        "degla lr 0.0004, steps 50",
        "clip",
    ]
    first = runs[0].config
    assert (first.optim.lr, first.train.steps, first.teacher.kind, first.model) == (1e-4, 20, "frozen", "world")
    assert first.objective == RECIPES.load("degla").degla().objective
    assert runs[0].shares == (0.7,) and runs[4].shares == (1.0, 0.5)
    assert runs[4].model_label(0.5) == "clip averaged 0.5" and runs[4].model_label(1) == "clip"
    assert len({run.name for run in runs}) == len(runs)


def test_a_list_for_all_arms_spans_their_grids(tmp_path: Path) -> None:
    arms = [{"recipe": "clip"}, {"recipe": "degla", "optim.lr": [1e-3], "train.steps": 7}]
    plan = _plan(tmp_path, arms=arms, set={"optim.lr": [1e-4, 2e-4], "train.steps": [5, 6], "train.batch_size": 8})
    runs = expand(plan, where="plan")
    assert [(run.label, run.config.optim.lr, run.config.train.steps) for run in runs] == [
        ("clip lr 0.0001, steps 5", 1e-4, 5),
        ("clip lr 0.0001, steps 6", 1e-4, 6),
        ("clip lr 0.0002, steps 5", 2e-4, 5),
        ("clip lr 0.0002, steps 6", 2e-4, 6),
        ("degla", 1e-3, 7),
    ]
    assert {run.config.train.batch_size for run in runs} == {8}


@pytest.mark.parametrize("own", [{"optim.lr": 1e-5}, {"fields": {"optim.lr": 1e-5}}])
def test_an_arm_goes_before_the_plan_and_an_override_before_both(tmp_path: Path, own: dict[str, Any]) -> None:
    arms = [{"recipe": "degla", "train.steps": [5, 6]}, {"recipe": "clip", **own}]
    fields = {"arms": arms, "set": {"optim.lr": "3e-4", "objective.text_grounded.weight": 1}}
    degla, _, clip = expand(_plan(tmp_path, **fields), where="plan")
    assert (degla.config.optim.lr, clip.config.optim.lr) == (3e-4, 1e-5)
    assert degla.config.objective["text_grounded"].weight == 1.0
    overrides = ["train.steps=2", "optim.lr=7e-5", "seeds=[3]", "world.scenes=99", "price=2"]
    plan = _plan(tmp_path, overrides, **fields)
    runs = expand(plan, where="plan")
    assert [(run.label, run.seed, run.config.train.steps, run.config.optim.lr) for run in runs] == [
        ("degla", 3, 2, 7e-5),
        ("clip", 3, 2, 7e-5),
    ]
    assert plan.world is not None and (plan.world.scenes, plan.price) == (99, 2.0)


def test_fields_of_an_arm_that_none_of_its_runs_reads_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", logger="degla.study")
    for module, name in ((conduct, "prepare"), (sequence, "prepare_results")):  # what follows takes long
        monkeypatch.setattr(module, name, Mock(side_effect=KeyboardInterrupt))
    fields = {"views.left_out": [0, 0.5], "views.by": "attention", "optim.lr": 1e-4, "teacher.decay": 0.5}
    wanted = ["arm 'clip': teacher.decay has no effect: no loss uses a teacher."]
    plan = _plan(tmp_path, arms=[{"recipe": "clip"} | fields], set={"attack.steps": 3})
    with pytest.raises(KeyboardInterrupt):
        conduct.conduct(plan, out=tmp_path / "study", where="plan")
    assert [line for line in caplog.messages if "effect" in line] == wanted
    caplog.clear()
    continual = read_sequence_plan(PLANS[0].parents[1] / "continual" / "plan.yaml")
    arm = continual.arms[0].model_copy(update={"recipe": "clip", "fields": {"teacher.decay": 0.5}})
    job = Mock(config=change(recipe_config("clip"), arm.fields, where=""))
    monkeypatch.setattr(sequence, "sequence_chains", lambda *_, **__: [Mock(label=arm.name, jobs=[job])])
    monkeypatch.setattr(sequence, "CurrentQuestions", Mock())
    with pytest.raises(KeyboardInterrupt):
        sequence.conduct_sequences(continual.model_copy(update={"arms": (arm,)}), out=tmp_path / "tasks", where="plan")
    assert [line for line in caplog.messages if "effect" in line] == [line.replace("clip", arm.name) for line in wanted]


def test_a_field_of_several_words_takes_them_in_one_string(tmp_path: Path) -> None:
    arm = {"recipe": "degla", "data.rules": ["swap_nouns swap_adjectives", "reshuffle_order"]}
    runs = expand(_plan(tmp_path, arms=[arm]), where="plan")
    assert [run.config.data.rules for run in runs] == [("swap_nouns", "swap_adjectives"), ("reshuffle_order",)]


def test_names_as_long_as_needed(tmp_path: Path) -> None:
    arm = {"recipe": "degla", "objective.text_grounded.weight": [0, 1], "objective.image_grounded.weight": [0, 1]}
    labels = [run.label for run in expand(_plan(tmp_path, arms=[arm]), where="plan")]
    assert labels[1] == "degla text_grounded.weight 0, image_grounded.weight 1"


def test_a_home_folder_as_root_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's benchmark was drawn into a folder "~" beside the plan."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "plan.toml").write_text(
        'benchmarks = {names = ["world"], root = "~/data"}\nset = {"data.captions" = "c.jsonl", "data.images" = "."}\n'
        'arms = [{recipe = "clip"}]\n'
    )
    benchmarks = read_plan(tmp_path / "plan.toml").benchmarks
    assert benchmarks is not None and benchmarks.root == tmp_path / "home" / "data"


def test_paths_are_seen_from_the_plans_folder(tmp_path: Path) -> None:
    folder = tmp_path / "plans"
    folder.mkdir()
    (folder / "plan.toml").write_text(
        'benchmarks = {names = ["sugarcrepe"], root = "../data"}\n'
        'set = {"data.captions" = "c.jsonl", "data.images" = "/pictures"}\n'
        'arms = [{recipe = "degla", "data.negatives" = ["a.jsonl", "b.jsonl"]}]\n'
    )
    plan = read_plan(folder / "plan.toml")
    runs = expand(plan, where="plan")
    assert plan.benchmarks is not None and plan.benchmarks.root == folder / ".." / "data"
    assert (runs[0].config.data.captions, runs[0].config.data.images) == (folder / "c.jsonl", Path("/pictures"))
    assert [run.config.data.negatives for run in runs] == [folder / "a.jsonl", folder / "b.jsonl"]
    assert [run.label for run in runs] == ["degla negatives a.jsonl", "degla negatives b.jsonl"]
    assert runs[0].rules == PUBLISHED_RULES
    (folder / "arms.toml").write_text(
        'benchmarks = {names = ["sugarcrepe"], root = "../data"}\n'
        'arms = [{recipe = "clip", "data.captions" = ["c.jsonl", "d.jsonl"]}]\n'
    )
    runs = expand(read_plan(folder / "arms.toml"), where="plan")
    assert [run.config.data.captions for run in runs] == [folder / "c.jsonl", folder / "d.jsonl"]


def test_more_negatives_than_rules_make_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    two = {"recipe": "degla", "rules": ["swap_nouns", "swap_adjectives"]}
    with pytest.raises(InputError, match=r"its rules \(swap_nouns, .*at most 2 negatives per caption, but 4 are set"):
        expand(_plan(tmp_path, arms=[two]), where="plan")
    with pytest.raises(InputError, match="at most 2 negatives per caption, but 3 are set"):
        expand(_plan(tmp_path, arms=[two | {"data.negatives_per_caption": 3}]), where="plan")
    assert expand(_plan(tmp_path, arms=[two | {"data.negatives_per_caption": 2}]), where="plan")
    assert expand(_plan(tmp_path, arms=[two | {"recipe": "clip"}]), where="plan")  # It reads none.


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"arms": [{"recipe": "clip"}, {"recipe": "clip", "label": "clip?"}]}, r"'clip, seed 0' and 'clip\?, seed 0'"),
        ({"arms": [{"recipe": "clip", "label": "base!"}]}, "'base' and 'base!, seed 0'"),
        (
            {"arms": [{"recipe": "clip", "average": [0.5]}, {"recipe": "degla", "label": "clip averaged 0.5"}]},
            "'clip, seed 0' and 'clip averaged 0.5, seed 0'",
        ),
        (
            {
                "arms": [{"recipe": "clip"}, {"recipe": "degla"}],
                "replicates": [
                    {"name": "w 1", "questions_seed": 1, "arms": ["clip"]},
                    {"name": "w-1", "questions_seed": 2, "arms": ["degla"]},
                ],
            },
            r"'base \[w 1\]' and 'base \[w-1\]'",
        ),
    ],
)
def test_what_would_be_measured_into_one_file_is_refused(tmp_path: Path, fields: dict[str, Any], names: str) -> None:
    """A model was compared with itself, or with another arm's."""
    with pytest.raises(InputError, match=f"plan: {names}.* would share a file; rename one of them"):
        expand(_plan(tmp_path, **fields), where="plan")


def test_a_misspelt_field_is_reported_before_what_it_leaves_missing(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"world": {}, "arm": [{"recipe": "degla"}]}))
    with pytest.raises(InputError, match=r"field 'arm': Extra inputs are not permitted\. Did you mean 'arms'\?"):
        read_plan(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": [{"recipe": "dgla"}]}, "unknown recipe 'dgla'. Did you mean 'degla'?"),
        ({"arms": [{"recipe": "degla", "optim.leraning_rate": 1}]}, "arm 'degla': unknown field 'optim.leraning_rate'"),
        ({"arms": [{"recipe": "degla", "train.seed": 1}]}, "cannot be set here; use the plan's field 'seeds'"),
        ({"arms": [{"recipe": "degla"}, {"recipe": "degla"}]}, "give one of them a 'label'"),
        ({"arms": []}, "'arms': List should have at least 1 item"),
        ({"arms": {"recipe": "degla"}}, "'arms': Input should be a valid list"),
        ({"sets": {}}, "'sets'"),
        ({"world": {"scene": 9}}, "field 'world.scene': Extra inputs are not permitted. Did you mean 'scenes'?"),
        ({"replicates": [{"negative_seed": 1}]}, "Did you mean 'negatives_seed'?"),
        ({"arms": [{"recipe": "dgla"}]}, "field 'arms.0.recipe': unknown recipe"),  # not "Value error, unknown recipe"
        ({"seeds": [1, 1]}, "distinct seeds"),
        ({"seeds": "five"}, "'seeds': give a list of distinct seeds"),
        ({"average": [0, 1]}, "above 0 and at most 1"),
        ({"average": [0.5, 0.50000001]}, "must be distinct"),  # Both would be called "averaged 0.5".
        ({"price": 1e100}, "'price': Input should be less than or equal to 1000000"),
        ({"rules": ["swap_noun"]}, "Did you mean 'swap_nouns'?"),
        ({"world": None}, "either 'world', or 'benchmarks'"),
        ({"benchmarks": {"names": ["own"], "root": "s3://b/x"}}, "'benchmarks.root': benchmarks are read from a local"),
        ({"set": {"data.captions": "c.jsonl"}}, "'world' draws the pairs"),
        (
            {"world": None, "benchmarks": {"names": ["world"], "root": "."}, "set": {"data.images": "."}},
            "without 'world', give data.captions under 'set'",
        ),
        (
            {
                "world": None,
                "benchmarks": {"names": ["world"], "root": "."},
                "arms": [{"recipe": "clip", "data.captions": "c.jsonl"}, {"recipe": "negclip"}],
            },
            "without 'world', give data.captions under 'set', or in every arm;",
        ),
        (
            {
                "world": None,
                "benchmarks": {"names": ["world"], "root": "."},
                "set": {"data.captions": "c.jsonl"},
                "arms": [{"recipe": "clip", "data.captions": None}],
            },
            "without 'world', give data.captions under 'set', or in every arm;",
        ),
        ({"arms": [{"recipe": "clip", "data.images": "i"}]}, "'world' draws the pairs"),
        ({"against": "clip"}, "not an arm"),
        ({"replicates": [{"negatives_seed": 0}]}, "changes nothing"),
        ({"replicates": [{"negatives_seed": 1}, {"negatives_seed": 1}]}, "two replicates are named 'negatives 1'"),
        ({"replicates": [{"negatives_seed": 1, "seeds": [4]}]}, "among the plan's seeds, [0]"),
        (
            {"replicates": [{"negatives_seed": 1, "arms": ["dgla"]}]},
            "'dgla' is not an arm of the plan. Did you mean 'degla'?",
        ),
        ({"replicates": [{"negatives_seed": 1, "arms": []}]}, "replicate 'negatives 1': 'arms' is empty"),
        ({"kept": "composition"}, "'gain' and 'kept' are both 'composition'; name two scores"),
        (
            {
                "world": None,
                "benchmarks": {"names": ["world"], "root": "."},
                "replicates": [{"scenes_seed": 1}],
                "set": {"data.captions": "c.jsonl", "data.images": "."},
            },
            "require 'world'",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _plan(tmp_path, **fields)
    assert message in str(caught.value) and "plan.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"recipe": "degla", "optim.lr": "fast"}, "field 'optim.lr': --optim.lr is 'fast'"),
        ({"recipe": "degla", "teacher.kind": "frosted"}, "field 'teacher.kind'"),
        ({"recipe": "degla", "optim.lr": []}, "empty list"),
    ],
)
def test_values_of_the_wrong_type(tmp_path: Path, arm: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=r"plan: arm 'degla'") as caught:
        expand(_plan(tmp_path, arms=[arm]), where="plan")
    assert message in str(caught.value)


@pytest.mark.parametrize("override", ["train.steps", "trian.steps=2", "arms=3", "benchmarks.root=x"])
def test_overrides_that_name_nothing(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match="--set"):
        _plan(tmp_path, [override])


@pytest.mark.parametrize("overrides", [[], ["train.steps=2"]])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": 5}, "field 'arms'"),
        ({"set": 5}, "field 'set'"),
        ({"set": ["train.steps"]}, "field 'set'"),
        ({"arms": [{"recipe": "clip", "fields": 5}]}, r"field 'arms\.0\.fields'"),
    ],
)
def test_tables_that_are_none_are_named(
    tmp_path: Path, fields: dict[str, Any], message: str, overrides: list[str]
) -> None:
    """Regardless of what `--set` would change in them."""
    with pytest.raises(InputError, match=message):
        _plan(tmp_path, overrides, **fields)


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("arms: [")
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "plan.txt").write_text("{}")
    for name, error in (("plan.yaml", "not YAML"), ("list.yaml", "table"), ("plan.txt", ".toml"), ("no.yaml", "read")):
        with pytest.raises(InputError, match=error):
            read_plan(tmp_path / name)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plans_that_ship_are_good(path: Path) -> None:
    plan = read_plan(path)
    runs = expand(plan, where=path.name)
    if plan.world is None:  # On photographs: reported studies have five seeds, the paper's table as many as stated.
        assert len(plan.seeds) >= 5 or path.stem == "paper" or path.stem.endswith(("_rates", "_search"))
        assert len(runs) >= 2 * len(plan.seeds), "nothing is compared"
        return
    assert len(runs) >= 15
    # Plans for choosing may be coarse: chosen.yaml reports with five seeds and a thousand items.
    # Replicates also train: a few seeds in several worlds are as many runs.
    trained = len(plan.seeds) * (1 + len(plan.replicates))
    assert plan.world.split == "validation" or (trained >= 5 and plan.world.items_per_part >= 1000)
    settings = [(replace(run.config, recipe=""), run.rules) for run in runs if run.seed == 0 and run.replicate is None]
    assert all(one != other for place, one in enumerate(settings) for other in settings[:place]), "two arms are alike"


def test_the_page_gives_arms_seeds_and_replicates_of_the_plans_that_ship() -> None:
    page = (PLANS[0].parents[2] / "studies.md").read_text(encoding="utf-8")
    listed = [rows for heading, heads, rows in tables(page) if heading == "Plans that ship" and heads[0] == "plan"]
    assert len(listed) == 2, "the world, and photographs"
    for names, _, runs in listed[0] + listed[1]:
        stems = [name.split("/")[-1] for name in re.findall(r"`([^`]+)`", names)]
        full = [f"photographs{stem}" if stem.startswith("_") else stem.removesuffix(".yaml") for stem in stems]
        folder = PLANS[0].parents[1] / "degla_plus" if full == ["search"] else PLANS[0].parent
        plans = [read_plan(folder / f"{stem}.yaml") for stem in full]
        arms = " and ".join(dict.fromkeys(str(len(plan.arms)) for plan in plans))
        if runs.isdigit():
            assert (arms, {len(plan.seeds) for plan in plans}) == (runs, {5}), names
            continue
        assert runs.startswith(f"{arms} arms") and {len(plan.seeds) for plan in plans} == {
            int(re.findall(r"(\d+) seeds?", runs)[0])
        }, names
        replicates = re.findall(r"(\d+) replicates", runs) or ["0"]
        assert [len(plan.replicates) for plan in plans] == [int(replicates[0])] * len(plans), names


def test_four_plans_ship() -> None:
    assert {path.stem for path in PLANS} >= {"methods", "degla_ablation", "frontier", "rules"}


def test_every_method_of_the_shelf_has_an_arm_in_the_world() -> None:
    plans = [read_plan(path) for path in PLANS if path.stem in ("methods", "rivals", "sigmoid", "one_way")]
    measured = {arm.recipe for plan in plans for arm in plan.arms}
    # Attacks; tasks in sequence; a check; related systems.
    elsewhere = {"fare", "tecoa", "gift", "smoke", "ugcl_clip", "excon_clip", "pointacl_clip", "context_clip"}
    assert measured | elsewhere == set(RECIPES.names()) and not measured & elsewhere
