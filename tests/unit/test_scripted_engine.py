"""The public test double."""

from array import array

import pytest

from burnish.protocols import Publication, RolloutEngine
from burnish.rollout.scripted import Scripted, ScriptedEngine
from burnish.types import Completion, Prompt, Request, Sampling
from tests.tiny_models import eos_ids, word_tokenizer

REQUESTS = [
    Request(id=10, prompt=Prompt(id="a", text="1+1="), seeds=(5, 6)),
    Request(id=11, prompt=Prompt(id="b", text="1+2="), seeds=(7,)),
]


def loaded(engine: ScriptedEngine) -> ScriptedEngine:
    engine.load(Publication(version=3, weights=None))
    return engine


def test_it_says_what_the_script_says() -> None:
    engine: RolloutEngine = loaded(ScriptedEngine(lambda prompt, sample, seed: f"{prompt.id}{sample}{seed}"))
    assert dict(engine.generate(REQUESTS, Sampling())) == {
        10: (
            Completion(
                prompt_ids=array("i", map(ord, "1+1=")),
                token_ids=array("i", [ord("a"), ord("0"), ord("5"), 0]),
                logprobs=array("f", [-1.0] * 4),
                text="a05",
                finish_reason="stop",
                policy_version=3,
            ),
            Completion(
                prompt_ids=array("i", map(ord, "1+1=")),
                token_ids=array("i", [ord("a"), ord("1"), ord("6"), 0]),
                logprobs=array("f", [-1.0] * 4),
                text="a16",
                finish_reason="stop",
                policy_version=3,
            ),
        ),
        11: (
            Completion(
                prompt_ids=array("i", map(ord, "1+2=")),
                token_ids=array("i", [ord("b"), ord("0"), ord("7"), 0]),
                logprobs=array("f", [-1.0] * 4),
                text="b07",
                finish_reason="stop",
                policy_version=3,
            ),
        ),
    }


def test_it_remembers_what_was_asked_and_loaded() -> None:
    engine = loaded(ScriptedEngine(lambda *_: "x"))
    list(engine.generate(REQUESTS, Sampling(temperature=0.5)))
    engine.load(Publication(version=4, weights=None))
    list(engine.generate(REQUESTS[:1], Sampling()))
    assert engine.requests == [*REQUESTS, REQUESTS[0]]
    assert engine.samplings == [Sampling(temperature=0.5), Sampling()]
    assert engine.versions == [3, 4]


def test_requests_can_finish_out_of_order() -> None:
    engine = loaded(ScriptedEngine(lambda *_: "x", order=reversed))
    assert [request_id for request_id, _ in engine.generate(REQUESTS, Sampling())] == [11, 10]


def test_it_cuts_at_the_limit() -> None:
    engine = loaded(ScriptedEngine(lambda *_: "abcde"))
    ((_, (completion,)),) = engine.generate(REQUESTS[1:], Sampling(max_new_tokens=3))
    assert (completion.text, completion.finish_reason, len(completion.token_ids)) == ("abc", "length", 3)


def test_the_end_of_sequence_must_fit_below_the_limit() -> None:
    engine = loaded(ScriptedEngine(lambda *_: "abc"))
    ((_, (completion,)),) = engine.generate(REQUESTS[1:], Sampling(max_new_tokens=3))
    assert (completion.text, completion.finish_reason, len(completion.token_ids)) == ("abc", "length", 3)


def test_pieces_set_the_logprobs_and_the_end() -> None:
    engine = loaded(ScriptedEngine(lambda *_: Scripted("ab", logprobs=(-0.5, -0.25), ends=False)))
    ((_, (completion,)),) = engine.generate(REQUESTS[1:], Sampling())
    assert completion.token_ids.tolist() == [ord("a"), ord("b")]
    assert completion.logprobs.tolist() == [-0.5, -0.25]
    assert completion.finish_reason == "length"


def test_a_real_tokenizer_can_be_used() -> None:
    tokenizer = word_tokenizer()
    engine = loaded(
        ScriptedEngine(
            lambda *_: "Answer: 2",
            encode=lambda text: tokenizer(text).input_ids,
            decode=lambda ids: str(tokenizer.decode(list(ids))),
            eos_id=min(eos_ids(tokenizer)),
        )
    )
    ((_, (completion,)),) = engine.generate(REQUESTS[1:], Sampling())
    assert tokenizer.decode(completion.token_ids.tolist()) == "Answer: 2<eos>"
    assert completion.text == "Answer: 2"


def test_wrong_use_is_said() -> None:
    with pytest.raises(ValueError, match=r"Call load\(publication\)"):
        ScriptedEngine(lambda *_: "x").generate(REQUESTS, Sampling())
    engine = loaded(ScriptedEngine(lambda *_: Scripted("ab", logprobs=(-0.5,))))
    with pytest.raises(ValueError, match="1 log-probs for 3 tokens"):
        list(engine.generate(REQUESTS, Sampling()))
