"""Nothing that the five documents name is left out of `docs/requirements.md`.

The names are taken out of the documents mechanically: flags, variables, dotted keys, keys of YAML, fields and functions
of examples, metrics, and every name within code in prose. The documents lie beside the repository in `../shared`;
without them these tests are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")
DOCUMENTS = ROOT.parent / "shared" / "requirements"

FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
NAME = re.compile(r"(?<![\w.-])-{0,2}[A-Za-z_]\w*(?:[./]\w+)*", re.ASCII)

NO_FEATURE = {
    "llm": "a conda environment",
    "python": "the interpreter of a command line",
    "min": "arithmetic of a worked example",
    "s_i": "a symbol of a formula",
    "s_anchor_i": "a symbol of a formula",
    "false": "a value",
    "log": "arithmetic",
    "from_pretrained": "a method of the model's class",
    "model_id": "an argument of it",
}
"""Names that name no feature, and what they are."""


def document(number: str) -> str:
    found = sorted(DOCUMENTS.glob(f"{number}_*.txt"))
    if not found:
        pytest.skip(f"document {number} is not in {DOCUMENTS}")
    return found[0].read_text(encoding="utf-8")


def leaves(tree: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(cast(dict[str, Any], value), f"{before}{key}.")
        else:
            yield before + key


def names(text: str) -> set[str]:
    """What a document names."""
    found = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    found |= set(re.findall(r"\b([A-Z][A-Z_]{3,})=", text))
    found |= set(re.findall(r"(?<![\w./-])((?:[a-z_]\w*\.)+[a-z_]\w*)=", text))
    found |= set(re.findall(r"\b(?:actor|adpo|reward)/[a-z_]+\b", text))
    for language, body in FENCE.findall(text):
        if language == "yaml":
            found |= set(leaves(yaml.safe_load(body)))
        if language in ("python", "json"):
            found |= set(re.findall(r'"(\w+)":', body))
            for function, parameters in re.findall(r"def (\w+)\(([^)]*)\)", body):
                found |= {function, *(p.split(":")[0].strip().lstrip("*") for p in parameters.split(","))}
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        found |= {name for name in NAME.findall(code) if len(name) > 2}
    return found - {"self", "kwargs", ""} - NO_FEATURE.keys()


def is_named(name: str) -> bool:
    """Whether the page has the name as a whole word, alone or within a longer one (`trainer.bf16` for `bf16`)."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", PAGE, re.ASCII) is not None


@pytest.mark.parametrize(("number", "at_least"), [("000", 45), ("001", 42), ("002", 48), ("003", 14), ("004", 45)])
def test_every_name_of_a_document_is_in_the_page(number: str, at_least: int):
    found = names(document(number))
    assert len(found) >= at_least, "the names are no longer found"
    assert sorted(name for name in found if not is_named(name)) == []


def test_what_is_called_no_feature_is_named_somewhere():
    everything = " ".join(document(number) for number in ("000", "001", "002", "003", "004"))
    assert [name for name in NO_FEATURE if not re.search(rf"\b{name}\b", everything)] == []
