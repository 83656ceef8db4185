"""Prompts: where they come from, in which order they are asked, and which of their groups train.

    rows.py       reads .jsonl, .json, .parquet, directories and hub data sets; collects every fault
    columns.py    finds prompt, answer and id in a row, and checks them
    datasets.py   load_prompts: rows to prompts, with an account of every row
    tasks.py      built-in tasks, made on the spot
    encoding.py   prompts to token ids; the ids that end a completion
    sampler.py    the order in which prompts are drawn
    filters.py    which groups train

To add a source of data, see `rows.py`; another order or another filter is a class with the methods of
`burnish.protocols.PromptSampler` or `GroupFilter`.
"""
