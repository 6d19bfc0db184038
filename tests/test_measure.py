"""`tools/measure.py` counts what its docstring says, on small trees and on this one."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tools.measure import PACKAGE, ROOT, TRACES, Tracer, main, measure, render


def write_package(folder: Path, files: dict[str, str]) -> Path:
    """Write a package `house` with these files; folders without an `__init__.py` get an empty one."""
    house = folder / "house"
    for name, text in files.items():
        path = house / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    for place in (house, *(path for path in house.rglob("*") if path.is_dir())):
        (place / "__init__.py").touch()
    return house


def test_code_lines(tmp_path: Path) -> None:
    text = '''\
        """Docstring
        in two lines."""

        # a comment
        LIMIT = 3  # a comment behind code
        """What it limits."""

        TEXT = """one

        # three"""


        def add(
            one: int,
        ) -> str:
            """Docstring."""
            # a comment
            return f"""{one}
            and"""
    '''
    figures = measure(write_package(tmp_path, {"one.py": text}))
    assert figures["files"] == 2 and figures["code_lines"] == 1 + 2 + 3 + 2
    assert figures["lines"] == len(dedent(text).splitlines())
    assert figures["largest_file"] == {"file": "one.py", "code_lines": 8} and figures["median_file"] == 4


def test_rooms(tmp_path: Path) -> None:
    files = {"top.py": "A = 1\n", "__init__.py": "A = 1\n", "one/__init__.py": "A = 1\n", "one/two/deep.py": "A = 1\n"}
    rooms = measure(write_package(tmp_path, files))["rooms"]
    assert rooms == {"(top)": {"files": 2, "code_lines": 2}, "one": {"files": 3, "code_lines": 2}}


def test_functions(tmp_path: Path) -> None:
    eight, nine = ", ".join("abcdefgh"), ", ".join("abcdefghi")
    text = [
        "from typing import overload",
        "@overload",
        "def told(a: int) -> int: ...",
        "def told(a):",
        "    '''Told.'''",
        "    def inner(): pass",
        "def _private(): pass",
        "class Box:",
        f"    def many({nine}): pass",
        f"    def more(self, {nine}): '''Said.'''",
        "    @staticmethod",
        f"    def static({eight}, *, i): pass",
        "    def __len__(self): pass",
        "class _Hidden:",
        "    def method(self): pass",
        f"def enough({eight}): pass",
        f"def over({eight[:-3]}, *rest, **named): pass",
        "def eighty():",
        *["    pass"] * 79,
        "def longer():",
        *["    # filled"] * 79,
        "    pass",
    ]
    private = "def unseen(): pass\n"
    figures = measure(write_package(tmp_path, {"one.py": "\n".join(text) + "\n", "_two.py": private}))
    # told, many, more, static, enough, over, eighty, longer
    assert figures["public_functions"] == {"count": 8, "with_docstring": 2}
    assert figures["functions_with_many_parameters"] == {"one.Box.more": 9, "one.Box.static": 9, "one.over": 9}
    assert figures["long_functions"] == {"one.longer": 81}


def test_repeated_names(tmp_path: Path) -> None:
    files = {
        "one.py": "class Rows: pass\nKey = tuple[int, int]\nOne = int | str\nLIMITS = TABLE['a']\ndef spread(): pass\n",
        "_two.py": "class Rows: pass\nKey = tuple[int, int]\nclass _Own: pass\n",
        "three.py": "from house.one import One\nKey = dict[str, int]\nLIMITS = TABLE['a']\nclass _Own: pass\n",
        "four.py": "Text = TypeVar('Text')\nNumber = NewType('Number', int)\ndef spread(): pass\ndef check(): pass\n",
        "five.py": "Text = TypeVar('Text')\nNumber: TypeAlias = int\nSHELF = Shelf('house.rules', 'rule')\n",
        "rules/red.py": "def check(): pass\ndef read(): pass\n",
        "rules/blue.py": "def check(): pass\ndef read(): pass\n",
    }
    figures = measure(write_package(tmp_path, files))
    assert figures["type_names_in_several_modules"] == {
        "Key": ["_two (same)", "one (same)", "three"],
        "Number": ["five", "four"],
        "Rows": ["_two", "one"],
    }
    assert figures["function_names_in_several_modules"] == {"check": ["four", "rules.*"], "spread": ["four", "one"]}


def test_circles(tmp_path: Path) -> None:
    files = {
        "__init__.py": "NAME = 1\n",
        "red/a.py": "from house import NAME\nfrom .b import thing\nimport os\n",
        "red/b.py": "try:\n    from house.red import c\nexcept ImportError: pass\n",
        "red/c.py": "def late():\n    from house.red.a import thing\n",
        "blue/d.py": "from ..red.a import thing\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import house.blue.e\n",
        "blue/e.py": "from house.blue.d import thing\n",
        "blue/deep/f.py": "from house.blue import e\n",
        "red/g.py": "from house.blue import d\n",
    }
    figures = measure(write_package(tmp_path, files))
    late, typing = ["red.a", "red.b", "red.c"], ["blue.d", "blue.e"]
    assert figures["circles_of_files"] == {
        "at module level": [],
        "with those within functions": [late],
        "with those for type checking": [typing],
        "with all": [typing, late],
    }
    both = {"members": ["blue", "red"], "importing_files_each_way": {"blue <-> red": [1, 1]}}
    assert figures["circles_of_rooms"] == {"at module level": [both], "with all": [both]}


def test_circle_of_rooms_within_a_room(tmp_path: Path) -> None:
    files = {
        "room/shelf/a.py": "from house.room import words\n",
        "room/words.py": "from house.room.more import b\n",
        "room/more/b.py": "from house.room.shelf import c\n",
        "room/shelf/c.py": "",
        "one.py": "from house import two\n",
        "two.py": "from house import one\n",
    }
    figures = measure(write_package(tmp_path, files))
    alone = {"members": ["room.more", "room.shelf", "room.words"], "importing_files_each_way": {}}
    assert figures["circles_of_rooms"]["with all"] == [alone]
    assert figures["circles_of_files"]["at module level"] == [["one", "two"]]


def test_tracer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "way.py": """\
            from dataclasses import dataclass

            @dataclass
            class Pair:
                text: str

                def read(self):
                    from house.late import late
                    return [(lambda: late())() for _ in range(2)]

            def whole(begin):
                begin("first")
                first = Pair("a").read()
                begin("second")
                return step(first)

            def step(first):
                return first
        """,
        "late.py": "def late(): return helper()\ndef helper(): return 1\ndef once(): pass\nonce()\n",
    }
    house = write_package(tmp_path, files)
    monkeypatch.syspath_prepend(str(tmp_path))
    way = importlib.import_module("house.way")
    tracer = Tracer(house)
    with tracer.tracing():
        way.whole(tracer.begin)
    for name in [name for name in sys.modules if name.partition(".")[0] == "house"]:
        del sys.modules[name]
    names = {phase: {name for _, name, _ in ran} for phase, ran in tracer.functions.items()}
    assert names == {"first": {"whole", "Pair.read", "late", "helper"}, "second": {"whole", "step"}}
    assert tracer.counts("first") == {"files": 2, "functions": 4}
    assert tracer.counts("first", "second") == {"files": 2, "functions": 5}


def test_before_and_after(tmp_path: Path) -> None:
    before = measure(write_package(tmp_path / "before", {"one.py": "A = 1\nclass Rows: pass\n", "two.py": ""}))
    rows = "class Rows: pass\nclass Key: pass\n"
    after = measure(write_package(tmp_path / "after", {"one.py": rows, "two.py": rows, "new/three.py": ""}))
    lines = [line.split() for line in render(after, before).splitlines()]
    others = ["0", "code", "lines", "in", "2", "files"]
    assert ["code", "lines", "2", "4"] in lines and ["room", "new", "-", *others] in lines
    assert ["+", "Rows:", "one,", "two"] in lines
    assert "+ Rows" not in render(after) and "Rows: one, two" in render(after)


def test_this_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ROOT / "src" / PACKAGE
    recorded = ROOT / "docs" / "house.json"
    assert set(json.loads(recorded.read_text())["ways"]) >= {"captions to loss", "caption to negative"} and TRACES
    assert main(["--json", str(tmp_path / "now.json"), "--against", str(recorded)]) == 0
    figures = json.loads((tmp_path / "now.json").read_text())
    assert figures["files"] == len(list(folder.rglob("*.py")))
    assert sum(room["code_lines"] for room in figures["rooms"].values()) == figures["code_lines"] > 1000
    assert figures["public_functions"]["with_docstring"] > 0.9 * figures["public_functions"]["count"]
    assert "code lines of the largest file" in capsys.readouterr().out
    # These properties hold and must be preserved.
    assert figures["type_names_in_several_modules"] == {}, "one name, one meaning"
    assert not any(figures["circles_of_files"].values()) and not any(figures["circles_of_rooms"].values())
