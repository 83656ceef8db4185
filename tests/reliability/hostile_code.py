"""Texts that do something when Python, sympy or a template evaluates them: 200 of them, each of the same few deeds."""

from __future__ import annotations

from dataclasses import dataclass

_FULLWIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(ord("a"), ord("z") + 1)})
"""Python reads identifiers in these letters as the ASCII ones."""


@dataclass(frozen=True)
class Traps:
    """What a text that runs would touch."""

    marker: str
    """File that would be there."""
    port: int
    """Port of this machine that would be called."""


def deeds(traps: Traps) -> tuple[str, ...]:
    """Python expressions that make the file or call the port."""
    marker = traps.marker
    chars = "+".join(f"chr({ord(char)})" for char in marker)
    return (
        f"open('{marker}','w')",
        f"open({chars},chr(119))",
        f"__import__('os').system('touch {marker}')",
        f"__import__('pathlib').Path('{marker}').touch()",
        f"exec(\"open('{marker}','w')\")",
        f'eval(\'open("{marker}","w")\')',
        f"(lambda: open('{marker}','w'))()",
        f"__import__('socket').create_connection(('127.0.0.1',{traps.port}))",
    )


_DRESSES = (
    "{}",
    "{}*\\pi",
    "3*{}+\\pi^2",
    "\\pi({})",
    "2\\pi*{}",
    "\\begin{{pmatrix}}{}\\\\1\\end{{pmatrix}}",
    "\\begin{{pmatrix}}{{{}}}&2\\\\3&4\\end{{pmatrix}}",
    "\\frac{{{}}}{{2}}",
    "\\sqrt{{{}}}",
    "\\text{{{}}}",
    "{{{{{}}}}}",
    "f\"{{{}}}\"",
    "f'''{{{}!r}}'''",
    "'''{}'''",
    "[{} for x in (1,)]",
    "1 if {} else 2",
    "x={}",
    "{}=6",
    "\\{{{},1\\}}",
    "({},2)",
    "2**{}",
    "sympify(\"\"\"{}\"\"\")",
    "().__class__.__base__.__subclasses__() or {}",
    "8%{}",
)  # fmt: skip


def payloads(traps: Traps) -> tuple[str, ...]:
    found = [dress.format(deed) for dress in _DRESSES for deed in deeds(traps)]
    return (*found, *(deed.translate(_FULLWIDTH) for deed in deeds(traps)))
