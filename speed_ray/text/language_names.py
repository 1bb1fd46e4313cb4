"""Name each language in one way, whatever name or code it is written by.

The names are those that prompts say and rows hold. Languages that the identifier (language.py) is trusted with have
theirs here; of all others pycountry knows the names and codes of ISO 639.
"""

import difflib
import functools
import re

from speed_ray.errors import nearest

CODES = {
    "Afrikaans": "af", "Albanian": "sq", "Amharic": "am", "Arabic": "ar", "Armenian": "hy", "Azerbaijani": "az",
    "Basque": "eu", "Belarusian": "be", "Bengali": "bn", "Bosnian": "bs", "Bulgarian": "bg", "Burmese": "my",
    "Cantonese": "yue",
    "Catalan": "ca", "Chinese": "zh", "Croatian": "hr", "Czech": "cs", "Danish": "da", "Dutch": "nl", "English": "en",
    "Estonian": "et", "Finnish": "fi", "French": "fr", "Galician": "gl", "Georgian": "ka", "German": "de",
    "Greek": "el", "Gujarati": "gu", "Hebrew": "he", "Hindi": "hi", "Hungarian": "hu", "Icelandic": "is",
    "Indonesian": "id", "Irish": "ga", "Italian": "it", "Japanese": "ja", "Kannada": "kn", "Kazakh": "kk",
    "Khmer": "km", "Korean": "ko", "Lao": "lo", "Latvian": "lv", "Lithuanian": "lt", "Macedonian": "mk",
    "Malay": "ms", "Malayalam": "ml", "Marathi": "mr", "Mongolian": "mn", "Nepali": "ne", "Norwegian": "no",
    "Persian": "fa", "Polish": "pl", "Portuguese": "pt", "Punjabi": "pa", "Romanian": "ro", "Russian": "ru",
    "Serbian": "sr", "Sinhala": "si", "Slovak": "sk", "Slovenian": "sl", "Spanish": "es", "Swahili": "sw",
    "Swedish": "sv", "Tagalog": "tl", "Tamil": "ta", "Telugu": "te", "Thai": "th", "Tibetan": "bo", "Turkish": "tr",
    "Ukrainian": "uk", "Urdu": "ur", "Uzbek": "uz", "Vietnamese": "vi", "Welsh": "cy",
}  # fmt: skip

# Codes beside those of ISO 639, and names beside ours and ISO's, some languages' own among them, in lower case.
_OTHER_NAMES = {
    "azeri": "Azerbaijani", "bahasa indonesia": "Indonesian", "bahasa malaysia": "Malay", "bahasa melayu": "Malay",
    "bangla": "Bengali", "bokmål": "Norwegian Bokmål", "cambodian": "Khmer", "castilian": "Spanish",
    "chinese (simplified)": "Chinese", "chinese (traditional)": "Traditional Chinese", "deutsch": "German",
    "dhivehi": "Divehi", "español": "Spanish", "european portuguese": "Portuguese", "farsi": "Persian",
    "filipino": "Tagalog", "flemish": "Dutch", "français": "French", "frisian": "Western Frisian", "haitian creole":
    "Haitian", "in": "Indonesian",
    "italiano": "Italian", "iw": "Hebrew", "ji": "Yiddish", "jw": "Javanese", "kyrgyz": "Kirghiz", "laotian": "Lao",
    "malaysian": "Malay", "mandarin": "Chinese", "mandarin chinese": "Chinese", "māori": "Maori",
    "meitei": "Manipuri", "mo": "Romanian", "moldovan": "Romanian", "myanmar": "Burmese", "nederlands": "Dutch",
    "nepalese": "Nepali", "nyanja": "Chichewa", "nynorsk": "Norwegian Nynorsk", "oriya": "Odia", "pashto": "Pushto",
    "português": "Portuguese", "pt-br": "Brazilian Portuguese", "pt-pt": "Portuguese", "scots gaelic":
    "Scottish Gaelic", "sesotho": "Southern Sotho", "setswana": "Tswana", "simplified chinese": "Chinese",
    "sinhalese": "Sinhala", "slovene": "Slovenian", "sorani": "Central Kurdish", "uk english": "British English",
    "us english": "American English", "uyghur": "Uighur", "valencian": "Catalan", "yue chinese": "Cantonese",
    "zh-cn": "Chinese", "zh-hans": "Chinese", "zh-hant": "Traditional Chinese", "zh-hk": "Traditional Chinese",
    "zh-sg": "Chinese", "zh-tw": "Traditional Chinese", "русский": "Russian", "العربية": "Arabic", "हिन्दी": "Hindi",
    "ไทย": "Thai", "中文": "Chinese", "日本語": "Japanese", "한국어": "Korean",
}  # fmt: skip
_NO_VARIANTS = {"all", "and", "any", "both", "except", "mixed", "non", "not", "only", "other", "the", "without"}
_MORE = (" (macrolanguage)", " (individual language)", " (post 1500)")  # behind some of ISO's names
_BY_CODE = {code: name for name, code in CODES.items()}
_BY_NAME = {name.casefold(): name for name in CODES}


def canonical_name(written: str) -> str:
    """Return the name of a language that is written by a name or a code. Raises ValueError with the nearest one.

    `zh`, `zho`, `zh-Hans`, `chinese` and `Chinese` are "Chinese". A name before which something stands that is none
    stays a name of its own: "Brazilian Portuguese".
    """
    key = " ".join(written.casefold().replace("_", "-").split())
    name = _BY_NAME.get(key) or _BY_CODE.get(key) or _OTHER_NAMES.get(key) or _iso_name(key)
    *before, last = key.split(" ")
    if name is None and last in _BY_NAME and all(map(_is_variant, before)):
        name = " ".join([*before, last]).title()
    if name is None:
        parts = re.split(r"\W+", key)  # of a name or a tag with more to it: "English, simple", "en-GB"
        known = [find(part) for find in (_BY_NAME.get, _BY_CODE.get, _iso_name) for part in parts]
        close = next(filter(None, known), key.title())
        near = difflib.get_close_matches(close, _widely_known(), n=1)
        raise ValueError(
            f"there is no language {written!r}{nearest(close, near or CODES)}; write its English name or its code of "
            "ISO 639"
        )
    return name


def _is_variant(word: str) -> bool:
    """Check whether a word before a language's name can tell a variety, as "Brazilian" does, and "not" does not."""
    is_name = word in _BY_NAME or word in _BY_CODE or word in _NO_VARIANTS
    return len(word) > 2 and word.replace("-", "").isalpha() and not is_name


def name_of_code(code: str) -> str:
    """Return the name of a language by the identifier's code; the code where it has none."""
    try:
        return canonical_name(code)
    except ValueError:  # it knows some that ISO has dropped
        return code


@functools.cache
def identifier_code(written: str) -> str | None:
    """Return the code by which the identifier knows a language, or None where it is not trusted with it."""
    try:
        words = canonical_name(written).split(" ")
    except ValueError:  # in an earlier version's run
        return None
    return CODES.get(words[-1]) or CODES.get(words[0])  # "Brazilian Portuguese", "Norwegian Bokmål"


def _iso_name(key: str) -> str | None:
    import pycountry  # 7,900 languages take a tenth of a second to load

    languages = pycountry.languages
    found = languages.get(alpha_2=key) or languages.get(alpha_3=key) or languages.get(bibliographic=key)
    found = found or next(filter(None, (languages.get(name=f"{key}{more}") for more in ("", *_MORE))), None)
    if found is None or getattr(found, "type", "") == "S":  # special codes: undetermined, multiple, no language
        return None
    code, name = getattr(found, "alpha_2", found.alpha_3), found.name
    for more in _MORE:
        name = name.removesuffix(more)
    return _BY_CODE.get(code) or _OTHER_NAMES.get(name.casefold(), name)


def _widely_known() -> set[str]:
    """Return the names of our languages, and of those with a code of two letters."""
    import pycountry

    names = (_iso_name(each.alpha_2) for each in pycountry.languages if hasattr(each, "alpha_2"))
    return {*CODES, *filter(None, names)}
