"""Who may import whom, and what importing the package costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import npsoftmax

ROOT = Path(npsoftmax.__file__).parent
CORE = "npsoftmax"
GROUND = {"errors", "_checks", "files"}
DATA_GROUND = {"data.idx", "data.download", "data.garments", "data.remote_file"}

# Module, or package with all its modules -> what of the package it may import when it is loaded.
MAY_IMPORT = {
    "errors": set(),
    "_checks": {"errors"},
    "files": {"errors"},
    "storage": GROUND | {"storage"},
    "storage.__main__": GROUND | {"storage", "checkpoint", "model", "training"},
    "_environment": {"errors"},
    "optimisers": GROUND | {"optimisers"},
    "data.idx": GROUND,
    "data.remote_file": GROUND,
    "data._http": set(),
    "data._transfer": GROUND | {"data.remote_file", "data._http"},
    "data.download": GROUND | {"data.remote_file", "data._transfer"},
    "data._drawing": GROUND,
    "data.garments": GROUND | {"data._drawing"},
    "data.loader": GROUND,
    "data.split": GROUND,
    "data.registry": GROUND | {"data.remote_file"},
    "data.datasets": GROUND | DATA_GROUND | {"data.registry"},
    "functional": GROUND | {"functional"},
    "_scores": GROUND,
    "metrics": GROUND | {"functional", "_scores"},
    "_line_search": set(),
    "lbfgs": GROUND | {"_line_search"},
    "objective": GROUND | {"functional", "objective"},
    "calibration": GROUND | {"functional"},
    "class_means": GROUND,
    "model_state": GROUND | {"storage", "class_means"},
    "model": GROUND | {"functional", "calibration", "class_means", "model_state"},
    "history": set(),
    "checkpoint": GROUND | {"storage", "history"},
    "training": GROUND
    | {"objective", "lbfgs", "storage", "checkpoint", "history", "training", "_environment"},
}
FREE = {"data", "ext"}  # the packages' own __init__, and what only leaves import
OUTSIDE = {"numpy"}
# Loaded by a download, not with the package.
LATE = {"data._http": {"requests", "urllib3"}}
LAZY = {"data.idx": {"idx2numpy"}, "data._transfer": {"tqdm"},
        "data.datasets": {"platformdirs"}, "objective._parts": {"threadpoolctl"},
        "_environment": {"threadpoolctl"}}  # fmt: skip


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree, inside_functions):
    """Yield the dotted names that a module imports, on loading or inside its functions."""

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                continue
            deeper = inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if inside == inside_functions:
                if isinstance(child, ast.Import):
                    yield from (alias.name for alias in child.names)
                elif isinstance(child, ast.ImportFrom) and child.module:
                    yield child.module
                    yield from (f"{child.module}.{alias.name}" for alias in child.names)
            yield from walk(child, deeper)

    return set(walk(tree, False))


def home(dotted):
    """Return the entry of the table that an imported name of the package belongs to."""
    local = dotted.removeprefix(f"{CORE}.")
    for length in range(local.count(".") + 1, 0, -1):
        prefix = ".".join(local.split(".")[:length])
        if prefix in MAY_IMPORT or prefix in FREE:
            return prefix
    return None


def rule_for(module):
    return next((m for m in (module, module.split(".")[0]) if m in MAY_IMPORT), None)


@pytest.mark.parametrize("module", [m for m in MODULES if m and m.split(".")[0] != "ext"])
def test_imports_follow_the_layers(module):
    if module == "data":
        return
    rule = rule_for(module)
    assert rule is not None, f"{module} has no row in the layer table; give it one"
    tree = ast.parse(MODULES[module].read_text())
    for inside in (False, True):
        for dotted in imports(tree, inside):
            package = dotted.split(".")[0]
            if package == CORE:
                target = home(dotted)
                folder = dotted in (CORE, f"{CORE}.data")  # `from folder import module`
                assert folder or target in MAY_IMPORT[rule], f"{module} imports {dotted}"
            elif package not in sys.stdlib_module_names:
                allowed = OUTSIDE | LATE.get(module, set())
                allowed |= LAZY.get(module, set()) if inside else set()
                assert package in allowed, f"{module} imports {dotted}"


def test_the_checker_sees_a_forbidden_import():
    tree = ast.parse("from npsoftmax.training import Trainer\ndef f():\n    import torch\n")
    assert home("npsoftmax.training.Trainer") == "training"
    assert "npsoftmax.training" in imports(tree, inside_functions=False)
    assert imports(tree, inside_functions=True) == {"torch"}


def test_core_never_imports_ext():
    for module, path in MODULES.items():
        if not module.startswith("ext"):
            assert "npsoftmax.ext" not in path.read_text(), module


def modules_loaded_by(code):
    """Return the top-level modules that come from files and that ``code`` loads after NumPy."""
    code = (
        f"import sys, numpy; before = set(sys.modules); {code};"
        "new = [m for m in set(sys.modules) - before if getattr(sys.modules[m], '__file__', None)];"
        "print(*{m.split('.')[0] for m in new})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_loads_only_numpy_and_the_standard_library():
    loaded = modules_loaded_by("from npsoftmax import *")
    assert loaded - sys.stdlib_module_names - {"numpy"} == {"npsoftmax"}


def test_importing_the_package_loads_nothing_yet():
    assert modules_loaded_by("import npsoftmax") == {"npsoftmax"}


def test_every_public_name_has_one_home():
    homes = [name for names in npsoftmax._NAMES_OF.values() for name in names]
    modules = set(npsoftmax.__all__) - set(homes)
    assert len(homes) == len(set(homes)) and set(homes) <= set(npsoftmax.__all__)
    assert all((ROOT / f"{m}.py").exists() or (ROOT / m).is_dir() for m in modules)
    typed = ast.parse((ROOT / "__init__.py").read_text())
    block = next(node for node in typed.body if is_type_checking(node))
    assert {a.name for node in block.body for a in node.names} == set(npsoftmax.__all__)


def test_unknown_names_are_refused_and_known_ones_listed():
    with pytest.raises(AttributeError, match="'npsoftmax' has no attribute 'softmx'"):
        npsoftmax.softmx  # noqa: B018
    assert set(npsoftmax.__all__) <= set(dir(npsoftmax))


@pytest.mark.parametrize("name", ["data.idx.memory_map", "model.SoftmaxRegression", "softmax"])
def test_names_below_the_package_load_at_first_use(name):
    code = f"import npsoftmax; print(npsoftmax.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == name.split(".")[-1]


def test_public_names_exist_and_are_documented():
    for name in npsoftmax.__all__:
        assert getattr(npsoftmax, name).__doc__, name


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_stay_small(module):
    text = MODULES[module].read_text()
    assert text.count("\n") <= 340, "about 300 lines are the aim; split the module"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"
