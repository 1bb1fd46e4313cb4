"""Decide by the judges' scores which curated examples are learnt from, and with which texts -> `scored_examples`.

A row that a gate refuses is a reject with the gate's number. A mined negative that the deciding judge puts above the
positive is left out: it may well be a right answer. From `score.further_positives` above it on it is learnt as one.
One that was written with the positive is neither: one of the two is wrong, and the row is refused. With
`score.relabel` the best passage above the positive takes its place. Held-out rows pass the same gates, but keep their
positives: models are compared by them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from speed_ray.curation import gates, mixture
from speed_ray.curation.judge_faults import one_score_to_all
from speed_ray.curation.kind_sides import answers_are_passages, negatives_are_mined
from speed_ray.curation.label_gate import LabelCounts
from speed_ray.errors import UserError
from speed_ray.executor.stage import artifact_identity, count_records
from speed_ray.recipes.schema import Recipe
from speed_ray.recipes.score_settings import LLM, Score
from speed_ray.records import HELD_OUT, SCORED, CuratedRow, JudgeScores, PairScoresRow, ScoredRow
from speed_ray.stages import driver_stage
from speed_ray.stages.language_models import Said, read_said, said_identity
from speed_ray.stages.pair_scores import Judging, plan_judging, publish_judging
from speed_ray.storage.fingerprint import code_digests, identity_fields
from speed_ray.storage.run import CURATED_EXAMPLES, SCORED_EXAMPLES, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.storage.shards import Artifact
from speed_ray.storage.trained_models import Model

WEIGHTS = "weights"  # of the plan's identity: how BM25 was weighed, which a repair may change


def prepare_scoring(run: Run, recipe: Recipe) -> Judging:
    """Plan the judges' scores. Raises UserError where the input is unfinished or empty, or a judge cannot be had."""
    if recipe.score is None:
        raise UserError(
            "score: this recipe has no such section, so nobody is to judge.\nAdd one: `score: {}` has all defaults."
        )
    return plan_judging(run, recipe, recipe.score)


def publish_scored(run: Run, judging: Judging, recipe: Recipe) -> Artifact:
    """Let the judges score the pairs, then publish those that are learnt from.

    Raises UserError for a judge that gives one score to all.
    """
    curated, pair_scores = run.artifact(CURATED_EXAMPLES), publish_judging(run, judging, recipe)
    fitted = mixture.fit_weight(_gains(pair_scores))
    labels = count_labels(curated)
    decider = Decider(judging.settings, recipe.has_reference, recipe.is_grounded, fitted.bm25, labels)
    decider.refuse_blind_judges(zip(pair_scores.records(), read_said(run, recipe), strict=True))
    inputs = {"input": artifact_identity(curated), "scores": artifact_identity(pair_scores)}
    plan = _plan(inputs | said_identity(run, recipe), count_records(curated), decider, fitted)
    artifact = run.artifact(SCORED_EXAMPLES)
    existing = artifact.plan()
    if existing is not None and existing.digest != plan.digest and Model(run, "embedder").plan() is None:
        artifact.replace_plan(plan, "was decided by other judges or gates, or of other examples")
    pairs = zip(curated.records(), pair_scores.records(), read_said(run, recipe), strict=True)
    driver_stage.publish_rows(artifact, plan, SCORED, (decider.decide(*pair) for pair in pairs))
    return artifact


def _plan(inputs: dict[str, Any], rows: int, decider: "Decider", fitted: mixture.Fitted) -> Plan:
    identity = {
        "code": code_digests(__name__, unused=["stages.pair_scores", "stages.fluency", "stages.relevance"]),
        **inputs,
        "settings": identity_fields(decider.settings),
        "judges": decider.names,
        WEIGHTS: fitted._asdict(),
    }
    return Plan(SCORED_EXAMPLES, rows, decider.settings.shard_rows, input=CURATED_EXAMPLES, identity=identity)


def count_labels(curated: Artifact) -> LabelCounts:
    """Count the labels that curated examples of each task have."""
    files = curated.record_files().values()
    columns = ["parent_id", "kind", "positive"]
    return LabelCounts(row for file in files for row in curated.read(file.path).select(columns).to_pylist())


def _gains(pair_scores: Artifact) -> Iterator[list[float]]:
    for file in pair_scores.record_files().values():
        yield from filter(None, pair_scores.read(file.path)["gains"].to_pylist())


@dataclass(frozen=True)
class Decider:
    """Decide about one row at a time."""

    settings: Score
    has_reference: bool
    grounded: bool
    weight: float  # of BM25 in the mixture
    labels: LabelCounts

    @property
    def names(self) -> list[str]:
        """List the judges whose scores are kept."""
        return self.settings.judge_names(self.has_reference)

    @property
    def judge(self) -> str:
        """Name the judge who decides."""
        return self.settings.deciding_judge(self.has_reference)

    def decide(self, row: CuratedRow, judged: PairScoresRow, said: Said) -> driver_stage.RowResult:
        """Return the scored row, or its reject; with what is counted of its judges."""
        if LLM in self.names and said.answers is None:
            return _reject(row, "unjudged", "one of its texts has no answer: see the rejects of relevance")
        scores = self._scores(judged, said)
        texts, own = [row["positive"], *row["negatives"], *judged["neighbours"]], len(row["negatives"])
        positive = self._best(row, scores)
        numbers = self._numbers(row, judged, said, scores, positive)
        counted = count_agreement({name: scores[name][: 1 + own] for name in self.names})
        if broken := gates.refusal(numbers, self.settings.gates):
            return _reject(row, *broken)._replace(judged=counted)
        further = self._further_positives(row, scores, positive)
        kept = [place for place in self._kept_negatives(row, scores, positive) if place not in further]
        dropped = [texts[place] for place in range(1, 1 + own) if place not in (*kept, *further, positive)]
        record: ScoredRow = {
            **row,
            "positive": texts[positive],
            "negatives": [texts[place] for place in kept],
            "further_positives": [texts[place] for place in further],
            "scores": [_judge_scores(name, scores[name], positive, further, kept) for name in self.names],
            "gates": [{"gate": name, "number": at} for name, at in numbers._asdict().items() if at is not None],
            "relabelled_from": row["positive"] if positive else "",
            "dropped": dropped,
        }
        counted.update({"relabelled": int(positive > 0), "dropped": len(dropped), "further": len(further)})
        return driver_stage.RowResult(row["id"], record, None, judged=counted)

    def numbers(self, row: CuratedRow, judged: PairScoresRow, said: Said) -> gates.Numbers:
        """Return the numbers by which gates decide about a row."""
        scores = self._scores(judged, said)
        return self._numbers(row, judged, said, scores, self._best(row, scores))

    def _scores(self, judged: PairScoresRow, said: Said) -> dict[str, Sequence[float]]:
        by_model: dict[str, Sequence[float]] = {LLM: said.answers} if said.answers else {}
        return gates.all_scores(judged, self.weight) | by_model

    def _numbers(
        self, row: CuratedRow, judged: PairScoresRow, said: Said, scores: gates.Candidates, positive: int
    ) -> gates.Numbers:
        negatives = len(row["negatives"])
        found = gates.gate_numbers(judged, scores, self.judge, negatives, self.grounded, positive)
        return found._replace(label=self.labels.others(row), fluency=said.fluency, logprob=said.logprob)

    def _best(self, row: CuratedRow, scores: gates.Candidates) -> int:
        """Return the place of the positive among a row's candidates: 0 where it stays as it is."""
        by = self._better_answers(row, scores)
        return max(range(len(by)), key=lambda place: (by[place], -place)) if by and self.settings.relabel else 0

    def _further_positives(self, row: CuratedRow, scores: gates.Candidates, positive: int) -> list[int]:
        """Return the places of what answers a row's query besides: far enough above the row's own positive."""
        by, bound = self._better_answers(row, scores), self.settings.further_positives
        if not by or bound is None:
            return []
        return [place for place in range(1, len(by)) if place != positive and by[place] - by[0] >= bound]

    def _better_answers(self, row: CuratedRow, scores: gates.Candidates) -> Sequence[float] | None:
        """Return the scores by which a row's answers may change; None where they may not, or nobody can tell."""
        kind = row["kind"]
        is_open = row["split"] != HELD_OUT and answers_are_passages(kind) and negatives_are_mined(kind, self.grounded)
        return gates.leads(kind, scores, self.judge) if is_open else None

    def _kept_negatives(self, row: CuratedRow, scores: gates.Candidates, positive: int) -> list[int]:
        """Return the places of the negatives that are no right answers: those below the row's own positive."""
        places = [place for place in range(1, 1 + len(row["negatives"])) if place != positive]
        gate, by = gates.order_gate(row["kind"]), gates.leads(row["kind"], scores, self.judge)
        bound = None if gate is None else getattr(self.settings.gates, gate)
        if by is None or bound is None or not negatives_are_mined(row["kind"], self.grounded):
            return places
        return [place for place in places if by[0] - by[place] >= bound]

    def refuse_blind_judges(self, rows: Iterable[tuple[PairScoresRow, Said]]) -> None:
        """Raise UserError for a judge that gives one score to all candidates of each row."""
        blind: dict[str, float] = {}
        for number, (row, said) in enumerate(pair for pair in rows if self._can_tell(*pair)):
            scores = self._scores(row, said)
            asked = blind if number else self.names
            blind = {name: scores[name][0] for name in asked if len(set(scores[name])) == 1}
            if not blind:
                return
        for name, score in blind.items():
            raise one_score_to_all(name, score)

    def _can_tell(self, row: PairScoresRow, said: Said) -> bool:
        """Tell if a row has several candidates, and every judge's scores of them."""
        return len(row["judged"][0]["scores"]) > 1 and (said.answers is not None or LLM not in self.names)


def count_agreement(scores: gates.Candidates) -> Counter[str]:
    """Count what judges say alike of one row's positive and negatives, by their scores of these.

    rows, first/A          rows with negatives, and those whose positive judge A puts first
    alike/A/B              rows of which A and B say the same of that
    pairs/A/B, order/A/B   pairs of texts to which neither gives one score, and those that both put in one order
    """
    counted: Counter[str] = Counter()
    if any(len(given) < 2 for given in scores.values()):
        return counted
    is_first = {name: given[0] > max(given[1:]) for name, given in scores.items()}
    counted.update({"rows": 1, **{f"first/{name}": int(first) for name, first in is_first.items()}})
    for one, other in combinations(scores, 2):
        counted[f"alike/{one}/{other}"] = int(is_first[one] == is_first[other])
        ways = [
            (scores[one][left] - scores[one][right]) * (scores[other][left] - scores[other][right])
            for left, right in combinations(range(len(scores[one])), 2)
        ]
        counted[f"pairs/{one}/{other}"] = sum(way != 0 for way in ways)
        counted[f"order/{one}/{other}"] = sum(way > 0 for way in ways)
    return counted


def _reject(row: CuratedRow, reason: str, detail: str) -> driver_stage.RowResult:
    text = f"{row['query']}\n{row['positive']}"
    return driver_stage.reject(row["id"], row["parent_id"], SCORED_EXAMPLES, reason, detail, text, row["kind"])


def _judge_scores(
    name: str, scores: Sequence[float], positive: int, further: Sequence[int], negatives: Sequence[int]
) -> JudgeScores:
    return {
        "judge": name,
        "positive": scores[positive],
        "further_positives": [scores[place] for place in further],
        "negatives": [scores[place] for place in negatives],
    }
