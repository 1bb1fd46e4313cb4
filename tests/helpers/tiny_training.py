"""Make models small enough to train in seconds, rows for them, and recipes."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from speed_ray import recipes
from speed_ray.recipes.schema import Recipe
from speed_ray.records import PREFERENCE_PAIR, REVISION, SFT_EXAMPLE, VERDICT, Row, content_id
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import DRAFTS, REVISION_PAIRS, REVISIONS, VERDICTS, Run
from speed_ray.storage.shard_plan import Plan

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
)
SCHEMAS = {DRAFTS: SFT_EXAMPLE, REVISIONS: REVISION, VERDICTS: VERDICT, REVISION_PAIRS: PREFERENCE_PAIR}


def tiny_model(
    folder: Path, template: str | None = TEMPLATE, end: str | None = "<|end|>", window: int = 256, heads: int = 4
) -> Path:
    """Save a Llama with random weights (2 layers, width 64, context of `window` tokens) and a byte-level tokenizer.

    vLLM has no attention on a CPU for heads that are 16 wide: it serves a model of one head.
    """
    special = ["<|begin|>", "<|end|>", "<|pad|>"]
    bpe = Tokenizer(tokenizer_models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        ["\n\n"], trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|begin|>", eos_token=end, pad_token="<|pad|>", chat_template=template
    )
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": heads}
        LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=window, **shape)).save_pretrained(folder)
    return folder


def tiny_rows(count: int) -> list[Row]:
    """Make rows with every column of SFT examples, revisions and verdicts; each asks for a sum."""
    return [_row(number) for number in range(count)]


def _row(number: int) -> Row:
    left, right = number % 10, number // 10 % 10
    row_id = content_id("row", str(number))
    right_answer = f'{{"sum": {left + right}, "words": "{"so " * (number % 7)}it is"}}'
    wrong_answer = f'{{"sum": {left * right + 50}}}'
    texts = dict.fromkeys(("kind", "topic", "model", "relevance", "completeness", "accuracy", "reason"), "-")
    return {
        "id": row_id,
        "row_id": row_id,
        "parent_id": "-",
        **texts,
        "messages": [{"role": "user", "content": f"What is {left} and {right}?"}],
        "reply": right_answer,
        "example": wrong_answer,
        "chosen": right_answer,
        "rejected": wrong_answer,
        "order": [0, 1],
        "best": 1,
        "worst": 2,
    }


def write_rows(run: Run, artifact: str, rows: list[Row]) -> None:
    """Publish rows as one of the artifacts that models are trained on."""
    schema = SCHEMAS[artifact]
    passed = (RowResult(row["row_id"], {name: row[name] for name in schema.names}, None) for row in rows)
    plan = Plan(stage=artifact, rows=len(rows), shard_rows=16, variants=("",))
    publish_rows(run.artifact(artifact), plan, schema, passed)


def tiny_recipe(model: Path, **settings: Any) -> Recipe:
    """Make a recipe whose trainings all have these settings, as far as their method has them."""
    common = {
        "global_batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3, "precision": "fp32", "lora": None,
        "max_length": 200, "eval_fraction": 0.1, "save_steps": 1000, "max_steps": 4, **settings,
    }  # fmt: skip
    sft = {name: value for name, value in common.items() if name not in ("beta", "loss_type", "label_smoothing")}
    dpo = {name: value for name, value in common.items() if name != "packing"}
    tree = {
        "topics": {"source": "topics.txt"},
        "teacher": {"engine": "scripted"},
        "generator": {"engine": "vllm", "model": str(model)},
        "junior": sft,
        "senior": dpo,
        "revisor": {"sft": sft, "dpo": dpo},
    }
    return recipes.validate(tree, "the test")


def command(recipe: Recipe, run: Run, model: str, workers: int) -> list[str]:
    """Return the command line of a training with torchrun on several processes, as a user without Ray has it."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    return [*launcher, "-m", "--", "speed_ray.training", *training_arguments(recipe, run, model)]


def training_arguments(recipe: Recipe, run: Run, model: str) -> list[str]:
    """Write the recipe beside the run; return what follows `speed_ray.training` on a command line."""
    path = Path(run.uri).with_name(f"{Path(run.uri).name}-{model}.yaml")
    path.write_text(recipes.dump_yaml(recipe))
    return [model, "--recipe", str(path), "--run", run.uri]


def cpus(**environment: str) -> dict[str, str]:
    """Return the environment of a training on few cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CI": "1", **environment}


def ignore(metrics: dict[str, Any]) -> None:
    """Ignore a report."""
