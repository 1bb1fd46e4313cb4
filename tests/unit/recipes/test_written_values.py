"""A secret never gets into a run: it is refused where a recipe is read, whatever its key, and is not shown."""

import pytest

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.recipes.written_values import check_written_values

KEY = "A1b2" * 10


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"generator": {"engine_kwargs": {"hf_token": "anything"}}}, "generator.engine_kwargs.hf_token.*\n.*HF_TOKEN"),
        ({"generator": {"engine_kwargs": {"a": [{"aws_secret_access_key": "x"}]}}}, "a.aws_secret_access_key holds a"),
        (
            {"teacher": {"headers": {"Authorization": f"Bearer x{KEY}"}}},
            "headers.Authorization holds a secret",
        ),
        ({"generator": {"engine_kwargs": {"extra": {"credentials": "x"}}}}, "extra.credentials holds a secret"),
        ({"teacher": {"headers": {"x-api-key": "abc"}}}, r"headers.x-api-key holds a secret.*\n.*\$NAME"),
        ({"teacher": {"api_key_env": f"sk-proj-{KEY}"}}, "api_key_env holds a secret.*\n.*write that variable's name"),
        ({"teacher": {"api_key_env": f"gsk_{KEY}"}}, "api_key_env holds a secret"),
        ({"embedder": {"revision": f"hf_{KEY}"}}, "embedder.revision holds a secret"),
        ({"teacher": {"base_url": f"https://user:{KEY}@host/v1"}}, "teacher.base_url holds a secret"),
        ({"teacher": {"base_url": f"https://host/v1?api-key={KEY}"}}, "teacher.base_url holds a secret"),
        ({"topics": {"source": f"s3://ID:{KEY}@bucket/t.txt"}}, "topics.source holds a secret"),
        ({"topics": {"source": "a\0b"}}, "topics.source holds a zero character"),
        ({"teacher": {"extra_body": {"stop": ["\ud83d"]}}}, r"teacher.extra_body.stop holds \\ud83d, half of a char"),
    ],
)
def test_a_secret_or_what_is_no_text_is_refused_by_its_key(tree, said):
    with pytest.raises(UserError, match=f"r.yaml: .*{said}") as caught:
        check_written_values(tree, "r.yaml")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "tree",
    [
        {"engine_kwargs": {"max_num_batched_tokens": 4096, "hf_token": True, "tokenizer": "x"}},
        {"teacher": {"api_key_env": "MY_PROVIDERS_API_KEY", "headers": {"api-key": "${AZURE_KEY}"}}},
        {"teacher": {"base_url": "http://[::1]:8000/v1?api-version=1"}, "x": "abfss://container@account.host/t.txt"},
        {"embedder": {"model": "/models/task-specific-embedding-model-of-ours"}},
    ],
)
def test_what_is_no_secret_is_taken(tree):
    check_written_values(tree, "r.yaml")


def test_a_recipe_and_its_overrides_are_checked():
    with pytest.raises(UserError, match="HF_TOKEN"):
        recipes.load_recipe("miniature", ["generator.engine_kwargs.hf_token=x"])
