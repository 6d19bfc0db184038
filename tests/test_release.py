"""tools/release.py on a copied tree: its changes and errors, and that a failure leaves the files unchanged."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tools import release

ROOT = Path(__file__).parents[1]
FILES = ("src/degla/version.py", "CITATION.cff", "CHANGELOG.md")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with the three files that hold a version, and an entry for 9.8.7."""
    root = tmp_path / "tree"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    changelog = root / "CHANGELOG.md"
    entry = "# Changelog\n\n## 9.8.7 (unreleased)\n\nMuch.\n\n## 9.8.6 (unreleased)\n\nSome.\n\n"
    changelog.write_text(changelog.read_text(encoding="utf-8").replace("# Changelog\n\n", entry, 1), encoding="utf-8")
    _git(root, "init", "--quiet")
    _git(root, "add", ".")
    _git(root, "commit", "--quiet", "--message", "All")
    return root


def _git(root: Path, *words: str) -> str:
    names = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *names, *words], cwd=root, check=True, capture_output=True, text=True).stdout


def test_a_dry_run_tells_the_tag_and_changes_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main(["9.8.7", "--dry-run"], root=tree) == 0
    assert "git tag -a v9.8.7" in capsys.readouterr().out
    assert _git(tree, "status", "--porcelain") == ""


def test_a_release_sets_the_version_everywhere(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = _recorded(tree, monkeypatch)
    assert release.main(["9.8.7"], root=tree) == 0
    package, citation, changelog = ((tree / name).read_text(encoding="utf-8") for name in FILES)
    assert '__version__ = "9.8.7"\n' in package
    assert "\nversion: 9.8.7\ndate-released: 2" in citation
    assert "## 9.8.7 (2" in changelog and "## 9.8.6 (unreleased)" in changelog
    run = [" ".join(Path(word).name for word in command) for command in commands]
    assert [line for line in run if line.startswith("degla")] == ["degla --version", "degla ls"]
    assert not any("upload" in line or "push" in line or " tag" in line for line in run)
    # Once more, with the date there already.
    assert release.edits(tree, "9.8.6", "2030-01-02")[tree / "CITATION.cff"].count("date-released") == 1


def test_a_full_trial_runs_the_demo(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = _recorded(tree, monkeypatch)
    assert release.main(["9.8.7", "--full"], root=tree) == 0
    assert commands[-1][1:] == ("demo", "--quick")


@pytest.mark.parametrize("wrong", ["version", "build"])
def test_after_a_failure_the_files_are_as_before(tree: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    _recorded(tree, monkeypatch, wrong=wrong)
    assert release.main(["9.8.7"], root=tree) == 1
    assert _git(tree, "status", "--porcelain", "--untracked-files=no") == ""


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("9.8.5", "no text under the heading '## 9.8.5"),
        ("9.8", "not a version"),
        ("9.8.6", "under the heading '## 9.8.6"),
    ],
)
def test_what_cannot_be_released(tree: Path, capsys: pytest.CaptureFixture[str], version: str, message: str) -> None:
    changelog = tree / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## 9.8.6 (unreleased)\n\n## 9.8.7 (unreleased)\n\nMuch.\n", encoding="utf-8")
    _git(tree, "commit", "--quiet", "--all", "--message", "An empty entry")
    assert release.main([version, "--dry-run"], root=tree) == 1
    assert message in capsys.readouterr().err


def test_a_tree_with_changes_is_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "new.txt").write_text("", encoding="utf-8")
    assert release.main(["9.8.7", "--dry-run"], root=tree) == 1
    assert "new.txt" in capsys.readouterr().err


def _recorded(tree: Path, monkeypatch: pytest.MonkeyPatch, *, wrong: str = "") -> list[tuple[str, ...]]:
    """All commands except git are only recorded; the build command leaves a wheel."""
    commands: list[tuple[str, ...]] = []
    really = release._run

    def noted(*command: str, folder: Path, quiet: bool = False) -> str:
        if command[0] == "git":
            return really(*command, folder=folder, quiet=quiet)
        commands.append(command)
        if "build" in command:
            if wrong == "build":
                raise release.ReleaseError("cannot build")
            (tree / "dist").mkdir()
            (tree / "dist" / "degla-9.8.7-py3-none-any.whl").touch()
        return "degla 0.0.0" if wrong == "version" else "degla 9.8.7\n" if "--version" in command else ""

    monkeypatch.setattr(release, "_run", noted)
    return commands
