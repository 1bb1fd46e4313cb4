"""Score embeddings: Spearman's correlation on STS, accuracy on classification, nDCG@10 on retrieval; and BM25 beside.

Nothing here knows how a text becomes a vector: `embed` is handed in, for a model in this process or one on a cluster.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytrec_eval
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from speed_ray.evaluation.datasets import LabelledSet, RetrievalSet, StsSet
from speed_ray.text import bm25

Vectors = np.ndarray[Any, np.dtype[np.float32]]  # (texts, width)
Embed = Callable[[Sequence[str], Literal["query", "document"]], Vectors]
Ranking = dict[str, dict[str, float]]  # the best documents of each query, by id, with their scores

MAX_RANKED = 100  # documents that a query's ranking is kept to
QUERY_BLOCK = 256  # queries whose scores of all documents are held at once
SAMPLES, EXPERIMENTS, SEED = 8, 10, 42  # texts of a label, and draws of them: mteb's, as are the draws themselves


def score_dataset(embed: Embed, dataset: StsSet | tuple[LabelledSet, LabelledSet]) -> dict[str, float]:
    """Compute the score of a set that is not ranked; `datasets.MAIN_SCORES` has its name."""
    return score_sts(embed, dataset) if isinstance(dataset, StsSet) else score_classification(embed, *dataset)


def score_sts(embed: Embed, pairs: StsSet) -> dict[str, float]:
    """Compute Spearman's correlation of cosines and human scores."""
    first, second = (unit(embed(texts, "query")) for texts in (pairs.first, pairs.second))
    return {"spearman": float(spearmanr((first * second).sum(1), pairs.scores).statistic)}


def score_classification(embed: Embed, train: LabelledSet, test: LabelledSet) -> dict[str, float]:
    """Compute the accuracy of a logistic regression on few texts of each label: as in MTEB, the mean of ten draws."""
    draws, indices = [], list(range(len(train.texts)))
    for _ in range(EXPERIMENTS):
        np.random.RandomState(SEED).shuffle(indices)  # one shuffle on top of the other, as mteb does it
        draws.append(_few_of_each(train.labels, indices))
    drawn = sorted(set().union(*draws))  # of millions of texts only these are embedded
    vectors = dict(zip(drawn, embed([train.texts[index] for index in drawn], "query"), strict=True))
    test_vectors = embed(test.texts, "query")
    accuracies = []
    for draw in draws:
        texts, labels = np.stack([vectors[index] for index in draw]), [train.labels[index] for index in draw]
        fitted = LogisticRegression(max_iter=100, random_state=SEED).fit(texts, labels)
        accuracies.append(float(np.mean(fitted.predict(test_vectors) == np.array(test.labels))))
    return {"accuracy": float(np.mean(accuracies))}


def _few_of_each(labels: Sequence[str], indices: Sequence[int]) -> list[int]:
    taken: dict[str, list[int]] = {}
    for index in indices:
        taken.setdefault(labels[index], []).append(index)
    kept = {index for of_label in taken.values() for index in of_label[:SAMPLES]}
    return [index for index in indices if index in kept]


def score_ranking(ranking: Ranking, retrieval: RetrievalSet) -> dict[str, float]:
    """Compute nDCG@10, Recall@100 and MRR@10, each a mean over the queries that have a relevant document."""
    recalls = pytrec_eval.RelevanceEvaluator(retrieval.relevant, {"recall.100"}).evaluate(ranking)
    top_10 = {query: dict(sorted(near.items(), key=lambda each: -each[1])[:10]) for query, near in ranking.items()}
    first = pytrec_eval.RelevanceEvaluator(retrieval.relevant, {"recip_rank"}).evaluate(top_10)
    # Over all queries: pytrec_eval says nothing of one for which nothing was found.
    return {
        "ndcg_at_10": float(np.mean(list(score_queries(ranking, retrieval).values()))),
        "recall_at_100": float(np.mean(list(_by_query(recalls, "recall_100", retrieval).values()))),
        "mrr_at_10": float(np.mean(list(_by_query(first, "recip_rank", retrieval).values()))),
    }


def score_queries(ranking: Ranking, retrieval: RetrievalSet) -> dict[str, float]:
    """Compute the nDCG@10 of each query, by which two models are compared; 0 where nothing was found."""
    found = pytrec_eval.RelevanceEvaluator(retrieval.relevant, {"ndcg_cut.10"}).evaluate(ranking)
    return _by_query(found, "ndcg_cut_10", retrieval)


def _by_query(found: dict[str, dict[str, float]], measure: str, retrieval: RetrievalSet) -> dict[str, float]:
    return {query: found[query][measure] if query in found else 0.0 for query in retrieval.relevant}


def rank_by_cosine(embed: Embed, retrieval: RetrievalSet) -> Ranking:
    """Rank the nearest documents of each query, but for one that is the query itself, as its id says."""
    documents, queries = list(retrieval.documents), list(retrieval.queries)
    keys = unit(embed(list(retrieval.documents.values()), "document"))
    asked = unit(embed(list(retrieval.queries.values()), "query"))
    ranking: Ranking = {}
    for begin in range(0, len(queries), QUERY_BLOCK):
        scores = asked[begin : begin + QUERY_BLOCK] @ keys.T
        for query, row in zip(queries[begin:], scores, strict=False):
            ranking[query] = _ranked(retrieval.hidden_from(query), documents, row)
    return ranking


def rank_by_bm25(retrieval: RetrievalSet) -> Ranking:
    """Rank the documents that share words with each query; of two with one score the first in the corpus is first."""
    documents = list(retrieval.documents)
    index = bm25.index_texts(list(retrieval.documents.values()))
    ranking: Ranking = {}
    for query, text in retrieval.queries.items():
        words = bm25.bm25_words(text)
        scores = index.get_scores(words) if words else np.zeros(len(documents), np.float32)
        ranking[query] = _ranked(retrieval.hidden_from(query), documents, np.where(scores > 0, scores, -np.inf))
    return ranking


def _ranked(hidden: str | None, documents: Sequence[str], scores: Vectors) -> dict[str, float]:
    others = [index for index in top_k(scores, MAX_RANKED + 1).tolist() if documents[index] != hidden]
    return {documents[index]: float(scores[index]) for index in others[:MAX_RANKED] if scores[index] > -np.inf}


def top_k(scores: Vectors, k: int) -> Any:
    """Find the indices of the k highest of many scores, the best first; of equal ones the first is first. -> (k,)"""
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    last = np.partition(scores, -k)[-k]  # to sort a million takes 0.29 s, this 0.01 s
    above = np.flatnonzero(scores > last)
    indices = np.concatenate([above, np.flatnonzero(scores == last)[: k - len(above)]])
    return indices[np.argsort(-scores[indices], kind="stable")]


def unit(vectors: Vectors) -> Vectors:
    """Normalise each vector to length 1, but for one of length 0. (texts, width) -> (texts, width)"""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
