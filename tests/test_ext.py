"""What a module of npsoftmax.ext says if the package that it needs is missing."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from npsoftmax import ext

MODULES = {
    "photos": ("PIL", "image"),
    "plots": ("matplotlib", "plot"),
    "estimator": ("sklearn", "sklearn"),
    "onnx_export": ("onnx", "onnx"),
    "safetensors_export": ("safetensors", "safetensors"),
    "cluster": ("distributed", "distributed"),
}


def test_the_extras_are_those_of_the_project():
    config = configparser.ConfigParser(interpolation=None)
    config.read(Path(ext.__file__).parents[2] / "setup.cfg")
    extras = config["options.extras_require"]
    assert {name: extras[name].strip() for name in ext.EXTRAS} == ext.EXTRAS


@pytest.mark.parametrize("module", MODULES)
def test_a_missing_package_is_named_with_what_installs_it(module):
    package, extra = MODULES[module]
    hide = f"import sys; sys.modules[{package!r}] = None"
    for statement in (f"from npsoftmax.ext import {module}", f"import npsoftmax.ext.{module} as m"):
        code = f"{hide}\ntry: {statement}\nexcept ModuleNotFoundError as error: print(error)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert package in done.stdout or "dask" in done.stdout, done.stderr
        assert done.stdout.strip().endswith(ext.advice(extra))


def test_a_package_that_is_too_old_or_broken_is_named_too():
    with pytest.raises(ImportError, match="no such name") as caught, ext.extra("sklearn"):
        raise ImportError("no such name", name="sklearn")
    assert not isinstance(caught.value, ModuleNotFoundError) and caught.value.name == "sklearn"
