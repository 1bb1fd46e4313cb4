"""Store the trained models of a run: planned like an artifact, published once and whole, fetched to serve.

`<run>/models/<name>/` holds

    plan.json           what decides the weights, created only if absent
    checkpoints/...     states to resume from (training/checkpoints.py)
    metrics.jsonl       one JSON object for each logged step
    logs/               the same for TensorBoard
    weights/<digest>/   a plain Hugging Face folder, or a PEFT adapter; two trainings at once never write one folder
    _MANIFEST.json      names the folder that counts, its files and their sha256; created only if absent, last
"""

import functools
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from speed_ray.errors import Interrupted, UserError
from speed_ray.recipes.engine_settings import VllmEngine
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.cached_folder import ensure_cached_folder
from speed_ray.storage.run import PRODUCED_BY, Run
from speed_ray.storage.shard_plan import other_plan_error
from speed_ray.storage.shards import is_made_anew
from speed_ray.storage.store import LocalFolder, cache_folder, read_json

log = logging.getLogger(__name__)

FOLDER = "models"
EMBEDDER, TUNED = "embedder", "tuned_embedder"  # the second: as it was trained, where it is merged with its base


class Model:
    """Reads and writes one model of a run by name: "junior", "senior", "revisor". Opening it touches no storage."""

    def __init__(self, run: Run, name: str) -> None:
        self.store = run.store
        self.name = name
        self.path = f"{FOLDER}/{name}"
        self.where = f"{run.store.uri}/{self.path}"

    def ensure_plan(self, identity: dict[str, Any]) -> str:
        """Write the plan unless an equal one exists; return its digest.

        Raises UserError with the difference where another plan is there, or weights that were published by another.
        It takes the place of one that differs in the settings of a training that has not ended, and of one that
        differs in nothing but what a repair made anew. The model is then trained from its beginning.
        """
        data = json.dumps(identity, sort_keys=True, indent=1, ensure_ascii=False).encode()
        digest, wanted, manifest = hashlib.sha256(data).hexdigest(), json.loads(data), self.manifest()
        if self.store.create(f"{self.path}/plan.json", data):
            facts = manifest["facts"] if manifest else {}
            there = {**wanted, **{key: facts[key] for key in wanted if key in facts}}
        else:
            there = self.plan() or {}
        if there == wanted:
            return digest
        has_other_settings = {**there, "settings": None} == {**wanted, "settings": None}
        if not (has_other_settings and manifest is None) and not is_made_anew(self.store, there, wanted):
            what = f"{self.where} was begun differently; its checkpoints and weights are not what is asked for now"
            raise other_plan_error(what, there, wanted)
        log.warning("%s is trained anew: its settings, its rows or the weights it begins with are others", self.where)
        if manifest is not None:
            self.store.delete(f"{self.path}/_MANIFEST.json")
        self.store.put(f"{self.path}/plan.json", data)
        return digest

    def plan(self) -> dict[str, Any] | None:
        """Return all that determines the weights, or None before a training is planned."""
        return self._read_json(
            "plan.json", "Delete that one file and run the same job again: the training is planned anew."
        )

    def manifest(self) -> dict[str, Any] | None:
        """Return the published manifest (files and facts), or None before publication."""
        return self._read_json(
            "_MANIFEST.json", "Delete that one file and train the model again: it goes on from its last checkpoint."
        )

    @property
    def is_adapter(self) -> bool:
        """Tell if the weights are only a LoRA adapter. Raises UserError before publication."""
        return any(entry["path"] == "adapter_config.json" for entry in self.published()["files"])

    def published(self) -> dict[str, Any]:
        """Return the manifest. Raises UserError before publication."""
        manifest = self.manifest()
        if manifest is None:
            raise UserError(f"{self.where} is not trained yet: run `speed-ray {PRODUCED_BY[self.name]}` first.")
        return manifest

    def publish(self, folder: Path, facts: dict[str, Any], replaces: bool = False) -> bool:
        """Upload a local folder, then the manifest; return False if another training published first.

        With `replaces` the manifest gives way: a model whose publication alone says nothing of what counts.
        """
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        entries = [{"path": name, **file_fingerprint(path)} for name, path in files.items()]
        digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
        weights = f"weights/{digest[:16]}"
        for name, path in files.items():
            self.store.upload(f"{self.path}/{weights}/{name}", path)
        manifest = {"model": self.name, "digest": digest, "weights": weights, "files": entries, "facts": facts}
        data, published = json.dumps(manifest, sort_keys=True).encode(), f"{self.path}/_MANIFEST.json"
        if replaces:
            self.store.put(published, data)
            return True
        return self.store.create(published, data)

    def fetch(self) -> Path:
        """Return a local folder with the published weights, every file checked by its sha256.

        Of a local run it is the folder itself; of a remote one a copy in the cache, named by digest, which processes
        that want it at once download once. Raises UserError before publication, Interrupted where a file is damaged.
        """
        manifest = self.published()
        if isinstance(self.store, LocalFolder):
            folder = self.store.root / self.path / manifest["weights"]
            self._check(folder, manifest)
            return folder
        folder = cache_folder() / FOLDER / manifest["digest"]
        download = functools.partial(self._download, manifest)
        return ensure_cached_folder(folder, download, f"downloading {self.where}")

    def _read_json(self, name: str, advice: str) -> dict[str, Any] | None:
        tree: dict[str, Any] | None = read_json(self.store, f"{self.path}/{name}", advice)
        return tree

    def _download(self, manifest: dict[str, Any], folder: Path) -> None:
        for entry in manifest["files"]:
            file = folder / entry["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            self.store.download(f"{self.path}/{manifest['weights']}/{entry['path']}", file)
        self._check(folder, manifest)

    def _check(self, folder: Path, manifest: dict[str, Any]) -> None:
        for entry in manifest["files"]:
            file = folder / entry["path"]
            if not file.is_file() or {"path": entry["path"], **file_fingerprint(file)} != entry:
                raise Interrupted(
                    f"{self.where}/{manifest['weights']}/{entry['path']} is missing or damaged (sha256 differs).\n"
                    f"Delete {self.where}/_MANIFEST.json and train the model again: it goes on from its checkpoint."
                )


@functools.cache  # a large model takes a minute to check, and is asked for by plan, preflight and engine
def fetch_model(uri: str) -> Path:
    """Return a local folder with the weights of `<run>/models/<name>`, downloading them if needed."""
    return find_model(uri).fetch()


def find_model(uri: str) -> Model:
    """Return the model that `<run>/models/<name>` names, whether it is trained yet or not."""
    run, separator, name = uri.rstrip("/").rpartition(f"/{FOLDER}/")
    if not separator or not run or "/" in name:
        raise UserError(f"{uri} does not name a trained model: write it as <run>/{FOLDER}/<name>.")
    return Model(Run(run), name)


def file_fingerprint(file: Path) -> dict[str, Any]:
    """Return the size and the sha256 of a file."""
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def generator_with_trained_weights(run: Run, recipe: Recipe, name: str) -> VllmEngine:
    """Return the recipe's generator with the weights that this run trained: as a model of its own, or as an adapter
    on the generator or on another model of the run.

    Raises UserError before that model is published.
    """
    generator = recipe.generator
    if not isinstance(generator, VllmEngine):
        raise UserError(
            f"generator.engine is {generator.engine}, which cannot load what this run trained.\n"
            "Set generator.engine: vllm and generator.model to the model that training began with."
        )
    model, whole = Model(run, name), base_weights_of(run, name)
    loaded = {"model": whole.where} if whole else {}
    return generator.model_copy(update=loaded | ({"adapter": model.where} if model.is_adapter else {}))


def base_weights_of(run: Run, name: str | None) -> Model | None:
    """Return the model that holds a model's full weights: itself or, for an adapter, its base.

    None where those are the weights of the recipe's generator. Raises UserError before publication.
    """
    while name is not None:
        model = Model(run, name)
        if not model.is_adapter:
            return model
        start = model.published()["facts"]["start"]
        name = start and start["model"]
    return None
