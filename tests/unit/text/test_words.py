"""Words are found in any script, as a reader of it would count them, whatever form of Unicode they are written in."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speed_ray.text.words import fold, split_words, word_ends

MIXED = st.text(alphabet="ab Üß。_+€水库หลังคา\x1f\u00ad\u200b\u0301", max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's a “Lamp”—twice.", ["it", "s", "a", "lamp", "twice"]),
        ("snake_case, C++", ["snake", "case", "c"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
        ("اردو زبان۔", ["اردو", "زبان"]),
        ("雨漏りの修理方法", ["雨漏り", "の", "修理", "方法"]),
        ("高血压的症状。", ["高血压", "的", "症状"]),
        ("ซ่อมหลังคารั่ว", ["ซ่อม", "หลังคา", "รั่ว"]),
        ("ສ້ອມແປງຫຼັງຄາຮົ່ວ", ["ສ້ອມແປງ", "ຫຼັງຄາ", "ຮົ່ວ"]),
        ("ជួសជុលដំបូលលេច", ["ជួសជុល", "ដំបូល", "លេច"]),
        ("အိမ်ငှား", ["အိမ်", "ငှား"]),
        ("iPhone手机3个", ["iphone", "手机", "3", "个"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("?!…", []),
    ],
)
def test_words_of_a_script(text: str, expected: list[str]) -> None:
    assert split_words(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("été", unicodedata.normalize("NFD", "été")),
        ("ガラス", unicodedata.normalize("NFD", "ガラス")),
        ("한국어", unicodedata.normalize("NFD", "한국어")),
        ("co\u00adoperate", "cooperate"),
        ("\ufeffone two", "one two"),
        ("❤\ufe0f", "❤"),
        ("a\x1fb", "a b"),
        ("half \ud800 a pair", "half a pair"),
        ("ＡＢＣ　１２３", "abc 123"),
        ("ｶﾞﾗｽ", "ガラス"),
        ("ﬁsh № ½", "fish no 1⁄2"),
        ("𝐁𝐨𝐥𝐝", "bold"),
        ("ﻼ", "لا"),
    ],
)
def test_what_a_reader_cannot_see_makes_no_other_word(one: str, other: str) -> None:
    assert split_words(one) == split_words(other) != []


@pytest.mark.parametrize("text", ["ΐ", "İstanbul", "ﬁsh", "é"])
def test_folding_knows_no_form_of_unicode(text: str) -> None:
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))


def test_the_vowel_signs_that_a_dictionary_has_as_one_stay_one() -> None:
    assert split_words("ทำน้ำ") == ["ทำ", "น้ำ"]
    assert split_words("ນຳໝູ່") == ["ນຳ", "ໝູ່"]


@given(st.lists(MIXED, max_size=5))
def test_a_space_parts_words_whatever_stands_beside_it(texts: list[str]) -> None:
    assert split_words(" ".join(texts)) == [word for text in texts for word in split_words(text)]


def test_words_end_where_their_dictionary_says() -> None:
    assert word_ends("พยายาม ยา") == {6, 7, 9}
