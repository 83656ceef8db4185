"""Nothing in the source executes text, reads a pickle, or puts text into SQL or a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

ALLOWED = {
    ("burnish/store/sql.py", "template.format"): "the one place where names enter SQL; it takes nothing but names",
    ("burnish/rewards/load.py", "exec_module"): "runs a reward file, which is the user's own code",
}
"""(file, what) -> why it has been let through."""

CALLS = {"eval", "exec", "compile", "__import__", "execfile", "sympify", "parse_expr", "input"}
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop"}
ATTRIBUTES = {
    "yaml": {"load", "load_all", "full_load", "unsafe_load", "Loader", "FullLoader", "UnsafeLoader"},
    "torch": {"load", "save"},
    "os": {"system", "popen"},
    "subprocess": {"getoutput", "getstatusoutput"},
}
KEYWORDS = {
    ("shell", True),
    ("weights_only", False),
    ("allow_pickle", True),
    ("trust_remote_code", True),
    ("use_safetensors", False),
}
SQL = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "PRAGMA", "ALTER", "WITH", "ATTACH", "VACUUM")


def offences(source: str) -> Iterator[tuple[int, str]]:
    """(line, what) of everything that is forbidden."""
    for node in ast.walk(ast.parse(source)):
        for what in (*_code(node), *_sql(node)):
            yield getattr(node, "lineno", 0), what


def _code(node: ast.AST) -> Iterator[str]:
    """Ways to run text or bytes."""
    match node:
        case ast.Import(names=names):
            yield from (f"import {name.name}" for name in names if name.name.partition(".")[0] in MODULES)
        case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
            yield f"import {module}"
        case ast.Attribute(value=ast.Name(id=owner), attr=attr) if attr in ATTRIBUTES.get(owner, ()):
            yield f"{owner}.{attr}"
        case ast.Attribute(attr="exec_module" | "load_module" as attr):
            yield attr
        case ast.Call(keywords=keywords):
            yield from (name for name in _called(node) if name in CALLS)
            constants = ((word.arg, word.value.value) for word in keywords if isinstance(word.value, ast.Constant))
            yield from (f"{name}={value}" for name, value in constants if (name, value) in KEYWORDS)
        case _:
            pass


def _sql(node: ast.AST) -> Iterator[str]:
    """Ways to put text into a statement."""
    match node:
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]) if _is_sql(text):
            yield "f-string SQL"
        case ast.BinOp(left=ast.Constant(value=str(text)), right=right) if _is_sql(text) and not _is_fixed(right):
            yield "SQL put together"
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")) if _is_sql(text):
            yield "SQL put together"
        case ast.Call(func=ast.Attribute(value=ast.Name(id="template"), attr="format")):
            yield "template.format"
        case _:
            pass


def _called(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name):
        yield node.func.id
    elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        owner, name = node.func.value.id, node.func.attr
        if owner in ("builtins", "sympy") or name in ("sympify", "parse_expr"):
            yield name


def _is_sql(text: str) -> bool:
    return text.lstrip().startswith(tuple(f"{word} " for word in SQL))


def _is_fixed(node: ast.expr) -> bool:
    """Whether an expression holds nothing but constants."""
    return not any(isinstance(part, ast.Name | ast.Attribute) and not _is_method(part) for part in ast.walk(node))


def _is_method(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Constant)


@pytest.mark.reliability(22)
def test_the_source_has_none_of_what_is_forbidden_but_what_was_reviewed():
    found: set[tuple[str, str]] = set()
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        for line, what in offences(path.read_text(encoding="utf-8")):
            assert (name, what) in ALLOWED, f"{name}:{line}: {what}"
            found.add((name, what))
    assert found == ALLOWED.keys(), "what is allowed and not there must be taken out of the list"
    assert len(ALLOWED) <= 3


FORBIDDEN = (
    "eval(text)",
    "exec(text)",
    "builtins.eval(text)",
    "__import__(name)",
    "import pickle",
    "from pickle import loads",
    "import numpy, dill",
    "yaml.load(text, Loader=x)",
    "yaml.unsafe_load(text)",
    "torch.load(path)",
    "torch.load(path, weights_only=True)",
    "read(path, weights_only=False)",
    "np.load(path, allow_pickle=True)",
    "subprocess.run(text, shell=True)",
    "os.system(text)",
    "AutoModel.from_pretrained(path, trust_remote_code=True)",
    "AutoModel.from_pretrained(path, use_safetensors=False)",
    "sympify(text)",
    "sympy.sympify(text)",
    "parse_expr(text)",
    'db.execute(f"SELECT {name} FROM steps")',
    'db.execute("SELECT * FROM %s" % name)',
    'db.execute("DROP TABLE " + name)',
    'db.execute("DELETE FROM {}".format(name))',
    "spec.loader.exec_module(module)",
)


@pytest.mark.reliability(22)
@pytest.mark.parametrize("source", FORBIDDEN)
def test_the_scan_finds_what_it_looks_for(source: str):
    assert list(offences(source))


@pytest.mark.reliability(22)
@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "re.compile(pattern)",
        'db.execute("SELECT * FROM steps WHERE step = ?", (step,))',
        'db.execute("INSERT INTO groups VALUES (" + ",".join("?" * 19) + ")", row)',
        'f"update {index}"',
        "json.loads(text)",
        "load(path, trust_remote_code=config.trust)",
    ],
)
def test_the_scan_lets_through_what_is_harmless(source: str):
    assert not list(offences(source))
