"""Score an embedder on a run's held-out queries, to choose among its checkpoints and among shares of a merge.

Each query is to find its positive among the documents of all held-out rows and, so that this is hard enough, positives
of rows that are trained on. As in training, queries of kinds without in-batch negatives rank their own documents.
Every worker embeds all texts, so that scores need no collective of our own, whatever is sharded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase

from speed_ray.recipes.training_settings import Embedder
from speed_ray.records import HELD_OUT, CuratedRow
from speed_ray.training import plan
from speed_ray.training.contrastive.encoder import TextPrompts, pad_batch
from speed_ray.training.plan import TrainingPlan

MAX_QUERIES, MAX_DOCUMENTS = 500, 2_000  # seconds of a small model's time on few cores
NDCG_RANKS = 10

Embed = Callable[[list[str]], Tensor]  # texts -> embeddings (texts, width)


@dataclass(frozen=True)
class TextEmbedder:
    """Embeds texts as training does, without dropout; `network` is an encoder, perhaps wrapped by a strategy."""

    network: nn.Module
    tokenizer: PreTrainedTokenizerBase
    max_length: int  # tokens
    batch_size: int

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Tensor:
        """Embed texts: fp32 (texts, width), on the CPU."""
        was_training, device = self.network.training, next(self.network.parameters()).device
        self.network.eval()
        ids: list[list[int]] = self.tokenizer(texts, truncation=True, max_length=self.max_length).input_ids
        order, vectors = sorted(range(len(ids)), key=lambda index: len(ids[index])), []
        for first in range(0, len(order), self.batch_size):
            batch = pad_batch([ids[index] for index in order[first : first + self.batch_size]], self.pad_id)
            vectors.append(self.network(**{name: part.to(device) for name, part in batch.items()}).float().cpu())
        self.network.train(was_training)
        return torch.cat(vectors)[torch.tensor(order).argsort()]

    @property
    def pad_id(self) -> int:
        """Return the tokenizer's pad token."""
        assert isinstance(self.tokenizer.pad_token_id, int)
        return self.tokenizer.pad_token_id


@dataclass(frozen=True)
class HeldOut:
    """Holds n held-out rows and m documents; `hidden` (n, m) is True where a document is not ranked for a query."""

    rows: list[CuratedRow]
    documents: list[str]
    prompts: TextPrompts
    positives: Tensor  # int64 (n,), of `documents`
    hidden: Tensor

    def ndcg_by_query(self, embed: Embed, instructed: bool = True) -> dict[str, float]:
        """Compute the nDCG@10 of each query, by row id; a document as near as the positive ranks before it.

        With `instructed` queries are written as in training, else without their instruction.
        """
        queries = [
            self.prompts.format_query(row["instruction"] if instructed else "", row["query"]) for row in self.rows
        ]
        documents = [self.prompts.document + text for text in self.documents]
        asked, answers = (normalize(embed(texts), dim=1) for texts in (queries, documents))
        similarities = (asked @ answers.T).masked_fill_(self.hidden, float("-inf"))
        ranks = (similarities >= similarities.gather(1, self.positives[:, None])).sum(1)
        is_found = (ranks > 0) & (ranks <= NDCG_RANKS)  # 0: the positive's similarity is no number
        gains = torch.where(is_found, 1 / torch.log2(1 + ranks.clamp_min(1)), 0.0)
        return dict(zip((row["id"] for row in self.rows), gains.tolist(), strict=True))


def read_held_out(training: TrainingPlan, prompts: TextPrompts) -> HeldOut | None:
    """Read a run's held-out rows, the same ones at every start; None where it has none."""
    settings = training.settings
    assert isinstance(settings, Embedder)
    if plan.is_streaming(training):
        return None
    held_out, others = _read_rows(training, settings.no_in_batch_negatives)
    if not held_out:
        return None
    rows = sorted(held_out, key=lambda row: row["id"])[:MAX_QUERIES]  # ids are hashes: drawn from all tasks
    own = dict.fromkeys(text for row in rows for text in (row["positive"], *row["negatives"]))
    documents = list(own) + [text for text in others if text not in own][: max(0, MAX_DOCUMENTS - len(own))]
    index = {text: place for place, text in enumerate(documents)}
    positives = torch.tensor([index[row["positive"]] for row in rows])
    hidden = _hidden_documents(rows, index, settings.no_in_batch_negatives)
    return HeldOut(rows, documents, prompts, positives, hidden.scatter_(1, positives[:, None], False))


def _read_rows(training: TrainingPlan, no_in_batch_negatives: Sequence[str]) -> tuple[list[CuratedRow], list[str]]:
    """Read the held-out rows, and enough positives of others that may be ranked with them."""
    artifact = plan.finished_training_data(training)
    held_out: list[CuratedRow] = []
    others: dict[str, None] = {}
    for file in artifact.record_files().values():
        table = artifact.read(file.path)
        is_held_out = pc.equal(table["split"], HELD_OUT)
        held_out += table.filter(is_held_out).to_pylist()
        if len(others) < MAX_DOCUMENTS:
            trained: dict[str, Any] = table.filter(pc.invert(is_held_out)).select(["kind", "positive"]).to_pydict()
            pairs = zip(trained["kind"], trained["positive"], strict=True)
            others |= dict.fromkeys(text for kind, text in pairs if kind not in no_in_batch_negatives)
    return held_out, list(others)


def _hidden_documents(
    rows: Sequence[CuratedRow], index: dict[str, int], no_in_batch_negatives: Sequence[str]
) -> Tensor:
    hidden = torch.zeros(len(rows), len(index), dtype=torch.bool)
    for number, row in enumerate(rows):
        if row["kind"] in no_in_batch_negatives:
            hidden[number] = True
            hidden[number, [index[text] for text in (row["positive"], *row["negatives"])]] = False
        if row["query"] in index:
            hidden[number, index[row["query"]]] = True
    return hidden
