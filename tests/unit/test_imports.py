"""Imports run one way, through both packages (the source is read, not run)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tfrecords_builder.identity import RECORD_CODE, code_files

ROOT = Path(__file__).resolve().parents[2]
# A room imports from its own floor and from those below it; "report" stands apart.
FLOORS = (
    (
        "types",
        "errors",
        "environment",
        "files",
        "lock",
        "processes",
        "cache",
        "config",
        "methods",
        "device",
        "loading",
        "_compat",
    ),
    ("geometry",),
    ("imaging",),
    ("data", "models"),
    ("training",),
    ("evaluation",),
    ("registration", "serving"),
    ("command_line", "command_help"),
    ("modes", "api"),
    ("experiments",),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ONLY_BY_COMPAT = {"voxelmorph", "neurite", "tensorflow_addons"}
SEES_CONFIGURATION = {"modes", "experiments", "command_line", "command_help", "cli"}
# What the command line imports at its start.
STARTS = {"types", "errors", "environment", "files", "lock", "loading", "config", "methods"}
STARTS |= {"command_line", "command_help", "cli", "processes", "report.drawing"}
BUILDER_TAKES = {
    "types",
    "errors",
    "environment",
    "files",
    "lock",
    "processes",
    "imaging",
    "geometry",
    "data.schema",
}


def imported(path: Path, at_top: bool = False) -> set[str]:
    """Dotted names that a file imports, at its top or within a function too."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(names: set[str], package: str = "tfmetareg") -> set[str]:
    """First-level rooms of a package among dotted names."""
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


IMPORTS = {
    path.relative_to(ROOT).as_posix(): imported(path)
    for package in ("tfmetareg", "tfrecords_builder")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def of(*starts: str) -> list[str]:
    files = [file for file in IMPORTS if file.startswith(starts)]
    assert files
    return files


def room_of(file: str) -> str:
    return Path(file).parts[1].replace(".py", "")


def file_of(name: str) -> str | None:
    """The file among ours that a dotted name, of a module or of something in one, stands for."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        for candidate in ("/".join(parts[:length]) + ".py", "/".join(parts[:length]) + "/__init__.py"):
            if candidate in IMPORTS:
                return candidate
    return None


@pytest.mark.parametrize(
    "file", [file for file in of("tfmetareg/") if room_of(file) not in ("report", "__init__")]
)
def test_a_file_imports_only_from_its_floor_or_below(file):
    allowed = {room for room in FLOOR if FLOOR[room] <= FLOOR[room_of(file)]}
    if FLOOR[room_of(file)] >= FLOOR["registration"]:
        allowed.add("report")
    assert rooms(IMPORTS[file]) <= allowed


def test_every_room_has_its_floor():
    assert {room_of(file) for file in of("tfmetareg/")} <= {*FLOOR, "report", "__init__"}


def test_no_files_import_each_other_in_a_circle():
    """Not even by way of others, in neither package."""
    below = {file: {file_of(name) for name in names} - {None, file} for file, names in IMPORTS.items()}
    # A package's face hands names on; what it imports is no part of those who import its modules.
    faces = {file for file in below if file.endswith("__init__.py")}
    below = {file: others - faces for file, others in below.items() if file not in faces}
    while free := {file for file, others in below.items() if not others & below.keys()}:
        below = {file: others for file, others in below.items() if file not in free}
    assert not below, f"circles among: {sorted(below)}"


@pytest.mark.parametrize("file", of("tfmetareg/report/"))
def test_the_report_stands_on_results_and_no_tensorflow(file):
    assert rooms(IMPORTS[file]) <= {"report", "errors", "files", "types", "methods", "processes"}
    assert "tensorflow" not in roots(IMPORTS[file])


@pytest.mark.parametrize("name", sorted(STARTS))
def test_the_command_line_starts_without_tensorflow(name):
    names = imported(ROOT / "tfmetareg" / f"{name.replace('.', '/')}.py", at_top=True)
    assert rooms(names) <= {start.split(".")[0] for start in STARTS} | {"__version__"}
    assert not roots(names) & {"tensorflow", "keras"}


@pytest.mark.parametrize("file", of("tfrecords_builder/"))
def test_the_builder_takes_from_the_library_only_what_both_share(file):
    taken = {".".join(name.split(".")[1:3]) for name in IMPORTS[file] if name.startswith("tfmetareg.")}
    assert all(any(f"{name}.".startswith(f"{room}.") for room in BUILDER_TAKES) for name in taken), taken


def test_a_build_depends_on_the_code_that_the_builder_takes():
    """But for files that word errors, publish files, keep other builds off and run workers."""
    counted = {name.replace("/", ".").removesuffix(".py") for name in RECORD_CODE}
    assert counted == BUILDER_TAKES - {"errors", "environment", "files", "lock", "processes"}


def test_a_build_depends_on_every_library_file_that_its_code_imports():
    """Directly or by way of others; not by way of a package's face, see above."""
    reached: set[str] = set()
    new = set(of("tfrecords_builder/"))
    while new:
        reached |= new
        imported_files = {file_of(name) for file in new for name in IMPORTS[file]} - {None}
        new = {file for file in imported_files if not file.endswith("__init__.py")} - reached
    counted = {path.relative_to(ROOT).as_posix() for path in code_files()}
    names = ("errors", "environment", "files", "lock", "processes", "_compat")
    uncounted = {f"tfmetareg/{name}.py" for name in names}
    assert reached - counted == uncounted


@pytest.mark.parametrize("file", of("tfmetareg/"))
def test_the_library_never_imports_the_builder(file):
    assert "tfrecords_builder" not in roots(IMPORTS[file])


def test_only_compat_imports_voxelmorph_neurite_and_addons():
    importers = [file for file, names in IMPORTS.items() if roots(names) & ONLY_BY_COMPAT]
    assert importers == ["tfmetareg/_compat.py"]
    assert ONLY_BY_COMPAT <= roots(IMPORTS["tfmetareg/_compat.py"])


def test_only_modes_experiments_and_the_command_line_see_the_configuration():
    importers = {room_of(file) for file in of("tfmetareg/") if "config" in rooms(IMPORTS[file])}
    assert importers <= SEES_CONFIGURATION
