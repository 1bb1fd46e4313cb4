"""A text that is clearly in another language is seen, wherever in it, and hardly a good one is taken for such."""

import csv
import random

import pytest

from speed_ray.text.language import other_language
from tests.helpers.paths import SHARED

DATA = SHARED / "data"
ENGLISH = "This is an English sentence, and it is long enough for anybody to see what language it is written in. "
GERMAN = "Der Rest dieses Textes ist auf Deutsch geschrieben, und zwar sehr ausführlich. "


def test_english_is_not_taken_for_another_language() -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not on this machine")
    with open(DATA / "stsb-en-dev.csv", newline="") as file:
        texts = [text for row in csv.reader(file) for text in row[:2]]
    with open(DATA / "banking77-test.csv", newline="") as file:
        texts += [row["text"] for row in csv.DictReader(file)]
    rng, vocabulary = random.Random(0), sorted({word for text in texts for word in text.lower().split()})
    salads = [" ".join(rng.choices(vocabulary, k=rng.choice([12, 60]))) for _ in range(1000)]
    assert [text for text in texts + salads if other_language(text, "English")] == []


@pytest.mark.parametrize(
    ("text", "code", "own"),
    [
        ("Der Versicherer lehnt die Zahlung ab, weil der Schaden zu spät gemeldet wurde.", "de", "German"),
        ("La compagnie refuse de payer parce que le dossier a été déposé trop tard.", "fr", "French"),
        ("La compañía se niega a pagar porque la reclamación llegó demasiado tarde.", "es", "Spanish"),
        ("Страховая компания отказалась платить, потому что заявление поступило поздно.", "ru", "Russian"),
        ("保险公司拒绝赔付，因为报案太晚，客户非常生气并且要求退款。", "zh", "Chinese"),
    ],
)
def test_another_language_is_seen(text: str, code: str, own: str) -> None:
    assert other_language(text, "English") == code
    assert other_language(text, own) is None


@pytest.mark.parametrize("name", ["English", "english", "en", "British English"])
def test_a_language_is_checked_by_whatever_name(name: str) -> None:
    assert other_language(GERMAN, name) == "de"


@pytest.mark.parametrize("name", ["Hausa", "Elvish"])
def test_a_language_that_the_identifier_is_not_trusted_with_is_not_checked(name: str) -> None:
    assert other_language(GERMAN, name) is None


def test_a_text_that_goes_on_in_another_language_is_seen() -> None:
    assert other_language(2 * ENGLISH + 10 * GERMAN, "English") == "de"


@pytest.mark.parametrize("text", [GERMAN + 10 * ENGLISH, 5 * ENGLISH + GERMAN + 5 * ENGLISH, 10 * ENGLISH + GERMAN])
def test_a_quotation_makes_no_other_language(text: str) -> None:
    assert other_language(text, "English") is None


def test_shouting_is_still_english() -> None:
    assert other_language("WHERE IS MY MONEY I WAS USING MY CARD AND IT DISAPPEARED FROM MY POCKET", "English") is None
