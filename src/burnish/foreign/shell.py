"""A pasted command or launch script -> the words that its trainer would have got. Nothing is ever executed.

    commands        the simple commands of a script, words expanded: variables from the environment, the script's own
                    assignments and defaults, arrays, integer arithmetic
    trainer_words   one command without its launcher: `python -m ...`, `accelerate launch ... train.py`, `torchrun`,
                    `trl grpo`, `deepspeed`, `ray job submit -- ...`; the number of processes becomes a word

Branches and loops are not followed: what stands in them is left out, and a variable that they set cannot be used.
Command substitutions stay as they are written, and are refused where their value would matter.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from burnish.foreign.aliases import ENTRIES, PLUGINS

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")
BRACED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*])(\[[@*]\])?(?:(:?[-=+?])(.*))?", re.DOTALL)
OPENING = frozenset(("if", "for", "while", "until", "case", "select", "{"))
CLOSING = frozenset(("fi", "done", "esac", "}"))
BETWEEN = frozenset(("then", "else", "elif", "do"))
TESTS = ("[", "[[", "((", "test")
DECLARING = frozenset(("export", "declare", "local", "readonly", "typeset"))
CLOSERS = {"(": ")", "{": "}"}
MAX_DEPTH = 20

Value = str | list[str]


class ScriptError(ValueError):
    """The script needs a shell to be understood. The message says where, and what to type instead."""


@dataclass(frozen=True, slots=True)
class Command:
    words: tuple[str, ...]
    problem: str | None = None
    """Why its words could not be expanded; they are then as written."""


# -- raw words: where they end, quotes and expansions as written -------------------------------------------------------


def _end_of_quote(text: str, start: int) -> int:
    """Position after the double quote that closes the one at `start`."""
    at = start + 1
    while at < len(text):
        if text[at] == '"':
            return at + 1
        at = _past(text, at) if text[at] in "\\$`" else at + 1
    raise ScriptError(f"a quote is not closed: {text[start : start + 40]!r}")


def _end_of_block(text: str, start: int) -> int:
    """Position after the bracket that closes the one at `start`."""
    closer, at = CLOSERS[text[start]], start + 1
    while at < len(text):
        if text[at] == closer:
            return at + 1
        at = _end_of_block(text, at) if text[at] == text[start] else _past(text, at)
    raise ScriptError(f"{text[start]!r} is not closed: {text[start : start + 40]!r}")


def _past(text: str, at: int) -> int:
    """Position after the character, quotation, escape or expansion that begins at `at`."""
    char = text[at]
    if char == "\\":
        return min(at + 2, len(text))
    if char == '"':
        return _end_of_quote(text, at)
    if char in "'`":
        end = text.find(char, at + 1)
        if end < 0:
            raise ScriptError(f"a quote is not closed: {text[at : at + 40]!r}")
        return end + 1
    if char == "$" and text[at + 1 : at + 2] in ("(", "{"):
        return _end_of_block(text, at + 1)
    return at + 1


def _statements(text: str) -> Iterator[tuple[list[str], str]]:
    """Raw words of each statement, and what joins it to the next: `&&`, `||`, `|`, `;`, a line's end."""
    text = text.replace("\r\n", "\n").replace("\\\n", " ")
    at, words = 0, []
    while at < len(text):
        char = text[at]
        if char in "\n;&|":
            joint = text[at : at + 2] if text[at : at + 2] in ("&&", "||", ";;") else char
            yield words, joint
            words, at = [], at + len(joint)
        elif char in " \t":
            at += 1
        elif char == "#":
            at = text.find("\n", at) if "\n" in text[at:] else len(text)
        elif char in "<>" or (char.isdigit() and text[at + 1 : at + 2] in ("<", ">")):
            at = _past_redirection(text, at)
        else:
            start, at = at, _end_of_word(text, at)
            words.append(text[start:at])
    yield words, "\n"


def _end_of_word(text: str, at: int) -> int:
    start = at
    while at < len(text) and text[at] not in " \t\n;&|<>":
        is_array = text[at] == "(" and text[at - 1] == "=" and at > start
        at = _end_of_block(text, at) if is_array else _past(text, at)
    return at


def _past_redirection(text: str, at: int) -> int:
    at += text[at].isdigit()
    if text.startswith("<<", at) and not text.startswith("<<<", at):
        match = re.compile(r"<<-?\s*(['\"]?)(\w+)\1").match(text, at)
        end = re.compile(rf"^\s*{match[2]}$", re.MULTILINE).search(text, match.end()) if match else None
        return end.end() if end else len(text)
    while at < len(text) and text[at] in "<>&| \t":
        at += 1
    return _end_of_block(text, at) if text[at : at + 1] == "(" else _end_of_word(text, at)


# -- expansion --------------------------------------------------------------------------------------------------------


class _Variables:
    """What a script's variables hold while it is read."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.values: dict[str, Value] = dict(environment)
        self.unknown: dict[str, str] = {}
        """Variable -> why its value cannot be known."""
        self.depth = 0

    def assign(self, raw: str) -> None:
        match = ASSIGNMENT.match(raw)
        assert match is not None
        name, rest = match[1], raw[match.end() :]
        self.unknown.pop(name, None)
        try:
            if rest.startswith("("):
                value: Value = [w for inner, _ in _statements(rest[1:-1]) for part in inner for w in self.fields(part)]
            else:
                value = self.text(rest)
            old = self.values[name] if match[2] and name in self.values else type(value)()
            self.values[name] = old + value  # type: ignore[operator]
        except (ScriptError, TypeError) as error:
            self.unknown[name] = f"its value {rest!r} cannot be read ({error})"

    def text(self, raw: str) -> str:
        """Expanded, without quotes, as one text."""
        return " ".join(self._fields(raw, split=False))

    def fields(self, raw: str) -> list[str]:
        """Expanded and split into words as a shell would."""
        return self._fields(raw, split=True)

    def _fields(self, raw: str, *, split: bool) -> list[str]:
        done: list[str] = []
        open_: str | None = None
        at = 0
        while at < len(raw):
            end = _past(raw, at)
            part, splits = self._part(raw[at:end] if raw[at] != "$" else raw[at : (end := _end_of_name(raw, at, end))])
            at = end
            pieces = part if isinstance(part, list) else part.split() if split and splits else [part]
            if isinstance(part, str) and split and splits and part[:1].isspace() and open_ is not None:
                done, open_ = [*done, open_], None
            for index, piece in enumerate(pieces):
                if index:
                    done, open_ = [*done, open_ or ""], None
                open_ = (open_ or "") + piece
            if isinstance(part, str) and split and splits and part[-1:].isspace() and open_ is not None:
                done, open_ = [*done, open_], None
        return done if open_ is None else [*done, open_]

    def _part(self, part: str) -> tuple[Value, bool]:
        """The value of one piece of a word, and whether it is split at blanks."""
        if part[0] == "'":
            return part[1:-1], False
        if part[0] == "\\":
            return part[1:], False
        if part[0] == '"':
            inner = part[1:-1]
            whole = BRACED.fullmatch(inner[2:-1]) if inner.startswith("${") and inner.endswith("}") else None
            if inner == "$@" or (whole and whole[2] == "[@]" and whole[3] is None):
                return self._dollar(inner), False
            return self._quoted(inner), False
        substituted = part.startswith("$(") and not part.startswith("$((")
        return (self._dollar(part), not substituted) if part[0] == "$" and len(part) > 1 else (part, False)

    def _quoted(self, inner: str) -> str:
        found, at = "", 0
        while at < len(inner):
            end = _past(inner, at) if inner[at] in "\\$`" else at + 1
            if inner[at] == "$":
                end = _end_of_name(inner, at, end)
            piece = inner[at:end]
            if piece[0] == "\\":
                found += piece[1:] if piece[1:] in ("$", '"', "\\", "`") else piece
            else:
                value = self._dollar(piece) if piece[0] == "$" and len(piece) > 1 else piece
                found += value if isinstance(value, str) else " ".join(value)
            at = end
        return found

    def _dollar(self, part: str) -> Value:
        self.depth += 1
        try:
            if self.depth > MAX_DEPTH:
                raise ScriptError(f"{part!r} nests too deep")
            if part.startswith("$(("):
                return str(_arithmetic(self.text(part[3:-2]), self.values))
            if part.startswith("$("):
                return part
            return self._braced(part[2:-1] if part.startswith("${") else part[1:], part)
        finally:
            self.depth -= 1

    def _braced(self, inner: str, shown: str) -> Value:
        match = BRACED.fullmatch(inner)
        if match is None:
            raise ScriptError(f"{shown} is an expansion that only a shell can make. Type its value")
        name, _, operation, other = match.groups()
        if name in ("@", "*"):
            return []
        if name in self.unknown:
            raise ScriptError(f"{shown}: {self.unknown[name]}. Type its value instead")
        value = self.values.get(name)
        if operation is None or operation.endswith("?"):
            if value is None:
                raise ScriptError(f"{shown} has no value: type {name}=VALUE in front of the command")
            return value
        is_there = value is not None and not (operation.startswith(":") and not value)
        if operation.endswith("+"):
            return self.text(other) if is_there else ""
        if not is_there or value is None:
            value = self.text(other)
            if operation.endswith("="):
                self.values[name] = value
        return value


def _end_of_name(raw: str, at: int, end: int) -> int:
    """A `$NAME` goes on after its first character."""
    if end > at + 1:
        return end
    match = NAME.match(raw, at + 1)
    if match:
        return match.end()
    return at + 2 if raw[at + 1 : at + 2] in tuple("@*0123456789") and at + 1 < len(raw) else at + 1


_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: int(a / b),
    ast.Mod: operator.mod,
}


def _arithmetic(text: str, values: Mapping[str, Value]) -> int:
    """Integer arithmetic of a shell: sums, products, quotients towards zero."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name) if isinstance(values.get(name), str):
                return _arithmetic(str(values[name]), {})
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
                return _OPERATIONS[type(op)](value(left), value(right))
        raise ScriptError(f"$(({text})) is arithmetic that only a shell can do. Type its value")

    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, RecursionError):
        raise ScriptError(f"$(({text})) is arithmetic that only a shell can do. Type its value") from None


# -- scripts ----------------------------------------------------------------------------------------------------------


def commands(text: str, environment: Mapping[str, str]) -> list[Command]:
    """The commands of a script outside branches and loops, expanded as a shell would.

    Raises:
        ScriptError: a quote or bracket is not closed, or they nest too deep.
    """
    try:
        return _commands(text, environment)
    except RecursionError:
        raise ScriptError("its brackets nest too deep") from None


def _commands(text: str, environment: Mapping[str, str]) -> list[Command]:
    variables = _Variables(environment)
    found: list[Command] = []
    blocks, conditional = 0, False
    for words, joint in _statements(text):
        blocks += sum(w in OPENING for w in words[:1]) + (words[1:] or [""])[-1:].count("{")
        inside = blocks > 0 or conditional
        blocks = max(0, blocks - sum(w in CLOSING for w in words[:1]))
        conditional = joint in ("&&", "||") and (conditional or (words[:1] != [] and words[0] in TESTS))
        while words and (words[0] in BETWEEN or words[0] in CLOSING):
            words = words[1:]
        assigned = _assignments(words)
        for raw in assigned or ():
            if inside:
                variables.unknown[ASSIGNMENT.match(raw)[1]] = "a branch or loop sets it"  # type: ignore[index]
            else:
                variables.assign(raw)
        if not inside and words and assigned is None:
            found.append(_expanded(words, variables))
    return [command for command in found if command.words]


def _assignments(words: Sequence[str]) -> list[str] | None:
    """The assignments of a statement that does nothing else; None for a command."""
    if words and words[0] in DECLARING:
        return [w for w in words[1:] if ASSIGNMENT.match(w)]
    return list(words) if all(ASSIGNMENT.match(w) for w in words) else None


def _expanded(words: Sequence[str], variables: _Variables) -> Command:
    try:
        return Command(tuple(field for raw in words for field in variables.fields(raw)))
    except ScriptError as error:
        return Command(tuple(words), str(error))


# -- launchers --------------------------------------------------------------------------------------------------------

WRAPPERS = frozenset(("nohup", "env", "exec", "time", "sudo", "srun", "setsid", "then", "!"))
RUNNERS = frozenset(("uv", "poetry", "pipenv", "conda"))
LAUNCHERS = frozenset(("accelerate", "torchrun", "deepspeed"))
LAUNCHING_MODULES = frozenset(("accelerate.commands.launch", "torch.distributed.run", "torch.distributed.launch"))
COUNTS = {
    "num_processes": "num_processes",
    "num_gpus": "num_processes",
    "nproc_per_node": "nproc_per_node",
    "nnodes": "nnodes",
    "config_file": "accelerate_config",
}
"""Option of a launcher -> the word that says it."""


def trainer_words(words: Sequence[str]) -> list[str] | None:
    """What a command's trainer is told; None when the command starts none."""
    words = list(words)
    while words and (words[0] in WRAPPERS or ASSIGNMENT.match(words[0])):
        words = words[1:]
    if not words:
        return None
    program, rest = PurePath(words[0]).name, words[1:]
    if program == "ray":
        return trainer_words(rest[rest.index("--") + 1 :]) if "--" in rest else None
    if program in ("burnish", "trl"):
        return rest[1:] if rest[:1] == [{"burnish": "train", "trl": "grpo"}[program]] else None
    if program in RUNNERS and rest[:1] == ["run"]:
        return _script(rest[1:]) if "".join(rest[1:2]).startswith("-") else trainer_words(rest[1:])
    if program in LAUNCHERS:
        return _launched(rest)
    return _script(rest) if program.startswith("python") else None


def _script(words: Sequence[str]) -> list[str] | None:
    """The words after `script.py` or `-m module`."""
    for index, word in enumerate(words):
        if word == "-m" and index + 1 < len(words):
            module, rest = words[index + 1], list(words[index + 2 :])
            if module in LAUNCHING_MODULES:
                return _launched(rest)
            named = module not in ENTRIES or any(w.startswith(("--config-name", "-cn")) for w in rest)
            return rest if named else [*rest, "--config-name", ENTRIES[module]]
        if word.endswith(".py"):
            return [*words[index + 1 :], *_plugin(Path(word), words[index + 1 :])]
        if not word.startswith("-"):
            return None
    return None


def _plugin(script: Path, words: Sequence[str]) -> list[str]:
    """The reward that a script loads by itself from the file beside it, where no word names another."""
    named = any(word.removeprefix("--").startswith(("reward.", "custom_reward_function.")) for word in words)
    if named or script.name not in PLUGINS or not (file := script.with_name(PLUGINS[script.name])).is_file():
        return []
    return [f"custom_reward_function.path={file}"]


def _launched(words: Sequence[str]) -> list[str] | None:
    """The script's words, and the launcher's counts of processes as words of their own."""
    start = next((i for i, word in enumerate(words) if word.endswith(".py") or word in ("-m", "--module")), None)
    if start is None:
        return None
    options, said = list(words[:start]), []
    for index, option in enumerate(options):
        name, equals, value = option.removeprefix("--").partition("=")
        word = COUNTS.get(name.replace("-", "_")) if option.startswith("--") else None
        if word:
            said += [f"--{word}={value if equals else ''.join(options[index + 1 : index + 2])}"]
    return list(words[start + (2 if words[start].startswith("-") else 1) :]) + said
