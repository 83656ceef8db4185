"""DAPO in one file: plain torch and transformers, no network, no library of ours. Run it:

    python examples/minimal_dapo.py

A tiny random Qwen2 learns a made-up task from reward alone: the prompt is two digits, the answer is the larger one and
then the end of the sequence, and what comes before is free. All of the method (arXiv:2503.14476) is here, in the order
of a step:

    sample             groups of completions for each prompt, under the current policy
    dynamic sampling   drop groups that are all right or all wrong, and draw more until the batch is full
    overlong           a soft punishment as a completion nears the limit
    advantage          standardised within the group
    dapo_loss          clip-higher, dual clip (the authors' recipe), mean over all tokens of the update
    several updates    of whole groups each, for one round of sampling

`burnish` does the same at scale, and a test holds its gradients to be those of `dapo_loss`.

Shape letters: P prompts, G siblings, B = P * G sequences (siblings side by side), T completion tokens, padded right.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 12  # digits 0..9 are their own ids
END, START = 10, 11
MAX_NEW_TOKENS = 12
OVERLONG_BUFFER = 6
PROMPTS, GROUP_SIZE, UPDATES_PER_STEP, MAX_ROUNDS = 16, 8, 4, 6
CLIP_LOW, CLIP_HIGH, DUAL_CLIP = 0.2, 0.28, 10.0


class Rollouts(NamedTuple):
    """One round of sampling; B sequences, siblings side by side."""

    prompts: Tensor
    """[B, 3]. All prompts are equally long here; unequal ones would be padded left."""
    completions_BT: Tensor
    mask_BT: Tensor
    """True up to the first END, that one included: the policy chose it, so it trains. What was drawn later does not."""
    old_logprobs_BT: Tensor
    right_B: Tensor
    """1 right, -1 wrong: the raw score, which decides whether a group is kept."""


def tiny_model() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            initializer_range=0.1,
            bos_token_id=None,
            eos_token_id=END,
            pad_token_id=END,
        )
    )


def grade(prompts: Tensor, completions_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """1 where the last digit before END is the larger of the prompt's two, else -1; no END is wrong."""
    length_B = mask_BT.sum(1)
    ended_B = ((completions_BT == END) & mask_BT).any(1)
    last_B = completions_BT.gather(1, (length_B - 2).clamp(min=0)[:, None]).squeeze(1)
    right_B = ended_B & (length_B >= 2) & (last_B == prompts[:, :2].amax(1))
    return right_B.float() * 2 - 1


def overlong_penalty(mask_BT: Tensor) -> Tensor:
    """0 until the buffer begins, then linear down to -1 at the limit (equation 13)."""
    over_B = mask_BT.sum(1) - (MAX_NEW_TOKENS - OVERLONG_BUFFER)
    return -(over_B / OVERLONG_BUFFER).clamp(0, 1)


def logprobs_of(model: Qwen2ForCausalLM, prompts: Tensor, completions_BT: Tensor) -> Tensor:
    """Log-probability of every completion token, [B, T]. Right padding needs no attention mask in a causal model."""
    logits = model(torch.cat([prompts, completions_BT], dim=1)).logits[:, prompts.shape[1] - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, completions_BT[..., None]).squeeze(-1)


@torch.no_grad()
def sample(model: Qwen2ForCausalLM) -> Rollouts:
    digits = torch.randint(0, 10, (PROMPTS, 2))
    tokens = torch.cat([digits, torch.full((PROMPTS, 1), START)], 1).repeat_interleave(GROUP_SIZE, 0)
    prompts, logprobs_of_each = tokens, []
    for _ in range(MAX_NEW_TOKENS):
        next_BV = model(tokens).logits[:, -1].float().log_softmax(-1)
        next_B1 = torch.multinomial(next_BV.exp(), 1)
        logprobs_of_each.append(next_BV.gather(1, next_B1))
        tokens = torch.cat([tokens, next_B1], 1)
    completions_BT = tokens[:, prompts.shape[1] :]
    is_end_BT = (completions_BT == END).long()
    mask_BT = is_end_BT.cumsum(1) - is_end_BT == 0
    right_B = grade(prompts, completions_BT, mask_BT)
    return Rollouts(prompts, completions_BT, mask_BT, torch.cat(logprobs_of_each, 1), right_B)


def pick(rollouts: Rollouts, rows: Tensor) -> Rollouts:
    return Rollouts(*(field[rows] for field in rollouts))


def collect(model: Qwen2ForCausalLM) -> tuple[Rollouts, float, int]:
    """Dynamic sampling: (rollouts of informative groups, mean raw score of all that was sampled, rounds)."""
    kept: list[Rollouts] = []
    scores: list[float] = []
    while len(scores) < MAX_ROUNDS and sum(len(r.right_B) for r in kept) < PROMPTS * GROUP_SIZE:
        drawn = sample(model)
        right_PG = drawn.right_B.view(PROMPTS, GROUP_SIZE)
        informative_P = right_PG.amax(1) != right_PG.amin(1)
        kept.append(pick(drawn, informative_P.repeat_interleave(GROUP_SIZE)))
        scores.append(drawn.right_B.mean().item())
    filled = Rollouts(*(torch.cat(fields)[: PROMPTS * GROUP_SIZE] for fields in zip(*kept, strict=True)))
    return filled, sum(scores) / len(scores), len(scores)


def dapo_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, mask_BT: Tensor, scores_PG: Tensor) -> Tensor:
    """The loss of one update: equation 8, its mean taken over all tokens as verl and TRL do, and a dual clip."""
    std_P1 = scores_PG.std(1, keepdim=True)  # never 0: dynamic sampling dropped groups without a difference
    advantages_B1 = ((scores_PG - scores_PG.mean(1, keepdim=True)) / (std_P1 + 1e-6)).view(-1, 1)
    ratio_BT = (logprobs_BT - old_logprobs_BT).exp()
    bounded_BT = ratio_BT.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    loss_BT = -torch.min(ratio_BT * advantages_B1, bounded_BT * advantages_B1)
    loss_BT = torch.where(advantages_B1 < 0, torch.min(loss_BT, -DUAL_CLIP * advantages_B1), loss_BT)
    return loss_BT[mask_BT].sum() / mask_BT.sum()


def train(steps: int = 40, seed: int = 0) -> list[float]:
    """Mean raw score of each step's samples, before its updates."""
    torch.manual_seed(seed)
    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0)
    history: list[float] = []
    for step in range(steps):
        batch, reward, rounds = collect(model)
        scores_B = batch.right_B + overlong_penalty(batch.mask_BT)
        groups = torch.arange(len(scores_B)).view(-1, GROUP_SIZE)
        history.append(reward)
        length = batch.mask_BT.sum(1).float().mean().item()
        print(f"step {step:2d}  reward {reward:+.3f}  length {length:4.1f}  groups {len(groups):2d}  rounds {rounds}")
        if len(groups) == 0:
            break  # no round brought a group whose siblings differ: nothing left to learn from
        for rows in groups.chunk(UPDATES_PER_STEP):  # whole groups; the old log-probs stay those of sampling
            part = pick(batch, rows.flatten())
            logprobs_BT = logprobs_of(model, part.prompts, part.completions_BT)
            loss = dapo_loss(logprobs_BT, part.old_logprobs_BT, part.mask_BT, scores_B[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return history


if __name__ == "__main__":
    train()
