"""Every snippet of the README and of docs/ is what it says it is.

- ``python`` blocks run, all of a page in order and in one namespace, in a folder of their own. What a block takes for granted
  stands before it in a comment of the page, ``<!-- setup: why`` to ``-->``, which runs too. Of the loops of ``FEWER`` only the
  slow tests do all rounds, and the blocks of ``ELSEWHERE`` run elsewhere.
- ``toml`` blocks are read by the command that they are for.
- In blocks of commands every line is checked: ``kappa-rtl`` parses the options, make knows the target, paths are there.
  Those of ``CHEAP`` run, and a bare block behind one is what it prints; the others run as slow tests, shortened as
  ``SHORTER`` says.
- ``text`` blocks, and folders with what is in them, are no snippets.

Another block, or a word that no rule here knows, is an error: nothing is left out without a line in this file.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.network.precision import PrecisionDict
from kappa_rtl.golden.training.instrumented import TrainingWarning
from kappa_rtl.scripts.experiments.cosim.job import Job
from kappa_rtl.scripts.experiments.explore.network import Network
from kappa_rtl.scripts.experiments.explore.space import Axes
from kappa_rtl.scripts.main import COMMANDS, main
from kappa_rtl.scripts.settings import read, unit_of
from support import ROOT

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

CHEAP = ("monitor", "export")
SHORTER = {
    "cosim": ["--steps", "3"],
    "train": ["--seeds", "1", "--steps", "3"],
    "credit": ["--seeds", "1", "--steps", "3"],
    "calibrate": ["norm", "--seeds", "1", "--epochs", "2"],
    "synth": ["--only", "^divider, 24", "--seeds", "0"],
    "findings": ["--seeds", "1"],
    "fit": ["--measured"],
    "faults": ["--count", "2"],
}
"""What makes a long command a short one; the last of two equal options counts."""

MINUTES = ("explore", "energy")
"""Long commands that nothing makes short; tests/explore and test_energy_command.py run them on less than the pages do."""

FEWER = {
    "docs/credit.md": [("range(300)", "range(3)")],
    "docs/training.md": [("epochs=100", "epochs=2"), ("epochs=100", "epochs=2")],
}
"""By page: what stands in its Python blocks, and what makes a long loop a short one, each in its order."""

ELSEWHERE = ("docs/torch.md", "docs/keras.md")
"""Pages whose Python blocks need what is no dependency: they are compiled here, and run in tests/frameworks."""

NAMED = re.compile(r"# (\w+\.toml)")
"""The first line of a configuration that the commands behind it read."""

SHELLS = ("", "bash", "console", "sh", "shell")
OTHERS = ("apt-get", "cd", "git", "pip", "sudo")
"""Programs whose lines are only counted."""


@dataclass(frozen=True)
class Block:
    """A block of a page: its kind, the line that it begins in, and its text."""

    kind: str
    line: int
    text: str


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page in order; an indented one is of the kind ``""``, as a bare fence is."""
    lines, i = [*text.splitlines(), ""], 0
    while i < len(lines):
        start = i
        if fence := re.match(r" *```(\S*)", lines[i]):
            end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == "```")
            yield Block(fence[1], start + 1, "\n".join(lines[i + 1 : end]))
            i = end
        elif lines[i].startswith("<!-- setup: "):
            end = lines.index("-->", i)
            yield Block("setup", start + 1, "\n".join(lines[i + 1 : end]))
            i = end
        elif lines[i].startswith("    ") and not lines[i - 1]:
            while lines[i].startswith("    ") or (not lines[i] and lines[i + 1 : i + 2] and lines[i + 1].startswith("    ")):
                i += 1
            yield Block("", start + 1, "\n".join(line[4:] for line in lines[start:i]))
        i += 1


def is_folders(block: Block) -> bool:
    """A list of folders of the checkout, each with what is in it."""
    return all(re.match(r"\w+/\s", line) and (ROOT / line.split()[0]).is_dir() for line in block.text.splitlines())


def commands(block: Block) -> Iterator[list[str]]:
    """The lines of a block of commands as words, without prompts and comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words:
            yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def of_kind(block: Block, after: Block | None) -> str:
    """What a block counts as."""
    if block.kind in SHELLS and after is not None and after.kind in SHELLS and is_output(block, after):
        return "output"
    if block.kind in SHELLS:
        return "folders" if is_folders(block) else "commands"
    return "" if block.kind.startswith("{") else block.kind  # directives of the site


def is_output(block: Block, after: Block) -> bool:
    """A bare block directly behind cheap commands."""
    return block.line == after.line + after.text.count("\n") + 2 and all(
        words[:1] == ["kappa-rtl"] and words[1] in CHEAP for words in commands(after)
    )


def kinds(page: str) -> list[tuple[str, Block]]:
    """Every block of a page with what it counts as."""
    found: list[tuple[str, Block]] = []
    for block in blocks((ROOT / page).read_text()):
        kind = of_kind(block, found[-1][1] if found else None)
        if kind:
            found.append((kind, block))
    return found


def inline(page: str) -> Iterator[list[str]]:
    """The commands in the running text: words that begin with the name of the program, with options perhaps."""
    text = re.sub(r"^```.*?^```|^<!--.*?-->", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`]+)`", text):
        if code.startswith("kappa-rtl ") and not code.startswith("kappa-rtl -"):
            yield re.sub(r"[\[\]|]", " ", code).split()[1:]


def parsed(words: list[str]) -> None:
    """Click takes the command with its options and arguments; files of options need not be there, but for configurations."""
    name, *rest = words
    assert name in COMMANDS, f"kappa-rtl has no command {name}"
    for word in rest:
        if word.endswith(".toml") and not Path(word).exists():
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).write_text("[throttle]\nelements = 640\neta = 0.1\nlanes = 8\n")
    command = main.get_command(click.Context(main), name)
    assert command is not None
    command.make_context(name, rest).close()


def check(words: list[str]) -> str:
    """What a line counts as; an error says what is wrong with it."""
    program, *rest = words
    if program == "kappa-rtl":
        parsed(rest)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert all(word in targets for word in rest if "=" not in word), f"make has no target {rest}"
    elif program in ("python", "python3"):
        if rest[:1] == ["-m"]:
            assert importlib.util.find_spec(rest[1]), f"there is no module {rest[1]}"
        for word in rest:
            if "/" in word and not word.startswith(("-", "build/")):  # what is written there is nobody's yet
                assert (ROOT / word.split("::")[0]).exists(), f"there is no {word}"
    else:
        assert program in OTHERS, f"{program} is none of kappa-rtl, make, python, {', '.join(OTHERS)}: {words}"
    return f"{program} commands"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of docs/, in which the snippets of a page run."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def read_toml(text: str) -> str:
    """Have a file read by the command that it is for; gives the name of its reader."""
    path = Path("snippet.toml")
    path.write_text(text)
    settings = read(path)
    if set(settings.tables) == {"throttle"}:
        unit_of(settings)
        return "export"
    if "explore" in settings:
        space = settings["explore"]
        where = space.pop("task", None)
        Axes(**space)
        if where is None:
            Network.of(settings)
        return "explore"
    if set(settings.tables) <= {"precision"}:
        PrecisionDict(settings["precision"])
        return "train"
    Job.of(settings)
    return "cosim"


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, folder: Path) -> None:
    """All snippets of a page, with short loops, and but for the long commands."""
    run(page, FEWER.get(page, []))


@pytest.mark.slow
@pytest.mark.parametrize("page", FEWER)
def test_page_with_its_loops(page: str, folder: Path) -> None:
    run(page, [])


def run(page: str, fewer: list[tuple[str, str]]) -> None:
    """Every snippet of a page in order, with some texts of its Python blocks replaced, each of which has to be there."""
    names: dict[str, Any] = {"__name__": "snippet"}
    printed, left = "", list(fewer)
    for kind, block in kinds(page):
        try:
            if kind in ("python", "setup"):
                text = block.text
                while left and left[0][0] in text:
                    text = text.replace(*left.pop(0), 1)
                code = compile("\n" * block.line + text, page, "exec")
                if page in ELSEWHERE:
                    continue
                with warnings.catch_warnings(), mpl.rc_context():
                    warnings.simplefilter("ignore", TrainingWarning)  # a run may show what the unit is for
                    exec(code, names)
            elif kind == "toml":
                read_toml(block.text)
                if named := NAMED.match(block.text):
                    Path(named[1]).write_text(block.text)
            elif kind == "commands":
                printed = ""
                for words in commands(block):
                    check(words)
                    if words[0] == "kappa-rtl" and words[1] in CHEAP:
                        done = CliRunner().invoke(main, words[1:])
                        assert done.exit_code == 0, done.output
                        printed += done.output
            elif kind == "output":
                assert printed.startswith(block.text), printed
            else:
                assert kind in ("text", "folders"), f"no rule for a block of {kind!r}"
        except BaseException as error:
            error.add_note(f"{page}, line {block.line}")
            raise
    assert not left, f"{page} has no {left[0][0]}: see FEWER"


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text(page: str) -> None:
    """What stands in the text has a command and options that there are; a word in capitals stands for another one."""
    for name, *rest in inline(page):
        assert name in COMMANDS, f"kappa-rtl has no command {name}"
        command = main.get_command(click.Context(main), name)
        assert command is not None
        known = {text for param in command.params for text in param.opts}
        assert all(word.split("=")[0] in known for word in rest if word.startswith("-")), f"kappa-rtl {name} has no {rest}"


def test_how_many(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """The blocks by kind and the commands by program, printed; there is at least one of each."""
    found: Counter[str] = Counter()
    for page in PAGES:
        for kind, block in kinds(page):
            if kind == "commands":
                found.update(check(words) for words in commands(block))
            else:
                found[kind] += 1
        found["commands in the text"] += len(list(inline(page)))
    with capsys.disabled():
        print(f"\nsnippets of {len(PAGES)} pages: " + ", ".join(f"{count} {kind}" for kind, count in sorted(found.items())))
    assert found.keys() >= {"python", "toml", "output", "text", "kappa-rtl commands", "make commands"}


LONG = {
    f"{page}: {shlex.join(words)}": words[1:]
    for page in PAGES
    for kind, block in kinds(page)
    if kind == "commands"
    for words in commands(block)
    if words[0] == "kappa-rtl" and words[1] not in (*CHEAP, *MINUTES)
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_a_long_command_runs(name: str, folder: Path) -> None:
    """With a few steps in the place of many."""
    given = LONG[name]
    words = [*given, *(SHORTER[given[0]] if "--seed" not in given else SHORTER[given[0]][2:])]
    for page in ("README.md", name.split(": ")[0]):
        for block in blocks((ROOT / page).read_text()):
            if block.kind == "toml" and (named := NAMED.match(block.text)):
                Path(named[1]).write_text(block.text)
    parsed(words)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output


# ------------------------------------------------------------------------------------------------ that this finds faults


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["kappa-rtl", "fly"], "no command fly"),
        (["kappa-rtl", "train", "000", "--stepz", "3"], "No such option"),
        (["kappa-rtl", "train", "no such experiment"], "is not one of"),
        (["make", "coffee"], "no target"),
        (["python", "-m", "no_such_module"], "no module"),
        (["python", "examples/none.py"], "there is no"),
        (["tea", "please"], "tea is none of"),
    ],
)
def test_a_wrong_command_is_found(words: list[str], match: str, folder: Path) -> None:
    with pytest.raises((AssertionError, click.UsageError), match=match):
        check(words)


def test_blocks_are_found() -> None:
    page = (
        'text\n\n    make run\n\n    make test\n\n```python\nprint("x")\n```\n\n<!-- setup: why\na = 1\n-->\n1. list\n   more\n'
    )
    assert list(blocks(page)) == [
        Block("", 3, "make run\n\nmake test"),
        Block("python", 7, 'print("x")'),
        Block("setup", 11, "a = 1"),
    ]
