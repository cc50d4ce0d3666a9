"""The wheel against the tree, the lock against the ranges, and no trace of the machine anything was made on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import kappa_rtl
from support import ROOT

FOLDERS = ("golden", "hw", "sim", "scripts", "frameworks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]


def files_of(folder: Path) -> list[Path]:
    """Every file below ``folder`` that is neither hidden nor a byte-code cache, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.relative_to(ROOT).name.startswith(".")
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that the tree stays clean and nothing left in it by an earlier build gets in."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in (*FOLDERS, "src"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=ignored)
    out = tmp_path_factory.mktemp("wheel")
    command = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", command, out], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    assert path.name == f"kappa_rtl-{PROJECT['version']}-py3-none-any.whl"
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(wheel.read(name).decode())


def pinned_lines() -> list[str]:
    """The lines of the lock, and of what the tests of torch and Keras have beside it."""
    return [line for name in ("requirements.lock", "requirements-torch.lock") for line in (ROOT / name).read_text().splitlines()]


def pins() -> dict[str, Requirement]:
    """The lines of the locks by canonical name."""
    lines = pinned_lines()
    found = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    assert len({canonicalize_name(pin.name) for pin in found}) == len(found), "a package is in the lock twice"
    return {canonicalize_name(pin.name): pin for pin in found}


def test_wheel_holds_the_tree_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {f"kappa_rtl/{path.relative_to(ROOT).as_posix()}" for folder in FOLDERS for path in files_of(ROOT / folder)}
    expected |= {"kappa_rtl/__init__.py", "kappa_rtl/py.typed", "kappa_rtl/keras.py", "kappa_rtl/torch.py"}
    built = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert sorted(expected - built) == [], "in the tree, not in the wheel: see packages and package-data in pyproject.toml"
    assert sorted(built - expected) == [], "in the wheel, not in the tree"


def test_wheel_holds_the_same_bytes(wheel: zipfile.ZipFile) -> None:
    for folder in FOLDERS:
        for path in files_of(ROOT / folder):
            assert wheel.read(f"kappa_rtl/{path.relative_to(ROOT).as_posix()}") == path.read_bytes(), path


def test_the_running_code_is_the_checkout() -> None:
    """The links of ``src/`` lead to the folders and are relative; what is imported is there, or in the wheel under test."""
    links = {path.name: path.resolve() for path in (ROOT / "src" / "kappa_rtl").iterdir() if path.is_symlink()}
    assert links == {folder: ROOT / folder for folder in FOLDERS}
    assert all(not os.path.isabs(os.readlink(ROOT / "src" / "kappa_rtl" / folder)) for folder in FOLDERS)
    home = Path(kappa_rtl.__file__).parent
    assert home == Path(os.environ.get("KAPPA_RTL_WHEEL") or ROOT / "src").resolve() / "kappa_rtl"


def test_every_folder_of_modules_is_a_package() -> None:
    for folder in FOLDERS:
        for path in files_of(ROOT / folder):
            assert path.suffix != ".py" or (path.parent / "__init__.py").is_file(), f"no __init__.py beside {path}"


def test_metadata(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["Name"] == "kappa-rtl"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())
    required = {Requirement(line) for line in metadata.get_all("Requires-Dist", [])}
    assert {req for req in required if not req.marker} == {Requirement(line) for line in PROJECT["dependencies"]}
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "cluster",
        "explore",
        "fast",
        "torch",
        "keras",
        "test",
        "lint",
        "synth",
        "prove",
        "docs",
        "dev",
    }


def test_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert wheel.read(name).decode().split("\n")[:2] == ["[console_scripts]", "kappa-rtl = kappa_rtl.scripts.main:main"]
    (installed,) = entry_points(group="console_scripts", name="kappa-rtl")
    assert callable(installed.load())


def test_module_runs_away_from_the_checkout(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kappa_rtl.scripts.main", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_lock_is_exact() -> None:
    for pin in pins().values():
        assert pin.url is None
        assert [spec.operator for spec in pin.specifier] == ["=="], pin
        assert "*" not in str(pin.specifier), pin
    # Names, versions and markers, and no address or path.
    for line in pinned_lines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.+]+( ; .+)?", line), line
        assert "/" not in line, line
        assert not line.lstrip("# ").startswith("-"), line


@pytest.mark.parametrize("line", WANTED, ids=lambda line: Requirement(line).name)
def test_lock_satisfies_ranges(line: str) -> None:
    wanted = Requirement(line)
    if wanted.name == "kappa-rtl":
        assert wanted.extras == set(EXTRAS) - {"dev", "torch", "keras"}, "the extra dev is all that a bare machine can have soon"
        return
    pin = pins()[canonicalize_name(wanted.name)]
    assert pin.marker is None, "a direct dependency has one version everywhere"
    (spec,) = pin.specifier
    assert wanted.specifier.contains(Version(spec.version)), f"{pin} is outside {wanted}; run `make lock`"


def test_versions_agree() -> None:
    assert f"\n## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_no_machine_paths() -> None:
    """No committed file knows the machine, the user or the folder that it was written on."""
    machine = re.compile(r"(?<![\w.~-])/(?:home|root|Users|work|tmp)/|\b[A-Z]:\\\\?Users\b")
    here = re.escape(str(ROOT)) if len(ROOT.parts) > 3 else r"(?!)"
    paths = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for folder in (*FOLDERS, "tests", "docs", ".ci"):
        paths += files_of(ROOT / folder)
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture or an archive of vectors
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if machine.search(line) or re.search(here, line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
