"""A reward of four objectives: correctness, clarity, detail, creativity. Toy measures; replace them with your own."""

from __future__ import annotations

from typing import Any

WEIGHTS = {"correctness": 0.5, "clarity": 0.25, "detail": 0.15, "creativity": 0.10}


def compute_score(split: str, solution_str: str, ground_truth: str, info: dict[str, Any]) -> dict[str, Any]:
    parts = {
        "correctness": 1.0 if ground_truth and ground_truth.strip() in solution_str else 0.0,
        "clarity": min(1.0, solution_str.count("\n") / 8.0 + 0.2),
        "detail": min(1.0, len(solution_str) / 1200.0),
        "creativity": 0.5 if any(w in solution_str.lower() for w in ("alternative", "another approach")) else 0.2,
    }
    return {"score": sum(WEIGHTS[name] * value for name, value in parts.items()), "breakdown": parts}
