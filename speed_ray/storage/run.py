"""A Run: one folder, on any storage, that holds the frozen recipe and the named artifacts made by it."""

from speed_ray import recipes
from speed_ray.errors import Interrupted, UserError
from speed_ray.recipes.plain_yaml import parse_yaml
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.fingerprint import identity_fields
from speed_ray.storage.probe import check_create_is_exclusive
from speed_ray.storage.shard_plan import identity_difference
from speed_ray.storage.shards import Artifact
from speed_ray.storage.store import Store, open_store, read_if_exists

# In the order in which they are made.
TOPICS, PROPOSED_TASKS, TASKS = "topics", "proposed_tasks", "tasks"
DRAFTS, CANDIDATES, VERDICTS, REVISIONS = "drafts", "candidates", "verdicts", "revisions"
OWN_REVISIONS, REVISION_PAIRS = "own_revisions", "revision_pairs"  # what the revisor's DPO learns from
EXAMPLES, REVISED_EXAMPLES = "examples", "revised_examples"
CURATED_EXAMPLES = "curated_examples"
ARTIFACTS = (
    *(TOPICS, PROPOSED_TASKS, TASKS, DRAFTS, CANDIDATES, VERDICTS, REVISIONS, OWN_REVISIONS, REVISION_PAIRS),
    *(EXAMPLES, REVISED_EXAMPLES, CURATED_EXAMPLES),
)

PRODUCED_BY = {  # the command that makes an artifact or a model
    **dict.fromkeys((TOPICS, PROPOSED_TASKS, TASKS), "brainstorm"),
    **dict.fromkeys((DRAFTS, "junior"), "align-junior"),
    **dict.fromkeys((CANDIDATES, VERDICTS, "senior"), "align-senior"),
    **dict.fromkeys((REVISIONS, "revisor_sft", OWN_REVISIONS, REVISION_PAIRS, "revisor"), "align-revisor"),
    **dict.fromkeys((EXAMPLES, REVISED_EXAMPLES), "synthesize"),
    CURATED_EXAMPLES: "curate",
    "embedder": "train-embedder",
}

# What decides topics and tasks. All else is read later, and may be put right while there is nothing later.
_OF_TASKS = ("seed", "topics", "teacher", "languages", "mix", "slots", "brainstorm")


def finished_examples(recipe: Recipe) -> str:
    """Name the artifact of a recipe's finished examples: revised ones, where a revisor goes over them."""
    return REVISED_EXAMPLES if recipe.synthesize.revise else EXAMPLES


class Run:
    """The folder at `uri`. Opening it touches nothing."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.store: Store = open_store(uri)

    def artifact(self, name: str) -> Artifact:
        """One of `ARTIFACTS`, finished or not."""
        return Artifact(self.store, name)

    def freeze(self, recipe: Recipe) -> None:
        """Write the resolved recipe, or find one there that makes the same rows. Raises UserError with the difference.

        Pools, endpoints' addresses, budgets and threads may change between two drives of a run; what decides a row
        may not. While the run holds tasks at most, what decides only later rows is frozen anew: a window that proves
        too small for them must not cost the tasks, which were paid for. Two drivers that freeze different recipes at
        once are told apart by the first plan that differs (`Artifact.ensure_plan`).
        """
        if self._begin(recipe):
            return
        before, now = identity_fields(self.recipe()), identity_fields(recipe)
        if before == now:
            return
        if all(before[key] == now[key] for key in _OF_TASKS) and not self._is_past_tasks():
            self.store.put("recipe.yaml", recipes.dump_yaml(recipe).encode())
            return
        answered = any(self.artifact(name).has_commits() for name in ARTIFACTS if name != TOPICS)
        unpaid = "" if answered else "Nothing was answered in it yet, so nothing is lost with it. "
        raise UserError(
            f"{self.uri} was begun with another recipe:\n{identity_difference(before, now)}\n"
            f"{unpaid}Use another --run folder, or go back to the recipe that this one was begun with."
        )

    def _is_past_tasks(self) -> bool:
        later = ARTIFACTS[ARTIFACTS.index(TASKS) + 1 :]
        return any(self.artifact(name).plan() is not None for name in later)

    def _begin(self, recipe: Recipe) -> bool:
        try:
            check_create_is_exclusive(self.store)
            return self.store.create("recipe.yaml", recipes.dump_yaml(recipe).encode())
        except Interrupted as error:
            if self._is_begun():
                raise
            raise UserError(f"--run {self.uri} cannot be begun. {error}") from error

    def _is_begun(self) -> bool:
        try:
            return read_if_exists(self.store, "recipe.yaml") is not None
        except Interrupted:
            return False

    def recipe(self) -> Recipe:
        """The frozen recipe. Raises UserError where the folder is not a run."""
        data = read_if_exists(self.store, "recipe.yaml")
        if data is None:
            raise UserError(f"{self.uri} is not a run: it has no recipe.yaml. A job such as brainstorm begins one.")
        origin = f"{self.uri}/recipe.yaml"
        try:
            tree = parse_yaml(data, origin)
        except UserError as error:
            raise UserError(
                f"{origin} is damaged: {error}\n"
                "Delete that one file and run the job again with the recipe that the run was begun with."
            ) from None
        return recipes.validate_frozen(tree, origin)
