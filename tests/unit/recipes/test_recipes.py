"""A recipe is checked whole before anything is spent, and a mistake names its key and the one that was meant."""

import pytest
import yaml
from pydantic import BaseModel

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.recipes.renamed_keys import PREVIOUS_NAMES
from speed_ray.recipes.schema import Recipe
from speed_ray.storage.fingerprint import identity_fields

MINIMAL = "topics: {source: t.txt}\nteacher: {engine: scripted}\ngenerator: {engine: simulated}"
OPENAI = "generator={engine: openai, model: m, base_url: http://localhost/v1}"


def complaint(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        recipes.load_recipe("miniature", overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "key", "meant"),
    [
        ("seedd=1", "seedd", "seed"),
        ("topics.sourcee=x", "topics.sourcee", "source"),
        ("generator.engine_kwargss={}", "generator.engine_kwargss", "engine_kwargs"),
        ("teacher.max_concurency=3", "teacher.max_concurency", "max_concurrency"),
        ("synthesize.pool.max_sizee=2", "synthesize.pool.max_sizee", "max_size"),
        ("brainstorm.sampling.temprature=1", "brainstorm.sampling.temprature", "temperature"),
        ("brainstorm.tasks_per_topik=1", "brainstorm.tasks_per_topik", "tasks_per_topic"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(override, key, meant):
    assert f"  {key}: there is no such key (did you mean {meant!r}?)" in complaint(override)


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("generator.in_flight=3", "generator.in_flight: renamed to generator.max_concurrency"),
        ("generator.args.dtype=half", "generator.args: renamed to generator.engine_kwargs"),
        ("synthesize.pool.max=2", "synthesize.pool.max: renamed to synthesize.pool.max_size"),
        ("synthesize.retries=2", "synthesize.retries: renamed to synthesize.max_retries"),
        ("senior.workers.retries=2", "senior.workers.retries: renamed to senior.workers.max_failures"),
        ("senior.lora.rank=2", "senior.lora.rank: renamed to senior.lora.r"),
        ("revisor.dpo={batch: 8}", "revisor.dpo.batch: renamed to revisor.dpo.global_batch_size"),
    ],
)
def test_an_old_key_is_told_its_new_name(override, answer):
    assert f"  {answer}\n" in complaint(override) + "\n"


def test_an_old_key_in_a_file_is_told_its_new_name(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(f"{MINIMAL}\nembedder: {{model: m, follow: true}}\n")
    with pytest.raises(UserError, match=r"old\.yaml is not .*\n  embedder\.follow: renamed to embedder\.stream$"):
        recipes.load_recipe(str(path))


def test_every_renamed_key_is_a_key_and_its_old_name_is_none_beside_it():
    models = list(models_below(Recipe))
    assert set(PREVIOUS_NAMES) <= {name for model in models for name in model.model_fields}
    for model in models:
        old = {PREVIOUS_NAMES[name] for name in model.model_fields if name in PREVIOUS_NAMES}
        assert not old & set(model.model_fields), f"{model.__name__} has a renamed key under both names"


def models_below(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A model, and all that its keys hold."""
    below = [each for field in model.model_fields.values() for each in recipes.models_in(field.annotation)]
    return {model}.union(*map(models_below, below))


def old_names(value: object, key: str = "") -> object:
    """A dumped recipe under its keys' previous names; what lies below vLLM's own keys and in slots stays."""
    if not isinstance(value, dict) or key in ("engine_kwargs", "slots"):
        return value
    return {PREVIOUS_NAMES.get(name, name): old_names(below, name) for name, below in value.items()}


@pytest.mark.parametrize(
    "overrides", [[], [OPENAI, "revisor.dpo={beta: 0.2}", "generator.price={input: 1.0, output: 2.0}"]]
)
def test_a_frozen_recipe_of_an_earlier_version_is_read(overrides):
    recipe = recipes.load_recipe("miniature", overrides)
    old = old_names(yaml.safe_load(recipes.dump_yaml(recipe)))
    assert old["generator"]["in_flight"] == recipe.generator.max_concurrency
    assert recipes.validate_frozen(old, "recipe.yaml") == recipe


def test_a_language_has_one_name_however_it_is_written():
    recipe = recipes.load_recipe("miniature", ["languages={zh: 1, english: 2}", "curate.languages={zh-Hans: 9}"])
    assert recipe.languages == {"Chinese": 1, "English": 2} and recipe.curate.languages == {"Chinese": 9}
    assert identity("languages={zh: 1}") == identity("languages={Chinese: 1}")


UNCHECKED = {  # what the first version froze without a word
    "languages": {"zh": 1, "Chinese": 1, "Elvish": 1},
    "curate": {"kinds": {"stss": 9}, "languages": {"english": 9}, "duplicate_similarity": 0, "max_overlap": 0.0},
    "embedder": {"model": "m", "no_in_batch_negatives": ["clasification"]},
    "brainstorm": {"duplicate_similarity": 0.0},
}


def test_names_that_an_earlier_version_froze_are_read_as_they_are():
    tree = yaml.safe_load(recipes.dump_yaml(recipes.load_recipe("miniature")))
    tree |= {key: value if key == "languages" else (tree[key] or {}) | value for key, value in UNCHECKED.items()}
    recipe = recipes.validate_frozen(tree, "recipe.yaml")
    dumped = yaml.safe_load(recipes.dump_yaml(recipe))
    assert dumped == tree
    with pytest.raises(UserError):
        recipes.validate(tree, "recipe.yaml")


def test_an_unknown_key_below_an_engine_is_found_among_that_engines_keys():
    assert "generator.budget.cals: there is no such key (did you mean 'calls'?)" in complaint(
        OPENAI, "generator.budget.cals=3"
    )
    assert "valid: engine, max_concurrency, model" in complaint("teacher.xyzzy=1"), "the scripted engine's keys only"


def test_all_mistakes_are_named_at_once():
    said = complaint("seedd=1", "synthesize.examples=many", "brainstorm.tasks_per_topic=0")
    assert said.count("\n") == 3
    for key in ("seedd", "synthesize.examples", "brainstorm.tasks_per_topic"):
        assert f"  {key}: " in said


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=1.5", r"seed: Input should be a valid integer (got 1.5)"),
        ("seed=true", "seed: Input should be a valid integer (got True)"),
        ("seed='7'", "seed: Input should be a valid integer (got '7')"),
        ("synthesize.examples=1e3", "synthesize.examples: Input should be a valid integer (got '1e3')"),
        ("generator.model=5", "generator.model: Input should be a valid string (got 5)"),
        ("topics=", "topics.source or corpus.source is required"),
        ("generator=vllm", "generator: "),
        ("generator.engine=vlm", "generator.engine: choose one of vllm, openai, simulated, scripted"),
        ("generator={}", "generator.engine: choose one of vllm"),
        ("generator={engine: vllm}", "generator.model: this key is required"),
        ("mix.retreival=1", "mix: there is no kind 'retreival' (did you mean 'retrieval'?)"),
        ("mix={sts: 0, retrieval: 0}", "mix: all weights are zero"),
        ("mix={}", "mix: all weights are zero"),
        ("slots={sts: {min_wrods: 3}}", "slots: sts has no slot 'min_wrods' (did you mean 'min_words'?)"),
        ("slots={sts: {min_words: many}}", "slots: sts.min_words is 'many', but such are drawn: "),
        ("slots={retrieval: {query_min_words: 20}}", "slots: retrieval.query_min_words can be 20 where "),
        ("slots={classification: {min_words: null, max_words: null}}", "can both be null: give one of them a number"),
        ("languages={}", "languages: name at least one language"),
        ("languages={English: 0}", "languages.English: "),
        (
            "languages={no: 1}",
            "  languages: YAML takes no and off for false, yes and on for true: write the word in quotes",
        ),
        ("languages={Germn: 1}", "languages: there is no language 'Germn' (did you mean 'German'?)"),
        ("languages={zh: 1, Chinese: 2}", "languages: 'zh' and 'Chinese' are one language, Chinese: write it once"),
        ("curate.languages={Germn: 9}", "curate.languages: there is no language 'Germn' (did you mean 'German'?)"),
        ("curate.languages={de: 9}", "curate: languages limits German, but the recipe's languages are English"),
        ("curate.kinds={stss: 9}", "curate.kinds: there is no kind 'stss' (did you mean 'sts'?)"),
        ("curate.kinds={3: 9}", "curate.kinds: Input should be a valid string (got 3)"),
        ("slots={stss: {unit: phrase}}", "slots: there is no kind 'stss' (did you mean 'sts'?)"),
        (
            "embedder={model: m, no_in_batch_negatives: [clasification]}",
            "embedder.no_in_batch_negatives: there is no kind 'clasification' (did you mean 'classification'?)",
        ),
        (
            "embedder={model: m, judge: minilm}",
            "embedder: judge names whose scores are learnt from, which",
        ),
        (
            "embedder={model: m, loss: kl, stream: true}",
            "embedder: rows that are being written have no scores: set stream to false",
        ),
        ("curate.duplicate_similarity=0", "curate.duplicate_similarity: every two texts reach 0: give it more"),
        ("curate.max_overlap=0", "curate.max_overlap: every two texts reach 0"),
        ("curate.semantic_similarity=0", "curate.semantic_similarity: every two texts reach 0"),
        ("brainstorm.duplicate_similarity=0.0", "brainstorm.duplicate_similarity: every two texts reach 0"),
        ("synthesize.sampling.temperature=-0.1", "synthesize.sampling.temperature: "),
        ("synthesize.sampling.temperature=.nan", "synthesize.sampling.temperature: "),
        ("synthesize.sampling.temperature=.inf", "synthesize.sampling.temperature: "),
        ("seed=4294967296", "seed: "),
        ("slots={sts: {min_words: -3}}", "slots: sts.min_words is -3: give a number of words, at least 0"),
        ("synthesize.sampling.top_p=1.5", "synthesize.sampling.top_p: "),
        ("brainstorm.duplicate_similarity=7", "brainstorm.duplicate_similarity: "),
        (
            "synthesize.pool={min_size: 3, max_size: 1}",
            "synthesize.pool: min_size is 3 and max_size is 1: set max_size to 3 or more",
        ),
        ("brainstorm.pool.num_cpus=-1", "brainstorm.pool.num_cpus: "),
        ("junior.learning_rate=1e-5", "(got '1e-5'): YAML takes that for text; write 1.0e-05"),
        ("junior.learning_rate=fast", "junior.learning_rate: Input should be a valid number (got 'fast')"),
    ],
)
def test_a_wrong_value_is_refused(override, expected):
    assert expected in complaint(override)


@pytest.mark.parametrize("override", ["seed", "=3", "", "seed.x=1", "seed=[1"])
def test_a_malformed_override_repeats_what_was_written(override):
    assert f"--set {override}: " in complaint(override)


def test_overrides_are_yaml_laid_over_the_file_in_order():
    recipe = recipes.load_recipe(
        "miniature",
        ["synthesize.examples=3", "generator.engine_kwargs.max_model_len=64",
         "generator.engine_kwargs.x={a: [1, 2]}", "prompts=a=b", "seed=1", "seed=2", "mix={sts: 1}"],
    )  # fmt: skip
    assert recipe.synthesize.examples == 3
    assert (
        recipe.generator.engine_kwargs["x"] == {"a": [1, 2]} and recipe.generator.engine_kwargs["max_model_len"] == 64
    )
    assert recipe.generator.engine_kwargs["dtype"] == "float32", "the rest of a mapping stays"
    assert (recipe.prompts, recipe.seed, recipe.mix) == ("a=b", 2, {"sts": 1})


def test_a_key_is_set_in_its_own_place_alone(tmp_path):
    """YAML anchors are for writing a mapping once; two keys that share one are still two."""
    path = tmp_path / "shared.yaml"
    path.write_text(f"{MINIMAL}\nsenior: &dpo {{num_train_epochs: 2.0}}\nrevisor: {{dpo: *dpo}}\n")
    recipe = recipes.load_recipe(str(path), ["revisor.dpo.num_train_epochs=5"])
    assert (recipe.senior.num_train_epochs, recipe.revisor.dpo.num_train_epochs) == (2.0, 5.0)


@pytest.mark.parametrize("name", recipes.recipe_names())
def test_every_packaged_recipe_loads_and_survives_a_dump(name):
    recipe = recipes.load_recipe(name)
    assert recipes.validate(yaml.safe_load(recipes.dump_yaml(recipe)), "recipe.yaml") == recipe
    assert recipes.dump_yaml(recipe) == recipes.dump_yaml(
        recipes.validate(yaml.safe_load(recipes.dump_yaml(recipe)), "recipe.yaml")
    )


def test_a_recipe_that_is_not_there_or_not_one_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"--recipe minature: no such file.*did you mean 'miniature'"):
        recipes.load_recipe("minature")
    file = tmp_path / "r.yaml"
    for content, expected in [
        (b"", "must be a mapping of recipe keys, not NoneType"),
        (b"- 1", "must be a mapping of recipe keys, not list"),
        (b"a: [", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"seed: 1", "generator: this key is required"),
        (b"!!python/object/apply:os.system [ls]", "is not valid YAML"),
    ]:
        file.write_bytes(content)
        with pytest.raises(UserError, match=expected) as caught:
            recipes.load_recipe(str(file))
        assert str(file) in str(caught.value)


def identity(*overrides: str) -> dict:
    return identity_fields(recipes.load_recipe("miniature", [OPENAI, *overrides]))


@pytest.mark.parametrize(
    "override",
    [
        "synthesize.pool.max_size=8",
        "brainstorm.pool.num_gpus=1",
        "generator.budget.calls=10",
        "generator.base_url=http://elsewhere/v1",
        "generator.max_concurrency=3",
        "generator.timeout=5",
        "generator.price={input: 1, output: 2}",
        "teacher.max_concurrency=9",
    ],
)
def test_where_and_how_fast_change_no_identity(override):
    assert identity(override) == identity()


@pytest.mark.parametrize(
    "override",
    [
        "seed=8",
        "generator.model=other",
        "generator.structured_outputs=false",
        "teacher.model=other",
        "synthesize.sampling.temperature=0.5",
        "synthesize.max_retries=0",
        "synthesize.shard_rows=9",
        "mix={sts: 1}",
        "languages={German: 1}",
        "brainstorm.tasks_per_topic=2",
    ],
)
def test_what_decides_a_row_changes_the_identity(override):
    assert identity(override) != identity()


def test_of_vllms_arguments_only_those_that_decide_a_token_count():
    plain = identity_fields(recipes.load_recipe("miniature"))
    fast = ["generator.engine_kwargs.tensor_parallel_size=2", "generator.engine_kwargs.gpu_memory_utilization=0.5"]
    assert identity_fields(recipes.load_recipe("miniature", fast)) == plain
    assert identity_fields(recipes.load_recipe("miniature", ["generator.engine_kwargs.quantization=fp8"])) != plain


def test_the_order_in_which_languages_were_written_changes_nothing():
    one = recipes.load_recipe("miniature", ["languages={English: 3, German: 1}"])
    other = recipes.load_recipe("miniature", ["languages={German: 1, English: 3}"])
    assert list(one.languages.items()) == list(other.languages.items())
