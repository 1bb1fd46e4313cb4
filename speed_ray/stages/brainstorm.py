"""Brainstorm: the teacher lists one-sentence tasks for every topic and kind. select_tasks.py chooses among them."""

import random

from speed_ray import kinds
from speed_ray.engines.base import Reply, Request
from speed_ray.executor.stage import Stage, artifact_identity
from speed_ray.prompts.parse import parse_tasks, tasks_schema
from speed_ray.records import TASK, TaskRow, TopicRow, seed_of
from speed_ray.storage.planned_rows import PlannedRow
from speed_ray.storage.run import PROPOSED_TASKS, TOPICS, Run
from speed_ray.storage.shard_plan import Plan


class Brainstorm(Stage[TopicRow, TaskRow]):
    """Topic x kind -> about `brainstorm.ask` proposed tasks."""

    name, key, record_schema = PROPOSED_TASKS, "brainstorm", TASK

    def plan(self, run: Run) -> Plan:
        """Plan one prompt for each topic and kind in the mix, in the order of the topics."""
        settings, topics = self.recipe.brainstorm, run.artifact(TOPICS)
        identity = self.identity(artifact_identity(topics)) | {"ask": settings.tasks_per_prompt}
        manifest = topics.manifest()
        assert manifest is not None
        variants = tuple(sorted(kind for kind, weight in self.recipe.mix.items() if weight))
        rows = manifest["counts"]["records"] * len(variants)
        return Plan(self.name, rows, settings.shard_rows, TOPICS, variants, identity=identity)

    def request(self, row: PlannedRow[TopicRow]) -> Request | None:
        """Render the brainstorm prompt; none for a kind whose instruction is fixed."""
        kind, topic, ask = kinds.load_kind(row.variant), row.parent["topic"], self.recipe.brainstorm.tasks_per_prompt
        if kind.instruction is not None:
            return None
        rng, languages = random.Random(seed_of(self.recipe.seed, row.row_id, "slots")), self.recipe.languages
        language = rng.choices(list(languages), list(languages.values()))[0]
        messages = self.prompts.brainstorm(kind, topic, ask, language, rng)
        return self.make_request(
            row.row_id,
            messages,
            tasks_schema(ask),
            {"stage": self.key, "kind": kind.name, "topic": topic, "ask": ask, "language": language},
        )

    def parse(self, row: PlannedRow[TopicRow], request: Request, reply: Reply) -> list[TaskRow]:
        """Parse the reply's list of tasks."""
        tasks = parse_tasks(reply.samples[0].text, self.recipe.brainstorm.tasks_per_prompt, request.messages)
        return [_task(row, i, task, self.engine.model) for i, task in enumerate(tasks)]

    def without_model(self, row: PlannedRow[TopicRow]) -> list[TaskRow]:
        """Return the kind's fixed instruction as the one task."""
        return [_task(row, 0, str(kinds.load_kind(row.variant).instruction), "none")]


def _task(row: PlannedRow[TopicRow], index: int, task: str, model: str) -> TaskRow:
    return {
        "id": f"{row.row_id}-{index}",
        "row_id": row.row_id,
        "parent_id": row.parent["id"],
        "kind": row.variant,
        "topic": row.parent["topic"],
        "task": task,
        "model": model,
    }
