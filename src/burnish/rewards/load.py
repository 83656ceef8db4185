"""`path/to/file.py:function`: found, fingerprinted, loaded. The file is code, and is trusted as such."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.rewards.remembering import Remembering


@dataclass(frozen=True, slots=True)
class Source:
    """Where a function is, and the fingerprint of its file when the run began."""

    path: str
    """Absolute."""
    function: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.path}:{self.function}"


def locate(target: str) -> Source:
    """The source that `path/to/file.py:function` names. Nothing is run.

    Raises:
        ValueError: it is written in another way, or there is no such file.
    """
    path, colon, function = target.rpartition(":")
    if not colon or not function.isidentifier():
        raise ValueError(f"found {target!r} where a reward function is needed; write path/to/file.py:function")
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise ValueError(f"{target}: there is no file {file}")
    return Source(str(file), function, _sha256(file))


@dataclass(frozen=True, slots=True)
class Loaded:
    function: Callable[..., Any]
    remembering: Remembering


def load_function(source: Source) -> Loaded:
    """Run the file and return the function in it. The file's folder is importable, after everything else.

    Raises:
        ValueError: the file changed since `source` was made, cannot be run, or has no such function.
    """
    path = Path(source.path)
    if _sha256(path) != source.sha256:
        raise ValueError(f"{path} changed while the run was going on; start a new run, or put the file back")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    name = f"burnish_plugin_{source.sha256[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles of the file look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    functions = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    if source.function not in functions:
        near = difflib.get_close_matches(source.function, functions, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(functions)) or 'no functions'}"
        raise ValueError(f"{path} has no function {source.function!r}; {hint}")
    function = functions[source.function]
    return Loaded(function, Remembering(function, module))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
