"""README and docs: commands use existing verbs and flags, stated defaults are right, links resolve."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from degla.cli import _top, _verb, parser
from degla.config.fields import flags
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.fetch.sources import read_sources
from degla.losses.core.objective import losses_by_name
from degla.shelf import BENCHMARKS, RULES, SYSTEMS
from degla.verbs import explain
from degla.verbs._training import configure
from degla.verbs.system import read_command

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(ROOT / name / "README.md" for name in ("bench", "examples")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMAND_PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md", "examples/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]

_CONFIGURED = {"train": ("--resume", "--dry-run", "--" + "recipe"), "doctor": ("--json",), "prepare_rows": ()}
"""The verbs whose flags are the fields of a training configuration, and their other ones."""

_FENCE = re.compile(r"^( *)```([\w{}-]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(degla [^`]+)`")
_SCRIPT = re.compile(r"(?<![\w/])((?:bench|tools)/[a-z]\w*\.py)([^`\n;|]*)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\| `--([\w.-]+\.[\w-]+)` \| (?:`([^`]*)`|(none)) \|", re.MULTILINE)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _words_of(line: str) -> list[str] | None:
    """The words after `degla` in a shell line, after variables and launchers; None if the line runs something else."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"\$|[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if not words:
        return None
    program = Path(words[0]).name
    if program == "degla":
        return words[1:]
    if program in ("torchrun", "python", "python3") and "degla" in words:
        place = words.index("degla")
        return words[place + 1 :] if words[place - 1] == "-m" else None
    return None


def _commands(page: Path) -> Iterator[list[str]]:
    """The words of every `degla` command in a page's shell blocks."""
    for _, language, block in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language in ("", "sh", "bash", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                # Blocks without a language may contain prose with apostrophes; only commands must be valid shell.
                if "degla" in line and (words := _words_of(line)) is not None:
                    yield words


def _mentions(page: Path) -> Iterator[list[str]]:
    """The words of every `degla ...` in running text, which may be incomplete and contain placeholders."""
    for text in _INLINE.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        yield text.split()[1:]


@cache
def _flags(verb: str) -> frozenset[str]:
    """Every long flag of a verb."""
    if verb in _CONFIGURED:
        names = {"--help", "--config", "--print-config", *_CONFIGURED[verb]}
        return frozenset(names | {f"--{name}" for name in _fields()} | {f"--{_negated(name)}" for name in _fields()})
    own = frozenset(parser(verb)._option_string_actions)
    if verb == "system":
        systems = (SYSTEMS.load(name).SYSTEM for name in SYSTEMS.names())
        own |= {f"--{flag}" for system in systems for flag in flags(system.settings)}
    return own


def _negated(name: str) -> str:
    section, _, field = name.rpartition(".")
    return f"{section}.no-{field}"


@cache
def _fields() -> dict[str, object]:
    """Every flag of the configuration, without its dashes, and its default."""
    return {name.replace("_", "-"): value for name, value in _leaves(TrainConfig(), "").items()}


def _leaves(owner: object, prefix: str) -> dict[str, object]:
    leaves: dict[str, object] = {}
    for entry in dataclasses.fields(owner):  # type: ignore[arg-type]
        name, value = f"{prefix}{entry.name}", getattr(owner, entry.name)
        if entry.name == "objective":
            for term_name, term in losses_by_name().items():
                leaves |= _leaves(type(term)(), f"{name}.{term_name}.")
        elif dataclasses.is_dataclass(value):
            leaves |= _leaves(value, f"{name}.")
        else:
            leaves[name] = value
    return leaves


def _refusal(words: list[str]) -> str:
    """The command line's error for a command, or "" if it is valid. Nothing is run."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            if words[0] == "system" and "--help" not in words:
                read_command(words[1:])
                return ""
            if words[0].startswith("-"):
                _top().parse_args(words)
                return ""
            name, rest = _verb(words)
            if name in _CONFIGURED:
                # The files that a page names do not exist; its flags are valid with any recipe.
                flag_words = ["degla", *rest[2:]] if rest[0] in ("--resume", "--config") else rest
                others = ("--print-config", *_CONFIGURED[name])
                configure([word for word in flag_words if word not in others], verb=name)
                return ""
            if name == "explain":
                explain.run_words(rest)
                return ""
            options = parser(name).parse_args(rest)
    except InputError as error:
        return str(error)
    except SystemExit as stopped:
        return "" if stopped.code == 0 else output.getvalue()
    rules = getattr(options, "rules", None)
    named = ((BENCHMARKS, getattr(options, "benchmarks", None)), (RULES, None if rules == ["all"] else rules))
    for shelf, names in named:
        for name in names or ():
            if name not in shelf.names():
                return f"no {shelf.noun} {name!r}"
    return ""


COMMANDS = [(page, words) for page in COMMAND_PAGES for words in _commands(page)]


def test_there_are_commands_to_check() -> None:
    assert {words[0] for _, words in COMMANDS} >= {"demo", "negatives", "train", "evaluate", "report", "world"}
    assert sum(1 for page in COMMAND_PAGES for _ in _mentions(page)) > 20
    assert _refusal(["train", "degla", "--optim.leraning-rate", "1"])
    assert _refusal(["train", "dgla"])
    assert _refusal(["negatives", "captions.json", "--rules", "swap_noun", "--out", "x.jsonl"])
    assert _refusal(["evaluate", "world", "--benchmarks", "sugarcrap", "--root", "data", "--out", "x.json"])
    assert _refusal(["negatives", "captions.json", "--outt", "x.jsonl"])


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=_name)
def test_commands_are_taken_by_the_command_line(page: Path) -> None:
    for words in _commands(page):
        assert not (refusal := _refusal(words)), f"degla {' '.join(words)}\n{refusal}"


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=_name)
def test_commands_in_running_text_use_known_verbs_and_flags(page: Path) -> None:
    for words in _mentions(page):
        if words[0] in ("...", "--help", "--version"):
            continue
        name, _ = _verb(words)
        for word in words[1:]:
            flag = word.partition("=")[0]
            if flag.startswith("--"):
                assert flag in _flags(name), f"degla {' '.join(words)}: no flag {flag}"


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=_name)
def test_scripts_exist_and_have_the_flags(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    if page.parent.name == "bench":
        text = re.sub(r"(?<=`)(?=\w+\.py)", "bench/", text)
    for script, words in _SCRIPT.findall(text):
        source = (ROOT / script).read_text(encoding="utf-8")
        for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", words):
            assert flag == "--help" or f'"{flag}"' in source, f"{script} {words.strip()}: no flag {flag}"


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=_name)
def test_flags_in_tables_exist_and_have_the_stated_default(page: Path) -> None:
    for name, stated, none in _ROW.findall(page.read_text(encoding="utf-8")):
        assert name in _fields(), f"no flag --{name}"
        default = _fields()[name]
        assert ("none" if default in (None, ()) else str(default)) == (none or stated), f"--{name}"


def test_the_table_of_losses_holds_every_weight() -> None:
    text = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| \[`(\w+)`\]\(#[\w-]+\) \| `([\d.]+)` \|", text, re.MULTILINE))
    assert stated == {name: str(type(loss)().weight) for name, loss in losses_by_name().items()}


def test_every_flag_of_the_configuration_has_a_row() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in COMMAND_PAGES)
    shown = {name for name, _, _ in _ROW.findall(text)}
    # Those of the replayed pairs are the same with another prefix.
    elsewhere = ("objective.", "replay.objective.", "replay.data.")
    missing = [name for name in _fields() if "." in name and not name.startswith(elsewhere) and name not in shown]
    assert not missing


def test_what_must_be_got_by_hand_is_in_the_table_of_it() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8").lower()
    table = text.partition("| not downloaded |")[2].partition("\n\n")[0]
    for name, files in read_sources().table.items():
        if files.ask:
            assert name.rpartition("_")[0] in table, name


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_resolve(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), f"{_name(page)}: {target}"
        if anchor and place.suffix == ".md":
            assert anchor in _anchors(place), f"{_name(page)}: {target}"


@cache
def _anchors(page: Path) -> frozenset[str]:
    headings = re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return frozenset(_slug(heading) for heading in headings)


def _slug(heading: str) -> str:
    """A heading's anchor, as MyST and the forge make it."""
    return re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-")


def test_the_navigation_holds_the_pages() -> None:
    text = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    listed = set(re.findall(r"^.+ <([\w./-]+)>$", text, re.MULTILINE)) - {"self"}
    for name in listed:
        assert (ROOT / "docs" / f"{name}.md").is_file(), name
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= listed


def test_pages_of_python_name_modules_that_exist() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    modules = re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE)
    assert modules
    for name in modules:
        assert importlib.util.find_spec(name), name


def test_numbers_in_cells_are_kept_whole() -> None:
    module = _conf()
    for text in ("+7.3\u00a0±\u00a01.6", "62\u00a0%\u00a0[56,\u00a068]", "−0.4\u00a0[−9.0,\u00a0+8.3]"):
        assert module.whole_numbers(text.replace("\u00a0", " ")) == text
    assert module.whole_numbers("of 5, 10 or 3 [a, b] in 2 s") == "of 5, 10 or 3 [a, b] in 2 s"


def test_of_many_columns_an_interval_may_stand_below_its_number() -> None:
    """Tables of a dozen scores were wider than a screen of 1,280 pixels."""
    below = _conf().interval_below
    assert below("+7.3\u00a0±\u00a01.6") == "+7.3 ±\u00a01.6"
    assert below("62\u00a0%\u00a0[56,\u00a068]") == "62\u00a0% [56,\u00a068]"


def test_lines_of_code_break_before_flags_and_notes() -> None:
    """A line ended in `--`, and the next began with `data.images`; formulas' notes were torn apart."""
    breakable = _conf().breakable
    flag, note = '<span class="flag">', '<span class="note">'
    assert breakable("<pre>degla ls --json") == f"<pre>degla ls {flag}--json</span>"
    assert breakable('<span class="pre">--a.b-c</span>') == f'<span class="pre">{flag}--a.b</span>-c</span>'
    assert breakable("  x = 1     one of two\n  y") == f"  x = 1     {note}one of two</span>\n  y"
    assert breakable("a --- b, </span>    c</span>") == "a --- b, </span>    c</span>"


def test_a_colon_in_an_attributes_sentence_is_no_type() -> None:
    """Of "Label smoothing: the share ..." the page of Python showed "the share ..., Type: Label smoothing"."""
    lines = ["Unit of the average: a token, or a text."]
    _conf()._keep_sentences(None, "attribute", "", None, None, lines)
    assert lines == ["..", "", "Unit of the average: a token, or a text."]


def test_code_of_a_module_is_one_block_and_every_block_can_be_copied() -> None:
    """An example with a blank line in it was two blocks on the page of Python."""
    conf = _conf()
    lines = ["Text.", "", "    import degla", "", "    degla.evaluate()", "", "More."]
    conf._keep_columns(None, "module", "", None, None, lines)
    assert lines == ["Text.", "", "::", "", *("    import degla", "", "    degla.evaluate()"), "", "More."]
    assert [(ROOT / "docs" / "_static" / name).is_file() for name, _ in conf.html_js_files] == [True]


def _conf() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "conf.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
