"""As much of `kubectl kustomize` as cluster/ uses: resources, JSON patches, replacements of a whole field.

Where `kubectl` is installed a test holds its answers against these; CI has none. What a kustomization.yaml holds
beyond that is refused, so that no manifest is tested otherwise than it is applied.
"""

import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Manifest = dict[str, Any]
KNOWN = {"resources", "patches", "replacements"}
LOCAL = "config.kubernetes.io/local-config"  # "true": for other manifests to copy from, and not to be applied


def read(path: Path) -> list[Manifest]:
    """Every document of a file, as kubectl reads them: a YAML alias is a copy."""
    documents = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return [json.loads(json.dumps(document)) for document in documents if document]


def render(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would apply."""
    (kustomization,) = read(folder / "kustomization.yaml")
    assert kustomization.keys() <= KNOWN, f"{folder}: teach tests/kustomize.py {kustomization.keys() - KNOWN}"
    manifests = [
        manifest
        for name in kustomization["resources"]
        for manifest in (render(folder / name) if (folder / name).is_dir() else read(folder / name))
    ]
    for patch in kustomization.get("patches", ()):
        text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text(encoding="utf-8")
        operations = json.loads(json.dumps(yaml.safe_load(text)))
        for manifest in _selected(manifests, patch["target"]):
            jsonpatch.apply_patch(manifest, operations, in_place=True)
    for replacement in kustomization.get("replacements", ()):
        _replace(manifests, replacement)
    return [each for each in manifests if each["metadata"].get("annotations", {}).get(LOCAL) != "true"]


def _selected(manifests: list[Manifest], target: dict[str, str]) -> list[Manifest]:
    assert target.keys() <= {"kind", "name"}, target
    found = [
        each
        for each in manifests
        if each["kind"] == target["kind"] and target.get("name") in (None, each["metadata"]["name"])
    ]
    assert found, f"nothing is selected by {target}"
    return found


def _replace(manifests: list[Manifest], replacement: dict[str, Any]) -> None:
    source = dict(replacement["source"])
    field = source.pop("fieldPath")
    (found,) = _selected(manifests, source)
    for target in replacement["targets"]:
        for manifest in _selected(manifests, target["select"]):
            for path in target["fieldPaths"]:
                parent, _, last = path.rpartition(".")
                _at(manifest, parent)[last] = copy.deepcopy(_at(found, field))


def _at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree[name]
    return tree
