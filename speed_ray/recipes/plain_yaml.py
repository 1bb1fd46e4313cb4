"""Parse YAML into a plain tree in which every key was written once."""

from typing import Any

import yaml

from speed_ray.errors import UserError


class _UniqueKeyLoader(yaml.SafeLoader):
    """Loads plain data, and refuses a key that is written twice: YAML itself takes the last, in silence.

    A mapping or list that holds itself by an anchor is refused as well: whatever walks through it would never end.
    """

    def __init__(self, stream: str | bytes) -> None:
        super().__init__(stream)
        self.deep_construct = True  # makes PyYAML refuse it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} is written twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _construct_date(loader: Any, node: Any) -> Any:
    return loader.construct_yaml_timestamp(node)


# vLLM brings lm-format-enforcer, which has SafeLoader itself, and so every loader made of it, take dates for text.
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:timestamp", _construct_date)


def load_plain_yaml(text: str | bytes) -> Any:
    """Return what a YAML text says. Raises ValueError with the reason where it is none, or writes a key twice."""
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def parse_yaml(text: str | bytes, origin: str) -> dict[str, Any]:
    """Turn YAML into a plain tree, or raise UserError where it is none."""
    try:
        tree = load_plain_yaml(text)
    except ValueError as error:  # of UTF-8, and of dates and numbers that are none, too
        raise UserError(f"{origin} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{origin} must be a mapping of recipe keys, not {type(tree).__name__}")
    return tree
