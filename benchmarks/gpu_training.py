"""Training on a GPU: LoRA DPO and packed LoRA SFT of an 8B Llama shape, contrastive LoRA of a 7B Mistral shape.

    torchrun --nproc-per-node 1 -m benchmarks.gpu_training dpo
    python -m benchmarks.gpu_training contrastive --tiny     (a small shape on a CPU: shows that it runs)

Weights are random, in bf16; rows are random words, 1,024 tokens of prompt and reply, or texts of 512. The clock runs
from step 3 to the last. Model FLOP utilisation counts what the algorithm needs and nothing that is done twice:

    MFU = (4 N + 8 L T H) x tokens a second / peak

N weights that are multiplied with (embeddings are looked up), 2 N a token forward and 2 N back through frozen weights,
whose own gradient nobody asks for; L layers, T tokens of a row, H width: attention's two products, causal, both ways.
Checkpointing's second forward pass and GradCache's first one are overhead.
"""

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PretrainedConfig

from benchmarks import report
from speed_ray import recipes
from speed_ray.engines.model_folder import ensure_model_folder
from speed_ray.records import CURATED, SFT_EXAMPLE, VERDICT, Row, content_id
from speed_ray.stages.driver_stage import RowResult, publish_rows
from speed_ray.storage.run import CURATED_EXAMPLES, DRAFTS, VERDICTS, Run
from speed_ray.storage.shard_plan import Plan
from speed_ray.training import distributed, plan
from speed_ray.training.plan import TrainingPlan
from speed_ray.training.train_model import train_model

PEAK = 989e12  # bf16 FLOP a second of an H100 or H200, dense
WARM = 3  # steps that are not timed
EIGHT_B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_key_value_heads": 8}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_key_value_heads": 4}
LORA = {"r": 16, "lora_alpha": 32}
TEXT, PAIR = 512, 1_024  # tokens


def shape(method: str, tiny: bool) -> PretrainedConfig:
    """Llama-3-8B for generators, Mistral-7B for the embedder."""
    sizes = {**(TINY if tiny else EIGHT_B), "num_attention_heads": 4 if tiny else 32, "max_position_embeddings": 4096}
    if method == "contrastive":
        return MistralConfig(vocab_size=4_096 if tiny else 32_000, sliding_window=None, **sizes)
    return LlamaConfig(vocab_size=4_096 if tiny else 128_256, rope_theta=500_000.0, **sizes)


def base(folder: Path, config: PretrainedConfig, device: str) -> Path:
    """Write a model of random weights, with the miniature's tokenizer and chat template."""
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    small = ensure_model_folder("miniature://base")
    assert small
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((small / name).read_bytes())
    return folder


def words(count: int, rng: random.Random) -> str:
    """Text of about so many tokens: most of these words are one."""
    return " ".join(
        rng.choice(("bread", "oven", "sail", "goal", "nurse", "rock", "lens", "court")) for _ in range(count)
    )


def rows(method: str, count: int, scale: float) -> list[Row]:
    """Rows that a method learns from, of `scale` times the usual length."""
    rng = random.Random(0)
    half, text = int(PAIR / 2 * scale), int(TEXT * scale)
    made = []
    for number in range(count):
        row_id = content_id("row", str(number))
        row: Row = dict.fromkeys(("kind", "topic", "model", "reason", "language", "instruction", "parent_id"), "-")
        row |= {"id": row_id, "row_id": row_id, "messages": [{"role": "user", "content": words(half, rng)}]}
        row |= {name: words(half, rng) for name in ("reply", "chosen", "rejected")}
        row |= {"order": [0, 1], "best": 1, "worst": 2, "split": "train", "query": words(text, rng)}
        row |= {"positive": words(text, rng), "negatives": [words(text, rng)]}
        made.append(row)
    return made


def training(method: str, run: Run, folder: Path, steps: int, tiny: bool) -> TrainingPlan:
    """The training to be timed; what it learns from and begins with is made first."""
    scale, batch = (0.1, 8) if tiny else (1.0, 2_048 if method == "contrastive" else 16)
    common: dict[str, Any] = {
        "global_batch_size": batch, "lora": LORA, "precision": "bf16", "gradient_checkpointing": True,
        "max_steps": steps, "num_train_epochs": 1000.0, "max_length": 2_048, "save_steps": 1_000_000,
        "workers": {"num_gpus": 0 if tiny else 1},
    }  # fmt: skip
    sft = {**common, "micro_batch_size": 4, "eval_fraction": 0.0, "packing": method == "sft"}
    dpo = {**common, "micro_batch_size": 4, "eval_fraction": 0.0}
    embedder = {**common, "model": str(folder), "pooling": "last", "max_length": TEXT, "micro_batch_size": 64}
    tree = {
        "topics": {"source": "topics.txt"},
        "teacher": {"engine": "scripted"},
        "generator": {"engine": "vllm", "model": str(folder)},
        "junior": {**sft, "max_steps": 1} if method == "dpo" else sft,
        "senior": dpo,
        "embedder": embedder,
    }
    recipe = recipes.validate(tree, "the benchmark")
    data, schema = {
        "sft": (DRAFTS, SFT_EXAMPLE),
        "dpo": (VERDICTS, VERDICT),
        "contrastive": (CURATED_EXAMPLES, CURATED),
    }[method]
    made = rows(method, 2 * batch, scale)
    for artifact, columns in {(data, schema), (DRAFTS, SFT_EXAMPLE)}:
        passed = (RowResult(row["row_id"], {name: row[name] for name in columns.names}, None) for row in made)
        publish_rows(run.artifact(artifact), Plan(artifact, len(made), 512, variants=("",)), columns, passed)
    if method == "contrastive":
        return plan.plan_embedder(run, recipe)
    if method == "dpo":
        train_model(plan.plan_junior(run, recipe), lambda metrics: None)
        return plan.plan_senior(run, recipe)
    return plan.plan_junior(run, recipe)


def utilisation(config: Any, tokens: float, length: int) -> float:
    """Model FLOP utilisation, as the module says, of one GPU."""
    width, layers = config.hidden_size, config.num_hidden_layers
    attention = 2 * width * width * (1 + config.num_key_value_heads / config.num_attention_heads)
    weights = layers * (attention + 3 * width * config.intermediate_size) + width * config.vocab_size
    return (4 * weights + 8 * layers * length * width) * tokens / PEAK


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("method", choices=("sft", "dpo", "contrastive"))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--tiny", action="store_true", help="a small shape on a CPU")
    options = parser.parse_args()
    config = shape(options.method, options.tiny)
    times: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="gpu_training-") as folder:
        model = base(Path(folder) / "base", config, "cpu" if options.tiny else "cuda")
        torch.cuda.empty_cache()
        asked = training(options.method, Run(f"{folder}/run"), model, options.steps, options.tiny)
        train_model(asked, lambda metrics: times.setdefault(metrics["step"], time.perf_counter()))
    distributed.destroy_process_group()
    seconds = (times[options.steps] - times[WARM]) / (options.steps - WARM)
    length, texts = (TEXT, 3) if options.method == "contrastive" else (PAIR, 2 if options.method == "dpo" else 1)
    scale = 0.1 if options.tiny else 1.0
    tokens = asked.settings.global_batch_size * texts * length * scale / seconds
    used = utilisation(config, tokens, int(length * scale))
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    detail = {"method": options.method, "s a step": seconds, "tokens/s": tokens, "peak GB": memory, "MFU": used}
    met = used >= 0.35 and not options.tiny
    unit = f"MFU, {options.method} LoRA on {'a CPU, which has no such peak' if options.tiny else 'a GPU'}"
    report.emit(report.Result("gpu_training", used, ">= 0.35", unit, met, [detail]), options.json)


if __name__ == "__main__":
    main()
