"""Scores of embeddings that can be told by hand, and those that mteb and scikit-learn come to."""

import math

import numpy as np
import pytest

from speed_ray.evaluation import metrics
from speed_ray.evaluation.datasets import LabelledSet, RetrievalSet, StsSet

SET = RetrievalSet(
    documents={"d1": "lamp", "d2": "lamp light", "d3": "dog", "q1": "lamp"},
    queries={"q1": "lamp", "q2": "dog"},
    relevant={"q1": {"d2": 1, "d3": 0}, "q2": {"d3": 2, "d1": 1}},
    unanswered=0,
)


def by_words(texts, _):
    return np.array([[float(word in text.split()) for word in ("lamp", "light", "dog")] for text in texts], np.float32)


def test_a_query_for_which_nothing_was_found_scores_0():
    assert metrics.score_queries({"q1": {"d1": 0.9}}, SET)["q2"] == 0.0


def test_documents_are_ranked_by_cosine_and_none_answers_itself():
    found = metrics.rank_by_cosine(by_words, SET)
    assert list(found["q1"]) == ["d1", "d2", "d3"]
    assert found["q1"] == pytest.approx({"d1": 1.0, "d2": 1 / math.sqrt(2), "d3": 0.0})


def test_a_document_that_is_judged_relevant_is_found_whatever_its_id():
    alike = RetrievalSet(
        documents={"1": "lamp", "2": "dog"},
        queries={"1": "lamp", "2": "dog"},
        relevant={"1": {"1": 1}, "2": {"2": 1}},
        unanswered=0,
    )
    for ranking in (metrics.rank_by_cosine(by_words, alike), metrics.rank_by_bm25(alike)):
        assert metrics.score_ranking(ranking, alike) == {"ndcg_at_10": 1.0, "recall_at_100": 1.0, "mrr_at_10": 1.0}


@pytest.mark.parametrize("most", [1, 7, 50, 99, 100, 200])
def test_the_highest_are_those_of_a_whole_sort(most):
    scores = np.random.RandomState(0).randint(0, 9, 100).astype(np.float32)
    assert metrics.top_k(scores, most).tolist() == np.argsort(-scores, kind="stable")[:most].tolist()


def test_scores_of_a_ranking():
    scores = metrics.score_ranking({"q1": {"d1": 0.9, "d2": 0.5}, "q2": {"d3": 0.7, "d2": 0.6, "d1": 0.1}}, SET)
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    assert scores["ndcg_at_10"] == pytest.approx((second + (2 + third) / (2 + second)) / 2)
    assert scores["mrr_at_10"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["recall_at_100"] == 1.0


def test_what_stands_behind_the_tenth_place_is_no_first_answer():
    near = {f"x{place}": 1.0 - place / 100 for place in range(10)} | {"d2": 0.1}
    scores = metrics.score_ranking({"q1": near, "q2": {"d3": 1.0}}, SET)
    assert scores["mrr_at_10"] == pytest.approx(1 / 2) and scores["recall_at_100"] == pytest.approx((1 + 1 / 2) / 2)


def test_sts_is_a_correlation_of_ranks():
    pairs = StsSet(["lamp", "lamp", "lamp"], ["lamp", "lamp light", "dog"], [5.0, 4.9, 0.0])
    assert metrics.score_sts(by_words, pairs) == {"spearman": pytest.approx(1.0)}
    pairs = StsSet(pairs.first, pairs.second, [0.0, 1.0, 2.0])
    assert metrics.score_sts(by_words, pairs) == {"spearman": pytest.approx(-1.0)}


def test_accuracy_is_mtebs(monkeypatch):
    """The same draws, the same regression: mteb's own figure on the same vectors."""
    rng = np.random.RandomState(0)
    vectors = {f"{label} {number}": rng.randn(4) + label for label in range(3) for number in range(40)}
    texts = list(vectors)
    split = [LabelledSet(part, [text.split()[0] for text in part]) for part in (texts[::2], texts[1::2])]

    def embed(asked, _):
        return np.array([vectors[text] for text in asked], np.float32)

    assert metrics.score_classification(embed, *split)["accuracy"] == pytest.approx(_by_mteb(embed, *split))


def _by_mteb(embed, trained, tested):
    from mteb.abstasks.classification import AbsTaskClassification
    from sklearn.linear_model import LogisticRegression

    idxs, found = None, []
    for number in range(AbsTaskClassification.n_experiments):
        drawn, idxs, places = AbsTaskClassification._undersample_data(_Task(), _Column(trained.labels), number, idxs)
        regression = LogisticRegression(**AbsTaskClassification.evaluator_model.get_params())
        fitted = regression.fit(embed(trained.texts, "query")[places], drawn)
        found.append(np.mean(fitted.predict(embed(tested.texts, "query")) == np.array(tested.labels)))
    return np.mean(found)


class _Task:
    seed, samples_per_label, label_column_name = 42, 8, "label"


class _Column(list):
    """As much of a dataset as mteb's draw looks at."""

    def __getitem__(self, key):
        return list(self) if key == "label" else super().__getitem__(key)

    def select(self, places):
        return [super(_Column, self).__getitem__(place) for place in places]
