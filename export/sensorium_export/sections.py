"""Sections of a checkpoint's config as the dataclasses of its recipe."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from sensorium.errors import ConfigurationError

Values = TypeVar("Values")


def picked(kind: type[Values], section: Mapping[str, Any]) -> Values:
    """Fill a recipe with those values that are its; a list becomes a tuple."""
    names = [field.name for field in fields(kind) if field.name in section]  # type: ignore[arg-type]
    values = {name: section[name] for name in names}
    return kind(
        **{name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
    )


def overridden(
    kind: type[Values], defaults: Mapping[str, Any], section: Mapping[str, Any], where: str
) -> Values:
    """Fill a recipe with its defaults and what a section says instead.

    Args:
        kind: The dataclass.
        defaults: Values of its fields that have none.
        section: Other values for some of them.
        where: The section's name, for messages.

    Raises:
        ConfigurationError: The section names what is not known.
    """
    known = sorted(field.name for field in fields(kind))  # type: ignore[arg-type]
    if unknown := sorted(section.keys() - set(known)):
        raise ConfigurationError(
            f"config.json: {where}.{f', {where}.'.join(unknown)} is not known there; "
            f"known: {', '.join(known)}"
        )
    return kind(**{**defaults, **section})
