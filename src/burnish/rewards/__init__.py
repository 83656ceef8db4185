"""Rewards: from a completion's text to a `Score`. No torch anywhere in here.

    extract.py       where a text states its answer, in each style
    plain.py         an answer without its dress: dollars, markdown, spacing commands, redundant braces
    dapo.py          the published string rule of DAPO (`Answer: N`)
    numbers.py       numbers, read and compared exactly
    equivalence.py   equal as mathematics: text, exact numbers, then the algebra system in a child process
    limits.py        what is never handed to the algebra system
    symbolic.py      the jobs of that child process
    worker.py        one killable child process; the parent owns the deadline     child.py   its other end
    verify.py        text + answer -> `Score` of the answer alone
    compose.py       `Reward`s: answer + format + overlong penalty; plain functions lifted
    grade.py         files of completions and answers, graded offline

A text that a model wrote is data: nothing in here evaluates it as code.
"""
