"""Stated confidence: found in the text, mapped to tokens, trained as a term that may be cut and packed."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from burnish.algorithms import confidence
from burnish.batch import MANY_TAGS, NO_TAG, Batch, PolicyOutput, Prepared, collate
from burnish.confidence.setup import require_targets, set_up
from burnish.confidence.stated import probabilities, words
from burnish.confidence.tag import Statement, Tag
from burnish.confidence.term import Marking, correctness, from_data, group_accuracy, with_confidence
from burnish.confidence.tokens import Places, decision, decoder, encoder
from burnish.learner.forward import PolicyForward
from burnish.learner.local import LocalLearner
from burnish.learner.schedule import make_schedule
from burnish.objective import Objective, clipped_objective
from burnish.types import Completion, Group, Prompt, Rollout, Score, Status
from tests.reference_vectors import TOLERANCE, reference
from tests.tag_tokenizers import TAG_TOKENIZERS
from tests.tiny_models import MODELS, word_tokenizer

HIGH, LOW = "<confidence>high</confidence>", "<confidence>low</confidence>"


# -- the arithmetic ---------------------------------------------------------------------------------------------------


def two_of(*others: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of high and low over a vocabulary of the two and of tokens with the given logits."""
    vectors = reference("confidence")
    high, low = torch.tensor(vectors["high_logit"]), torch.tensor(vectors["low_logit"])
    rest = [torch.full_like(high, logit) for logit in others]
    logprobs = torch.stack([high, low, *rest]).log_softmax(0)
    return logprobs[0], logprobs[1]


def test_softmax_scores_are_the_references():
    expected = torch.tensor(reference("confidence")["score_softmax"])
    for others in ((), (5.0,), (-3.0, 8.0)):  # it does not matter what else is in the vocabulary
        torch.testing.assert_close(confidence.softmax_score(*two_of(*others)), expected, atol=TOLERANCE, rtol=0)


def test_prob_diff_scores_are_the_references_and_those_of_the_full_vocabulary():
    expected = torch.tensor(reference("confidence")["score_prob_diff_full_vocab_3tok_other_logit5"])
    found = confidence.prob_diff_score(*two_of(5.0))
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    assert float((found - confidence.softmax_score(*two_of(5.0))).abs().max()) > 0.01


def test_losses_are_the_references():
    vectors = reference("confidence")
    score = torch.tensor([0.9, 0.7, 0.3])
    squared = confidence.squared_error(score, torch.tensor([0.95, 0.65, 0.4])).mean()
    crossed = confidence.cross_entropy(score, torch.tensor([1.0, 1.0, 0.0])).mean()
    from_logit = confidence.softmax_cross_entropy(score.log(), (1 - score).log(), torch.tensor([1.0, 1.0, 0.0])).mean()
    assert squared.item() == pytest.approx(vectors["mse_[.9,.7,.3]_vs_[.95,.65,.4]"], abs=TOLERANCE)
    assert crossed.item() == pytest.approx(vectors["bce_[.9,.7,.3]_vs_[1,1,0]"], abs=TOLERANCE)
    assert from_logit.item() == pytest.approx(vectors["bce_[.9,.7,.3]_vs_[1,1,0]"], abs=TOLERANCE)


def test_the_gradient_of_squared_error_is_the_one_worked_out_by_hand():
    high, low = (torch.tensor([value], requires_grad=True) for value in (1.2, 0.7))
    loss = confidence.squared_error(confidence.softmax_score(high, low), torch.tensor([0.95])).sum()
    loss.backward()
    assert high.grad is not None
    assert low.grad is not None
    assert loss.item() == pytest.approx(0.1072829, abs=TOLERANCE)
    assert (high.grad.item(), low.grad.item()) == pytest.approx((-0.1539465, 0.1539465), abs=TOLERANCE)


def test_cross_entropy_of_a_logit_pulls_also_where_the_statement_is_surely_wrong():
    high, low = torch.tensor([-200.0], requires_grad=True), torch.tensor([0.0])
    loss = confidence.softmax_cross_entropy(high, low, torch.tensor([1.0]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(200.0)
    assert high.grad is not None
    assert high.grad.item() == pytest.approx(-1.0)


def test_cross_entropy_of_a_probability_is_bounded():
    score = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = confidence.cross_entropy(score, torch.tensor([1.0, 0.0]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([-math.log(1e-6)] * 2, rel=0.02)
    assert score.grad is not None
    assert score.grad.tolist() == [0.0, 0.0]


# -- the tag in the text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"I am high on it. {HIGH}", True),
        (f"{LOW} hard to say: high?", False),
        ("<confidence> \n low </confidence>", False),
        (f"<confidence>{HIGH}", True),
        ("high", "missing"),
        ("<confidence>high", "missing"),
        ("high</confidence>", "missing"),
        ("<confidence>medium</confidence>", "missing"),
        ("<confidence>High</confidence>", "missing"),
        ("<confidence>high low</confidence>", "missing"),
        ("<confidence></confidence>", "missing"),
        ("", "missing"),
        (HIGH + HIGH, "multiple"),
        (f"{HIGH} or rather {LOW}", "multiple"),
    ],
)
def test_exactly_one_whole_tag_is_a_statement(text: str, found: bool | str):
    statement = Tag().find(text)
    assert (statement if isinstance(statement, str) else statement.is_high) == found


def test_tag_and_words_may_be_others_and_are_no_patterns():
    assert Tag("sure", "yes", "no").find("so: <sure>no</sure>.") == Statement(4, 19, 10, is_high=False)
    assert Tag("sure", "yes", "no").find(HIGH) == "missing"
    assert Tag("c.f", "a+", "(b)").find("x<c.f>(b)</c.f>") == Statement(1, 15, 6, is_high=False)
    assert Tag("c.f", "a+", "(b)").find("<c.f>aa</c.f>") == "missing"
    assert Tag(high="a", low="ab").find("<confidence>ab</confidence>") != "missing"


# -- from the text to tokens ------------------------------------------------------------------------------------------


@pytest.fixture(params=TAG_TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TAG_TOKENIZERS[request.param]()


def marked(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], **changed: Any) -> Any:
    tag, decode = Tag(), decoder(tokenizer)
    offset = decision(tag, encoder(tokenizer), decode).offset
    rollout = rolled(ids)
    return Marking(tag, decode, offset, correctness, **changed)(Group(0, Prompt("p"), (rollout,)))[0]


def rolled(ids: Sequence[int], status: Status = "ok", *, finish: Any = "stop") -> Rollout:
    completion = Completion(array("i", [1, 2]), array("i", ids), array("f", [-1.0] * len(ids)), "", finish, 0)
    return Rollout(completion, Score(1.0, 1.0, status=status))


@pytest.mark.parametrize("before", ["", "so ", "a high hope; high", "is 12, "])
@pytest.mark.parametrize("after", ["", " 4", " high low"])
def test_the_deciding_token_is_the_first_that_touches_the_word(
    tokenizer: PreTrainedTokenizerFast, before: str, after: str
):
    ids, decode = encoder(tokenizer)(before + LOW + after), decoder(tokenizer)
    text = decode(ids)
    place = text.index(LOW) + len("<confidence>")
    expected = next(n for n in range(len(ids)) if len(decode(ids[: n + 1])) > place)
    found = marked(tokenizer, ids)
    assert found.token == expected
    assert ids[found.token] == decision(Tag(), encoder(tokenizer), decode).low_id


def test_the_span_of_a_tag_holds_all_of_it_and_nothing_else(tokenizer: PreTrainedTokenizerFast):
    before, tag, after = (list(encoder(tokenizer)(text)) for text in ("is 12", HIGH, "is 12"))
    found = marked(tokenizer, before + tag + after, spans=True)
    assert (found.first, found.end) == (len(before), len(before) + len(tag))


def test_a_word_with_white_space_around_it_is_found():
    tokenizer = TAG_TOKENIZERS["bpe"]()
    ids = encoder(tokenizer)("<confidence>  low </confidence>")
    assert decoder(tokenizer)([ids[marked(tokenizer, ids).token]]).strip()[0] == "l"


@pytest.mark.parametrize("name", ["word", "bpe", "merged"])
def test_where_one_word_begins_the_other_the_token_after_it_decides(name: str):
    tokenizer = TAG_TOKENIZERS[name]()
    encode, decode = encoder(tokenizer), decoder(tokenizer)
    tag = Tag(high="hig", low="hi")
    found = decision(tag, encode, decode)
    assert decode([found.high_id]) == "g"
    assert decode([found.low_id])[0] == "<"
    mark = Marking(tag, decode, found.offset, correctness)
    for word, deciding_id in (("hig", found.high_id), ("hi", found.low_id)):
        ids = encode(f"hi 4{tag.written(word)}4")
        (marked,) = mark(Group(0, Prompt("p"), (rolled(ids),)))
        assert ids[marked.token] == deciding_id
        assert decode(ids[: marked.token]).endswith("<confidence>hi")


def test_ids_that_the_tokenizer_would_not_choose_are_mapped_all_the_same():
    tokenizer = TAG_TOKENIZERS["merged"]()
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[piece] for piece in ("<", "confidence", ">", "l", "o", "w", "</", "confidence", ">")]
    assert decoder(tokenizer)(ids) == LOW
    assert marked(tokenizer, ids).token == 3


def test_the_word_in_prose_is_no_statement():
    """The fault of a search among token ids: ids [.., high, .., <confidence>, low, ..] would count as high."""
    tokenizer = word_tokenizer()
    ids = encoder(tokenizer)("high:" + LOW)
    assert ids[0] == decision(Tag(), encoder(tokenizer), decoder(tokenizer)).high_id
    assert marked(tokenizer, ids).token == 3


BYTES = TAG_TOKENIZERS["bpe"]()


@given(st.text(alphabet="ab \u00e9\u4f4e\U0001f642<>hig", max_size=40), st.data())
@settings(max_examples=150, deadline=None)
def test_places_are_those_of_counting_from_the_start(text: str, data: st.DataObject):
    ids, decode = encoder(BYTES)(text + LOW + text), decoder(BYTES)
    whole = decode(ids)
    place = data.draw(st.integers(len(text), len(text) + len(LOW) - 1))
    expected = next(n for n in range(len(ids)) if len(decode(ids[: n + 1])) > place)
    assert Places(ids, decode, length=len(whole)).token_at(place) == expected


def test_few_beginnings_are_decoded():
    decoded: list[int] = []
    draw = random.Random(1)
    sizes = [draw.choice((1, 1, 2, 3, 9)) for _ in range(20_000)]

    def decode(ids: Sequence[int]) -> str:
        decoded.append(len(ids))
        return "x" * sum(ids)

    place = sum(sizes) * 2 // 3
    token = Places(sizes, decode, length=sum(sizes)).token_at(place)
    assert sum(sizes[:token]) <= place < sum(sizes[: token + 1])
    assert len(decoded) <= 30


# -- marks and targets ------------------------------------------------------------------------------------------------


def test_targets_come_from_the_sample_its_group_or_the_data():
    statuses: list[Status] = ["ok", "wrong", "unparsed", "ok", "timeout"]
    group = Group(0, Prompt("p", meta={"target_confidence": 0.95}), tuple(rolled([1], s) for s in statuses))
    assert correctness(group) == [1.0, 0.0, 0.0, 1.0, None]
    assert group_accuracy(group) == [0.5] * 5
    assert from_data("target_confidence")(group) == [0.95] * 5
    assert from_data("confidence_label")(group) == [None] * 5


def test_a_batch_carries_tokens_targets_and_what_is_wrong():
    tokenizer = word_tokenizer()
    texts = [f"12{HIGH}3", "12", HIGH + LOW, LOW]
    statuses: list[Status] = ["ok", "ok", "wrong", "wrong"]
    group = Group(0, Prompt("p"), tuple(rolled(encoder(tokenizer)(t), s) for t, s in zip(texts, statuses, strict=True)))
    batch = collate([group], mark=marking(tokenizer, spans=True))
    assert batch.tag_B.tolist() == [3, NO_TAG, MANY_TAGS, 1]
    assert batch.target_B.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert batch.tag_N.nonzero().squeeze(1).tolist() == [2, 3, 4, *range(14, 17)]
    assert collate([group]).tag_B.tolist() == [NO_TAG] * 4
    assert collate([]).tag_B.tolist() == []


def test_prompts_without_a_target_are_refused_by_name():
    prompts = [Prompt("a", meta={"target_confidence": 1}), Prompt("b", meta={"confidence_label": 1})]
    require_targets(prompts[:1], "regression")
    require_targets(prompts[1:], "classification")
    with pytest.raises(ValueError, match=r"'target_confidence' in every row, and 1 of 2 .*'b'.*target=correctness"):
        require_targets(prompts, "regression")


# -- the term ---------------------------------------------------------------------------------------------------------


def marking(tokenizer: PreTrainedTokenizerFast, **changed: Any) -> Marking:
    decode = decoder(tokenizer)
    return Marking(Tag(), decode, decision(Tag(), encoder(tokenizer), decode).offset, correctness, **changed)


def flat(**changed: Any) -> Objective:
    """An objective whose policy term is there and pulls nothing when all siblings score alike."""
    chosen = {"advantage": "standardized", "reduction": "token_mean", "clip_low": 0.2, "clip_high": 0.28}
    return clipped_objective(**{**chosen, "dual_clip": 10.0, "max_new_tokens": 32, **changed})


def confident(objective: Objective | None = None, *, mask_tag: bool = False, **changed: Any) -> Objective:
    found = decision(Tag(), encoder(TOKENIZER), decoder(TOKENIZER))
    chosen = {"coef": 0.1, "loss": "regression", "score": "softmax"}
    return with_confidence(
        objective or flat(),
        marking(TOKENIZER, spans=mask_tag),
        (found.high_id, found.low_id),
        mask_tag=mask_tag,
        **{**chosen, **changed},
    )


TOKENIZER = word_tokenizer()
V = len(TOKENIZER)
TEMPERATURE = 0.9
COMPLETIONS = (
    (f"4+8=12{HIGH}Answer:1", f"{LOW}Answer:7", "Answer:3", f"7{HIGH}Answer:7{LOW}"),
    (f"3+5=8,8+9=17{LOW}Answer:17", f"6{HIGH}", f"<confidence>low{HIGH}2", ""),
    (f"{HIGH}2", f"12:{LOW}", "24*3=72,72-15=57", f"5?{LOW}0", f"so:{HIGH}Answer:1"),
)
STATUSES: tuple[Status, ...] = ("ok", "wrong", "ok", "unparsed", "timeout")
NUM_VALID = 8
"""Statements in COMPLETIONS with a target: ten tags, one twice in a text, one at a rollout that could not be graded."""


def groups(*, alike: bool = True) -> list[Group]:
    draw = random.Random(3)
    made: list[Group] = []
    for index, texts in enumerate(COMPLETIONS):
        prompt = array("i", [draw.randrange(V) for _ in range(3 + 5 * index)])
        rollouts: list[Rollout] = []
        for text, status in zip(texts, STATUSES, strict=False):
            ids = array("i", encoder(TOKENIZER)(text))
            logprobs = array("f", [-draw.uniform(1.0, 5.0) for _ in ids])
            finish = "length" if text.endswith("7") else "stop"
            score = Score(1.0 if alike else draw.random(), 1.0, status=status)
            rollouts.append(Rollout(Completion(prompt, ids, logprobs, text, finish, 0), score))
        made.append(Group(index, Prompt(str(index), text=""), tuple(rollouts)))
    return made


def prepared_by(objective: Objective, **changed: Any) -> Prepared:
    return objective.prepare(collate(groups(**changed), mark=objective.mark))


def learner_of(model: PreTrainedModel, objective: Objective, *, tokens_per_piece: int = 4096) -> LocalLearner:
    return LocalLearner(
        model,
        TOKENIZER,
        objective,
        temperature=TEMPERATURE,
        tokens_per_piece=tokens_per_piece,
        learning_rate=1e-2,
        betas=(0.9, 0.99),
        eps=1e-8,
        weight_decay=0.0,
        max_grad_norm=1.0,
        schedule=make_schedule("constant", 0, 10),
    )


def gradient(model: PreTrainedModel) -> Tensor:
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad()
    return torch.cat([g.flatten() for g in grads])


def padded_loss(model: PreTrainedModel, batch: Batch, lose: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """The mean loss of valid statements the plain way: rows padded on the right, one call of the model."""
    prompts = [torch.tensor(batch.prompt_ids[group], dtype=torch.int64) for group in batch.group_B.tolist()]
    rows = [torch.cat(pair) for pair in zip(prompts, batch.tokens_N.split(batch.lengths_B.tolist()), strict=True)]
    ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    sizes_B = torch.tensor([len(row) for row in rows])
    logits_BTV = model(
        input_ids=ids_BT, attention_mask=(torch.arange(ids_BT.shape[1]) < sizes_B[:, None]).long()
    ).logits
    logprobs_BTV = (logits_BTV / TEMPERATURE).log_softmax(-1)
    found = decision(Tag(), encoder(TOKENIZER), decoder(TOKENIZER))
    losses: list[Tensor] = []
    for b, (tag, target) in enumerate(zip(batch.tag_B.tolist(), batch.target_B, strict=True)):
        if tag >= 0 and not target.isnan():
            before = logprobs_BTV[b, len(prompts[b]) + tag - 1]
            losses.append(lose(before[found.high_id], before[found.low_id], target))
    assert len(losses) == NUM_VALID
    return torch.stack(losses).mean()


LOSSES: dict[tuple[str, str], Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    ("regression", "softmax"): lambda h, lo, t: (torch.sigmoid(h - lo) - t) ** 2,
    ("regression", "prob_diff"): lambda h, lo, t: ((h.exp() - lo.exp() + 1) / 2 - t) ** 2,
    ("classification", "softmax"): lambda h, lo, t: (
        -(t * torch.sigmoid(h - lo) + (1 - t) * torch.sigmoid(lo - h)).log()
    ),
    ("classification", "prob_diff"): lambda h, lo, t: (
        -(t * ((h.exp() - lo.exp() + 1) / 2) + (1 - t) * (1 - (h.exp() - lo.exp() + 1) / 2)).log()
    ),
}
"""Written out, for targets of 0 and 1."""


@pytest.mark.parametrize(("loss", "score"), LOSSES)
def test_packed_and_padded_give_the_same_loss_and_gradient(loss: str, score: str):
    model = MODELS["qwen2"](V).eval()
    objective = confident(loss=loss, score=score)
    prepared = prepared_by(objective)
    learner = learner_of(model, objective)
    assert learner._policy.packs  # pyright: ignore[reportPrivateUsage]
    seen = learner.forward_backward(prepared)
    packed = gradient(model)

    expected = padded_loss(model, prepared.batch, LOSSES[loss, score])
    (0.1 * expected).backward()
    padded = gradient(model)
    total, count = seen.shares["confidence/loss"]
    assert count == NUM_VALID
    assert total / count == pytest.approx(expected.item(), abs=1e-6)
    assert seen.shares["loss/confidence"][0] == pytest.approx(0.1 * expected.item(), abs=1e-6)
    assert float(padded.norm()) > 1e-4
    assert float((packed - padded).norm()) <= 2e-6 * float(padded.norm())


CUTS: dict[str, Callable[[int], list[list[int]]]] = {
    "whole": lambda n: [list(range(n))],
    "one by one": lambda n: [[b] for b in range(n)],
    "halves": lambda n: [list(range(n // 2)), list(range(n // 2, n))],
    "backwards in threes": lambda n: [list(range(n))[::-1][i : i + 3] for i in range(0, n, 3)],
    "every other": lambda n: [list(range(0, n, 2)), list(range(1, n, 2))],
    "shuffled": lambda n: [random.Random(5).sample(range(n), n)[i : i + 4] for i in range(0, n, 4)],
}


@pytest.mark.slow
def test_six_ways_of_cutting_give_one_gradient_and_one_metric():
    model = MODELS["qwen2"](V).eval()
    objective = confident(flat(entropy_coef=0.01), mask_tag=True)
    prepared = prepared_by(objective, alike=False)
    policy = PolicyForward(model, temperature=TEMPERATURE)
    found: dict[str, tuple[Tensor, dict[str, float]]] = {}
    for name, cut in CUTS.items():
        sums: dict[str, tuple[float, float]] = {}
        for sequences in cut(prepared.batch.num_sequences):
            piece = prepared.select(torch.tensor(sequences))
            with policy.running():
                loss, shares = objective.loss(policy(piece.batch, tracked_ids=objective.tracked_ids), piece)
                loss.backward()
            sums = {k: (sums.get(k, (0, 0))[0] + v, sums.get(k, (0, 0))[1] + n) for k, (v, n) in shares.items()}
        found[name] = gradient(model), {name: total / count for name, (total, count) in sums.items() if count}
    expected, metrics = found["whole"]
    assert metrics["confidence/valid_ratio"] == pytest.approx(NUM_VALID / 13)
    for name, (grad, values) in found.items():
        assert float((grad - expected).norm()) <= 2e-6 * float(expected.norm()), name
        assert values == pytest.approx(metrics, rel=1e-5, abs=1e-6), name


def test_it_counts_what_is_valid_missing_and_multiple():
    objective = confident()
    prepared = prepared_by(objective)
    _, shares = objective.loss(even(prepared.batch), prepared)
    n = float(prepared.batch.num_sequences)
    assert shares["confidence/valid_ratio"] == (NUM_VALID, n)
    assert shares["confidence/missing"] == (3.0, n)
    assert shares["confidence/multiple"] == (1.0, n)
    assert shares["confidence/score_mean"] == (pytest.approx(0.5 * NUM_VALID), NUM_VALID)
    assert shares["confidence/loss"] == (pytest.approx(0.25 * NUM_VALID), NUM_VALID)
    assert shares["loss/confidence"][0] == pytest.approx(0.1 * 0.25)


def even(batch: Batch) -> PolicyOutput:
    """A policy for which both words are as likely everywhere."""
    tracked_NJ = torch.full((batch.num_tokens, 2), -2.0, requires_grad=True)
    return PolicyOutput(torch.full((batch.num_tokens,), -1.0), torch.ones(batch.num_tokens), tracked_NJ)


def test_what_overlong_filtering_masks_does_not_train_its_statement():
    objective = confident(flat(mask_truncated=True))
    prepared = prepared_by(objective)
    truncated = prepared.batch.truncated_B & (prepared.batch.tag_B >= 0)
    assert int(truncated.sum()) == 2
    _, shares = objective.loss(even(prepared.batch), prepared)
    assert shares["confidence/valid_ratio"][0] == NUM_VALID - 2
    weights_N = prepared.weights_KN[-1]
    assert weights_N[prepared.batch.mask_N].sum().item() == pytest.approx(0.1)
    assert float(weights_N[~prepared.batch.mask_N].abs().sum()) == 0.0


def test_without_a_single_statement_the_loss_is_zero_with_a_graph():
    objective = confident()
    prompt = Group(0, Prompt("p"), (rolled(encoder(TOKENIZER)("12")), rolled(encoder(TOKENIZER)("3"))))
    prepared = objective.prepare(collate([prompt], mark=objective.mark))
    output = even(prepared.batch)
    output = replace(output, logprobs_N=output.logprobs_N.requires_grad_())
    loss, shares = objective.loss(output, prepared)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert shares["confidence/valid_ratio"] == (0.0, 2.0)
    assert shares["confidence/score_mean"] == (0.0, 0.0)


def test_a_masked_tag_trains_by_the_confidence_term_alone():
    plain, masked = prepared_by(confident(), alike=False), prepared_by(confident(mask_tag=True), alike=False)
    tag_N = masked.batch.tag_N
    assert int(tag_N.sum()) == 3 * 9
    assert bool((plain.weights_KN[0] > 0).all())
    assert torch.equal(masked.weights_KN[0] > 0, ~tag_N)
    assert masked.weights_KN[0].sum().item() == pytest.approx(1.0)
    assert torch.equal(masked.weights_KN[1], plain.weights_KN[1])


def test_training_moves_statements_towards_the_truth():
    model = MODELS["qwen2"](V).eval()
    objective = confident(coef=1.0)
    learner = learner_of(model, objective)
    prepared = prepared_by(objective)
    losses = []
    for _ in range(8):
        total, count = learner.forward_backward(prepared).shares["confidence/loss"]
        losses.append(total / count)
        learner.step()
    assert losses[-1] < 0.6 * losses[0]


# -- finished completions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["softmax", "prob_diff"])
def test_evaluation_reads_the_score_that_is_trained(score: Any):
    model = MODELS["qwen2"](V).eval()
    objective = confident(score=score)
    learner = learner_of(model, objective)
    prepared = prepared_by(objective)
    seen = learner.forward_backward(prepared)
    assert objective.confidence is not None
    assert seen.tracked_NJ is not None
    trained = objective.confidence(seen.tracked_NJ, prepared.batch).tolist()
    stated = probabilities(marking(TOKENIZER), objective.tracked_ids, score=score, logprobs=learner.logprobs)  # pyright: ignore[reportArgumentType]
    found = [value for values in stated(groups()) for value in values]
    assert [value is None for value in found] == [math.isnan(value) for value in trained]
    assert [v for v in found if v is not None] == pytest.approx([v for v in trained if v == v], abs=1e-5)


def test_where_nothing_is_stated_nothing_is_asked():
    def never(batch: Batch) -> Tensor:
        raise AssertionError("there is nothing to ask")

    group = Group(0, Prompt("p"), (rolled(encoder(TOKENIZER)("12")),) * 2)
    stated = probabilities(marking(TOKENIZER), (65, 66), score="softmax", logprobs=never)
    assert stated([group]) == [[None, None]]


def test_words_are_read_where_probabilities_are_not_at_hand():
    found = words(Tag())(groups())
    assert found[0] == [1.0, 0.0, None, None]
    assert found[1] == [0.0, 1.0, 1.0, None]


# -- before a run -----------------------------------------------------------------------------------------------------


SETTLED: dict[str, Any] = {"target": "correctness", "loss": "regression", "score": "softmax"}


def test_a_wrong_token_id_is_refused():
    made = set_up(TOKENIZER, Tag(), given_ids=(65, None), coef=0.1, mask_tag=False, **SETTLED)
    assert made.ids == (65, 66)
    with pytest.raises(ValueError, match=r"high_token_id is 5487, .* with token 65. Type confidence.high_token_id=65"):
        set_up(TOKENIZER, Tag(), given_ids=(5487, 3347), coef=0.1, mask_tag=False, **SETTLED)
