"""All rules for one kind of log as one plan, in which shared questions are answered once per batch.

Every cheap question (networks, ports, words of few values, numbers) is a bit of a signature, which is looked up per
row: one table look-up answers all questions about one column.  Each rule has a gate: bits of which one at least must
be set where it fires.  Which bits those are is chosen batch by batch from a sample, rarest first; only rows that pass
a gate are looked at further, and only for them are the expensive questions asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.dictionaries import places
from agenttrail.columns.networks import MOST_LISTS, NetworkLists
from agenttrail.detect.expressions import COMPARISONS, And, Expression, Match, Not, Op
from agenttrail.detect.predicates import NUMBERS, evaluate, evaluate_column, networks_of, port_table
from agenttrail.schema import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.columns.networks import Network
    from agenttrail.detect.rules import Rule

    Words = list[NDArray[np.uint64]]

_WORD = 64
_SAMPLE = 1_024  # rows from which the frequency of each bit is estimated
_FEW_WORDS = 256  # up to which a dictionary is not looked through for repetitions
_NO_PORT = 65_536


@dataclass(frozen=True)
class Literal:
    """A match or its negation; ``bit`` is its place in the signature, -1 for one that is asked of survivors only."""

    match: Match
    negated: bool
    bit: int = -1


@dataclass(frozen=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Program, ...]


@dataclass(frozen=True)
class AnyOf:
    """Some part holds."""

    parts: tuple[Program, ...]


Program = AllOf | AnyOf | Literal
"""An expression in negation normal form."""


@dataclass(frozen=True)
class Plan:
    """The compiled rules for one dataset.

    Attributes:
        rules: the rules that see the dataset.
        numbers: place of each of them among all rules of the job.
        programs: their conditions.
        lists: the lists by name.
        words: number of 64-bit words of a signature.
        literals: the literal of each bit.
        network_tables: per address field, its compiled networks and the signature of each of their codes.
        port_tables: per port field, the signature of each port.
        other_fields: fields whose literals are numbers or words, with those literals.
    """

    rules: tuple[Rule, ...]
    numbers: tuple[int, ...]
    programs: tuple[Program, ...]
    lists: Mapping[str, tuple[str, ...]]
    words: int
    literals: tuple[Literal, ...]
    network_tables: tuple[tuple[str, NetworkLists, NDArray[np.uint64]], ...]
    port_tables: tuple[tuple[str, NDArray[np.uint64]], ...]
    other_fields: tuple[tuple[str, tuple[Literal, ...]], ...]
    memory: dict[object, tuple[pa.Array, NDArray[np.uint64]]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def compile(
        cls, rules: Sequence[Rule], dataset: str, lists: Mapping[str, tuple[str, ...]], *, even_if_off: bool = False
    ) -> Plan:
        """Compile those of ``rules`` that see ``dataset`` and are on."""
        places = tuple(
            place for place, rule in enumerate(rules) if dataset in rule.datasets and (even_if_off or not rule.off)
        )
        chosen = tuple(rules[place] for place in places)
        bits: dict[tuple[Match, bool], int] = {}
        programs = tuple(_normalise(rule.condition, negated=False, bits=bits, lists=lists) for rule in chosen)
        literals = tuple(Literal(match, negated, bit) for (match, negated), bit in bits.items())
        by_field: dict[str, list[Literal]] = {}
        for one in literals:
            by_field.setdefault(one.match.field, []).append(one)
        words = max(1, -(-len(literals) // _WORD))
        networks, ports, others = [], [], []
        for name, asked in by_field.items():
            type_ = record("event").fields[name].type
            if type_ == "ip":
                networks += _network_tables(name, asked, words, lists)
            elif type_ == "port":
                ports.append((name, _port_signatures(asked, words, lists)))
            else:
                others.append((name, tuple(asked)))
        return cls(chosen, places, programs, dict(lists), words, literals, tuple(networks), tuple(ports), tuple(others))

    def run(self, batch: pa.RecordBatch) -> list[NDArray[np.int64]]:
        """Return, per rule, the rows of ``batch`` that it matches, ascending."""
        if not self.rules or not batch.num_rows:
            return [np.empty(0, np.int64) for _ in self.rules]
        signature = self._signature(batch)
        gates = self._gates(signature, batch.num_rows)
        survivors = _passing(signature, [gate for gate in gates if gate is not None])
        narrowed = [word[survivors] for word in signature]
        hits = []
        for program, gate in zip(self.programs, gates, strict=True):
            rows = np.arange(batch.num_rows) if gate is None else survivors[_any_bit(narrowed, gate)]
            hits.append(self._select(program, batch, signature, rows) if len(rows) else rows)
        return hits

    # -- signatures

    def _signature(self, batch: pa.RecordBatch) -> Words:
        words = [np.zeros(batch.num_rows, dtype=np.uint64) for _ in range(self.words)]
        for name, lists, table in self.network_tables:
            _put(words, *_of_networks(batch, name, lists, table))
        for name, table in self.port_tables:
            _put(words, table, _ports_of(batch, name))
        for name, literals in self.other_fields:
            self._put_other(words, batch, name, literals)
        return words

    def _put_other(self, words: Words, batch: pa.RecordBatch, name: str, literals: tuple[Literal, ...]) -> None:
        index = batch.schema.get_field_index(name)
        column = batch.column(index) if index >= 0 else None
        if column is not None and pa.types.is_dictionary(column.type):
            _put(words, self._dictionary_signatures(name, column.dictionary, literals), places(column))
            return
        for one in literals:
            mask = evaluate(one.match, batch, self.lists) != one.negated
            words[one.bit // _WORD] |= mask.astype(np.uint64) << np.uint64(one.bit % _WORD)

    def _dictionary_signatures(
        self, name: str, dictionary: pa.Array, literals: tuple[Literal, ...]
    ) -> NDArray[np.uint64]:
        """Return the signature of each word of a dictionary, and of null at the end."""
        key = (
            name,
            dictionary.buffers()[-1].address if dictionary.buffers()[-1] else 0,
            dictionary.offset,
            len(dictionary),
        )
        known = self.memory.get(key)
        if known is None or (known[0] is not dictionary and not known[0].equals(dictionary)):
            if len(self.memory) > 256:  # noqa: PLR2004 - dictionaries of a batch or two
                self.memory.clear()
            known = self.memory[key] = (dictionary, self._asked_of(dictionary, literals))
        return known[1]

    def _asked_of(self, dictionary: pa.Array, literals: tuple[Literal, ...]) -> NDArray[np.uint64]:
        """Return the signature of each word, and of null; where each lease has a place, few are distinct."""
        words = dictionary.dictionary_encode() if len(dictionary) > _FEW_WORDS else None
        values = pa.concat_arrays([dictionary if words is None else words.dictionary, pa.nulls(1, dictionary.type)])
        answers = [(one, evaluate_column(one.match, values, self.lists) != one.negated) for one in literals]
        found = _signatures(answers, self.words, len(values))
        return found if words is None else np.hstack([found.take(places(words), axis=1), found[:, -1:]])

    # -- gates

    def _gates(self, signature: Words, count: int) -> list[NDArray[np.uint64] | None]:
        """Return, per rule, the bits of which one must be set where it fires; None where no bit tells."""
        step = max(1, count // _SAMPLE)
        bits = np.arange(_WORD, dtype=np.uint64)
        shares = np.concatenate([((word[::step, None] >> bits) & np.uint64(1)).mean(axis=0) for word in signature])
        return [
            None if (gate := _gate(program, shares)) is None else _as_words(gate[1], self.words)
            for program in self.programs
        ]

    # -- what is left

    def _select(
        self, program: Program, batch: pa.RecordBatch, signature: Words, rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return those of ``rows`` on which ``program`` holds."""
        if isinstance(program, Literal):
            return rows[self._answer(program, batch, signature, rows)]
        if isinstance(program, AllOf):
            for part in program.parts:
                if len(rows):
                    rows = self._select(part, batch, signature, rows)
            return rows
        left, found = rows, []
        for part in program.parts:
            if len(left):
                found.append(self._select(part, batch, signature, left))
                left = np.setdiff1d(left, found[-1], assume_unique=True)
        return np.sort(np.concatenate(found)) if found else rows[:0]

    def _answer(
        self, one: Literal, batch: pa.RecordBatch, signature: Words, rows: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        if one.bit >= 0:
            bits = signature[one.bit // _WORD][rows] >> np.uint64(one.bit % _WORD)
            return (bits & np.uint64(1)).astype(bool)
        answer: NDArray[np.bool_] = evaluate(one.match, _only(batch, one.match).take(pa.array(rows)), self.lists)
        return ~answer if one.negated else answer


def _only(batch: pa.RecordBatch, match: Match) -> pa.RecordBatch:
    """Return the columns that a match looks at."""
    names = [match.field or "event.original"] + ([str(match.value)] if match.op is Op.FIELD else [])
    known = [name for name in dict.fromkeys(names) if name in batch.schema.names]
    # a batch without columns has no rows to take: keep one for its length
    return batch.select(known or [batch.schema.names[0]])


def _normalise(
    expression: Expression, *, negated: bool, bits: dict[tuple[Match, bool], int], lists: Mapping[str, tuple[str, ...]]
) -> Program:
    """Push negations down, flatten nested parts, number the cheap literals, and put cheap parts first."""
    if isinstance(expression, Not):
        return _normalise(expression.part, negated=not negated, bits=bits, lists=lists)
    if isinstance(expression, Match):
        if not _is_cheap(expression, lists):
            return Literal(expression, negated)
        return Literal(expression, negated, bits.setdefault((expression, negated), len(bits)))
    kind = AllOf if isinstance(expression, And) != negated else AnyOf
    parts = [_normalise(part, negated=negated, bits=bits, lists=lists) for part in expression.parts]
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, kind) else (part,))]
    return kind(tuple(sorted(flat, key=_cost)))


def _cost(program: Program) -> int:
    if isinstance(program, Literal):
        return 0 if program.bit >= 0 else 100
    return 1 + sum(_cost(part) for part in program.parts)


def _is_cheap(match: Match, lists: Mapping[str, tuple[str, ...]]) -> bool:
    if not match.field or match.op is Op.FIELD:
        return False
    type_ = record("event").fields[match.field].type
    if type_ == "ip":
        return networks_of(match, lists) is not None
    if type_ == "port":
        return port_table(match, lists) is not None
    if type_ in NUMBERS:
        return match.op in COMPARISONS | {Op.EQUALS}
    return type_ == "enum" or match.field in _WORDS


_WORDS = ("event.dataset", "event.action", "network.transport", "attribution.reason")
"""Text fields that always arrive as dictionaries of few words."""


def _signatures(answers: Sequence[tuple[Literal, NDArray[np.bool_]]], words: int, count: int) -> NDArray[np.uint64]:
    """Return a (words, count) table of signatures from the answers of each literal."""
    table = np.zeros((words, count), dtype=np.uint64)
    for one, answer in answers:
        table[one.bit // _WORD] |= answer.astype(np.uint64) << np.uint64(one.bit % _WORD)
    return table


def _network_tables(
    name: str, asked: list[Literal], words: int, lists: Mapping[str, tuple[str, ...]]
) -> list[tuple[str, NetworkLists, NDArray[np.uint64]]]:
    questions = list(dict.fromkeys(one.match for one in asked))
    tables = []
    for first in range(0, len(questions), MOST_LISTS):
        some = questions[first : first + MOST_LISTS]
        networks: list[list[Network]] = [networks_of(match, lists) or [] for match in some]
        compiled = NetworkLists.compile(networks)
        answers = [
            (one, ((compiled.masks >> np.uint64(some.index(one.match))) & np.uint64(1)).astype(bool) != one.negated)
            for one in asked
            if one.match in some
        ]
        tables.append((name, compiled, _signatures(answers, words, len(compiled.masks))))
    return tables


def _port_signatures(asked: list[Literal], words: int, lists: Mapping[str, tuple[str, ...]]) -> NDArray[np.uint64]:
    answers = []
    for one in asked:
        table = port_table(one.match, lists)
        if table is not None:
            answers.append((one, table != one.negated))
    return _signatures(answers, words, _NO_PORT + 1)


def _of_networks(
    batch: pa.RecordBatch, name: str, lists: NetworkLists, table: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.integer]]:
    """Return a table of signatures and each row's place in it: of a dictionary, the signatures of its addresses."""
    index = batch.schema.get_field_index(name)
    if index < 0:
        return table, np.zeros(batch.num_rows, dtype=np.uint16)
    column = batch.column(index)
    if not pa.types.is_dictionary(column.type):
        return table, lists.codes(column)
    of_null = table[:, :1]  # the first code is that of no network
    return np.hstack([table.take(lists.codes(column.dictionary), axis=1), of_null]), places(column)


def _ports_of(batch: pa.RecordBatch, name: str) -> NDArray[np.integer]:
    index = batch.schema.get_field_index(name)
    if index < 0:
        return np.full(batch.num_rows, _NO_PORT)
    column = batch.column(index)
    if column.null_count:
        column = column.fill_null(_NO_PORT)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _put(words: Words, table: NDArray[np.uint64], codes: NDArray[np.integer]) -> None:
    for word, signatures in zip(words, table, strict=True):
        if signatures.any():
            word |= signatures.take(codes)  # noqa: PLW2901 - in place


def _gate(program: Program, shares: NDArray[np.float64]) -> tuple[float, int] | None:
    """Return the rarest set of bits (as an integer) one of which must be set, and how often that is."""
    if isinstance(program, Literal):
        return None if program.bit < 0 else (float(shares[program.bit]), 1 << program.bit)
    found = [_gate(part, shares) for part in program.parts]
    known = [gate for gate in found if gate is not None]
    if isinstance(program, AllOf):
        return min(known) if known else None
    if len(known) < len(found):
        return None
    bits = 0
    for _, some in known:
        bits |= some
    return sum(share for share, _ in known), bits


def _as_words(bits: int, words: int) -> NDArray[np.uint64]:
    return np.array([bits >> (_WORD * word) & (1 << _WORD) - 1 for word in range(words)], dtype=np.uint64)


def _any_bit(signature: Words, gate: NDArray[np.uint64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (signature[0] & gate[0]) != 0
    for word, bits in zip(signature[1:], gate[1:], strict=True):
        if bits:
            found |= (word & bits) != 0
    return found


def _passing(signature: Words, gates: list[NDArray[np.uint64]]) -> NDArray[np.int64]:
    """Return the rows that pass any gate."""
    if not gates:
        return np.empty(0, np.int64)
    return np.flatnonzero(_any_bit(signature, np.bitwise_or.reduce(gates)))
