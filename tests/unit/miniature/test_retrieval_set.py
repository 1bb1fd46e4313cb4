"""The miniature world's own retrieval set: each question has one answer, which its words do not give away."""

from speed_ray.evaluation import datasets, metrics
from speed_ray.miniature import retrieval_set, truth

DOCUMENTS, QUERIES, RELEVANT = retrieval_set.draw_queries()
LOADED = datasets.load_dataset("retrieval", (datasets.MINIATURE,))


def topic_of(name):
    return "/".join(name.split("/")[:3])


def test_every_topic_has_its_documents_and_every_document_its_questions():
    assert len(DOCUMENTS) == len(set(DOCUMENTS.values())) == 24 * 12
    assert len(QUERIES) == len(set(QUERIES.values())) == 24 * 12 * 2
    assert sorted(RELEVANT) == sorted(QUERIES)
    assert retrieval_set.draw_queries() == (DOCUMENTS, QUERIES, RELEVANT)


def test_one_document_alone_has_all_that_a_question_asks_for():
    meant = {name: set(truth.meant(text, topic_of(name))) for name, text in DOCUMENTS.items()}
    for query, text in QUERIES.items():
        asked = set(truth.meant(text, topic_of(query)))
        assert asked and [name for name in DOCUMENTS if asked <= meant[name]] == list(RELEVANT[query])


def test_questions_are_in_query_words_and_documents_in_document_words():
    for texts, side in ((QUERIES, "a"), (DOCUMENTS, "b")):
        assert {truth.side(text, topic_of(name), side) for name, text in texts.items()} == {1.0}


def test_who_knows_what_words_mean_finds_every_answer_and_word_overlap_few():
    meant = {name: set(truth.meant(text, topic_of(name))) for name, text in DOCUMENTS.items()}
    found = {
        query: {name: float(len(set(truth.meant(text, topic_of(query))) & meant[name])) for name in DOCUMENTS}
        for query, text in QUERIES.items()
    }
    assert metrics.score_ranking(found, LOADED)["ndcg_at_10"] == 1.0
    assert metrics.score_ranking(metrics.rank_by_bm25(LOADED), LOADED)["ndcg_at_10"] < 0.2
