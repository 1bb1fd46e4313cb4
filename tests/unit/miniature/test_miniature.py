"""The miniature world: closed and fair, told truly by its teacher, and read by a model that is built only once."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from speed_ray import kinds
from speed_ray.engines.base import PromptContext, Request
from speed_ray.engines.scripted import ScriptedTeacher
from speed_ray.errors import UserError
from speed_ray.miniature import base_model, corpus, teacher, truth, world
from speed_ray.prompts.parse import parse_example, parse_tasks
from speed_ray.prompts.render import Prompts
from speed_ray.recipes.engine_settings import ScriptedEngine

OUTSIDE = "Automotive/Auto Shows"
ALL_KINDS = ("classification", "sts", "retrieval", "matching_short", "matching_long")


def context(kind: str, topic: str, seed: int, stage: str = "draft", **more: object) -> PromptContext:
    """What a stage tells an engine about one prompt, with slots drawn as a stage draws them."""
    slots = kinds.load_kind(kind).slots(random.Random(seed))
    return {"stage": stage, "kind": kind, "topic": topic, "task": "", "slots": slots, "language": "English", **more}


def drafts(kind: str, count: int = 96) -> list[tuple[PromptContext, dict[str, str]]]:
    """The teacher's examples of a kind, over all topics and many slots."""
    told = [context(kind, world.topics()[seed % 24], seed) for seed in range(count)]
    return [(each, json.loads(teacher.answer(each, seed))) for seed, each in enumerate(told)]


# --- the world


def test_the_world_has_24_topics_in_6_domains_of_20_concepts_each() -> None:
    assert len(world.topics()) == 24
    assert set(Counter(path.split("/")[0] for path in world.topics()).values()) == {4}
    assert {len(world.topic(path).concepts) for path in world.topics()} == {20}


def test_a_word_belongs_to_one_topic_and_to_no_sentence_pattern() -> None:
    found = [world.topic(path) for path in world.topics()]
    found += [world.topic(OUTSIDE), *world.siblings(OUTSIDE)]
    counts = Counter(word for topic in found for concept in topic.concepts for word in (concept.a, concept.b))
    domains = {topic.path.split("/")[0]: topic.shared for topic in found}
    counts.update(word for shared in domains.values() for word in shared)
    assert len(counts) > 1000
    assert [word for word, count in counts.items() if count > 1] == []
    assert not truth.SMALL_WORDS & set(counts)
    assert all(word.isalpha() and word.islower() for word in counts)


@pytest.mark.parametrize("kind", ["retrieval", "sts"])
def test_word_overlap_prefers_the_hard_negative_while_truth_knows_better(kind: str) -> None:
    right = 0
    for told, fields in drafts(kind):
        query, positive, negative = fields.values()
        asked = set(world.tokens(query))
        right += len(asked & set(world.tokens(positive))) > len(asked & set(world.tokens(negative)))
        nearer = [truth.similarity(query, text, told["topic"]) for text in (positive, negative)]
        covered = [truth.about(text, told["topic"]) for text in (positive, negative)]
        assert nearer[0] > nearer[1] or covered[0] > covered[1]
        assert truth.truth_score(kind, told["topic"], query, positive, [negative]) > 0.9
        assert truth.truth_score(kind, told["topic"], query, negative, [positive]) < 0.5
    assert right / 96 < 0.25


# --- the truth


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_teachers_best_is_true_and_the_same_on_another_topic_is_not(kind: str) -> None:
    own, moved = [], []
    for told, fields in drafts(kind):
        elsewhere = world.topics()[(world.topics().index(told["topic"]) + 7) % 24]
        own.append(teacher.score(told, fields))
        moved.append(teacher.score({**told, "topic": elsewhere}, fields))
    assert min(own) > 0.9
    assert max(moved) < 0.1


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("corruption", ["garbage", "shuffled", "half", "swapped", "spoilt_words"])
def test_each_corruption_of_an_example_lowers_its_truth(kind: str, corruption: str) -> None:
    definition = kinds.load_kind(kind)
    pairs = drafts(kind, 48)
    for number, (told, fields) in enumerate(pairs):
        other = pairs[(number + 1) % len(pairs)][1]  # of another topic
        spoilt = corrupt(fields, other, definition.query, definition.positive, definition.negative, corruption)
        if spoilt is not None:
            assert teacher.score(told, spoilt) < teacher.score(told, fields) - 0.02, (fields, spoilt)


def corrupt(
    fields: dict[str, str], other: dict[str, str], query: str, positive: str, negative: str | None, how: str
) -> dict[str, str] | None:
    """Spoil an example in one way, or return None where that way means nothing for its kind."""
    if how == "garbage":
        return {**fields, query: "lorem ipsum dolor sit amet"}
    if how == "shuffled":
        return {**fields, positive: other[positive]}
    if how == "half":
        return {**fields, positive: fields[query]} if query != "input_text" else None
    if how == "swapped":
        return {**fields, positive: fields[negative], negative: fields[positive]} if negative else None
    return {**fields, query: " ".join(word + "xq" * (i % 2) for i, word in enumerate(fields[query].split()))}


def test_more_of_the_answer_is_never_less_true_and_nothing_is_worth_nothing() -> None:
    ask, topic = "how do i knead the warm oven", "Home/Kitchen/Baking"
    growing = ["experts fold it", "experts fold the stove", "experts fold the toasty stove"]
    scores = [truth.truth_score("matching_short", topic, ask, answer, []) for answer in growing]
    assert scores == sorted(scores) and scores[0] < scores[-1]
    assert truth.truth_score("matching_short", topic, ask, "", []) == 0.0
    assert truth.truth_score("sts", topic, "", "", [""]) == 0.0


# --- the teacher


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_teacher_is_the_same_for_a_seed_and_another_for_the_next(kind: str) -> None:
    told = context(kind, "Science/Earth/Volcanoes", 1)
    assert teacher.answer(told, 5) == teacher.answer(told, 5)
    assert len({teacher.answer(told, seed) for seed in range(200)}) >= 190


@pytest.mark.parametrize("topic", [None, OUTSIDE])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_teachers_examples_pass_the_checks_of_their_kind(kind: str, topic: str | None) -> None:
    for seed in range(120):
        told = context(kind, topic or world.topics()[seed % 24], seed)
        parse_example(teacher.answer(told, seed), kinds.load_kind(kind), told["slots"], "English")


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_topic_from_outside_the_world_is_named_and_scored(kind: str) -> None:
    told = context(kind, OUTSIDE, 3)
    text = teacher.answer(told, 3)
    assert "auto shows" in text
    assert teacher.score(told, json.loads(text)) > 0.9


def test_the_teachers_tasks_are_as_many_as_asked_and_far_from_each_other() -> None:
    told = [(kind, topic) for kind in ALL_KINDS if kind != "sts" for topic in [*world.topics(), OUTSIDE]]
    prompts, first_of_each = Prompts(), []
    for seed, (kind, topic) in enumerate(told):
        reply = teacher.answer(context(kind, topic, seed, "brainstorm", ask=5), seed)
        asked = prompts.brainstorm(kinds.load_kind(kind), topic, 5, "English", random.Random(seed))
        found = parse_tasks(reply, 5, asked)
        assert len(found) == 5
        assert all(world.topic(topic).name in task for task in found)
        first_of_each += found
    pairs = [set(zip(text.split(), text.split()[1:], strict=False)) for text in first_of_each]
    nearest = max(len(a & b) / len(a | b) for i, a in enumerate(pairs) for b in pairs[:i])
    assert nearest < 0.7


def test_the_judge_finds_the_best_and_the_worst() -> None:
    told, good = drafts("retrieval", 1)[0]
    poor = {**good, "user_query": "lorem ipsum"}
    middling = {**good, "hard_negative_document": "lorem ipsum"}
    verdict = json.loads(teacher.answer({**told, "stage": "judge", "candidates": [middling, poor, good]}, 0))
    assert (verdict["best"], verdict["worst"]) == (3, 2)
    assert "Candidate 3" in verdict["reason"]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_revision_is_truer_where_it_can_be_and_keeps_what_is_good(kind: str) -> None:
    definition = kinds.load_kind(kind)
    for told, fields in drafts(kind, 24):
        poor = {**fields, definition.positive: "the weather is nice"}
        reply = json.loads(teacher.answer({**told, "stage": "critique", "fields": poor}, 1))
        assert teacher.score(told, reply["revision"]) > 0.8 > teacher.score(told, poor)
        assert reply["revision"][definition.query] == fields[definition.query]
        kept = json.loads(teacher.answer({**told, "stage": "critique", "fields": fields}, 1))
        assert teacher.score(told, kept["revision"]) >= teacher.score(told, fields)
        assert all(kept[aspect] for aspect in ("relevance", "completeness", "accuracy"))


def test_the_engine_answers_n_samples_and_is_named_for_what_it_is() -> None:
    engine = ScriptedTeacher(ScriptedEngine(engine="scripted"))
    request = Request("row", [{"role": "user", "content": "?"}], n=3, seed=4, context=context("sts", OUTSIDE, 1))
    reply = asyncio.run(engine.generate(request))
    assert engine.model == "scripted-teacher"
    assert len({sample.text for sample in reply.samples}) == 3
    assert reply.samples == asyncio.run(engine.generate(request)).samples


# --- the model


def test_the_base_model_never_reads_the_fields_of_a_kind() -> None:
    names = {field.name for kind in kinds.kind_names() for field in kinds.load_kind(kind).fields}
    pages = corpus.corpus_pages(0)
    for page in (next(pages) for _ in range(2000)):
        assert not any(f'"{name}"' in page for name in names)


QUICK = """
import pathlib
from speed_ray.miniature import base_model
base_model.STEPS, base_model.TOKENIZER_PAGES = 2, 200
build = base_model._build
def counted(folder):
    with open(base_model.cache_folder() / "builds", "a") as builds:
        builds.write("built\\n")
    build(folder)
base_model._build = counted
print("\\nFOLDER", base_model.ensure_base_model("base"))
print("\\nFOLDER", base_model.ensure_base_model("base"))
"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache where two processes at once asked for the base model, here trained for two steps only."""
    cache = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "SPEED_RAY_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    asking = [
        subprocess.Popen([sys.executable, "-c", QUICK], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    lines = [line for each in asking for line in each.communicate()[0].splitlines()]  # libraries print there too
    assert [each.returncode for each in asking] == [0, 0]
    answers = [line.removeprefix("FOLDER ") for line in lines if line.startswith("FOLDER ")]
    assert len(answers) == 4 and len(set(answers)) == 1
    return Path(answers[0])


@pytest.mark.slow
def test_two_processes_at_once_build_one_model(quick: Path) -> None:
    assert (quick.parent / "builds").read_text().split() == ["built"]
    assert not list(quick.parent.glob("*.unfinished"))


@pytest.mark.slow
def test_the_folder_is_an_ordinary_one_that_transformers_loads(quick: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(quick), AutoModelForCausalLM.from_pretrained(quick)
    assert 1.5e6 < model.num_parameters() < 3e6
    strange = 'Grüße, 世界! {"a": "\\u00e9"}\n\tñ 🎈'
    assert tokenizer.decode(tokenizer.encode(strange, add_special_tokens=False)) == strange
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == model.generation_config.eos_token_id
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    assert asked == "<|begin|>Hello\n\n"
    whole = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    assert tokenizer.apply_chat_template(whole, tokenize=False) == asked + "Hi<|end|>"
    prompt = tokenizer(asked, return_tensors="pt", add_special_tokens=False)
    assert model.generate(**prompt, max_new_tokens=5, min_new_tokens=5).shape == torch.Size(
        [1, prompt["input_ids"].shape[1] + 5]
    )


@pytest.mark.slow
def test_the_base_model_speaks_of_the_topic_that_a_page_is_headed_with() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = base_model.ensure_base_model("base")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    on_topic = []
    for path in world.topics():
        heading = tokenizer(f"<|begin|>This page is about {path}.\n\nYou can", return_tensors="pt")
        reply = model.generate(**heading, max_new_tokens=40, do_sample=False)[0, heading["input_ids"].shape[1] :]
        found = truth.meant(tokenizer.decode(reply), path)
        on_topic.append(sum(concept.topic == path for concept in found) / max(1, len(found)))
    assert sum(on_topic) / len(on_topic) > 0.7


def test_an_unknown_miniature_model_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="miniature://base"):
        base_model.ensure_base_model("huge")
