"""BM25 finds by words alone, and is scored like an embedder."""

import math

import pytest

from speed_ray.evaluation import metrics
from speed_ray.evaluation.datasets import RetrievalSet

DOCUMENTS = {"d1": "The lamp hums.", "d2": "A LAMP, a light lamp!", "d3": "Dogs sleep.", "q1": "lamp hums lamp"}


def asked(queries, relevant):
    return RetrievalSet(DOCUMENTS, queries, relevant, 0)


def test_the_formula_is_lucenes():
    found = metrics.rank_by_bm25(asked({"q9": "Lamp?"}, {}))["q9"]
    lengths = {"d1": 3, "d2": 3, "d3": 2, "q1": 3}  # words of two letters and more
    counts = {"d1": 1, "d2": 2, "q1": 2}
    idf = math.log(1 + (4 - 3 + 0.5) / (3 + 0.5))
    mean = sum(lengths.values()) / 4
    by_hand = {
        name: idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * lengths[name] / mean)) for name, count in counts.items()
    }
    assert found == pytest.approx(by_hand)
    assert list(found) == ["d2", "q1", "d1"], "of equal scores the first in the corpus stands first"


def test_a_query_is_no_answer_to_itself():
    assert list(metrics.rank_by_bm25(asked({"q1": "lamp"}, {}))["q1"]) == ["d2", "d1"]


@pytest.mark.parametrize("text", ["", "?!", "unheard of"])
def test_what_shares_no_word_is_not_found_and_counts_as_zero(text):
    retrieval = asked({"q2": text, "q3": "dogs"}, {"q2": {"d1": 1}, "q3": {"d3": 1}})
    ranking = metrics.rank_by_bm25(retrieval)
    assert ranking["q2"] == {}
    assert metrics.score_ranking(ranking, retrieval) == {"ndcg_at_10": 0.5, "recall_at_100": 0.5, "mrr_at_10": 0.5}


@pytest.mark.parametrize(
    ("query", "answer", "other"),
    [
        ("退还押金", "租房合同里关于押金退还的规定", "北京今天的天气很好"),
        ("猫", "我喜欢猫", "我喜欢跑步"),
        ("หลังคารั่ว", "วิธีซ่อมหลังคารั่ว", "ตั๋วเครื่องบินราคาถูก"),
        ("हिन्दी भाषा", "यह हिन्दी में लिखा है", "मौसम अच्छा है"),  # whose vowel signs are no letters
        ("café", "un cafe\u0301 noir", "un thé vert"),
    ],
)
def test_words_are_found_in_any_script(query, answer, other):
    retrieval = RetrievalSet({"other": other, "answer": answer}, {"q": query}, {}, 0)
    assert list(metrics.rank_by_bm25(retrieval)["q"]) == ["answer"]


def test_documents_without_a_word_are_not_found():
    retrieval = RetrievalSet({"d1": "?", "d2": "a"}, {"q": "lamp", "r": "a"}, {}, 0)
    assert metrics.rank_by_bm25(retrieval) == {"q": {}, "r": {}}
