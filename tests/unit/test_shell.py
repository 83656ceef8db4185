"""Launch scripts, read and never run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.foreign.shell import ScriptError, commands, trainer_words


def words(text: str, **environment: str) -> list[tuple[str, ...]]:
    found = commands(text, environment)
    assert [command.problem for command in found] == [None] * len(found)
    return [command.words for command in found]


def one(text: str, **environment: str) -> tuple[str, ...]:
    return words(text, **environment)[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run a  b # c", ("run", "a", "b")),
        ("run a \\\n  b\\\n c", ("run", "a", "b", "c")),
        ("run 'a $X' \"b c\" d\\ e", ("run", "a $X", "b c", "d e")),
        ('run ""', ("run", "")),
        ("run a#b", ("run", "a#b")),
        ("X=1\nrun $X ${X} x${X}y \"$X 2\" '$X'", ("run", "1", "1", "x1y", "1 2", "$X")),
        ("X='a b'\nrun $X \"$X\"", ("run", "a", "b", "a b")),
        ('X=\nrun $X "$X" y', ("run", "", "y")),
        ("run ${X:-d} ${X-e} ${X:=f} $X", ("run", "d", "e", "f", "f")),
        ('X=\nrun ${X:-d} "${X-e}"', ("run", "d", "")),
        ("B=true\nrun ${B:+--flag} ${C:+--other} ${B:+--n $B}", ("run", "--flag", "--n", "true")),
        ('run ${X:-"a b"} "${Y:-c d}"', ("run", "a", "b", "c d")),
        ("N=3\nrun $((N * 2 + 1)) $(( (N+1) / 2 )) $((-7 / 2)) $((7 % 4))", ("run", "7", "2", "-3", "3")),
        ("A=(a 'b c' d)\nA+=(e)\nrun \"${A[@]}\" x", ("run", "a", "b c", "d", "e", "x")),
        ("A=(\n  one # first\n  two=2\n)\nrun ${A[@]}", ("run", "one", "two=2")),
        ("X=a\nX+=b\nrun $X", ("run", "ab")),
        ("export X=1 Y=2; run $X$Y", ("run", "12")),
        ("run a > log.txt 2>&1", ("run", "a")),
        ("run a 2> err < in b", ("run", "a", "b")),
        ('run "$@" $* x', ("run", "x")),
        ("run $(date +%s) `id`", ("run", "$(date +%s)", "`id`")),
        ('run "$(dirname "$0")/x.py"', ("run", '$(dirname "$0")/x.py')),
        ("run data=['a','b'] x={1:2}", ("run", "data=[a,b]", "x={1:2}")),
        ("run \"data=['a']\"", ("run", "data=['a']")),
        ("cat <<EOF\nrun wrong\nEOF\nrun right", ("run", "right")),
        ("run a\r\n", ("run", "a")),
        ("run 5$ $", ("run", "5$", "$")),
    ],
)
def test_a_command_expands_as_in_a_shell(text: str, expected: tuple[str, ...]):
    assert one(text) == expected


def test_variables_come_from_the_environment_unless_the_script_sets_them():
    assert one('M="${M:-small}"\nrun $M', M="large") == ("run", "large")
    assert one('M="${M:-small}"\nrun $M') == ("run", "small")
    assert one("M=fixed\nrun $M", M="large") == ("run", "fixed")


def test_commands_are_told_apart():
    assert words("cd x && run a; run b | tee log\nrun c &") == [
        ("cd", "x"),
        ("run", "a"),
        ("run", "b"),
        ("tee", "log"),
        ("run", "c"),
    ]


def test_branches_and_loops_are_left_out_and_their_variables_cannot_be_used():
    script = """
if [[ "$A" == true ]]; then
  X=1
  run inside
else
  export Y=2
fi
for i in 1 2; do run loop $i; done
[ -n "$B" ] && Z=3
f() {
  run function
}
run outside
run $X
"""
    found = commands(script, {})
    assert [command.words for command in found if command.problem is None] == [("run", "outside")]
    assert found[-1].problem is not None
    assert "a branch or loop sets it" in found[-1].problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run $X", "$X has no value: type X=VALUE in front of the command"),
        ("run ${X:?}", "has no value"),
        ("X=a.b\nrun ${X%.*}", "an expansion that only a shell can make"),
        ("run $((2 ** 3))", "arithmetic that only a shell can do"),
        ("run $((1 / 0))", "arithmetic that only a shell can do"),
        ("run $((__import__))", "arithmetic that only a shell can do"),
        ("X=${Y%a}\nrun $X", "cannot be read"),
    ],
)
def test_what_needs_a_shell_is_named(text: str, message: str):
    problem = commands(text, {})[-1].problem
    assert problem is not None
    assert message in problem


@pytest.mark.parametrize("text", ["run 'a", 'run "a', "run ${a", "run $(a", "A=(b"])
def test_what_is_not_closed_is_an_error(text: str):
    with pytest.raises(ScriptError, match="not closed"):
        commands(text, {})


def test_a_variable_that_holds_itself_ends():
    text = "run " + "${X:-" * 200 + "a" + "}" * 200
    problem = commands(text, {})[-1].problem
    assert problem is not None
    assert "nests too deep" in problem


def test_brackets_without_end_are_an_error_not_a_crash():
    with pytest.raises(ScriptError, match="too deep"):
        commands("run " + "$(" * 100_000, {})


@settings(deadline=None)
@given(st.text(alphabet=" \n\t\\\"'$`(){}[]<>&|;#=+-:?ab1", max_size=60))
def test_no_text_breaks_the_reader(text: str):
    try:
        found = commands(text, {"a": "1"})
    except ScriptError:
        return
    assert all(isinstance(word, str) for command in found for word in command.words)
    assert all(command.words for command in found)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python train.py --a 1", "--a 1"),
        ("CUDA_VISIBLE_DEVICES=0 nohup python3 -u x/train.py a.b=1", "a.b=1"),
        ("python3.11 -m verl.trainer.main_ppo a=1", "a=1"),
        ("python -m verl.trainer.main_adpo a=1", "a=1 --config-name adpo_trainer"),
        ("python -m verl.trainer.main_adpo --config-name mine", "--config-name mine"),
        ("accelerate launch --num_processes 4 --use_fsdp t.py --a 1", "--a 1 --num_processes=4"),
        ("accelerate launch --config_file z.yaml t.py --a 1", "--a 1 --accelerate_config=z.yaml"),
        ("torchrun --nproc-per-node=8 --nnodes 2 t.py --a 1", "--a 1 --nproc_per_node=8 --nnodes=2"),
        ("python -m torch.distributed.run --nproc_per_node 2 t.py --a 1", "--a 1 --nproc_per_node=2"),
        ("deepspeed --num_gpus 2 t.py --a 1", "--a 1 --num_processes=2"),
        ("trl grpo --config x.yaml --a 1", "--config x.yaml --a 1"),
        ("ray job submit --address=x -- python3 -m recipe.dapo.main_dapo a=1", "a=1 --config-name dapo_trainer"),
        ("uv run python train.py --a 1", "--a 1"),
        ("uv run -m pkg.train --a 1", "--a 1"),
        ("burnish train dapo a=1", "dapo a=1"),
    ],
)
def test_launchers_are_taken_off(command: str, expected: str):
    assert trainer_words(command.split()) == expected.split()


@pytest.mark.parametrize(
    "command", ["", "A=1", "cd x", "trl sft --a 1", "python -c pass", "ray status", "burnish eval x"]
)
def test_other_commands_start_no_trainer(command: str):
    assert trainer_words(command.split()) is None
