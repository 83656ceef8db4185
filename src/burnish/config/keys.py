"""The schema of a run, looked at from outside: its keys as a user writes them, with defaults and meanings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

from burnish.config import RunConfig
from burnish.config.section import Section


def keys() -> dict[str, tuple[str, str]]:
    """Every key of the schema -> (its default as text, its meaning). `<name>` stands for a name that the user gives."""
    found: dict[str, tuple[str, str]] = {}

    def visit(section: type[Section], prefix: str) -> None:
        for name, field in section.model_fields.items():
            sections = [inner for inner in _sections(field.annotation) if not inner.is_value]
            if not sections or not isinstance(field.default, Section):
                default = field.default.model_dump() if isinstance(field.default, Section) else field.default
                text = "(needed)" if field.is_required() else str(default)
                found.setdefault(prefix + name, (text, " ".join((field.description or "").split())))
            below = f"{prefix}{name}.<name>." if _is_named(field.annotation) else f"{prefix}{name}."
            for inner in sections:
                visit(inner, below)

    visit(RunConfig, "")
    return found


def written(location: Sequence[str | int]) -> str:
    """A place in the schema as the user writes it: without the name of the variant that pydantic puts into it."""
    steps: list[str] = []
    variants: Sequence[type[Section]] = (RunConfig,)
    is_name = False
    for step in map(str, location):
        chosen = [v for v in variants if step in _names_of(v)] if len(variants) > 1 and not is_name else []
        if chosen:
            variants = chosen
            continue
        steps.append(step)
        field = next((v.model_fields[step] for v in variants if step in v.model_fields), None)
        if field is None or is_name:
            is_name = False
        else:
            variants, is_name = _sections(field.annotation), _is_named(field.annotation)
    return ".".join(steps)


def _is_named(annotation: Any) -> bool:
    """Its sections are given names by the user."""
    return get_origin(annotation) is dict


def _sections(annotation: Any) -> tuple[type[Section], ...]:
    """The sections that a field may hold, directly, as variants, or by name."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    return tuple(section for inner in get_args(annotation) for section in _sections(inner))


def _names_of(section: type[Section]) -> set[str]:
    """What tells a variant from its siblings."""
    return {section.model_fields[key].default for key in ("name", "kind") if key in section.model_fields}
