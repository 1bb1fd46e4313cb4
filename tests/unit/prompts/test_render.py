"""What we say: prompts as reviewed text files, templates of a recipe's own, and every mistake found before spending.

`SPEED_RAY_WRITE_GOLDEN=1 pytest tests/unit/prompts/test_render.py` rewrites tests/golden/prompts.
Review the difference.
"""

import hashlib
import os
import random
from pathlib import Path

import pytest

from speed_ray import kinds
from speed_ray.errors import UserError
from speed_ray.kinds.kind import Kind
from speed_ray.prompts import render
from speed_ray.prompts.render import Prompts, load_prompts
from speed_ray.records import PassageRow
from tests.helpers.paths import GOLDEN

PROMPTS_FOLDER = GOLDEN / "prompts"
FIVE = ["classification", "matching_long", "matching_short", "retrieval", "sts"]
TOPIC = "Hobbies/Beekeeping"
PASSAGE = {
    "title": "The Hive in Winter",
    "headings": "Seasons\nCold",
    "text": "Bees do not sleep in winter.\nThey cluster around the queen and shiver, which keeps her warm.",
}


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts()


def synthesized(prompts: Prompts, kind: Kind, seed: int = 7, topic: str = TOPIC, task: str = "Sort bees.") -> str:
    slots = kind.slots(random.Random(seed))
    [message] = prompts.synthesize(kind, slots, topic, task, "English", random.Random(seed))
    assert message["role"] == "user"
    return message["content"]


def brainstormed(prompts: Prompts, kind: Kind, seed: int = 7, topic: str = TOPIC) -> str:
    [message] = prompts.brainstorm(kind, topic, 5, "German", random.Random(seed))
    assert message["role"] == "user"
    return message["content"]


def judged(prompts: Prompts, kind: Kind, seed: int = 7, candidates: tuple[str, ...] = ("{1}", "{2}", "{3}")) -> str:
    slots = kind.slots(random.Random(seed))
    rng = random.Random(seed)
    [message] = prompts.judge(kind, slots, TOPIC, "Sort bees.", "English", list(candidates), rng)
    return message["content"]


def criticised(prompts: Prompts, kind: Kind, seed: int = 7, example: str = "{the example}") -> str:
    slots = kind.slots(random.Random(seed))
    [message] = prompts.critique(kind, slots, TOPIC, "Sort bees.", "English", example, random.Random(seed))
    return message["content"]


def revised(prompts: Prompts, kind: Kind, example: str = "{the example}") -> str:
    [message] = prompts.revise(kind, TOPIC, "Sort bees.", "German", example)
    return message["content"]


def grounded(
    prompts: Prompts, kind: Kind, seed: int = 7, completion: bool = False, neighbour: str = "", **passage: str
) -> str:
    slots = kind.slots(random.Random(seed))
    row: PassageRow = {**render.A_PASSAGE, **PASSAGE, **passage}  # type: ignore[typeddict-item]
    [message] = prompts.ground(kind, slots, row, "English", kind.shots, completion, neighbour)
    return message["content"]


def same_as_golden(name: str, text: str) -> bool:
    path = PROMPTS_FOLDER / f"{name}.txt"
    if os.environ.get("SPEED_RAY_WRITE_GOLDEN"):
        path.write_text(text + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8") == text + "\n"


@pytest.mark.parametrize("name", FIVE)
def test_golden_synthesize(name: str, prompts: Prompts) -> None:
    assert same_as_golden(f"synthesize-{name}", synthesized(prompts, kinds.load_kind(name)))


@pytest.mark.parametrize("name", [name for name in FIVE if name != "sts"])
def test_golden_brainstorm(name: str, prompts: Prompts) -> None:
    assert same_as_golden(f"brainstorm-{name}", brainstormed(prompts, kinds.load_kind(name)))


@pytest.mark.parametrize("name", ["retrieval", "sts"])
def test_golden_alignment(name: str, prompts: Prompts) -> None:
    kind = kinds.load_kind(name)
    assert same_as_golden(f"judge-{name}", judged(prompts, kind))
    assert same_as_golden(f"critique-{name}", criticised(prompts, kind))
    assert same_as_golden(f"revise-{name}", revised(prompts, kind))


@pytest.mark.parametrize("instruction", ["Given a question, find a passage that answers it.", ""])
def test_golden_relevance(instruction: str, prompts: Prompts) -> None:
    kind = kinds.load_kind("retrieval")
    [message] = prompts.relevance(kind, instruction, "do bees sleep in winter", PASSAGE["text"])
    assert same_as_golden(f"relevance{'' if instruction else '-without-instruction'}", message["content"])


@pytest.mark.parametrize("name", kinds.grounded_names())
def test_golden_ground(name: str, prompts: Prompts) -> None:
    assert same_as_golden(f"ground-{name}", grounded(prompts, kinds.load_grounded(name)))


def test_golden_ground_completion(prompts: Prompts) -> None:
    kind = kinds.load_grounded("retrieval")
    assert same_as_golden("ground-completion-retrieval", grounded(prompts, kind, completion=True))


@pytest.mark.parametrize("name", ["ground-contrast-retrieval", "ground-completion-contrast-retrieval"])
def test_golden_ground_contrast(name: str, prompts: Prompts) -> None:
    kind, completion = kinds.load_grounded("retrieval"), "completion" in name
    text = grounded(prompts, kind, completion=completion, neighbour="Wasps do not winter.\nTheir queens alone do.")
    assert same_as_golden(name, text)


@pytest.mark.parametrize("name", kinds.grounded_names())
def test_every_prompt_about_a_passage_is_whole(name: str, prompts: Prompts) -> None:
    for seed in range(100):
        text = grounded(prompts, kinds.load_grounded(name), seed)
        assert "None" not in text and "{" not in text and "- \n" not in text and "  " not in text


def test_a_passage_to_be_continued_is_one_line_before_the_label(prompts: Prompts) -> None:
    *_, passage, label = grounded(prompts, kinds.load_grounded("retrieval"), completion=True).splitlines()
    assert passage == f"Passage: {PASSAGE['title']} {PASSAGE['text']}".replace("\n", " ") and label.endswith(":")


@pytest.mark.parametrize("name", FIVE)
def test_every_prompt_of_a_kind_is_whole(name: str, prompts: Prompts) -> None:
    """No slot leaves a hole, whatever is drawn; the fields asked for are the kind's, in order."""
    kind = kinds.load_kind(name)
    for seed in range(200):
        text = synthesized(prompts, kind, seed)
        positions = [text.index(f'"{field.name}"') for field in kind.fields]
        assert positions == sorted(positions)
        assert "None" not in text and "{" not in text and "- \n" not in text and "  " not in text


def test_guidelines_are_shuffled_where_the_kind_says_so(prompts: Prompts) -> None:
    def orders(name: str) -> int:
        kind = kinds.load_kind(name)
        slots = kind.slots(random.Random(0))
        return len({str(prompts.synthesize(kind, slots, "a", "b", "English", random.Random(i))) for i in range(20)})

    assert orders("retrieval") > 10 and orders("classification") > 10
    assert orders("sts") == orders("matching_short") == orders("matching_long") == 1


def test_prompts_are_a_function_of_the_generator(prompts: Prompts) -> None:
    kind = kinds.load_kind("retrieval")
    assert synthesized(prompts, kind, 3) == synthesized(Prompts(), kind, 3)
    assert brainstormed(prompts, kind, 3) == brainstormed(Prompts(), kind, 3) != brainstormed(prompts, kind, 4)


@pytest.mark.parametrize("hostile", ["{{ 7 * 7 }}", "{% for x in y %}", "{# gone #}", "{{ ''.__class__.__mro__ }}"])
def test_topics_and_tasks_are_never_templates(hostile: str, prompts: Prompts) -> None:
    assert hostile in synthesized(prompts, kinds.load_kind("sts"), topic=hostile)
    assert hostile in synthesized(prompts, kinds.load_kind("retrieval"), task=hostile)
    assert hostile in brainstormed(prompts, kinds.load_kind("retrieval"), topic=hostile)
    assert hostile in judged(prompts, kinds.load_kind("retrieval"), candidates=("{}", hostile))
    assert hostile in criticised(prompts, kinds.load_kind("retrieval"), example=hostile)
    assert hostile in grounded(prompts, kinds.load_grounded("retrieval"), text=hostile)
    assert hostile in revised(prompts, kinds.load_kind("retrieval"), example=hostile)


def test_what_varies_comes_last(prompts: Prompts) -> None:
    """Two prompts of a kind share their beginning, up to the guidelines, for the engine's prefix cache."""
    kind = kinds.load_kind("retrieval")
    one, other = synthesized(prompts, kind, 1), synthesized(prompts, kind, 2)
    shared = one[: one.index("Keep to these guidelines")]
    assert shared and one != other and other.startswith(shared)


def test_a_recipes_templates_replace_ours_name_by_name(tmp_path: Path, prompts: Prompts) -> None:
    (tmp_path / "synthesize.jinja").write_text("For all: {{ task }}{{ topic }}")
    (tmp_path / "synthesize-retrieval.jinja").write_text("For retrieval: {{ task }}")
    own = Prompts(str(tmp_path))
    assert synthesized(own, kinds.load_kind("retrieval")) == "For retrieval: Sort bees."
    assert synthesized(own, kinds.load_kind("sts")) == f"For all: {TOPIC}"
    kind = kinds.load_kind("retrieval")
    assert brainstormed(own, kind) == brainstormed(prompts, kind)


def test_their_general_template_outranks_ours_for_one_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    for name in ("brainstorm", "judge", "critique", "revise", "ground", "ground-completion", "relevance"):
        (ours / f"{name}.jinja").write_text(name)
    (ours / "synthesize.jinja").write_text("ours")
    (ours / "synthesize-sts.jinja").write_text("ours for sts")
    (theirs / "synthesize.jinja").write_text("theirs")
    monkeypatch.setattr(render, "OURS", ours)
    assert synthesized(Prompts(), kinds.load_kind("sts")) == "ours for sts"
    assert synthesized(Prompts(str(theirs)), kinds.load_kind("sts")) == "theirs"


def test_digests_name_the_text_in_use(tmp_path: Path, prompts: Prompts) -> None:
    (tmp_path / "synthesize.jinja").write_text("{{ task }}")
    own = Prompts(str(tmp_path)).digests
    assert own["synthesize.jinja"] == hashlib.sha256(b"{{ task }}").hexdigest()
    assert {name for name in own if own[name] != prompts.digests[name]} == {"synthesize.jinja"}
    assert set(prompts.digests) >= {"brainstorm.jinja", "synthesize.jinja"}


@pytest.mark.parametrize(
    "include",
    [
        "{% include 'recipe/.rules.jinja' %}",
        "{% if false %}{% include 'recipe/.rules.jinja' %}{% endif %}",
        "{% include 'recipe/.more.jinja' %}",
        "{% import 'recipe/.rules.jinja' as rules %}",
        "{% include ['recipe/.gone.jinja', 'recipe/.rules.jinja'] %}",
        "{% include 'recipe/.gone.jinja' ignore missing %}{% include 'recipe/.rules.jinja' %}",
    ],
)
def test_a_template_that_is_included_is_in_the_digests(tmp_path: Path, include: str) -> None:
    (tmp_path / ".more.jinja").write_text("{% include 'recipe/.rules.jinja' %}")
    (tmp_path / "synthesize.jinja").write_text("{{ task }}" + include)
    digests = []
    for rule in ("one rule", "another rule"):
        (tmp_path / ".rules.jinja").write_text(rule)
        digests.append(Prompts(str(tmp_path)).digests)
    assert {name for name in digests[0] if digests[0][name] != digests[1][name]} == {"recipe/.rules.jinja"}


def test_prompts_are_loaded_once_while_their_folder_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "synthesize.jinja").write_text("one {{ task }}")
    first = load_prompts(str(tmp_path))
    assert load_prompts(str(tmp_path)) is first
    (tmp_path / "synthesize.jinja").write_text("two {{ task }}")
    assert load_prompts(str(tmp_path)).digests != first.digests


def test_prompts_are_loaded_anew_where_an_included_file_below_the_folder_changed(tmp_path: Path) -> None:
    (tmp_path / ".parts").mkdir()
    (tmp_path / "synthesize.jinja").write_text("{{ task }}{% include 'recipe/.parts/rules.jinja' %}")
    digests = []
    for rule in ("one rule", "another rule"):
        (tmp_path / ".parts" / "rules.jinja").write_text(rule)
        digests.append(load_prompts(str(tmp_path)).digests)
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("include", "said"),
    [("{% include task %}", "by a name that is computed"), ("{% include 'recipe/.bad.jinja' %}", "cannot be read")],
)
def test_an_included_template_that_cannot_be_read_beforehand(tmp_path: Path, include: str, said: str) -> None:
    (tmp_path / ".bad.jinja").write_text("{% if %}")
    (tmp_path / "synthesize.jinja").write_text("{% if false %}" + include + "{% endif %}")
    with pytest.raises(UserError, match=said):
        Prompts(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("sythesize.jinja", "x", "did you mean 'synthesize.jinja'?"),
        ("synthesize.jinja2", "x", "did you mean 'synthesize.jinja'?"),
        ("synthesize-retreival.jinja", "x", "did you mean 'synthesize-retrieval.jinja'?"),
        (
            "synthesize.jinja",
            "fine\n{{ tsk }}",
            "synthesize.jinja, line 2: there is no value 'tsk' (did you mean 'task'?)",
        ),
        ("synthesize.jinja", "{% if false %}\n\n{{ tsk }}{% endif %}", "line 3: there is no value 'tsk'"),
        ("synthesize-sts.jinja", "\n{% if %}", "synthesize-sts.jinja, line 2: "),
        ("brainstorm.jinja", "a\n\n{{ topic.nothing.here }}", "brainstorm.jinja, line 3: "),
        ("brainstorm.jinja", "a\n{{ topic | shout }}", "brainstorm.jinja, line 2: "),
        ("brainstorm.jinja", "a\n{{ 1 / 0 }}", "brainstorm.jinja, line 2: division by zero"),
        ("brainstorm.jinja", "{{ topic.__class__.__mro__ }}", "unsafe"),
        ("judge.jinja", "{{ candidate }}", "judge.jinja, line 1: there is no value 'candidate'"),
        ("critique-sts.jinja", "\n{{ exmple }}", "line 2: there is no value 'exmple' (did you mean 'example'?)"),
        ("revise.jinja", "{{ slots }}", "revise.jinja, line 1: there is no value 'slots'"),
    ],
)
def test_a_mistake_is_found_before_anything_is_spent(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        Prompts(str(tmp_path))
    assert said in str(error.value) and str(tmp_path / name) in str(error.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        Prompts(str(tmp_path / "absent"))


def test_a_template_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "synthesize.jinja").write_bytes("Schöne {{ task }}".encode("latin-1"))
    with pytest.raises(UserError, match=r"synthesize\.jinja .* is not UTF-8"):
        Prompts(str(tmp_path))
