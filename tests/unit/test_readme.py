"""The README tells the truth: its tree is the tree, its links lead somewhere, its commands parse."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from burnish import cli
from burnish.overrides import load_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "burnish"


def first_line(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.:?]) (?=[A-Z`])", doc.split("\n\n", 1)[0].replace("\n", " "), maxsplit=1)[0].rstrip(".:")


def tree() -> str:
    """The block between the tree marks: every module with the first sentence of its docstring."""
    lines = ["```", "src/burnish/"]
    folders = [PACKAGE, *sorted(p for p in PACKAGE.rglob("*") if p.is_dir() and any(p.glob("*.py")))]
    for folder in folders:
        depth = len(folder.relative_to(PACKAGE).parts)
        if depth:
            about = first_line(folder / "__init__.py")
            lines.append(f"{'  ' * depth}{folder.name}/" + (f"  # {about}" if about else ""))
        for path in sorted(folder.glob("*.py")):
            if path.name not in ("__init__.py", "__main__.py"):
                lines.append(f"{'  ' * (depth + 1)}{path.name:20} {first_line(path)}")
    return "\n".join([*lines, "```"])


def test_the_tree_has_a_true_line_for_every_module():
    found = README.partition("<!-- tree -->\n")[2].partition("\n<!-- /tree -->")[0]
    assert found == tree(), "run `python -m tests.unit.test_readme` to write the tree into the README"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(target: str):
    assert (ROOT / target).exists()


def commands() -> list[str]:
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
    return [line.partition("#")[0].strip() for line in blocks.splitlines() if line.startswith("burnish ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_parses(command: str):
    args, words = cli._parser().parse_known_args(shlex.split(command)[1:])
    assert args.run is not None
    if args.command == "doctor" or (args.command == "train" and args.resume is None):
        load_config(words)
    else:
        assert not words


if __name__ == "__main__":
    before, _, rest = README.partition("<!-- tree -->\n")
    after = rest.partition("<!-- /tree -->")[2]
    (ROOT / "README.md").write_text(f"{before}<!-- tree -->\n{tree()}\n<!-- /tree -->{after}", encoding="utf-8")
