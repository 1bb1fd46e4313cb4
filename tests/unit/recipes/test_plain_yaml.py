"""A recipe says each key once, and whatever else is in the file ends in a sentence."""

import pytest
import yaml

from speed_ray import recipes
from speed_ray.errors import UserError
from speed_ray.recipes.plain_yaml import parse_yaml


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed: 1\nseed: 2", r"the key seed is written twice(.|\n)*line 2"),
        ("synthesize: {examples: 5}\ntopics: {source: a, source: b}", "the key source is written twice"),
        ("topics: {source: 2024-13-45}", "month must be in 1..12"),
        ("a: " + "[" * 5000, "nested too deeply"),
        (b"a: \xff", "invalid start byte"),
        ("a: &a {b: *a}", "recursive node"),
        ("a: &a [1, [*a]]", "recursive node"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_the_reason(text, reason):
    with pytest.raises(UserError, match=f"r.yaml is not valid YAML: (.|\n)*{reason}"):
        parse_yaml(text, "r.yaml")


def test_a_key_of_an_anchor_may_be_written_again():
    tree = parse_yaml("a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}", "r.yaml")
    assert tree["b"] == {"x": 1, "y": 2}


def test_an_override_says_each_key_once_too():
    with pytest.raises(UserError, match=r"--set mix=.*the key sts is written twice"):
        recipes.load_recipe("miniature", ["mix={sts: 1, sts: 2}"])


def test_what_another_library_makes_of_dates_changes_nothing(monkeypatch):
    constructors = yaml.SafeLoader.yaml_constructors
    monkeypatch.setitem(constructors, "tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)
    with pytest.raises(UserError, match="month must be in"):
        parse_yaml("topics: {source: 2024-13-45}", "r.yaml")
