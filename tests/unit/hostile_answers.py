"""Answers that hang, bloat or fool an algebra system, and texts that would run if anything evaluated them.

`COSTLY` are (gold, answer) pairs, each wrong or absurd; `FOOLING` are pairs that math-verify alone has accepted;
`payloads(marker)` are texts that create the file `marker` when evaluated as Python.
"""

from __future__ import annotations


def _nested(opening: str, depth: int, inner: str, closing: str) -> str:
    return opening * depth + inner + closing * depth


_DETERMINANT = (
    "\\det\\begin{pmatrix}"
    + "\\\\".join("&".join(f"a_{{{i}{j}}}" for j in range(10)) for i in range(10))
    + "\\end{pmatrix}"
)
_INVERSE = (
    "\\begin{pmatrix}"
    + "\\\\".join("&".join(f"b_{{{i}{j}}}" for j in range(9)) for i in range(9))
    + "\\end{pmatrix}^{-1}"
)
_SURDS = [f"\\sqrt{{{n}}}+\\sqrt{{{n + 1}}}" for n in range(2, 61)]

COSTLY: tuple[tuple[str, str], ...] = (
    ("1", ""),
    ("1", " " * 1_000_000),
    ("1", "9^{9^{9}}"),
    ("1", "9**9**9"),
    ("1", "9^9^9"),
    ("1", "10^{10^{10}}"),
    ("1", "2^{2^{2^{2^{2^2}}}}"),
    ("9^{9^9}", "9^{9^9}+1"),
    ("1", "7^{7^{7^7}} \\bmod 100"),
    ("1", "1000000!"),
    ("1", "100000000!"),
    ("1", "((((9!)!)!)!)"),
    ("1", "\\binom{100000000}{50000000}"),
    ("1", "7" * 10_000),
    ("1", "7" * 100_000),
    ("1", "0." + "7" * 100_000),
    ("1", _nested("{", 1000, "2", "}")),
    ("1", _nested("{", 20_000, "2", "}")),
    ("1", _nested("(", 200, "2", ")")),
    ("1", _nested("(", 2000, "2", ")")),
    ("1", _nested("\\frac{1}{", 100, "2", "}")),
    ("1", _nested("\\frac{1}{", 1000, "2", "}")),
    ("1", _nested("\\sqrt{", 50, "2", "}")),
    ("1", _nested("\\sqrt{", 300, "2", "}")),
    ("1", "\\boxed{" * 5000),
    ("1", "\\frac{1}{\\frac{2}{"),
    ("1", "$" * 20_000),
    ("1", "a$b " * 24_000 + "$"),
    ("1", "\\(" * 50_000),
    ("2", "1 " * 50_000),
    ("1", "$" + "\\boxed{a" * 2000),
    ("2", "$1$ and " * 5000),
    ("1", "final answer " * 20_000),
    ("1", "answer = " * 20_000),
    ("1", "the quick brown fox jumps over the lazy dog " * 2400),
    ("1", "1" + "+1" * 3000),
    ("2", "(1" * 30_000),
    ("540", "\uff15\uff14\uff10"),
    ("540", "\u0665\u0664\u0660"),
    ("540", "\u202e5\u200b4\u200b0"),
    ("540", "5\x0040\ud800"),
    ("1", "(x+y+z+w+1)^{60}"),
    ("1", "(x+y+z)^{40}"),
    ("2", "\\sin(x)^{8}+\\cos(x)^{8}\\tan(x)-\\sec(x)\\sin(3x)\\cos(5x)"),
    ("1", "\\int_0^1 \\frac{\\ln(1+x^{2+\\sqrt{3}})}{1+x} dx"),
    ("1", "\\sum_{k=1}^{100000000} \\frac{1}{k}"),
    ("1", "\\prod_{k=1}^{10000000} k"),
    ("1", "\\lim_{x \\to 0} \\frac{\\sin(\\tan x)-\\tan(\\sin x)}{x^7}"),
    ("1", _INVERSE),
    ("1", _DETERMINANT),
    ("1", "\\{" + ",".join(map(str, range(3000))) + "\\}"),
    ("\\{" + ",".join(_SURDS[:-1]) + "\\}", "\\{" + ",".join(_SURDS) + "\\}"),
    ("1", "\\cup".join(f"[{2 * n},{2 * n + 1}]" for n in range(300))),
    ("1", "x^{20}-3x^{19}+7x^5-11 < 0"),
    ("1", "\\frac{0}{0}"),
    ("1", "\\infty-\\infty"),
    ("2", "\\sin(10^{100000})"),
    ("1", "1.0e999999999"),
    ("1", "9.9**99999999"),
    ("1", "\\sqrt{" + "7" * 3000 + "}"),
    ("1", "\\log_3(7^{100000}+1)"),
    ("1", "10^{1000000} \\bmod 7"),
    ("1", "5\\%" * 20_000),
    ("1", "((2^{999})^{999})^{999}"),
    ("1", "((9^9)^9)^9^9"),
    ("1", "1e400000000"),
    ("1", "\\frac{1}{10^{9999}}^{9999}"),
    ("1", "\\left" * 500),
    ("1", "\\text{" * 600 + "x" + "}" * 600),
    ("1", "|" * 4000),
    ("1", "x_{x_{x_{x_{x_{x}}}}}" * 40),
    ("1", "\\begin{cases}" * 100),
)

FOOLING: tuple[tuple[str, str], ...] = (
    ("1", "1e5"),
    ("1", "1.0e999999999"),
    ("1", "1" + "+1" * 3000),
    ("5", "3=5"),
    ("5", "1=2=3=4=5"),
    ("5", "x=3=5"),
    ("5", "1+1=2+3=5"),
    ("7", "3 4"),
    ("235", "1 234"),
    ("1010", "1010_2"),
    ("Paris", "Pairs"),
    ("50", "50%"),
    ("\\sqrt{2}", "1.414214"),
    ("1/3", "0.333333"),
    ("\\pi", "\\pi+\\frac{1}{10^{20}}"),
)


def payloads(marker: str) -> tuple[str, ...]:
    """Texts that would create the file `marker`; with and without underscores, quotes and backslashes."""
    chars = "+".join(f"chr({ord(char)})" for char in marker)
    return (
        f"__import__('os').system('touch {marker}')",
        f"__import__('pathlib').Path('{marker}').touch()",
        f"open('{marker}','w')",
        f"open({chars},chr(119))",
        f"exec(\"open('{marker}','w')\")",
        f"eval(\"open('{marker}','w')\")",
        f"eval(compile(\"open('{marker}','w')\",'x','exec'))",
        f"(1).__class__.__base__.__subclasses__() or open('{marker}','w')",
        f"().__class__.__mro__[1].__subclasses__()[0](open('{marker}','w'))",
        f"open('{marker}','w')*\\pi",
        f"3*open({chars},chr(119)).write(chr(120))*\\pi",
        f"\\pi(open({chars},chr(119)))",
        f"\\begin{{pmatrix}}open('{marker}','w')\\\\1\\end{{pmatrix}}",
        f"\\begin{{pmatrix}}{{open({chars},chr(119))}}&2\\\\3&4\\end{{pmatrix}}",
        f"[open('{marker}','w') for x in (1,)]",
        f"lambda: open('{marker}','w')",
        f"1 if open('{marker}','w') else 2",
        f"2**open({chars},chr(119)).write(chr(120))",
        f"sqrt(open('{marker}','w'))",
        f"sympify(\"open('{marker}','w')\")",
        f"\\frac{{open('{marker}','w')}}{{2}}",
        f"x={{{{open('{marker}','w')}}}}",
        f"{{0.__class__.__init__.__globals__[os].system(touch {marker})}}",
        f"$(touch {marker})",
        f"`touch {marker}`",
        f"!!python/object/apply:os.system ['touch {marker}']",
    )
