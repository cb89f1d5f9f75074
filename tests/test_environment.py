"""pyproject.toml (pip), constraints.txt (tested versions), environment.yml (conda) and the Makefile say the same, what
is installed fits them, and a wheel holds all code and what is read beside it."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from launch import commands

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
EXTRAS = PROJECT["optional-dependencies"]
TESTED = {
    requirement.name: requirement
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
    for requirement in [Requirement(line.split(" #")[0])]
}
TORCH = re.search(r"^TORCH \?= (torch==\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]


def test_conda_installs_the_project_with_the_tested_versions():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pip == ["--constraint constraints.txt", TORCH, "--editable .[cuda13,metrics,heic,web]"]
    assert f"python{PROJECT['requires-python']}" in dependencies


def test_every_package_has_a_tested_version_that_the_bounds_allow():
    extras = [line for name in ("cuda12", "cuda13", "metrics", "heic", "web", "test") for line in EXTRAS[name]]
    everywhere = [*PROJECT["dependencies"], *extras]
    asked = {requirement.name: requirement for requirement in map(Requirement, everywhere)}
    # Another build of torch brings another Triton and torchvision; the Makefile names torch's version.
    torch, with_torch = Requirement(TORCH), {"torch", "triton", "torchvision"}
    assert asked.keys() - with_torch <= TESTED.keys()
    for name, requirement in (TESTED | {"torch": torch}).items():
        (pin,) = requirement.specifier
        assert pin.operator == "==" and (name not in asked or asked[name].specifier.contains(pin.version)), requirement
    assert not TESTED.keys() & with_torch


def test_what_is_installed_is_what_the_project_asks_for():
    made = PROJECT["dependencies"] + EXTRAS["metrics"] + EXTRAS["heic"] + EXTRAS["web"] + EXTRAS["test"]
    requirements = [Requirement(line) for line in made]
    for requirement in requirements:
        assert requirement.specifier.contains(version(requirement.name).split("+")[0]), requirement


def test_private_parts_are_used_of_bounded_versions_only():
    requirements = map(Requirement, PROJECT["dependencies"] + EXTRAS["metrics"])
    bounds = {requirement.name: str(requirement.specifier) for requirement in requirements}
    assert all("<" in bounds[name] for name in ("submitit", "deepspeed", "torch-fidelity"))


def test_a_wheel_holds_every_folder_of_code_and_all_that_is_read_beside_it():
    places = SETUPTOOLS["package-dir"]
    folders = {places.get(package, package.replace(".", "/")) for package in SETUPTOOLS["packages"]}
    code = [file for part in ("mscgan", "launch", "shards", "benchmarks") for file in (ROOT / part).rglob("*.py")]
    assert folders == {str(file.parent.relative_to(ROOT)) for file in code}
    listed = {
        str(file.relative_to(ROOT))
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for file in (ROOT / places.get(package, package)).glob(pattern)
    }
    read = [
        file for part in ("mscgan", "launch") for kind in ("*.yaml", "*.html") for file in (ROOT / part).rglob(kind)
    ]
    assert listed == {str(file.relative_to(ROOT)) for file in read}


def test_every_command_of_a_wheel_has_a_module_with_a_main_of_its_own():
    assert PROJECT["scripts"] == dict.fromkeys(commands.MODULES, "mscgan_tools.launch.commands:main")
    for module in commands.MODULES.values():
        place = ROOT / module.replace(".", "/")
        file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
        assert 'if __name__ == "__main__":' in file.read_text(), module
