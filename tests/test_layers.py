"""The layers of the package: imports run downwards, and importing it costs next to nothing."""

import ast
import inspect
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import npsoftmax

ROOT = Path(npsoftmax.__file__).parent
REPOSITORY = ROOT.parent

# A module imports from its own layer or from lower ones, without a circle. A folder stands for all
# modules in it. docs/architecture.md has the same table in words.
LAYERS = [
    {"errors", "history", "_checks", "_names", "_threads", "_products", "_sparse", "files"},
    {"functional", "features", "optimisers", "lbfgs", "storage", "data"},
    {"objective", "metrics", "calibration", "conformal", "novelty", "doubt"},
    {"model", "checkpoint"},
    {"trainer", "optimum", "solver", "certificate", "continuation", "validation", "path"},
    {"ext"},
    {"commands", "__main__"},
]
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}

# The one inner door: what a cluster needs to hold samples.
INNER_DOORS = {"ext.cluster": {"objective.samples"}, "ext._cluster_worker": {"objective.samples"}}

# Other packages than NumPy that the core may import, inside functions unless marked LATE.
LATE = {"data.download": {"requests", "urllib3"}}  # the module is loaded by a download only
LAZY = {
    "data.idx": {"idx2numpy"},
    "data.download": {"tqdm"},
    "data.datasets": {"platformdirs"},
    "_threads": {"threadpoolctl"},
    "_sparse": {"scipy"},
    "_checks": {"ml_dtypes"},
    "commands.command_line": {"threadpoolctl"},
    "commands.evaluate": {"matplotlib"},
    "commands.local_cluster": {"distributed"},
    "commands.predict": {"matplotlib"},
    "commands.run_folder": {"matplotlib", "threadpoolctl"},
    "commands.sweep": {"matplotlib"},
    "commands.train": {"tqdm"},
    "commands.training_data": {"tqdm"},
}
# A command at the end of the module, not part of what it is imported for.
COMMANDS = {("storage", "checkpoint")}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_of(path): path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"
}


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree):
    """Yield ``(dotted name, whether inside a function)`` for all imports but those for types."""

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from ((f"{child.module}.{alias.name}", inside) for alias in child.names)
            else:
                is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from walk(child, inside or is_function)

    return list(walk(tree, False))


def module_of(dotted):
    """Return the module of the package that an imported name belongs to, or None."""
    local = dotted.removeprefix("npsoftmax.")
    for length in range(local.count(".") + 1, 0, -1):
        prefix = ".".join(local.split(".")[:length])
        if prefix in MODULES:
            return prefix
    return None


def own_imports(module):
    """Return the modules of the package that a module imports."""
    found = {
        module_of(dotted)
        for dotted, _ in imports(ast.parse(MODULES[module].read_text()))
        if dotted.startswith("npsoftmax.")
    }
    return {target for target in found if target and (module, target) not in COMMANDS} - {module}


def room(module):
    return module.split(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module):
    for target in own_imports(module):
        assert LAYER_OF[room(target)] <= LAYER_OF[room(module)], f"{module} imports {target}"


def test_there_is_no_circle():
    left = {module: own_imports(module) & set(MODULES) for module in MODULES}
    while free := [module for module, targets in left.items() if not targets & set(left)]:
        for module in free:
            del left[module]
    assert not left, f"modules that import each other: {sorted(left)}"


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) != "ext"])
def test_the_core_needs_numpy_alone(module):
    for dotted, inside in imports(ast.parse(MODULES[module].read_text())):
        package = dotted.split(".")[0]
        if package not in sys.stdlib_module_names | {"npsoftmax", "numpy"}:
            allowed = LATE.get(module, set()) | (LAZY.get(module, set()) if inside else set())
            assert package in allowed, f"{module} imports {dotted}"


@pytest.mark.parametrize("module", [m for m in MODULES if LAYER_OF[room(m)] >= LAYER_OF["ext"]])
def test_ext_takes_public_names(module):
    for dotted, _ in imports(ast.parse(MODULES[module].read_text())):
        target = module_of(dotted) if dotted.startswith("npsoftmax.") else None
        if target and room(target) != "ext" and target != "_checks":
            name = dotted.rsplit(".", 1)[1]
            assert not name.startswith("_") or name == "__version__", f"{module} imports {dotted}"
            if target.startswith("objective."):
                assert target in INNER_DOORS.get(module, set()), f"{module} imports {dotted}"


def test_the_checker_sees_what_it_must():
    tree = ast.parse("from npsoftmax.trainer import Trainer\ndef f():\n    import torch\n")
    assert imports(tree) == [("npsoftmax.trainer.Trainer", False), ("torch", True)]
    assert module_of("npsoftmax.trainer.Trainer") == "trainer"
    assert LAYER_OF["trainer"] > LAYER_OF["objective"]


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
    # Python 3.10 itself loads more of importlib.
    assert modules_loaded_by("import npsoftmax") - {"importlib"} == {"npsoftmax"}


def test_every_public_name_has_one_home():
    homes = [name for names in npsoftmax._PUBLIC.values() for name in names]
    assert len(homes) == len(set(homes)) and sorted(homes) == npsoftmax.__all__
    typed = ast.parse((ROOT / "__init__.py").read_text())
    block = next(node for node in typed.body if is_type_checking(node))
    imported = [(node.module, alias.name) for node in block.body for alias in node.names]
    assert all(a.name == a.asname for node in block.body for a in node.names), "not re-exported"
    assert imported == [
        (f"npsoftmax.{module}".rstrip("."), name)
        for module, names in npsoftmax._PUBLIC.items()
        for name in names
    ]


def test_unknown_names_are_refused_and_known_ones_listed():
    with pytest.raises(AttributeError, match="'npsoftmax' has no attribute 'softmx'"):
        npsoftmax.softmx  # noqa: B018
    modules = {name.split(".")[0] for name in MODULES if not name.startswith("_")}
    assert set(dir(npsoftmax)) == {"__version__", *npsoftmax.__all__, *modules}


@pytest.mark.parametrize("name", ["data.idx.memory_map", "model.SoftmaxRegression", "softmax"])
def test_names_below_the_package_load_at_first_use(name):
    code = f"import npsoftmax; print(npsoftmax.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == name.split(".")[-1]


def test_public_names_exist_and_are_documented():
    for name in npsoftmax.__all__:
        assert getattr(npsoftmax, name).__doc__, name


def test_an_editable_install_is_a_path_that_type_checkers_follow(tmp_path):
    """They do not run the import hook that setuptools makes of other layouts."""
    pytest.importorskip("setuptools", minversion="70.1")  # with bdist_wheel
    (tmp_path / "npsoftmax").mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "npsoftmax/__init__.py"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    code = "from setuptools import build_meta; print(build_meta.build_editable('.'))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (path,) = [name for name in files.namelist() if "-info/" not in name]
        assert path.endswith(".pth") and files.read(path).decode().split() == [str(tmp_path)]


@pytest.mark.parametrize("module", [m for m in MODULES if "._" not in f".{m}"])
def test_help_shows_short_signatures(module):
    """An alias as ArrayLike has 300 characters where annotations are evaluated."""
    loaded = pytest.importorskip(f"npsoftmax.{module}", exc_type=ImportError)
    public = [getattr(loaded, name) for name in getattr(loaded, "__all__", ())]
    classes = [thing for thing in public if inspect.isclass(thing)]
    methods = [thing for kind in classes for thing in vars(kind).values()]
    for function in filter(inspect.isfunction, public + methods):
        for parameter in inspect.signature(function).parameters.values():
            assert len(str(parameter)) <= 100, f"{function.__qualname__}: {parameter}"


@pytest.mark.parametrize("module", MODULES)
def test_functions_stay_small(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"
