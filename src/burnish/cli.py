"""The command line. Thin: every command imports what it needs when it runs, so `burnish --help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from burnish import __version__
from burnish.errors import BUG, EXIT_CODES, exit_code
from burnish.launch.signals import GRACE_SECONDS
from burnish.terminal import show

EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (`errors.EXIT_CODES`).

    When it is not 0, the last line on stderr says what to type next.
    """
    parser = _parser()
    args, words = parser.parse_known_args(argv)
    if args.run is None:
        parser.print_help()
        return EXIT_USAGE
    if words and not args.takes_words:
        parser.error(f"{args.command} does not take {' '.join(words)!r}; see `burnish {args.command} --help`")
    try:
        return args.run(args, words)
    except KeyboardInterrupt as interrupt:
        print("interrupted; `burnish train --resume RUN` continues from the last checkpoint", file=sys.stderr)
        return exit_code(interrupt)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing more can be said
        return 0
    except Exception as error:
        code = exit_code(error)
        if code == BUG:
            raise
        _say(error)
        return code


def _say(error: Exception) -> None:
    """Print an error for people. It may quote data, so nothing of it reaches the terminal as it is."""
    from burnish.prompts.rows import in_full

    text = "\n".join([f"burnish: {in_full(error)}", *getattr(error, "__notes__", ())])
    show(text, sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="burnish",
        description="Post-train language models with group-relative reinforcement learning.",
        epilog="`burnish train` alone runs the embedded default: no network, no GPU, about a minute of learning.",
    )
    parser.add_argument("--version", action="version", version=f"burnish {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(dest="command", metavar="command")

    def command(name: str, run: Callable[..., int], help: str, *, words: str | None = None) -> argparse.ArgumentParser:
        usage = f"burnish {name} [options] {words}" if words else None
        sub = commands.add_parser(name, help=help, description=help, usage=usage, allow_abbrev=False)
        sub.set_defaults(run=run, takes_words=words is not None)
        return sub

    words = "[preset or file] [key=value | --key value ...]"
    train = command("train", _train, "post-train a model", words=words)
    train.add_argument("--resume", metavar="RUN", type=Path, help="continue the run in this folder")
    train.add_argument(
        "--allow-change",
        metavar="KEY",
        action="append",
        default=[],
        help="with --resume: go on though this differs from what the run was started with (a key or section, data, "
        "model, reward); may be given several times",
    )
    train.add_argument(
        "--verify", action="store_true", help="with --resume: replay one recorded step and compare; writes nothing"
    )
    train.add_argument(
        "--grace",
        metavar="SECONDS",
        type=float,
        default=GRACE_SECONDS,
        help=f"after SIGTERM or Ctrl-C, end without a checkpoint if it takes longer (default: {GRACE_SECONDS:g})",
    )
    train.formatter_class = argparse.RawDescriptionHelpFormatter
    train.epilog = "exit codes:\n" + "\n".join(f"  {code:3}  {meaning}" for code, meaning in EXIT_CODES.items())

    doctor = command("doctor", _doctor, "check what `train` with these words would meet, without training", words=words)
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")

    evaluate = command("eval", _eval, "evaluate a model on held-out prompts", words="MODEL DATA [key=value ...]")
    evaluate.add_argument("model", help="`embedded`, a model directory, a checkpoint, or a hub name")
    evaluate.add_argument("data", help="a built-in task, a file, a directory or a hub name")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="also write every prompt's verdicts here")
    evaluate.add_argument(
        "--reliability", type=Path, metavar="FILE", help="draw stated confidence against accuracy here"
    )

    ids = command("token-ids", _token_ids, "show the tokens of the words of confidence", words="MODEL [key=value ...]")
    ids.add_argument("model", nargs="?", help="`embedded`, a model directory, a checkpoint, or a hub name")
    ids.add_argument("--model_path", metavar="MODEL", help="the same, as scripts for this purpose spell it")

    base = command("base", _base, "build a base model for a built-in task by supervised warm-up")
    base.add_argument("task", nargs="?", default="add23", help="add23, add3 or modchain (default: add23)")
    base.add_argument("--out", type=Path, help="folder for the model (default: bases/TASK-SEED)")
    base.add_argument("--seed", type=int, default=1)
    base.add_argument("--confidence", metavar="MODEL", help="teach this base (or `embedded`) to state its confidence")

    generate = command("generate", _generate, "show completions of a prompt", words="MODEL PROMPT [key=value ...]")
    generate.add_argument("model", help="`embedded`, a model directory, a checkpoint, or a hub name")
    generate.add_argument("prompt", help="what to ask")
    generate.add_argument("-n", type=int, default=4, help="completions to draw (default: 4)")

    grade = command("grade", _grade, "grade {completion, answer} rows of a JSONL file, one JSON verdict per row")
    grade.add_argument("file", type=Path)
    grade.add_argument("--style", choices=("auto", "dapo", "gsm8k", "boxed", "equivalence"), default="auto")
    grade.add_argument("--timeout", type=float, default=5.0, help="seconds per row (default: 5)")

    usage = "[--out FILE] -- COMMAND | SCRIPT | FILE"
    imported = command("import", _import, "turn a command of verl or TRL into a config file", words=usage)
    imported.add_argument("--out", type=Path, metavar="FILE", help="file to write, .toml or .yaml (default: stdout)")
    imported.add_argument("pasted", nargs="*", help="the command's words, a script, or a foreign config file")

    exported = command("export", _export, "write a run for verl or TRL: command, data, reward")
    exported.add_argument("system", choices=("verl", "trl"))
    exported.add_argument("source", metavar="RUN_OR_CONFIG", help="a run folder, a config file or a preset")
    exported.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")

    store = command("store", _store, "mend the record of a run: bring it to this version, or make a lost one again")
    store.add_argument("what", choices=("migrate", "rebuild"))
    store.add_argument("folder", type=Path, metavar="RUN", help="the run folder")

    config = command("config", _config, "print a resolved configuration as YAML", words=words)
    config.add_argument("--keys", action="store_true", help="list every key with its default and meaning")
    config.add_argument("--presets", action="store_true", help="list the presets")
    return parser


def _train(args: argparse.Namespace, words: list[str]) -> int:
    from burnish.overrides import ConfigError, load_config, revise

    if args.resume is not None:
        from burnish.launch import local

        compared = {"revise": lambda saved: revise(saved, words), "allowed": args.allow_change}
        if args.verify:
            local.verify(args.resume, **compared)
        else:
            local.resume(args.resume, **compared, grace=args.grace)
        return 0
    if args.allow_change or args.verify:
        raise ConfigError("--allow-change and --verify are about a run that exists. Type --resume RUN too")
    config = load_config(words)
    from burnish.launch.local import start

    start(config, grace=args.grace)
    return 0


def _doctor(args: argparse.Namespace, words: list[str]) -> int:
    from burnish.overrides import load_config

    try:
        config = load_config(words)
    except ValueError as error:
        from burnish.doctor import Diagnosis

        found = Diagnosis()
        found.add("config", "fault", str(error))
    else:
        from burnish.doctor import examine

        found = examine(config)
    show(found.as_json() if args.json else "\n".join(found.lines()))
    return 0 if found.is_fit else EXIT_USAGE


def _eval(args: argparse.Namespace, words: list[str]) -> int:
    from burnish.overrides import load_config

    config = load_config([*words, f"model.path={args.model}", f"eval.data={args.data}"])
    from burnish.launch.local import evaluate_once

    evaluate_once(config, args.json, args.reliability)
    return 0


def _token_ids(args: argparse.Namespace, words: list[str]) -> int:
    from burnish.overrides import ConfigError, load_config

    given = [args.model] if args.model else []
    if args.model_path is None and not given:
        raise ConfigError("token-ids needs a model. Type `burnish token-ids MODEL`")
    model, *more = [args.model_path, *given] if args.model_path else given
    config = load_config([*more, *words, f"model.path={model}"])
    from burnish.launch.local import print_token_ids

    print_token_ids(config)
    return 0


def _base(args: argparse.Namespace, _: list[str]) -> int:
    out = args.out or Path("bases") / f"{args.task}-{'confidence-' if args.confidence else ''}{args.seed}"
    if args.confidence:
        from burnish.launch.local import teach_once
        from burnish.overrides import load_config

        config = load_config([f"model.path={args.confidence}", "model.device=cpu"])
        teach_once(config, args.task, out, seed=args.seed)
        print(f"try it: burnish train {args.task} model.path={out} confidence.target=correctness")
        return 0
    from burnish.base.warmup import build_base

    build_base(args.task, out, seed=args.seed, report=print)
    print(f"try it: burnish train {args.task} model.path={out}")
    return 0


def _generate(args: argparse.Namespace, words: list[str]) -> int:
    from burnish.overrides import load_config

    if args.n < 1:
        raise ValueError(f"-n is {args.n}; it needs at least one completion. Type -n 4")

    config = load_config([*words, f"model.path={args.model}"])
    from burnish.launch.local import generate_once

    generate_once(config, args.prompt, args.n)
    return 0


def _grade(args: argparse.Namespace, _: list[str]) -> int:
    from burnish.rewards.grade import grade_file

    counts = grade_file(args.file, style=args.style, timeout=args.timeout, out=sys.stdout)
    total = sum(counts.values())
    shares = ", ".join(f"{n:,} {status} ({n / total:.1%})" for status, n in counts.items()) if total else "no rows"
    show(f"graded {total:,} rows of {args.file.name}: {shares}", sys.stderr)
    return 0


def _import(args: argparse.Namespace, words: list[str]) -> int:
    from burnish.foreign.importing import import_text, import_words

    text = import_text(import_words([*args.pasted, *words]), suffix=args.out.suffix if args.out else ".toml")
    if args.out is None:
        print(text, end="")
    else:
        args.out.write_text(text, encoding="utf-8")
        print(f"wrote {args.out}; try it: burnish train {args.out}", file=sys.stderr)
    return 0


def _export(args: argparse.Namespace, _: list[str]) -> int:
    from burnish.foreign.export import export, read_config

    unexpressed = export(read_config(args.source), args.system, args.out)
    start = "./train.sh" if args.system == "verl" else "python train.py --config grpo.yaml"
    print(f"wrote {args.out}; start it there with: {start}")
    for line in unexpressed:
        print(f"not expressed: {line}", file=sys.stderr)
    return 0


def _store(args: argparse.Namespace, _: list[str]) -> int:
    from burnish.launch.recover import migrate_record, rebuild_record

    print(*([migrate_record(args.folder)] if args.what == "migrate" else rebuild_record(args.folder)), sep="\n")
    return 0


def _config(args: argparse.Namespace, words: list[str]) -> int:
    from burnish import overrides
    from burnish.config import resolved
    from burnish.masking import masked

    if args.keys:
        for key, (default, meaning) in overrides.keys().items():
            print(f"{key} = {default}\n    {meaning}")
    elif args.presets:
        for name, line in overrides.presets().items():
            print(f"{name:10} {line}")
    else:
        import yaml

        print(yaml.safe_dump(masked(resolved(overrides.load_config(words))), sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
