"""YAML that somebody else may have written: plain values only, and no more of them than a configuration has.

An alias repeats all that its anchor holds, so a page of nested aliases can stand for more nodes than fit into memory.
Aliases are counted as they are read, and nodes with all their repetitions before any value is made.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_ALIASES = 100
MAX_NODES = 100_000
"""Values, keys, lists and mappings, each counted as often as it is repeated."""


def parse_yaml(text: str) -> Any:
    """The one document in `text`.

    Raises:
        yaml.YAMLError: it is not YAML, names a type of Python's, or is over the limits.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._num_aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._num_aliases += 1
            if self._num_aliases > MAX_ALIASES:
                raise yaml.YAMLError(f"it has more than {MAX_ALIASES} aliases")
        return super().compose_node(parent, index)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            num_nodes = _count(node, {}, set())
            if num_nodes > MAX_NODES:
                raise yaml.YAMLError(f"its aliases stand for {num_nodes:,} nodes, and at most {MAX_NODES:,} are read")
        return node


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Nodes that `node` stands for, itself included."""
    if id(node) in above:
        raise yaml.YAMLError("an alias within its own anchor has no end")
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        above.add(id(node))
        known[id(node)] = 1 + sum(_count(part, known, above) for part in inner)
        above.discard(id(node))
    return known[id(node)]
