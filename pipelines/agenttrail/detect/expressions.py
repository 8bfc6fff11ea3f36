"""The conditions of rules, apart from where they were written: and, or, not over matches of one field each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Op(Enum):
    """What a match asks of a field."""

    EQUALS = "equals"
    STARTS_WITH = "startswith"
    ENDS_WITH = "endswith"
    CONTAINS = "contains"
    REGEX = "re"
    NETWORK = "cidr"
    LESS = "lt"
    AT_MOST = "lte"
    MORE = "gt"
    AT_LEAST = "gte"
    EXISTS = "exists"
    LIST = "expand"
    FIELD = "fieldref"


COMPARISONS = {Op.LESS, Op.AT_MOST, Op.MORE, Op.AT_LEAST}


@dataclass(frozen=True)
class Match:
    """One field against one value; a missing field never matches (but for "does not exist").

    Attributes:
        field: event field; "" for the whole original record (Sigma keywords).
        op: what is asked.
        value: text or number; the name of a list for LIST, of a field for FIELD; True or False for EXISTS.
        cased: whether upper and lower case differ.
        how: for FIELD, how the two fields are compared: EQUALS, STARTS_WITH or ENDS_WITH.
    """

    field: str
    op: Op
    value: str | float | bool
    cased: bool = False
    how: Op = Op.EQUALS


@dataclass(frozen=True)
class And:
    """All parts hold."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Or:
    """Some part holds."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Expression


Expression = And | Or | Not | Match


def matches(expression: Expression) -> set[Match]:
    """Return all matches in ``expression``."""
    if isinstance(expression, Match):
        return {expression}
    if isinstance(expression, Not):
        return matches(expression.part)
    return {match for part in expression.parts for match in matches(part)}


def show(expression: Expression) -> str:
    """Return ``expression`` in Sigma's words, on one line."""
    if isinstance(expression, Match):
        field = expression.field or "the record"
        modifier = "" if expression.op is Op.EQUALS else f"|{expression.op.value}"
        return f"{field}{modifier}: {expression.value!r}"
    if isinstance(expression, Not):
        return f"not ({show(expression.part)})"
    joint = " and " if isinstance(expression, And) else " or "
    return "(" + joint.join(show(part) for part in expression.parts) + ")"
