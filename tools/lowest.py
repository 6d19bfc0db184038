"""Install the lowest version that pyproject.toml allows of every direct dependency, and run the core tests with them.

Usage: make lowest, or python tools/lowest.py [--venv FOLDER] [--keep] [PYTEST ARGUMENTS]. Ends with pytest's status.
The extras for a language-model server, for the web page and for ray are not part of the core and are not installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = "datasets,tensorboard,embedded,peft,webdataset"
TESTS = ("pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "beartype>=0.18")
CORE = (
    "contract",
    "data",
    "model",
    "losses",
    "training",
    "evaluation",
    "world",
    "test_cli.py",
    "test_interpolate.py",
)


def main() -> int:
    """Create the environment, print its packages, and run the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-lowest", help="folder of the environment")
    parser.add_argument("--keep", action="store_true", help="reuse the existing environment")
    given, tests = parser.parse_known_args()
    python = given.venv.absolute() / "bin" / "python"
    if not given.keep or not python.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(given.venv))
        _run(str(python), "-m", "pip", "install", "--quiet", "uv")
        wanted = ["--editable", f"{ROOT}[{EXTRAS}]", *TESTS]
        _run(
            str(python), "-m", "uv", "pip", "install", "--python", str(python), "--resolution", "lowest-direct", *wanted
        )
    _run(str(python), "-m", "uv", "pip", "list", "--python", str(python))
    # The value of an option, such as the 2 of "-n 2", is not a test name.
    named = any((ROOT / word.partition("::")[0]).exists() for word in tests if not word.startswith("-"))
    chosen = tests if named else [*tests, *(f"tests/{name}" for name in CORE)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    # uv does not compile: without bytecode files, every process would compile everything that it imports.
    environment["PYTHONDONTWRITEBYTECODE"] = ""
    command = [str(python), "-m", "pytest", *chosen]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
