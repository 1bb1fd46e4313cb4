"""Word hashes: case, spacing and punctuation make no difference, and no run of words crosses from text to text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speed_ray.text import token_hashes
from speed_ray.text.words import split_words


def hashes(text: str) -> list[int]:
    return token_hashes.hash_tokens([text]).hashes.tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The cat's hat", "the  CAT s\that!"),
        ("Äpfel und Öl", "äpfel und — öl."),
        ("“Quoted”, she said", '"quoted" she said'),
        ("a\nb", "a b"),
        ("a\0b", "a b"),
    ],
)
def test_case_spacing_and_punctuation_make_no_difference(one, other):
    assert hashes(one) == hashes(other) != []


def test_letters_and_their_order_do():
    different = ["listen", "silent", "listens", "Listen to", "to listen", "2", "12", "21", "ä", "a"]
    assert len({tuple(hashes(text)) for text in different}) == len(different)


def test_a_text_in_a_script_without_spaces_has_word_pairs():
    assert len(hashes("我喜欢猫。")) == 3
    assert len(token_hashes.hash_tokens(["我喜欢猫", "ab"]).grams(2).hashes) == 2


@given(st.lists(st.text(max_size=30), max_size=12))
def test_texts_together_have_the_words_that_they_have_alone(texts):
    together = token_hashes.hash_tokens(texts)
    assert together.counts().tolist() == [len(hashes(text)) for text in texts]
    assert together.hashes.tolist() == [number for text in texts for number in hashes(text)]


@given(st.lists(st.text(alphabet="ab Ü。 _+€水\x1f\u00ad\u200b", max_size=40), max_size=12))
def test_words_are_counted_as_the_checks_count_them(texts):
    assert token_hashes.hash_tokens(texts).counts().tolist() == [len(split_words(text)) for text in texts]


def test_blocks_change_nothing(monkeypatch):
    texts = [f"text {number} of {'many ' * (number % 7)} words" for number in range(100)]
    whole = token_hashes.hash_tokens(texts)
    monkeypatch.setattr(token_hashes, "BLOCK", 50)
    parts = token_hashes.hash_tokens(texts)
    assert np.array_equal(whole.hashes, parts.hashes) and np.array_equal(whole.owners, parts.owners)


def test_no_run_of_words_crosses_from_text_to_text():
    runs = token_hashes.hash_tokens(["a b c", "", "d", "e f g h"]).grams(3)
    assert runs.owners.tolist() == [0, 3, 3]
    assert runs.hashes.tolist() == [
        token_hashes.hash_tokens([text]).grams(3).hashes[0] for text in ("a b c", "e f g", "f g h")
    ]
