"""A language has one name, whatever name or code it is written by; what is none is refused with the nearest."""

import pytest

from speed_ray.text.language_names import CODES, canonical_name, identifier_code


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Chinese", "Chinese"),
        ("zh", "Chinese"),
        ("ZHO", "Chinese"),
        ("zh-Hans", "Chinese"),
        ("zh_CN", "Chinese"),
        ("Simplified Chinese", "Chinese"),
        ("中文", "Chinese"),
        ("Deutsch", "German"),
        ("zh-Hant", "Traditional Chinese"),
        ("english", "English"),
        (" German ", "German"),
        ("no", "Norwegian"),
        ("Farsi", "Persian"),
        ("brazilian portuguese", "Brazilian Portuguese"),
        ("gre", "Greek"),
        ("hausa", "Hausa"),
        ("ha", "Hausa"),
        ("swh", "Swahili"),
        ("npi", "Nepali"),
        ("or", "Odia"),
        ("Oriya", "Odia"),
        ("Uyghur", "Uighur"),
        ("oc", "Occitan"),
        ("Konkani", "Konkani"),
        ("iw", "Hebrew"),
        ("US English", "American English"),
        ("latin american spanish", "Latin American Spanish"),
    ],
)
def test_a_language_has_one_name(written: str, name: str) -> None:
    assert canonical_name(written) == name
    assert canonical_name(name) == name


def test_each_of_our_names_and_codes_is_itself() -> None:
    assert {code: canonical_name(code) for code in CODES.values()} == {code: name for name, code in CODES.items()}


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("Engish", "did you mean 'English'?"),
        ("en-GB", "did you mean 'English'?"),
        ("Serbian in Latin script", "did you mean 'Serbian'?"),
        ("brazilian portugese", "did you mean 'Portuguese'?"),
        ("", "valid: Afrikaans, "),
        (" not English", "did you mean 'English'?"),
        ("no English", "did you mean 'English'?"),
        ("en English", "did you mean 'English'?"),
        ("English and German", "did you mean 'English'?"),
        ("German English", "did you mean 'German'?"),
        ("50 English", "did you mean 'English'?"),
        ("Uigur", "did you mean 'Uighur'?"),
        ("Yourba", "did you mean 'Yoruba'?"),
        ("Elvish", "write its English name or its code of ISO 639"),
        ("L", "valid: "),  # the type of a living language, in ISO's table
    ],
)
def test_an_unknown_language_is_refused_with_the_nearest(written: str, hint: str) -> None:
    with pytest.raises(ValueError, match="there is no language") as refused:
        canonical_name(written)
    assert hint in str(refused.value)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("Traditional Chinese", "zh"),
        ("nb", "no"),
        ("Norwegian Nynorsk", "no"),
        ("Swiss German", "de"),
        ("Elvish", None),
    ],
)
def test_a_variant_is_known_to_the_identifier_by_its_language(written: str, code: str | None) -> None:
    assert identifier_code(written) == code


@pytest.mark.parametrize("code", ["und", "mul", "mis", "zxx"])
def test_a_code_of_no_language_in_particular_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match=f"there is no language '{code}'"):
        canonical_name(code)


def test_a_tag_with_a_code_of_three_letters_is_refused_with_its_language() -> None:
    with pytest.raises(ValueError, match="did you mean 'Chinese'"):
        canonical_name("zho_Hans")
