"""Prepare a release: set the version, build, try the wheel in a clean environment, print the commands that tag it.

Usage: make release VERSION=0.2.0 [OPTIONS=--dry-run], or python tools/release.py VERSION [--dry-run] [--full].
Nothing is committed, tagged or published. The tree must be clean, and CHANGELOG.md needs an entry with the heading
`## VERSION (unreleased)`, which gets the date. If anything fails, the files are restored.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")


class ReleaseError(Exception):
    """Why the release is not possible, in words for the user."""


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """Check, change, build, try; return 1 if something prevents the release."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="for example 0.2.0")
    parser.add_argument("--dry-run", action="store_true", help="only check, and print what would change")
    parser.add_argument("--full", action="store_true", help="also run `degla demo --quick` with the installed wheel")
    given = parser.parse_args(arguments)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        check_clean(root)
        changed = edits(root, given.version, today)
        if given.dry_run:
            print("would change:", *(file.relative_to(root).as_posix() for file in changed))
            print("would build the source archive and the wheel into dist/, and try the wheel in a clean environment")
        else:
            make(root, given.version, changed, full=given.full)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    names = " ".join(file.relative_to(root).as_posix() for file in changed)
    print(f"\nto commit and tag it:\n  git add {names}\n  git commit -m 'Version {given.version}'")
    print(f"  git tag -a v{given.version} -m 'degla {given.version}'")
    return 0


def check_clean(root: Path) -> None:
    """Reject a tree with changes or untracked files."""
    if said := _run("git", "status", "--porcelain", folder=root, quiet=True):
        raise ReleaseError(f"the tree is not clean:\n{said}")


def edits(root: Path, version: str, today: str) -> dict[Path, str]:
    """Return the new contents of the three files with the version: the package, CITATION.cff and the changelog."""
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"{version} is not a version such as 0.2.0 or 0.2.0rc1")
    changelog = root / "CHANGELOG.md"
    entry = re.compile(rf"^## {re.escape(version)} \(unreleased\)$(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = entry.search(changelog.read_text(encoding="utf-8"))
    if found is None or not found["text"].strip():
        raise ReleaseError(f"CHANGELOG.md has no text under the heading '## {version} (unreleased)'; add the changes")
    return {
        file: _replaced(file, pattern, line)
        for file, pattern, line in (
            (root / "src" / "degla" / "version.py", r'^__version__ = ".*"$', f'__version__ = "{version}"'),
            (
                root / "CITATION.cff",
                r"^version: .*$(\ndate-released: .*$)?",
                f"version: {version}\ndate-released: {today}",
            ),
            (changelog, rf"^## {re.escape(version)} \(unreleased\)$", f"## {version} ({today})"),
        )
    }


def make(root: Path, version: str, changed: dict[Path, str], *, full: bool) -> None:
    """Write the files, build, and try the result; restore the files after a failure."""
    before = {file: file.read_bytes() for file in changed}
    try:
        for file, text in changed.items():
            file.write_text(text, encoding="utf-8")
        shutil.rmtree(root / "dist", ignore_errors=True)
        _run(sys.executable, "-m", "build", "--outdir", "dist", folder=root)
        (wheel,) = (root / "dist").glob(f"degla-{version}-*.whl")
        try_wheel(wheel, version, full=full)
    except BaseException:
        for file, content in before.items():
            file.write_bytes(content)
        raise


def try_wheel(wheel: Path, version: str, *, full: bool) -> None:
    """Install a wheel with its dependencies into a new environment, and start it in an empty folder."""
    with tempfile.TemporaryDirectory() as temporary:
        empty = Path(temporary, "empty")
        empty.mkdir()
        environment = Path(temporary, "venv")
        _run(sys.executable, "-m", "venv", str(environment), folder=empty)
        _run(str(environment / "bin" / "pip"), "install", "--quiet", str(wheel.absolute()), folder=empty)
        degla = str(environment / "bin" / "degla")
        if (said := _run(degla, "--version", folder=empty, quiet=True).strip()) != f"degla {version}":
            raise ReleaseError(f"the installed wheel says {said!r}")
        _run(degla, "ls", folder=empty)
        if full:
            _run(degla, "demo", "--quick", folder=empty)


def _replaced(file: Path, pattern: str, line: str) -> str:
    text, times = re.subn(pattern, line, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if times != 1:
        raise ReleaseError(f"{file.name}: {times} lines match {pattern}, not one")
    return text


def _run(*command: str, folder: Path, quiet: bool = False) -> str:
    """Run a command that must succeed; return its output if `quiet`."""
    if not quiet:
        print("$", *command, flush=True)
    # The tree's own package must not replace the installed one.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, check=True, text=True, stdout=subprocess.PIPE if quiet else None
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ReleaseError(f"{' '.join(command)}: {error}") from None
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
