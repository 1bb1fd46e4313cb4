"""Passages are whole sentences of one section, no longer than asked, and lie where their spans say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from speed_ray.documents.splitter import Span, Splitter


def tokenizer() -> Tokenizer:
    """Make a tokenizer with a token for each word and each sign."""
    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def split(text: str, tokens: int, overlap: int = 0) -> list[Span]:
    return Splitter(tokenizer(), tokens, overlap).split_documents([text])[0]


def texts(text: str, tokens: int, overlap: int = 0) -> list[str]:
    return [text[span.start : span.end] for span in split(text, tokens, overlap)]


def test_a_document_that_fits_is_one_passage_with_its_headings_inside() -> None:
    text = "# One\n\nFirst.\n\n# Two\n\nSecond.\n"
    assert texts(text, 50) == [text.strip()]


def test_a_longer_one_is_split_at_its_headings_first() -> None:
    text = "Before it.\n# One\nFirst of all.\n## Below\nUnder one.\n# Two\nSecond."
    assert [(text[span.start : span.end], span.headings) for span in split(text, 10)] == [
        ("Before it.", ()),
        ("First of all.\n## Below\nUnder one.", ("One",)),
        ("Second.", ("Two",)),
    ]


def test_a_section_below_another_names_both_headings() -> None:
    text = "# One\nFirst of all things.\n## Below\nUnder the one thing."
    assert [span.headings for span in split(text, 6)] == [("One",), ("One", "Below")]


def test_passages_of_one_text_are_about_equally_long() -> None:
    assert [span.tokens for span in split("A b. " * 11, 30)] == [18, 15]


@pytest.mark.parametrize("overlap", [0, 3, 4])
def test_a_heading_without_a_text_of_its_own_is_passed_by(overlap: int) -> None:
    text = "# One\n\n\n## Two\n\n" + "A b. " * 9 + "\n\n\n# Three\n"
    found = texts(text, 5, overlap)
    assert {each.replace(" ", "") for each in found} == {"Ab."} if overlap < 3 else len(found) > 4
    assert all("A b." in each for each in found)


def test_an_overlap_repeats_whole_sentences() -> None:
    assert texts("A b. C d. E f. G h.", 6, 3) == ["A b. C d.", "C d. E f.", "E f. G h."]


def test_a_sentence_longer_than_a_passage_is_cut_between_words() -> None:
    assert texts("one two three four five", 2) == ["one two", "three four", "five"]


def test_a_number_sign_in_code_is_no_heading() -> None:
    assert texts("Some words here.\n```\n# a comment\n```\nMore words here.", 20) != []
    assert all(span.headings == () for span in split("Words.\n```\n# a comment\n```\n" + "More words. " * 9, 9))


def test_what_has_no_letter_is_no_passage() -> None:
    assert texts("* * *", 20) == []


@pytest.mark.parametrize("overlap", [0, 3])
@given(text=st.text(alphabet="ab.# \n\u3002\u732b!?`", max_size=200))
def test_every_word_lies_in_a_passage_no_longer_than_asked(text: str, overlap: int) -> None:
    spans = split(text, 5, overlap)
    assert all(span.tokens <= 5 and text[span.start : span.end].strip() for span in spans)
    covered = {place for span in spans for place in range(span.start, span.end)}
    headings = {place for line in _heading_lines(text) for place in line}
    assert {place for place, sign in enumerate(text) if sign.isalnum()} <= covered | headings


def _heading_lines(text: str) -> list[range]:
    from speed_ray.documents.headings import find_headings

    return [range(each.start, each.end) for each in find_headings(text)]
