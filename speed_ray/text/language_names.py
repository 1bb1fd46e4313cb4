"""Name each language in one way, whatever name or code it is written by.

The names are those that prompts say and rows hold. Languages that the identifier (language.py) is trusted with have
theirs here; of all others pycountry knows the names and codes of ISO 639.
"""

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
    "bahasa indonesia": "Indonesian", "bahasa malaysia": "Malay", "bahasa melayu": "Malay", "bangla": "Bengali",
    "castilian": "Spanish", "chinese (simplified)": "Chinese", "chinese (traditional)": "Traditional Chinese",
    "deutsch": "German", "español": "Spanish", "european portuguese": "Portuguese", "farsi": "Persian",
    "filipino": "Tagalog", "flemish": "Dutch", "français": "French", "italiano": "Italian", "kyrgyz": "Kirghiz",
    "malaysian": "Malay", "mandarin": "Chinese", "mandarin chinese": "Chinese", "myanmar": "Burmese",
    "pashto": "Pushto", "português": "Portuguese", "pt-br": "Brazilian Portuguese", "pt-pt": "Portuguese",
    "simplified chinese": "Chinese", "slovene": "Slovenian", "yue chinese": "Cantonese", "zh-cn": "Chinese",
    "zh-hans": "Chinese", "zh-hant": "Traditional Chinese", "zh-hk": "Traditional Chinese", "zh-sg": "Chinese",
    "zh-tw": "Traditional Chinese", "русский": "Russian", "العربية": "Arabic", "हिन्दी": "Hindi", "ไทย": "Thai",
    "中文": "Chinese", "日本語": "Japanese", "한국어": "Korean",
}  # fmt: skip
_BY_CODE = {code: name for name, code in CODES.items()}
_BY_NAME = {name.casefold(): name for name in CODES}


def canonical_name(written: str) -> str:
    """Return the name of a language that is written by a name or a code. Raises ValueError with the nearest one.

    `zh`, `zho`, `zh-Hans`, `chinese` and `Chinese` are "Chinese". A name before which something stands that is none
    stays a name of its own: "Brazilian Portuguese".
    """
    key = " ".join(written.casefold().replace("_", "-").split())
    name = _BY_NAME.get(key) or _BY_CODE.get(key) or _OTHER_NAMES.get(key) or _iso_name(key)
    if name is None and key.split(" ")[-1] in _BY_NAME:
        before, _, last = key.rpartition(" ")
        name = f"{before.title()} {_BY_NAME[last]}"
    if name is None:
        parts = re.split(r"\W+", key)  # of a name or a tag with more to it: "English, simple", "en-GB"
        known = (_BY_NAME.get(part) or _BY_CODE.get(part) or _iso_name(part) for part in parts)
        close = next(filter(None, known), parts[-1].capitalize())
        raise ValueError(
            f"there is no language {written!r}{nearest(close, CODES)}; write its English name or its code of ISO 639"
        )
    return name


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
    found = found or languages.get(name=key)
    if found is None or getattr(found, "type", "") == "S":  # special codes: undetermined, multiple, no language
        return None
    code = getattr(found, "alpha_2", found.alpha_3)
    name = found.name.removesuffix(" (individual language)")  # of a group that has the same name
    return _BY_CODE.get(code) or _OTHER_NAMES.get(name.casefold(), name)
