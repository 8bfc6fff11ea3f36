"""From pySigma's condition trees to expressions over event fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
    ConditionValueExpression,
)
from sigma.types import (
    CompareOperators,
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaRegularExpressionFlag,
    SigmaString,
    SpecialChars,
)

from agenttrail.detect.expressions import And, Expression, Match, Not, Op, Or

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_COMPARE = {
    CompareOperators.LT: Op.LESS,
    CompareOperators.LTE: Op.AT_MOST,
    CompareOperators.GT: Op.MORE,
    CompareOperators.GTE: Op.AT_LEAST,
}
_FLAGS = {
    SigmaRegularExpressionFlag.IGNORECASE: "i",
    SigmaRegularExpressionFlag.MULTILINE: "m",
    SigmaRegularExpressionFlag.DOTALL: "s",
}


class UnsupportedError(ValueError):
    """The rule uses something of Sigma that has no meaning here yet; the message names it."""


def translate(node: object, field_name: Callable[[str], str]) -> Expression:
    """Return the expression of a parsed Sigma condition.

    Args:
        node: condition tree of pySigma.
        field_name: event field of a field as the rule names it.

    Raises:
        UnsupportedError: the condition cannot be expressed.
    """
    if isinstance(node, ConditionAND):
        return And(tuple(translate(part, field_name) for part in node.args))
    if isinstance(node, ConditionOR):
        return Or(tuple(translate(part, field_name) for part in node.args))
    if isinstance(node, ConditionNOT):
        return Not(translate(node.args[0], field_name))
    if isinstance(node, ConditionFieldEqualsValueExpression):
        return _match(field_name(node.field), node.value, field_name)
    if isinstance(node, ConditionValueExpression):
        return _keyword(node.value)
    msg = f"a condition of the kind {type(node).__name__}"
    raise UnsupportedError(msg)


def _keyword(value: object) -> Expression:
    """A keyword is looked for anywhere in the original record."""
    if isinstance(value, SigmaString):
        return _text("", SpecialChars.WILDCARD_MULTI + value + SpecialChars.WILDCARD_MULTI)
    if isinstance(value, SigmaNumber):
        return Match("", Op.CONTAINS, str(value))
    if isinstance(value, SigmaRegularExpression):
        return _regex("", value)
    msg = f"a keyword of the kind {type(value).__name__}"
    raise UnsupportedError(msg)


def _match(field: str, value: object, field_name: Callable[[str], str]) -> Expression:  # noqa: PLR0911 - one return a kind
    if isinstance(value, SigmaExpansion):
        return Or(tuple(_match(field, one, field_name) for one in value.values))
    if isinstance(value, SigmaString):
        return _text(field, value)
    if isinstance(value, (SigmaNumber, SigmaBool)):
        return Match(field, Op.EQUALS, value.number if isinstance(value, SigmaNumber) else value.boolean)
    if isinstance(value, SigmaNull):
        return Match(field, Op.EXISTS, value=False)
    if isinstance(value, SigmaExists):
        return Match(field, Op.EXISTS, value=bool(value))
    if isinstance(value, SigmaRegularExpression):
        return _regex(field, value)
    if isinstance(value, SigmaCIDRExpression):
        return Match(field, Op.NETWORK, value.cidr)
    if isinstance(value, SigmaCompareExpression) and value.op in _COMPARE:
        return Match(field, _COMPARE[value.op], value.number.number)
    if isinstance(value, SigmaFieldReference):
        how = Op.STARTS_WITH if value.starts_with else Op.ENDS_WITH if value.ends_with else Op.EQUALS
        return Match(field, Op.FIELD, field_name(value.field), how=how)
    msg = f"a value of the kind {type(value).__name__}"
    raise UnsupportedError(msg)


def _regex(field: str, value: SigmaRegularExpression) -> Match:
    if value.contains_placeholder():
        msg = "a list inside a regular expression"
        raise UnsupportedError(msg)
    flags = "".join(sorted(_FLAGS[flag] for flag in value.flags))
    pattern = str(value.regexp)
    return Match(field, Op.REGEX, f"(?{flags}){pattern}" if flags else pattern, cased=True)


def _text(field: str, value: SigmaString) -> Match:
    cased = isinstance(value, SigmaCasedString)
    parts = [part for part in value.iter_parts() if part != ""]
    lists = [part.name for part in parts if isinstance(part, Placeholder)]
    if lists:
        if len(parts) == 1 and field:
            return Match(field, Op.LIST, lists[0], cased=cased)
        msg = "a list inside a longer text"
        raise UnsupportedError(msg)
    kinds = [part if isinstance(part, SpecialChars) else "text" for part in parts]
    many = SpecialChars.WILDCARD_MULTI
    simple = {
        ("text",): Op.EQUALS,
        ("text", many): Op.STARTS_WITH,
        (many, "text"): Op.ENDS_WITH,
        (many, "text", many): Op.CONTAINS,
    }
    op = simple.get(tuple(kinds))
    if op is not None:
        return Match(field, op, next(part for part in parts if isinstance(part, str)), cased=cased)
    if not parts:
        return Match(field, Op.EQUALS, "", cased=cased)
    if kinds == [many]:
        return Match(field, Op.EXISTS, value=True)
    return Match(field, Op.REGEX, _wildcards(parts, cased=cased), cased=True)


def _wildcards(parts: Sequence[object], *, cased: bool) -> str:
    """Return a regular expression for text with wildcards in the middle."""
    words = {SpecialChars.WILDCARD_MULTI: ".*", SpecialChars.WILDCARD_SINGLE: "."}
    body = "".join(re.escape(part) if isinstance(part, str) else words[part] for part in parts)  # type: ignore[index] # only these two are left
    return f"(?s{'' if cased else 'i'})^{body}$"
