"""A Run: one folder, on any storage, that holds the frozen recipe and the named artifacts made by it."""

from functools import cached_property

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
DOCUMENTS, PASSAGES, PASSAGE_EMBEDDINGS = "documents", "passages", "passage_embeddings"
NEIGHBOURS = "neighbours"
ASKED_ABOUT = (PASSAGES, NEIGHBOURS)  # by prompts about documents: passages alone, or each with its neighbour
TOPICS, PROPOSED_TASKS, TASKS = "topics", "proposed_tasks", "tasks"
DRAFTS, CANDIDATES, VERDICTS, REVISIONS = "drafts", "candidates", "verdicts", "revisions"
OWN_REVISIONS, REVISION_PAIRS = "own_revisions", "revision_pairs"  # what the revisor's DPO learns from
EXAMPLES, REVISED_EXAMPLES = "examples", "revised_examples"
RANKED_EXAMPLES, REWRITTEN_EXAMPLES = "ranked_examples", "rewritten_examples"  # on the way from one to the other
CURATED_EXAMPLES, PAIR_SCORES, SCORED_EXAMPLES = "curated_examples", "pair_scores", "scored_examples"
FLUENCY, REFERENCE_FLUENCY, RELEVANCE = "fluency", "reference_fluency", "relevance"  # what language models say
OF_EXAMPLES = (SCORED_EXAMPLES, CURATED_EXAMPLES, REVISED_EXAMPLES, EXAMPLES)  # the most finished first
ARTIFACTS = (
    *(DOCUMENTS, PASSAGES, PASSAGE_EMBEDDINGS, NEIGHBOURS),
    *(TOPICS, PROPOSED_TASKS, TASKS, DRAFTS, CANDIDATES, VERDICTS, REVISIONS, OWN_REVISIONS, REVISION_PAIRS),
    *(EXAMPLES, RANKED_EXAMPLES, REWRITTEN_EXAMPLES, REVISED_EXAMPLES, CURATED_EXAMPLES),
    *(FLUENCY, REFERENCE_FLUENCY, RELEVANCE, PAIR_SCORES, SCORED_EXAMPLES),
)

# What each round makes for itself; a later one, a folder below the run, takes all else from it.
OF_ROUND = (PASSAGE_EMBEDDINGS, CURATED_EXAMPLES, FLUENCY, RELEVANCE, PAIR_SCORES, SCORED_EXAMPLES)
LATER_ROUNDS = "/later_rounds/"

PRODUCED_BY = {  # the command that makes an artifact or a model; its last one is what it is told to have made
    **dict.fromkeys((DOCUMENTS, NEIGHBOURS, PASSAGES), "read-documents"),
    **dict.fromkeys((TOPICS, PROPOSED_TASKS, TASKS), "brainstorm"),
    **dict.fromkeys((DRAFTS, "junior"), "align-junior"),
    **dict.fromkeys((CANDIDATES, VERDICTS, "senior"), "align-senior"),
    **dict.fromkeys((REVISIONS, "revisor_sft", OWN_REVISIONS, REVISION_PAIRS, "revisor"), "align-revisor"),
    **dict.fromkeys((EXAMPLES, RANKED_EXAMPLES, REWRITTEN_EXAMPLES, REVISED_EXAMPLES), "synthesize"),
    **dict.fromkeys((PASSAGE_EMBEDDINGS, CURATED_EXAMPLES), "curate"),
    **dict.fromkeys((FLUENCY, REFERENCE_FLUENCY, RELEVANCE, PAIR_SCORES, SCORED_EXAMPLES), "score"),
    **dict.fromkeys(("tuned_embedder", "embedder"), "train-embedder"),  # the first: as trained, before a merge
}

SAMPLES = "samples"  # the folder of a run's samples: small runs, paid for to plan it

MODELS = ("junior", "senior", "revisor_sft", "revisor", "embedder")

# The artifacts and models that a key of the recipe decides: it may be changed until one of them holds it.
_ANSWERED = ARTIFACTS[ARTIFACTS.index(PROPOSED_TASKS) :]
DECIDED_BY = {
    "corpus": (DOCUMENTS, PASSAGES),
    "topics": (TOPICS, *_ANSWERED),
    **dict.fromkeys(("seed", "teacher", "languages", "mix", "slots"), (*_ANSWERED, *MODELS)),
    "brainstorm": (PROPOSED_TASKS, TASKS),
    "draft": (DRAFTS,),
    "generator": ("junior", "revisor_sft", "revisor", CANDIDATES, OWN_REVISIONS, EXAMPLES, REVISED_EXAMPLES),
    "junior": ("junior",),
    "propose": (CANDIDATES,),
    "judge": (VERDICTS,),
    "senior": ("senior",),
    "critique": (REVISIONS,),
    "revisor": ("revisor_sft", OWN_REVISIONS, REVISION_PAIRS, "revisor"),
    "synthesize": (EXAMPLES, REVISED_EXAMPLES),
    "revise": (REWRITTEN_EXAMPLES, REVISED_EXAMPLES),
    "curate": (CURATED_EXAMPLES,),
    "score": ("embedder",),  # what is decided of its pairs is decided anew in seconds
    "embedder": ("embedder",),
}


def finished_examples(recipe: Recipe) -> str:
    """Name the artifact of a recipe's finished examples: revised ones, where a revisor goes over them."""
    return REVISED_EXAMPLES if recipe.synthesize.revise else EXAMPLES


def sample_folders(store: Store) -> list[str]:
    """List the folders of a run's samples."""
    return sorted({f"{SAMPLES}/{path.partition('/')[0]}" for path in store.names(SAMPLES)})


def finished_pairs(recipe: Recipe) -> str:
    """Name the artifact of what a recipe's embedder learns from: scored examples, where judges score them."""
    return CURATED_EXAMPLES if recipe.score is None else SCORED_EXAMPLES


class Run:
    """The folder at `uri`, a run's or that of a later round of one. Opening it touches nothing."""

    def __init__(self, uri: str, store: Store | None = None) -> None:
        self.uri = uri
        self.store: Store = store or open_store(uri)

    @property
    def payer(self) -> "Run":
        """Return the run whose budgets pay for this one: of a sample the run that is planned by it."""
        uri, _, sample = self.uri.rpartition(f"/{SAMPLES}/")
        return Run(uri) if uri and "/" not in sample.rstrip("/") else self

    @cached_property
    def _first(self) -> Store:
        """Open the store of the first round."""
        first, later, _ = self.uri.rpartition(LATER_ROUNDS)
        return open_store(first) if later else self.store

    def artifact(self, name: str) -> Artifact:
        """One of `ARTIFACTS`, finished or not."""
        return Artifact(self.store if name in OF_ROUND else self._first, name)

    def freeze(self, recipe: Recipe) -> None:
        """Write the resolved recipe, or find one there that makes the same rows. Raises UserError with the difference.

        Pools, endpoints' addresses, budgets and threads may change between two drives of a run; what decides a row
        may until there is one. So a learning rate that diverges, or a reply limit that is too low, does not cost what
        was paid for before. Two drivers that freeze different recipes at once are told apart by the first plan that
        differs (`Artifact.ensure_plan`, `Artifact.publish`). The newest budgets and addresses are stored, for commands
        that read the run's recipe alone, such as `quality --against`.
        """
        if self._begin(recipe):
            return
        frozen = self.recipe()
        if frozen == recipe:
            return
        before, now = identity_fields(frozen), identity_fields(recipe)
        changed = [key for key in now if before.get(key) != now[key]]
        held = {key: holder for key in changed if (holder := self._holder_of(key))}
        if not held:
            self.store.put("recipe.yaml", recipes.dump_yaml(recipe).encode())
            return
        difference = identity_difference({key: before.get(key) for key in held}, {key: now[key] for key in held})
        holders = "".join(f"  {key} is held by {holder}.\n" for key, holder in held.items())
        raise UserError(
            f"{self.uri} was begun with another recipe:\n{difference}\n{holders}"
            "Use another --run folder, or go back to the recipe that this one was begun with."
        )

    def _holder_of(self, key: str) -> str | None:
        """Describe the first artifact or model that a key has decided already."""
        for name in DECIDED_BY[key]:
            if name in MODELS and read_if_exists(self.store, f"models/{name}/_MANIFEST.json"):
                return f"models/{name}, which is trained"
            if name in ARTIFACTS and (rows := self.artifact(name).accepted_at_least()):
                return f"{name}, of which {rows} rows or more are accepted"
        return None

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
