"""The shape of the code: who may import whom, what names are not used, how light an import is."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "sensorium": ROOT / "client/sensorium",
    "sensorium_server": ROOT / "server_config/sensorium_server",
    "sensorium_export": ROOT / "export/sensorium_export",
    "sensorium_training": ROOT / "training/sensorium_training",
}
ORDER = list(PACKAGES)
SOURCES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))
ALL_PYTHON = sorted(
    path
    for folder in (
        "client",
        "server_config",
        "export",
        "training",
        "tests",
        "benchmarks",
        "examples",
        "deploy",
    )
    for path in (ROOT / folder).rglob("*.py")
)
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "shared"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "PIL",
    "tokenizers",
    "tritonclient",
    "grpc",
    "rich",
    "typer",
    "matplotlib",
}


def named(path: Path) -> str:
    """Show a path from the root."""
    return str(path.relative_to(ROOT))


def imports(path: Path) -> set[str]:
    """Collect the top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_one_way(package: str) -> None:
    """Sensorium ← sensorium_server ← sensorium_export ← sensorium_training, and never back."""
    above = set(ORDER[ORDER.index(package) + 1 :])
    wrong = {
        named(path): sorted(imports(path) & above)
        for path in PACKAGES[package].rglob("*.py")
        if imports(path) & above
    }

    assert wrong == {}


def test_each_source_root_holds_one_package() -> None:
    """A required folder holds exactly the one package that the map names."""
    for name, folder in PACKAGES.items():
        found = {path.parent.name for path in folder.parent.glob("*/__init__.py")}

        assert found == {name}


def test_no_module_is_named_after_nothing() -> None:
    """Modules are named for what they hold, so that any line's home can be guessed."""
    assert [named(p) for p in SOURCES if p.stem.strip("_") in FORBIDDEN_NAMES] == []


def test_files_stay_small_enough_to_hold() -> None:
    """No file is longer than the budget."""
    lengths = {named(path): len(path.read_text().splitlines()) for path in ALL_PYTHON}

    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_functions_stay_small_enough_to_hold() -> None:
    """No function is longer than the budget."""
    long = {}
    for path in ALL_PYTHON:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{named(path)}:{node.name}"] = lines

    assert long == {}


def test_import_of_the_sdk_is_light() -> None:
    """`import sensorium` pulls in no framework and nothing of the packages above it."""
    code = "import json, sys; import sensorium; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = {name.split(".")[0] for name in json.loads(out.stdout)}

    assert loaded & (HEAVY | set(ORDER[1:])) == set()


def test_serving_needs_no_torch() -> None:
    """Nothing that the server or the SDK imports is a training framework."""
    for package in ORDER[:2]:
        for path in PACKAGES[package].rglob("*.py"):
            assert not imports(path) & {"torch", "onnx", "safetensors"}, named(path)


def test_the_project_speaks_of_itself_alone() -> None:
    """No path of a machine and no registry host is written into what we ship."""
    pattern = re.compile(r"(?<![\w/])/(?:work|root|home)/|pypi\.org|pythonhosted|pytorch\.org/whl")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    wrong = []
    for name in tracked.stdout.splitlines():
        path = ROOT / name
        if path == Path(__file__) or path.suffix in {".onnx", ".safetensors", ".png", ".jpg"}:
            continue
        if path.is_file() and pattern.search(path.read_text(errors="ignore")):
            wrong.append(name)

    assert wrong == []


def test_every_module_has_its_line_on_the_map() -> None:
    """docs/architecture.md names each module, so that the map cannot fall behind."""
    text = (ROOT / "docs/architecture.md").read_text()
    missing = [
        named(path)
        for path in SOURCES
        if path.name != "__init__.py" and f"`{path.name}`" not in text
    ]

    assert missing == []
