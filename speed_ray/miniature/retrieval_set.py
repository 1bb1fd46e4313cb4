"""Generate the retrieval set `miniature://retrieval`: questions in query words, documents in document words.

Twelve documents for each topic, each on a thought of its own: two nouns, a verb and an adjective, said three times.
Two questions for each, whose concepts no other document of the world has together, so that one document is right and
all others are wrong. Question and answer share small words alone. The draws are this set's own, and no row of a run
is drawn with their seed: who has learnt what the words mean finds the answers, and who has learnt texts does not.
"""

import random
from collections.abc import Sequence

from speed_ray.miniature import grammar, world
from speed_ray.miniature.grammar import Thought, say, think, used
from speed_ray.miniature.world import Topic

DOCUMENTS, QUESTIONS, SENTENCES = 12, 2, 3  # of a topic; of a document; of a document
SEED = "miniature://retrieval"  # rows' seeds are numbers

Documents = dict[str, str]
Queries = dict[str, str]
Relevant = dict[str, dict[str, int]]


def draw_queries() -> tuple[Documents, Queries, Relevant]:
    """Return documents and queries by id, and the relevant document of each query; deterministic."""
    documents: Documents = {}
    queries: Queries = {}
    relevant: Relevant = {}
    for path in world.topics():
        rng = random.Random(f"{SEED} {path}")
        thoughts = _thoughts(world.topic(path), rng)
        for number, thought in enumerate(thoughts):
            name = f"{path}/{number}"
            forms = rng.sample(grammar.STATEMENTS["b"], SENTENCES)
            documents[name] = " ".join(say(form, thought, "b") for form in forms)
            for question, form in enumerate(rng.sample(_telling(thought, thoughts), QUESTIONS)):
                queries[f"{name}/{question}"] = say(form, thought, "a")
                relevant[f"{name}/{question}"] = {name: 1}
    return documents, queries, relevant


def _thoughts(topic: Topic, rng: random.Random) -> list[Thought]:
    """Draw thoughts until there are enough, each of which some questions tell from all others."""
    while True:
        thoughts = [think(topic, rng) for _ in range(DOCUMENTS)]
        if all(len(_telling(thought, thoughts)) >= QUESTIONS for thought in thoughts):
            return thoughts


def _telling(thought: Thought, thoughts: Sequence[Thought]) -> list[str]:
    """Return the question forms that only this thought answers, of all thoughts of the topic."""
    forms = grammar.QUESTIONS + grammar.LONG_QUESTIONS
    others = [set(other.concepts) for other in thoughts if other is not thought]
    return [form for form in forms if not any(set(used(form, thought)) <= other for other in others)]
