"""Rules on words hold alike in scripts with and without spaces between them."""

import unicodedata

import pytest

from speed_ray.text import rules

QUERIES = {  # "repair of a leaking roof" and the like: two to five words in English
    "Chinese": "漏水屋顶维修",
    "Japanese": "雨漏りの修理方法",
    "Thai": "ซ่อมหลังคารั่ว",
    "Lao": "ສ້ອມແປງຫຼັງຄາຮົ່ວ",
    "Burmese": "မိုးယိုသော ခေါင်မိုး ပြုပြင်ခြင်း",
    "Khmer": "ជួសជុលដំបូលលេច",
}
SENTENCE = (  # of 22 words in English
    "สภาเมืองตัดสินใจเมื่อวานนี้ที่จะสร้างสะพานใหม่ข้ามแม่น้ำเพราะสะพานเก่าไม่ปลอดภัยอีกต่อไป"
)


@pytest.mark.parametrize("language", QUERIES)
def test_a_short_query_is_short_in_a_script_without_spaces(language: str) -> None:
    assert rules.length("user_query", QUERIES[language], None, 5) is None


def test_a_sentence_is_no_paragraph_in_a_script_without_spaces() -> None:
    assert rules.length("input", SENTENCE, 10, 40) is None
    assert rules.length("input", SENTENCE * 5, None, 40) == ("too_long", "input has 110 words, wanted at most 40")


@pytest.mark.parametrize("language", QUERIES)
def test_a_passage_of_a_few_words_is_too_short_in_a_script_without_spaces(language: str) -> None:
    """A Thai query has twenty characters and is no document."""
    broken = rules.length("positive_document", QUERIES[language], 50, None)
    assert broken and broken[0] == "too_short"


def copied(query: str, document: str) -> bool:
    return rules.not_copied(("user_query", query), ("positive_document", document)) is not None


def test_a_few_words_may_stand_in_a_document() -> None:
    assert not copied("quantum computer principles", "This explains quantum computer principles to beginners.")
    assert not copied("量子计算机原理", "本文面向初学者介绍量子计算机原理，从叠加态与纠缠讲起。")


def test_a_copied_question_is_found_in_a_script_without_spaces() -> None:
    question = "量子计算机的基本原理是什么"
    assert copied(question, f"很多人都问：{question}？本文从叠加态与纠缠讲起。")
    assert copied(SENTENCE, f"ข่าว: {SENTENCE}")


def test_texts_in_two_forms_of_unicode_are_the_same() -> None:
    text = "le café près de la forêt était fermé"
    other = unicodedata.normalize("NFD", text)
    assert rules.distinct({"S1": text, "S2": other}) is not None
    assert copied(text, f"On dit que {other}.")
    assert rules.not_naming(("input_text", text), {"label": unicodedata.normalize("NFD", "fermé")}) is not None


def test_texts_in_two_widths_are_the_same() -> None:
    assert rules.distinct({"S1": "Ｏｓａｋａ　のｶﾌｪ", "S2": "osaka のカフェ"}) is not None
    assert rules.not_naming(("input_text", "ＬＥＤ が割れた"), {"label": "LED"}) is not None


@pytest.mark.parametrize(
    ("label", "text", "named"),
    [
        ("ยา", "ฉันพยายามแล้ว", False),  # the letters of "drug" inside "try"
        ("ยา", "ฉันกินยาแล้ว", True),
        ("押金退还", "请说明押金退还的规定", True),
        ("计算机", "他买了一台计算机", True),
        ("C++", "a bug in c++ code", True),
        ("art", "a party", False),
        ("क", "कि यह", False),  # a letter whose vowel sign follows
    ],
)
def test_a_label_is_named_by_whole_words(label: str, text: str, named: bool) -> None:
    assert (rules.not_naming(("input_text", text), {"label": label}) is not None) == named


PASSAGE = "The hash index finds a key in constant time, yet it cannot answer a range query at all."


def test_less_than_half_of_a_text_may_stand_in_its_passage() -> None:
    lifted = rules.own_words("query", "hash index finds a key in constant time", PASSAGE)
    assert lifted and lifted[0] == "copied"
    assert rules.own_words("query", "why can a hash index not answer a range query", PASSAGE) is None


@pytest.mark.parametrize("keywords", ["hash index", "hash index range query", "a hash index finds keys"])
def test_keywords_may_be_the_passages(keywords: str) -> None:
    assert rules.own_words("query", keywords, PASSAGE) is None


def test_a_sentence_from_a_passage_is_found_in_a_script_without_spaces() -> None:
    assert rules.own_words("query", SENTENCE, f"ข่าว: {SENTENCE}") is not None
    assert rules.own_words("query", QUERIES["Chinese"], f"关于{QUERIES['Chinese']}的文章") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Here are two questions that users ask:", "prose"),
        ("Sure! I can help with that", "prose"),
        ("What does the passage say about keys?", "names_passage"),
        ("who is cited in this article", "names_passage"),
        ("A passage that requires a bit of explanation", "names_passage"),
        ("According to the text, what is a key?", "names_passage"),
    ],
)
def test_talk_about_itself_is_no_text_of_its_own(text: str, reason: str) -> None:
    broken = rules.stands_alone("query", text)
    assert broken and broken[0] == reason


@pytest.mark.parametrize(
    "text",
    [
        "how does a document retrieval system rank",
        "where is the text of a law kept",
        "the passage of time",
        "a passage to india",
    ],
)
def test_a_query_may_be_about_texts(text: str) -> None:
    assert rules.stands_alone("query", text) is None


def test_a_text_that_goes_round_in_circles_is_found() -> None:
    broken = rules.not_repeating("query", "ring ring ring index ring")
    assert broken and broken[0] == "repeats"
    assert rules.not_repeating("query", "the law of the library of the congress") is None
    assert rules.not_repeating("query", "bora bora") is None
