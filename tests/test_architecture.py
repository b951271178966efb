"""The rules of the house: who imports whom, who prints, what the front door shows."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

# ---- the table ---------------------------------------------------------------------------------
# Lowest first. A module imports only from the rows above its own; a folder stands for all that is
# in it and is not named itself. An entry `a < b` in one row lets b import a.
LAYERS = (
    "errors version < published",
    "model base",
    "base.canvas base.checksum base.environment base.extras base.naming base.npy base.process",
    "base.files base.scalar base.schema base.secret base.settled base.variable < base.shelf",
    "config companion.console companion.snapshot companion.system",
    "journal < journal.metric < journal.block < journal.scan",
    "journal.ending journal.merge journal.table",
    "encoding media.medium < media",
    "manifest.usable < manifest < manifest.status media.series < media.placement < reader.arrays",
    "writer.documents writer.recorder writer.resumption writer.upkeep",
    "writer.configuration writer.media_recorder < writer",
    "companion writer.media_log",
    "seal.chunks seal.stretch seal.sums < seal.dataset < seal.dataset_reader < seal.dataset_series",
    "seal.sealed",
    "seal < seal.pack",
    "reader.decoded reader.encoding reader.following < reader",
    "collection validation < repair conformance",
    "foreign",
    "backends < tracker",
    "frontends converters pytest_plugin < conversion callback",
    "cli",
)
# Imports that the table above forbids, and why: (importer, imported).
LISTED = {
    ("seal.sealed", "seal"),  # the type of what is spilled
    ("seal", "seal.pack"),  # sealing a packed run again unpacks it first
}
# Folders of variants: their files know nothing of each other, but may stand on one base.
FOLDERS_OF_VARIANTS = ("frontends", "backends", "converters")
BASES = ("frontends.run", "frontends.driven")
# Outside the layers: the front door, which loads names on request, and `python -m blackboxml`.
DOORS = ("__init__", "__main__")
PRINTING = ("cli",)
HEAVY = {
    *("numpy", "pyarrow", "h5py", "h5netcdf", "polars", "pandas", "xarray", "torch"),
    *("jsonschema", "rich", "plotext", "matplotlib"),
}
MOST_LINES = 600
# One machine of states: whatever an interrupt, a signal handler or a fork meets is in one place.
LONGER = {"writer.recorder": 850}
# ------------------------------------------------------------------------------------------------

SOURCE = Path(__file__).resolve().parents[1] / "src" / "blackboxml"
FILES = sorted(SOURCE.rglob("*.py"))


def dotted(path: Path) -> str:
    """`frontends.run` for src/blackboxml/frontends/run.py, `frontends` for its __init__.py."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {dotted(path): path for path in FILES}
INSIDE = [name for name in MODULES if name not in DOORS]


def folder(module: str) -> str:
    """The folder or file at the top of the package that a module belongs to."""
    return module.partition(".")[0]


def ranks() -> tuple[dict[str, int], dict[str, int]]:
    """The row of each unit, and its place after a `<` within the row."""
    row_of, place_of = {}, {}
    for row, text in enumerate(LAYERS):
        for place, units in enumerate(text.split("<")):
            for name in units.split():
                row_of[name], place_of[name] = row, place
    return row_of, place_of


ROW, PLACE = ranks()


def unit(module: str) -> str:
    """The entry of the table that a module belongs to: itself, or the folder that it is in."""
    while module not in ROW and "." in module:
        module = module.rpartition(".")[0]
    return module


def imports(module: str) -> set[str]:
    """The modules of this package that a module imports anywhere, also within functions."""
    path = MODULES[module]
    package = ["blackboxml", *module.split(".")]
    if path.name != "__init__.py" or module in DOORS:
        package.pop()
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            kept = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*kept, *([node.module] if node.module else [])])
            named = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in named:
            top, _, rest = name.partition(".")
            if top == "blackboxml":
                found.add(nearest_module(rest))
    return found


def nearest_module(name: str) -> str:
    """`journal` for `journal.encode`; `__init__` for a name of the front door."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or "__init__"


def allowed(importer: str, imported: str) -> bool:
    a, b = unit(importer), unit(imported)
    if (importer, imported) in LISTED or (a, b) in LISTED:
        return True
    if a == b:
        same = importer.split(".")[1:2] == imported.split(".")[1:2]  # a variant may be a folder
        return a not in FOLDERS_OF_VARIANTS or imported in (a, *BASES) or same
    return a in ROW and b in ROW and (ROW[a], PLACE[a]) > (ROW[b], PLACE[b])


def test_every_module_has_its_place_in_the_table() -> None:
    assert {unit(name) for name in INSIDE} <= set(ROW), "add the new module to LAYERS"
    listed_by_file = {name.partition(".")[0] for name in ROW if "." in name}
    missing = [name for name in INSIDE if folder(name) in listed_by_file and name not in ROW]
    assert not missing, "a folder of the table is named as a whole or file by file"


@pytest.mark.parametrize("module", INSIDE)
def test_imports_point_one_way(module: str) -> None:
    wrong = sorted(name for name in imports(module) if not allowed(module, name))
    assert not wrong, f"{module} may not import {', '.join(wrong)}"


@pytest.mark.parametrize("module", [name for name in MODULES if folder(name) not in PRINTING])
def test_only_the_command_line_prints(module: str) -> None:
    lines = [
        node.lineno
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
        if (isinstance(node, ast.Name) and node.id == "print")
        or (
            isinstance(node, ast.Attribute)
            and node.attr in ("stdout", "stderr", "__stdout__", "__stderr__")
            and isinstance(node.value, ast.Name)
            and node.value.id == "sys"
        )
    ]
    assert not lines, f"{module} prints on line {lines}"


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_long(module: str) -> None:
    assert len(MODULES[module].read_text("utf-8").splitlines()) <= LONGER.get(module, MOST_LINES)


def in_a_fresh_process(code: str) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = in_a_fresh_process(
        "import sys, json\n"
        "before = set(sys.modules)\n"
        "import blackboxml\n"
        "print(json.dumps({'modules': sorted(set(sys.modules) - before)}))\n"
    )["modules"]
    assert "blackboxml" in loaded
    assert not {name.partition(".")[0] for name in loaded} & HEAVY


def test_the_front_door_shows_exactly_what_it_exports() -> None:
    import blackboxml

    shown = in_a_fresh_process(
        "import json, types, blackboxml\n"
        "public = [n for n in dir(blackboxml) if not n.startswith('_')]\n"
        "values = {n: getattr(blackboxml, n) for n in blackboxml.__all__}\n"
        "modules = [n for n, v in values.items() if isinstance(v, types.ModuleType)]\n"
        "print(json.dumps({'all': blackboxml.__all__, 'dir': public, 'modules': modules}))\n"
    )
    assert len(set(shown["all"])) == len(shown["all"])
    # Submodules that were imported are attributes of the package too: they are not exports.
    assert set(shown["dir"]) - set(MODULES) <= set(shown["all"])
    assert set(shown["all"]) - set(shown["dir"]) <= {"__version__"}
    assert not shown["modules"]
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = blackboxml.no_such_name


def test_the_front_door_lists_what_it_loads_on_request() -> None:
    tables = [
        {key.value for key in node.keys if isinstance(key, ast.Constant)}
        for node in ast.walk(ast.parse((SOURCE / "__init__.py").read_text("utf-8")))
        if isinstance(node, ast.Dict)
    ]
    import blackboxml

    assert set(blackboxml.__all__) - {"__version__"} in tables
