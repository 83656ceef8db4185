"""Confidence that is stated in words: `<confidence>high</confidence>` or `<confidence>low</confidence>`.

    tag         the tag in the text: exactly one, or the completion states nothing
    tokens      from the text to tokens: which token decides the word, and the ids of the two that compete there
    term        the objective's part: marks for the batch, the confidence term, what it reports
    stated      the confidence of finished completions, for evaluation

The arithmetic is in `burnish.algorithms.confidence`, calibration (Brier, ECE, AUROC) in `burnish.calibration`. The tag
is looked for in the text and never among token ids: `high` occurs in prose, and its token with it.
"""
