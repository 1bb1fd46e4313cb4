"""Near-duplicates: what shares most of its word pairs is found, in any number of steps, and nothing else is."""

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from speed_ray.curation import near_duplicates
from speed_ray.curation.near_duplicates import MinHashIndex, sketch
from speed_ray.text import token_hashes

Find = Callable[..., list[int]]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """The first that each text repeats; texts are added three at a time."""

    def find(texts: list[str], similarity: float = 0.6, wanted: list[bool] | None = None) -> list[int]:
        pile = MinHashIndex(tmp_path)
        for begin in range(0, len(texts), 3):
            pile.add(sketch(token_hashes.hash_tokens(texts[begin : begin + 3])))
        found = pile.find_duplicates(np.array(wanted or [True] * len(texts)), similarity)
        pile.close()
        return found.tolist()

    return find


def text(rng: random.Random, length: int = 30) -> str:
    return " ".join(f"w{rng.randrange(3_000)}" for _ in range(length))


def changed(text: str, place: int, word: str = "other") -> str:
    split = text.split()
    split[place] = word
    return " ".join(split)


def test_copies_with_a_word_changed_are_found_and_nothing_else(find: Find):
    rng = random.Random(0)
    texts = [text(rng) for _ in range(300)]
    copies = {number: rng.randrange(200) for number in range(200, 300, 4)}
    for number, source in copies.items():
        texts[number] = changed(texts[source], rng.randrange(30))
    found = find(texts)
    assert {number: first for number, first in enumerate(found) if first != number} == copies


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.9])
def test_what_is_found_is_as_near_as_asked_for(find: Find, similarity):
    rng = random.Random(1)
    base = text(rng, 40)
    texts = [base] + [" ".join([*base.split()[cut:], *text(rng, cut).split()]) for cut in range(2, 34, 2)]

    def jaccard(one: str, other: str) -> float:
        first, second = set(pairwise(one.split())), set(pairwise(other.split()))
        return len(first & second) / len(first | second)

    for one in range(1, len(texts)):
        wanted = [number in (0, one) for number in range(len(texts))]
        near = find(texts, similarity, wanted)[one] == 0
        assert near <= (jaccard(texts[0], texts[one]) >= similarity)
        assert near or jaccard(texts[0], texts[one]) < similarity, "20 bands of 3 find 0.5 with 93%, these among them"


def test_a_chain_of_copies_is_one_cluster_and_keeps_its_first(find: Find):
    chain = [text(random.Random(2), 60)]
    for place in range(5, 55, 5):
        chain.append(changed(chain[-1], place))
    others = [text(random.Random(seed), 60) for seed in range(3, 6)]
    assert find([others[0], *chain, *others[1:]]) == [0, *[1] * len(chain), 12, 13]


def test_what_lies_between_two_texts_joins_both_to_the_first(find: Find):
    for seed in range(10):
        one = text(random.Random(seed), 60)
        between, other = one, one
        for place in range(4, 60, 10):
            between = changed(between, place)
            other = changed(changed(other, place), place + 4)
        assert find([one, other]) == [0, 1]
        assert find([one, other, "something else", between]) == [0, 0, 2, 0]


def test_what_is_not_wanted_neither_repeats_nor_is_repeated(find: Find):
    same = text(random.Random(6))
    assert find([same, same + "!", same.upper()], wanted=[False, True, True]) == [0, 1, 1]
    assert find([same, same + "!"], wanted=[True, False]) == [0, 1]


def test_texts_without_a_word_repeat_nothing_and_one_word_repeats_itself(find: Find):
    assert find(["", "!?", "", "yes", "Yes!", "no"]) == [0, 1, 2, 3, 3, 5]


def test_chinese_without_spaces_is_compared_by_its_characters(find: Find):
    first = "今天的天气非常好，我们决定一起去公园散步，然后在湖边的茶馆里喝茶聊天。"
    near = first.replace("公园", "花园")
    other = "这家公司的年度报告显示，去年的营业收入比前年增长了百分之十二左右。"
    assert find([first, other, near]) == [0, 1, 0]


def test_many_of_the_same_are_not_compared_pair_by_pair(find: Find, monkeypatch):
    compared = []
    true = near_duplicates._jaccard
    monkeypatch.setattr(
        near_duplicates, "_jaccard", lambda pairs, *of: compared.append(len(pairs)) or true(pairs, *of)
    )
    same = text(random.Random(7))
    assert find([f"{same} {number}" for number in range(500)]) == [0] * 500
    assert sum(compared) < 5 * 500, "each with two others in its bucket, and what is joined not again"
