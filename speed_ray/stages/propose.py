"""The junior writes a list of candidates for every prompt: the root data that is judged and critiqued (SPEED, 3.2)."""

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage
from speed_ray.prompts.parse import parse_example
from speed_ray.recipes.schema import EngineConfig, Recipe
from speed_ray.records import CANDIDATES as CANDIDATES_SCHEMA
from speed_ray.records import Rejected, Row
from speed_ray.stages.example_request import PROPOSE, id_columns, plan_of, request_of, to_json
from speed_ray.storage.fingerprint import model_label
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import CANDIDATES, Run
from speed_ray.storage.shards import Plan


def plan(run: Run, recipe: Recipe, engine: EngineConfig) -> Plan:
    """`propose.lists` prompts for an engine, the junior."""
    settings = recipe.propose
    return plan_of(run, recipe, CANDIDATES, settings.lists, engine, settings, candidates=settings.candidates)


def stage(recipe: Recipe, engine: EngineConfig) -> Stage:
    """Task -> a list of different candidates; all raw replies are kept, whatever becomes of them."""

    def parse(row: PlannedRow, request: Request | None, reply: Reply | None) -> list[Row]:
        assert request is not None and reply is not None
        facts = request.facts
        record = {
            "messages": request.messages,
            "task": row.parent["task"],
            "language": facts["language"],
            "candidates": _candidates(request, reply),
            "model": model_label(engine),
        }
        return [{**id_columns(row), **record}]

    ask = request_of(recipe, recipe.propose, PROPOSE, n=recipe.propose.candidates)
    return Stage(CANDIDATES, CANDIDATES_SCHEMA, "generator", engine, recipe.propose, recipe.seed, ask, parse)


def _candidates(request: Request, reply: Reply) -> list[str]:
    """The samples that are fit, each text once, in the order they came. Raises the first one's Rejected for none."""
    facts, kind = request.facts, kinds.load_kind(request.facts["kind"])
    fit: dict[str, None] = {}
    unfit: list[Rejected] = []
    for sample in reply.samples:
        try:
            fit[to_json(parse_example(sample.text, kind, facts["slots"], facts["language"]))] = None
        except Rejected as rejected:
            unfit.append(rejected)
    if not fit:
        raise unfit[0]
    return list(fit)
