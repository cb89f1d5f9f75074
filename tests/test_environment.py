"""environment.yml (conda) and pyproject.toml (pip) name the same packages, and what is installed fits them."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_and_pip_name_the_same_packages_and_bounds():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert sorted(line for line in pip if not line.startswith("--")) == sorted(PROJECT["dependencies"])
    assert f"python{PROJECT['requires-python']}" in dependencies
    assert "--editable ." in pip


def test_what_is_installed_is_what_the_project_asks_for():
    requirements = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
    for requirement in requirements:
        assert requirement.specifier.contains(version(requirement.name).split("+")[0]), requirement
