"""Workflows, templates, hooks, citation and container agree with the Makefile, pyproject.toml and the version."""

from __future__ import annotations

import ast
import re
import runpy
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from degla import __version__

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _read(path: Path) -> Any:
    # BaseLoader leaves all values strings: `on` stays a word.
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def _steps() -> list[tuple[str, dict[str, Any]]]:
    return [(path.name, step) for path in WORKFLOWS for job in _read(path)["jobs"].values() for step in job["steps"]]


def test_workflows_run_targets_of_the_makefile_and_nothing_else() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    run = {step["run"] for _, step in _steps() if "run" in step}
    assert run == {"make check", "make test", "make lowest", "make docs"}
    assert {command.removeprefix("make ") for command in run} <= targets


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_and_end_what_is_outdated(path: Path) -> None:
    workflow = _read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] == "true"
    assert "pull_request_target" not in workflow["on"]
    assert all("timeout-minutes" in job and "permissions" not in job for job in workflow["jobs"].values())


def test_actions_are_named_by_commit_and_keep_no_credentials() -> None:
    for name, step in _steps():
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), f"{name}: {step['uses']}"
            if "checkout" in step["uses"]:
                assert step["with"]["persist-credentials"] == "false", name


def test_workflows_begin_at_the_lowest_python() -> None:
    lowest = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    matrix = _read(GITHUB / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert matrix[0] == lowest
    assert {step["with"]["python-version"] for _, step in _steps() if "python" in step.get("uses", "")} == {
        lowest,
        "${{ matrix.python }}",
    }


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_are_complete(path: Path) -> None:
    form = _read(path)
    assert form["name"] and form["description"]
    fields = [entry for entry in form["body"] if entry["type"] != "markdown"]
    assert fields and all(entry["attributes"]["label"] for entry in fields)
    names = [entry["id"] for entry in fields]
    assert len(set(names)) == len(names)


def test_other_files_of_the_forge_parse() -> None:
    assert _read(GITHUB / "ISSUE_TEMPLATE" / "config.yml")["blank_issues_enabled"] == "true"
    assert _read(GITHUB / "dependabot.yml")["version"] == "2"
    assert "make test" in (GITHUB / "pull_request_template.md").read_text(encoding="utf-8")


def test_hooks_are_the_projects_own_tools() -> None:
    (repository,) = _read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/")
        assert program.replace(".venv/bin", "$(BIN)") in makefile, program


@pytest.mark.parametrize("folder", sorted(path.parent for path in (ROOT / "src/degla").glob("*/__init__.py")), ids=str)
def test_a_package_lists_modules_that_it_has(folder: Path) -> None:
    """The first column of its docstring's table names files or folders of the package."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    names = {path.stem for path in folder.iterdir()}
    assert set(re.findall(r"^([a-z_]+)(?:\.py|/)? {2,}", text, re.MULTILINE)) <= names


def test_the_version_stands_in_one_place_and_the_citation_repeats_it() -> None:
    assert "version" not in PYPROJECT["project"] and PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "src/degla/version.py"
    citation = _read(ROOT / "CITATION.cff")
    assert citation["version"] == __version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["references"][0]["url"].endswith("2504.16801")
    assert f"## {__version__} (" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


IMAGE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_copies_what_is_there_and_installs_as_the_makefile_does() -> None:
    """The image is not built here; docs/log.md, 2026-11-28, describes a build."""
    copied = [name for line in re.findall(r"^COPY (.+)$", IMAGE, re.MULTILINE) for name in line.split()[:-1]]
    let_in = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    assert copied and set(copied) == let_in and all((ROOT / name).exists() for name in copied)
    needed = {PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"][:1], "pyproject.toml", "src"}
    assert needed <= set(copied)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (target,) = re.findall(r"make (\S+)", IMAGE.partition("RUN case")[2])
    rule = target.replace(re.findall(r"^VENV := (.+)$", makefile, re.MULTILINE)[0], "$(VENV)")
    (sources,) = re.findall(rf"^{re.escape(rule)}: (.+)$", makefile, re.MULTILINE)
    files = sources.partition("|")[0].split()  # what follows | only has to exist before
    assert {name.split("/")[0] for name in files} <= set(copied)
    (extras,) = re.findall(r"^ARG EXTRAS=(.+)$", IMAGE, re.MULTILINE)
    assert set(extras.split(",")) <= PYPROJECT["project"]["optional-dependencies"].keys()


def test_the_lock_meets_every_bound() -> None:
    (name,) = re.findall(r"PIP_CONSTRAINT=/degla/(\S+)", IMAGE)
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    locked = dict(line.split("==") for line in lines)
    assert len(locked) == len(lines) and list(locked) == sorted(locked)
    (extras,) = re.findall(r"^ARG EXTRAS=(.+)$", IMAGE, re.MULTILINE)
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *(each for extra in extras.split(",") for each in
                                          project["optional-dependencies"][extra])]  # fmt: skip
    for requirement in map(Requirement, wanted):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} and {version} in {name}"


def test_what_the_package_imports_is_declared() -> None:
    """In the core's dependencies, or in an extra that a file of the folder names or that the file is named after."""
    project, owners = PYPROJECT["project"], packages_distributions()
    free = {"degla", "httpx", "httpx2"} | sys.stdlib_module_names  # httpx, httpx2: what the installed openai uses.

    def declared(requirements: Iterable[str]) -> set[str]:
        return {canonicalize_name(Requirement(each).name) for each in requirements}

    core, extras = declared(project["dependencies"]), project["optional-dependencies"]
    for folder in {path.parent for path in (ROOT / "src").rglob("*.py")}:
        texts = {path: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
        named = [extra for extra in extras if f"degla[{extra}]" in "".join(texts.values())]
        for path, text in texts.items():
            of_path = [extra for extra in extras if extra in path.relative_to(ROOT).as_posix()]
            allowed = core.union(*(declared(extras[extra]) for extra in {*named, *of_path}))
            for node in ast.walk(ast.parse(text)):
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
                for top in {name.partition(".")[0] for name in names} - free:
                    assert allowed.intersection(map(canonicalize_name, owners.get(top, [top]))), f"{path}: {top}"


def test_the_table_of_measurements_has_every_script() -> None:
    rows = re.findall(r"^\| `(\w+\.py)` \|", (ROOT / "bench" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    scripts = [path.name for path in (ROOT / "bench").glob("*.py") if "_main_" in path.read_text(encoding="utf-8")]
    assert sorted(rows) == sorted(scripts)


def test_a_measurement_of_no_rounds_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["attention_kernel.py", "--rounds", "0"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "bench" / "attention_kernel.py"), run_name="__main__")
    assert ended.value.code == 2 and "argument --rounds: 0 is given; it must be 1 or more" in capsys.readouterr().err


def test_a_script_ends_in_one_line_where_its_data_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = [path for folder in ("tools", "bench") for path in (ROOT / folder).glob("*.py")]
    reading = [
        path for path in scripts if re.search(r"^from degla", text := path.read_text(), re.M) and "_main_" in text
    ]
    assert len(reading) > 25
    assert not [path.name for path in reading if "exit_status_of(main)" not in path.read_text()]
    monkeypatch.setattr("sys.argv", ["photo_questions", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / "photo_questions.py"), run_name="__main__")
    assert ended.value.code == 2 and capsys.readouterr().err.startswith(f"degla: {tmp_path}/flickr8k/captions_dev.json")
