"""Rewards: from a completion's text to a `Score`. No torch anywhere in here but in `reward_model.py`.

    compose.py        any number of parts -> one `Score`; plain functions lifted
    measured.py       what one part says about one completion; a function's return value read as that
    trial.py          a reward tried out before the first step

  parts
    answer.py         is the answer right?
    form.py           format, wanted length, truncation, overlong penalty
    repetition.py     repeated n-grams
    good_accuracy.py  ADPO's reward: right answers, less repetition in wrong ones
    reward_model.py   the logit of a sequence classifier
    shaped.py         what a whole total loses for length and truncation
    plugins.py        a user's function     load.py   from its file     adapters.py   as its signature wants

  answers
    extract.py        where a text states its answer, in each style
    plain.py          an answer without its dress: dollars, markdown, spacing commands, redundant braces
    dapo.py           the published string rule of DAPO (`Answer: N`)
    numbers.py        numbers, read and compared exactly
    equivalence.py    equal as mathematics: text, exact numbers, then the algebra system in a child process
    limits.py         what is never handed to the algebra system
    verify.py         text + answer -> `Score` of the answer alone
    grade.py          files of completions and answers, graded offline

  processes
    worker.py         one killable child process; the parent owns the deadline     child.py   its other end
    symbolic.py       the child's jobs that hold the algebra system
    plugin_jobs.py    the child's jobs that run a user's function

A text that a model wrote is data: nothing in here evaluates it as code.
"""
