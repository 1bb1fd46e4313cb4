"""Rows as token ids: the engine's own for a prompt, an end for a reply; what does not fit is counted, never cut."""

import pytest
from transformers import AutoTokenizer

from speed_ray.errors import UserError
from speed_ray.storage.run import DRAFTS, VERDICTS, Run
from speed_ray.training import load_model, plan, tokenize
from speed_ray.training.tokenize import ChatTokenizer, LineTokenizer, RowExcluded
from tests.helpers.tiny_training import TEMPLATE, tiny_model, tiny_recipe, tiny_rows, write_rows

QUESTION = [{"role": "user", "content": "What is 1 and 2?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_prompt_is_the_engines_and_the_reply_ends_once(tokenizer):
    prompt_ids, reply_ids = ChatTokenizer(tokenizer, 200).encode(QUESTION, '{"sum": 3}')

    text = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert prompt_ids == tokenizer.encode(text, add_special_tokens=False)  # as engines/vllm.py does
    assert reply_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(reply_ids) == '{"sum": 3}<|end|>'


def test_prompt_stands_where_its_last_token_would_melt_into_the_reply(tokenizer):
    together = tokenizer.encode("\n\n{", add_special_tokens=False)
    assert together[:1] != tokenizer.encode("\n\n", add_special_tokens=False), "this tokenizer shows nothing"

    prompt_ids, reply_ids = ChatTokenizer(tokenizer, 200).encode(QUESTION, "{}")

    assert prompt_ids[-1:] == tokenizer.encode("\n\n", add_special_tokens=False)
    assert reply_ids == [*tokenizer.encode("{}", add_special_tokens=False), tokenizer.eos_token_id]


def test_nothing_is_learnt_after_the_end(tokenizer):
    tokenizer.chat_template = TEMPLATE.replace("+ eos_token }}", "+ eos_token + '\n' }}")
    _, reply_ids = ChatTokenizer(tokenizer, 200).encode(QUESTION, "{}")
    assert tokenizer.decode(reply_ids) == "{}<|end|>"


QWEN3_THOUGHT = "'<think>\n\n</think>\n\n' + "


def test_a_thought_that_the_template_writes_before_the_reply_is_not_learnt(tokenizer):
    as_it_was = ChatTokenizer(tokenizer, 200).encode(QUESTION, '{"sum": 3}')
    tokenizer.chat_template = TEMPLATE.replace("message['content'] + eos", QWEN3_THOUGHT + "message['content'] + eos")
    assert QWEN3_THOUGHT in tokenizer.chat_template
    assert ChatTokenizer(tokenizer, 200).encode(QUESTION, '{"sum": 3}') == as_it_was


def test_a_space_that_the_template_writes_before_the_reply_is_learnt(tokenizer):
    tokenizer.chat_template = TEMPLATE.replace("message['content'] + eos", "' ' + message['content'] + eos")
    _, reply_ids = ChatTokenizer(tokenizer, 200).encode(QUESTION, "{}")
    assert tokenizer.decode(reply_ids) == " {}<|end|>"


def test_a_reply_that_the_template_cuts_is_left_out(tokenizer):
    tokenizer.chat_template = TEMPLATE.replace("message['content'] +", "message['content'].split('</think>')[-1] +", 1)
    _, reply_ids = ChatTokenizer(tokenizer, 200).encode(QUESTION, '{"a": "b"}')
    assert tokenizer.decode(reply_ids) == '{"a": "b"}<|end|>'
    with pytest.raises(RowExcluded, match="changed_by_template"):
        ChatTokenizer(tokenizer, 200).encode(QUESTION, '{"a": "</think> b"}')


def test_an_end_is_added_where_the_template_writes_none(tokenizer):
    tokenizer.chat_template = TEMPLATE.replace(" + eos_token", "")
    _, reply_ids = ChatTokenizer(tokenizer, 200).encode(QUESTION, "{}")
    assert tokenizer.decode(reply_ids) == "{}<|end|>"


def test_length_counts_prompt_and_reply(tokenizer):
    prompt_ids, reply_ids = ChatTokenizer(tokenizer, 200).encode(QUESTION, "{}")
    fits = len(prompt_ids) + len(reply_ids)
    assert ChatTokenizer(tokenizer, fits).encode(QUESTION, "{}") == (prompt_ids, reply_ids)
    with pytest.raises(RowExcluded, match="too_long"):
        ChatTokenizer(tokenizer, fits - 1).encode(QUESTION, "{}")


@pytest.mark.parametrize(("prompt", "reply"), [("Hi<|end|>", "{}"), ("Hi", "{}<|end|>{}"), ("Hi", "<|begin|>")])
def test_a_text_with_special_tokens_is_left_out(tokenizer, prompt, reply):
    with pytest.raises(RowExcluded, match="special_token"):
        ChatTokenizer(tokenizer, 200).encode([{"role": "user", "content": prompt}], reply)


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages | length }}" + TEMPLATE
    with pytest.raises(UserError, match=r"generator\.chat_template writes a prompt differently"):
        ChatTokenizer(tokenizer, 200).encode(QUESTION, "{}")


def test_every_row_is_trained_held_out_or_counted(folder, tokenizer, tmp_path):
    stored = tiny_rows(80)
    stored[3]["chosen"] = stored[3]["rejected"]
    stored[5]["rejected"] = "{" * 300
    stored[6]["chosen"] = "<|pad|>"
    run = Run(str(tmp_path / "run"))
    write_rows(run, VERDICTS, stored)

    read = tokenize.tokenize_rows(
        plan.plan_senior(run, tiny_recipe(folder, eval_fraction=0.2)), tokenizer, context_length=256
    )

    assert read.excluded == {"chosen_is_rejected": 1, "too_long": 1, "special_token": 1}
    assert len(read.train) + len(read.held_out) == 77
    assert {row["row_id"] for row in read.train}.isdisjoint(row["row_id"] for row in read.held_out)


def test_the_model_window_limits_a_longer_max_length(folder, tokenizer, tmp_path):
    run = Run(str(tmp_path / "run"))
    write_rows(run, DRAFTS, tiny_rows(40))
    training = plan.plan_junior(run, tiny_recipe(folder, max_length=10_000))
    assert not tokenize.tokenize_rows(training, tokenizer, context_length=256).excluded
    lengths = [
        len(row["prompt_ids"] + row["reply_ids"])
        for row in tokenize.tokenize_rows(training, tokenizer, context_length=70).train
    ]
    assert max(lengths) <= 70


def test_a_rows_own_id_decides_whether_it_is_held_out():
    ids = [f"{number:032x}" for number in range(4000)]
    held_out = {row_id for row_id in ids if tokenize.is_held_out(row_id, 0.1)}
    assert 0.08 < len(held_out) / len(ids) < 0.12
    assert held_out < {row_id for row_id in ids if tokenize.is_held_out(row_id, 0.2)}, (
        "a larger share keeps the smaller"
    )
    assert not any(tokenize.is_held_out(row_id, 0.0) for row_id in ids)


def test_order_is_epoch_after_epoch_and_the_seeds_alone():
    places = tokenize.shuffled_order(7, 20, seed=3)
    assert sorted(places[:7]) == sorted(places[7:14]) == list(range(7))
    assert places[:7] != places[7:14]
    assert tokenize.shuffled_order(7, 12, seed=3) == places[:12], "a longer training begins as a shorter one"
    assert tokenize.shuffled_order(7, 20, seed=4) != places


def test_rows_of_like_length_lie_together_within_their_batch():
    written = [{"row_id": "0", "prompt_ids": [1] * n, "reply_ids": [2]} for n in (9, 4, 7, 1, 8, 2)]
    assert tokenize.sort_by_length_within_batch([0, 1, 2, 3, 4, 5, 0, 3], written, batch_size=4) == [
        3,
        1,
        2,
        0,
        3,
        5,
        4,
        0,
    ]


def test_too_few_rows(folder, tokenizer, tmp_path):
    run = Run(str(tmp_path / "run"))
    write_rows(run, DRAFTS, tiny_rows(12))
    training = plan.plan_junior(run, tiny_recipe(folder, global_batch_size=16, eval_fraction=0.0))
    with pytest.raises(
        UserError, match=r"drafts has 12 rows to train junior on, and one step needs 16 \(junior.global_batch_size"
    ):
        tokenize.tokenize_rows(training, tokenizer, context_length=256)


def test_half_an_epoch_needs_twice_the_rows(folder, tokenizer, tmp_path):
    run = Run(str(tmp_path / "run"))
    write_rows(run, DRAFTS, tiny_rows(12))
    training = plan.plan_junior(run, tiny_recipe(folder, global_batch_size=8, eval_fraction=0.0, num_train_epochs=0.5))
    with pytest.raises(UserError, match=r"one step needs 16"):
        tokenize.tokenize_rows(training, tokenizer, context_length=256)


LINE = [{"role": "user", "content": "Passage: One and two.\nQuestion:"}]


def test_a_line_is_tokenized_as_the_engine_continues_it(tokenizer):
    prompt_ids, reply_ids = LineTokenizer(tokenizer, 200).encode(LINE, "What is 3?")
    assert prompt_ids == tokenizer.encode(LINE[0]["content"])  # as engines/vllm.py does
    assert tokenizer.decode(reply_ids) == " What is 3?<|end|>"
    assert prompt_ids + reply_ids[:-1] == tokenizer.encode(LINE[0]["content"] + " What is 3?")


def test_a_tokenizer_that_ends_every_text_ends_a_line_once(tokenizer):
    bare = tokenizer.encode
    tokenizer.encode = lambda text, add_special_tokens=True: [
        *bare(text),
        *[tokenizer.eos_token_id] * add_special_tokens,
    ]
    _, reply_ids = LineTokenizer(tokenizer, 200).encode(LINE, "What?")
    assert tokenizer.decode(reply_ids) == " What?<|end|>"


def test_a_line_that_is_too_long_or_holds_a_special_token_is_left_out(tokenizer):
    for reply, reason in (("?" * 200, "too_long"), ("What<|end|>?", "special_token")):
        with pytest.raises(RowExcluded, match=reason):
            LineTokenizer(tokenizer, 200).encode(LINE, reply)


def test_a_generator_that_continues_lines_is_trained_on_lines_without_a_template(tmp_path):
    bare = tiny_model(tmp_path / "bare", template=None)
    recipe = tiny_recipe(bare)
    lines = recipe.model_copy(update={"generator": recipe.generator.model_copy(update={"completion": True})})
    run = Run(str(tmp_path / "run"))
    write_rows(run, DRAFTS, tiny_rows(40))
    training = plan.plan_junior(run, lines)
    rows = tokenize.tokenize_rows(training, load_model.load_chat_tokenizer(training), context_length=256)
    assert len(rows.train) + len(rows.held_out) == 40
    assert plan.training_identity(training)["completion"] is True
