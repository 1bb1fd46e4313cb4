"""Build the miniature base model: a tiny Llama and its tokenizer, pre-trained here on the world's plain text.

`ensure_base_model("base")` builds it once per machine and returns an ordinary Hugging Face folder,
which vLLM and transformers load as any other. It was trained on pages, never on our prompts: following these is left
to fine-tuning.
"""

import hashlib
import inspect
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from speed_ray.errors import UserError
from speed_ray.miniature import corpus, grammar, world
from speed_ray.storage.cached_folder import ensure_cached_folder, say
from speed_ray.storage.store import cache_folder

if TYPE_CHECKING:
    import torch

SEED = 0
VOCABULARY = 3072  # most of the world's words are then one token each
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
TOKENIZER_PAGES = 4_000
LONGEST_PAGE = 512  # tokens: topics must be found that far back, as in a real prompt
BATCH = 1_200  # tokens, padding included
STEPS = 600
MATRIX_RATE, OTHER_RATE = 0.02, 0.005  # learning rates of Muon and of AdamW
WARMUP = 15
SAY_EVERY = 100  # steps
DECAY = 0.6  # of the steps, at the end
ARCHITECTURE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,  # of 32, a width that vLLM's CPU and GPU attention both take
    "num_key_value_heads": 6,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
)


def ensure_base_model(name: str) -> Path:
    """Return the folder of a miniature model, building it if this machine does not have it yet.

    The cache is `$SPEED_RAY_CACHE`, else `~/.cache/speed_ray`. Two processes at once build one model: the second
    waits for the first. Raises UserError for a name other than "base".
    """
    said = f"training miniature://{name}, two minutes on two free cores"
    return ensure_cached_folder(base_folder(name), _build, said)


def base_folder(name: str) -> Path:
    """Return where a miniature model lies once it is built."""
    return cache_folder() / f"miniature-{name}-{base_digest(name)}"


def base_digest(name: str) -> str:
    """Return the identity of a miniature model: a hash of the world's words, the text and the code that make it."""
    if name != "base":
        raise UserError(f"miniature://{name}: there is no such model; the miniature world has miniature://base")
    sources = "".join(inspect.getsource(module) for module in (grammar, corpus)) + Path(__file__).read_text()
    return hashlib.blake2b((world.digest() + sources).encode(), digest_size=8).hexdigest()


def _build(folder: Path) -> None:
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    _pretrained(tokenizer).save_pretrained(folder)
    special = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD}
    for file, content in {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": ARCHITECTURE["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
            **special,
        },
        "special_tokens_map.json": special,
    }.items():
        (folder / file).write_text(json.dumps(content, indent=2))


def _tokenizer() -> Tokenizer:
    """Train a byte-level BPE tokenizer: any Unicode text, no unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.islice(corpus.corpus_pages(SEED), TOKENIZER_PAGES), trainer)
    return tokenizer


def _pretrained(tokenizer: Tokenizer) -> Any:
    """Train the language model from scratch, on the CPU with two threads at most, and return it."""
    import torch
    from transformers import LlamaForCausalLM

    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, threads))  # OMP_NUM_THREADS=1 still holds: on busy cores it is many times faster
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = LlamaForCausalLM(_config(tokenizer)).train()
    optimizers = _optimizers(model)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, _rate) for optimizer in optimizers]
    pad = tokenizer.token_to_id(PAD)
    for step, batch in enumerate(itertools.islice(_batches(tokenizer), STEPS)):
        if step % SAY_EVERY == 0:
            say(f"step {step} of {STEPS}")
        model(input_ids=batch, labels=batch.masked_fill(batch == pad, -100)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepped in (*optimizers, *schedules):
            stepped.step()
        model.zero_grad()
    torch.set_num_threads(threads)
    return model.eval()


def _optimizers(model: Any) -> list[Any]:
    """Muon for the layers' matrices, AdamW for the rest: AdamW alone wanted about 1.6 times the steps here."""
    import torch

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _rate(step: int) -> float:
    """Return the share of the learning rates that a step has: warm-up, plateau, linear decay."""
    return min(1.0, (step + 1) / WARMUP, max(0.02, (STEPS - step) / (STEPS * DECAY)))


def _config(tokenizer: Tokenizer) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
        **ARCHITECTURE,
    )


def _batches(tokenizer: Tokenizer) -> Iterator["torch.Tensor"]:
    """Yield int64 tensors (pages, tokens), each row one page: pages packed end to end mix up their topics."""
    import torch

    pages, pad = corpus.corpus_pages(SEED + 1), tokenizer.token_to_id(PAD)
    assert pad is not None
    while True:
        drawn = [tokenizer.encode(BEGIN + page + END).ids[:LONGEST_PAGE] for page in itertools.islice(pages, 64)]
        batches: list[list[list[int]]] = [[]]
        for page in sorted(drawn, key=len):  # pages of like length together, for little padding
            if batches[-1] and (len(batches[-1]) + 1) * len(page) > BATCH:
                batches.append([])
            batches[-1].append(page)
        random.Random(SEED).shuffle(batches)
        for batch in batches:
            longest = max(map(len, batch))
            yield torch.tensor([page + [pad] * (longest - len(page)) for page in batch])
