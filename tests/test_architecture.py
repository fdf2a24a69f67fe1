"""Who may import whom, and what an import may cost: parsed from the sources, so that nothing has to run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, STRATEGIES = ROOT / "ablate", ROOT / "strategies"

# Modules and packages of `ablate` in layers: each imports from its own layer and from those above it in this
# list, never from those below.
LAYERS = [
    {
        "types",
        "randomness",
        "progress",
        "alarm",
        "machine",
        "runtime",
        "schema",
        "command",
        "text",
        "waiting",
        "experiments",
        "owner",
        "devices",
        "checkpoint",
        "manifest",
        "synonyms",
        "ranks",
        "launch",
        "models.flops",
        "__init__",
    },
    {"ledger", "tasks", "models", "engines"},
    {"search", "scorers"},
    {
        "strategy",
        "naming",
        "verdicts",
        "lab",
        "evaluate",
        "learner",
        "grpo",
        "sharded",
        "rows",
        "record",
        "config",
        "tracking",
    },
    {"refusals", "conduct", "summary", "figures"},
    {"run", "testtime"},
    {
        "compose",
        "cli",
        "sync",
        "report",
        "plan",
        "status",
        "sweeps",
        "sequential",
        "tuning",
        "tune",
        "check",
        "__main__",
    },
]
# What a strategy may import of the laboratory ...
FOR_STRATEGIES = {"types", "search", "scorers"}
# ... and what the report, which reads results from disk, may not
THAT_TRAIN = {
    "run",
    "conduct",
    "learner",
    "lab",
    "engines",
    "models",
    "scorers",
    "search",
    "strategy",
    "testtime",
}

HEAVY = {
    "torch",
    "transformers",
    "trl",
    "mlflow",
    "vllm",
    "accelerate",
    "datasets",
    "pyarrow",
    "scipy",
    "pandas",
}
# files that exist for a heavy library and are imported inside functions only
MAY_LOAD_AT_IMPORT = {
    "ablate/learner.py": {"torch", "transformers", "trl"},
    "ablate/sharded.py": {"torch", "transformers"},
    "ablate/conduct.py": {"transformers"},
    "ablate/engines/kv_cache.py": {"torch", "transformers"},
    "ablate/models/prefix_cache.py": {"torch", "transformers"},
}


def name_of(path):
    """The dotted name below `ablate` or of a strategy."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path, only_at_import=False):
    """Dotted names that a file imports. only_at_import: those outside functions, `if TYPE_CHECKING` excluded.

    Names for the type checker alone are no dependency and never listed.
    """
    found = set()

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for other in child.orelse:
                    walk(other)
                continue
            if only_at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: imports are absolute"
                for alias in child.names:  # a module of a package, or a name in a module
                    whole = ROOT.joinpath(*child.module.split("."), alias.name)
                    is_module = whole.with_suffix(".py").exists() or (whole / "__init__.py").exists()
                    found.add(f"{child.module}.{alias.name}" if is_module else child.module)
            walk(child)

    walk(ast.parse(path.read_text()))
    return found


def of_ours(path, **kwargs):
    """The modules of `ablate` that a file imports, without the package's name; "__init__" for the package."""
    names = {name for name in imports(path, **kwargs) if name.split(".")[0] == "ablate"}
    return {name.removeprefix("ablate").lstrip(".") or "__init__" for name in names}


def layer(name):
    """Where a module stands: by its own name, or by its package's."""
    for i, names in enumerate(LAYERS):
        if name in names:
            return i
    for i, names in enumerate(LAYERS):
        if name.split(".")[0] in names:
            return i
    pytest.fail(f"ablate.{name} has no layer yet: give it one in LAYERS")


FILES = sorted(PACKAGE.rglob("*.py"))
OURS = [path for path in FILES if path.name != "__init__.py" or path.parent == PACKAGE]


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_imports_go_downwards(path):
    name = name_of(path).removeprefix("ablate.")
    for other in of_ours(path):
        assert layer(other) <= layer(name), f"{name} imports {other}, which is above it"


def test_the_vocabulary_imports_nothing_of_ours():
    assert of_ours(PACKAGE / "types.py") == set()
    # tasks are texts and rules: they know no model
    for path in (PACKAGE / "tasks").glob("*.py"):
        assert {name.split(".")[0] for name in of_ours(path)} <= {"types", "tasks", "randomness"}, path


@pytest.mark.parametrize("path", sorted(STRATEGIES.glob("*.py")), ids=name_of)
def test_strategies_see_the_laboratory_through_its_vocabulary(path):
    assert {name.split(".")[0] for name in of_ours(path)} <= FOR_STRATEGIES
    assert not {name.split(".")[0] for name in imports(path)} & HEAVY


def test_nobody_imports_strategies():
    for path in FILES:
        assert not {name for name in imports(path) if name.split(".")[0] == "strategies"}, path


def test_the_report_imports_nothing_that_trains():
    paths = [*PACKAGE.glob("report.py"), *PACKAGE.glob("report/**/*.py")]
    for path in paths:
        assert not {name.split(".")[0] for name in of_ours(path)} & THAT_TRAIN, path
        assert not {name.split(".")[0] for name in imports(path)} & {
            "torch",
            "transformers",
            "trl",
            "vllm",
        }, path


def test_heavy_libraries_load_where_they_are_used():
    for path in [*FILES, *STRATEGIES.glob("*.py")]:
        heavy = {name.split(".")[0] for name in imports(path, only_at_import=True)} & HEAVY
        where = path.relative_to(ROOT).as_posix()
        allowed = MAY_LOAD_AT_IMPORT.get(where, set())
        assert heavy <= allowed, f"{where} imports {', '.join(sorted(heavy - allowed))} at its top"
        if allowed:
            assert heavy == allowed, f"{where} no longer needs its place in MAY_LOAD_AT_IMPORT"
            continue
        eager = {name.replace(".", "/") for name in of_ours(path, only_at_import=True)}
        behind = {f"ablate/{name}.py" for name in eager} & MAY_LOAD_AT_IMPORT.keys()
        assert not behind, f"{where} imports {', '.join(behind)} at its top, and torch with it"


@pytest.mark.parametrize(
    "module",
    [
        "ablate.config",
        "ablate.__main__",
        "ablate.check.__main__",
        "ablate.plan.__main__",
        "ablate.report.__main__",
        "ablate.status",
        "ablate.testtime.__main__",
        "ablate.tune",
        "ablate.sequential",
        "strategies.guess_check",
    ],
)
def test_starting_up_loads_no_heavy_library(module):
    code = f"import sys, {module}; print(*sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []


def test_files_are_short_and_strategies_are_a_namespace():
    """A user's own `strategies/` merges with the built-in one only as long as neither has an __init__.py."""
    assert not (STRATEGIES / "__init__.py").exists()
    for path in [*FILES, *STRATEGIES.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        lines = path.read_text().count("\n")
        assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines: split it"
