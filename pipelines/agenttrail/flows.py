"""Columns that every flow or firewall record shares: ends, transport, interval, outcome.

A builder refuses the rows whose values cannot be, so that one bad row never costs another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import parse_addresses, present
from agenttrail.columns.dictionaries import decoded, places
from agenttrail.columns.numbers import numbers
from agenttrail.columns.text import choose
from agenttrail.parsing import EARLIEST, LATEST, MICROSECONDS
from agenttrail.schema import TIMESTAMP, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agenttrail.parsing import Lines

LARGEST_PORT = 65_535
LARGEST_COUNT = 1 << 53  # bytes and packets above that are no measurement
_PROTOCOLS = {
    1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp",
    89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite",
}  # fmt: skip
"""IANA protocol numbers by the names that logs use; a number without a name stands for itself."""
_PROTOCOL_NAMES = pa.array([_PROTOCOLS.get(number, str(number)) for number in range(256)])
_PROTOCOL_NUMBERS = {name: number for number, name in _PROTOCOLS.items()}
GAPS = ("nodata", "skipdata")
"""Words for records that tell of something not recorded."""
OUTCOMES = ("success", "failure")
SIDES = ("source", "destination")


def _protocol_number(word: str) -> int | None:
    """Return an IANA number from its digits; Python refuses to read some thousands of them."""
    digits = word.lstrip("0") or "0"
    if not (word.isascii() and word.isdecimal()) or len(digits) > len("255"):
        return None
    return number if (number := int(digits)) < len(_PROTOCOL_NAMES) else None


class FlowColumns:
    """Builds the event columns of the rows of one stretch of lines.

    ``columns`` is what has been built.  Every method takes native columns as they were read (None where the log has
    none), and native names only for the reasons given to refused rows.
    """

    def __init__(self, lines: Lines, rows: NDArray[np.int64]) -> None:
        """Start without columns for ``rows`` of ``lines``."""
        self.columns: dict[str, pa.Array] = {}
        self._lines = lines
        self._rows = rows

    def refuse(self, mask: NDArray[np.bool_], reason: str) -> None:
        """Refuse the rows of ``mask``."""
        if mask.any():
            self._lines.refuse(self._rows[mask], reason)

    def end(
        self, side: str, text: pa.Array | None, original: pa.Array | None = None, names: tuple[str, str] = ("", "")
    ) -> None:
        """Build ``<side>.ip`` from address text, or from the ``original`` before translation where it is given.

        Where the two differ, what the sensor saw on the wire becomes ``<side>.nat.ip``.  A dictionary of text becomes
        one of addresses, but where two columns become one.
        """
        wire = self._addresses(text, names[0])
        if original is None or original.null_count == len(original):
            if wire is not None:
                self.columns[f"{side}.ip"] = wire
            return
        if wire is None:
            self.columns[f"{side}.ip"] = self._addresses(original, names[1])
            return
        differs = pc.fill_null(pc.not_equal(original, text), fill_value=False)
        if not pc.any(differs).as_py():
            before = self._addresses(original, names[1]) if wire.null_count else None
            self.columns[f"{side}.ip"] = wire if before is None else pc.coalesce(decoded(wire), decoded(before))
            return
        wire, before = decoded(wire), decoded(self._addresses(original, names[1]))
        self.columns[f"{side}.ip"] = pc.coalesce(before, wire)
        self.columns[f"{side}.nat.ip"] = pc.if_else(differs, wire, pa.scalar(None, wire.type))

    def _addresses(self, text: pa.Array | None, name: str) -> pa.Array | None:
        if text is None:
            return None
        parsed, bad = parse_addresses(text)
        self.refuse(bad, f"{name} is not an IP address")
        return parsed

    def need_an_end(self, exempt: NDArray[np.bool_] | None = None) -> None:
        """Refuse rows that name neither end, but for the ``exempt``."""
        missing = np.ones(len(self._rows), dtype=bool)
        for side in SIDES:
            if f"{side}.ip" in self.columns:
                missing &= ~present(self.columns[f"{side}.ip"])
        if exempt is not None:
            missing &= ~exempt
        self.refuse(missing, "the record names no address")

    def number(self, name: str, column: pa.Array | None, native: str, most: int = LARGEST_COUNT) -> None:
        """Build an integer column; what is negative or above ``most`` is refused."""
        if column is None:
            return
        values = numbers(column)
        wrong = values.view(np.uint64) > np.uint64(most)  # without their sign, negative numbers are the largest
        if wrong.any():
            self.refuse(wrong, f"{native} is not between 0 and {most}")
            column = pa.array(np.where(wrong, 0, values), mask=~present(column))
        self.columns[name] = column if most == LARGEST_COUNT else column.cast(pa.int32())

    def transport(self, protocol: pa.Array | None, native: str) -> None:
        """Build ``network.iana_number`` and ``network.transport`` from protocol numbers."""
        if protocol is None:
            return
        self.number("network.iana_number", protocol, native, 255)
        indices = self.columns["network.iana_number"].cast(pa.int16())
        self.columns["network.transport"] = pa.DictionaryArray.from_arrays(indices, _PROTOCOL_NAMES)

    def transport_names(self, names: pa.Array) -> None:
        """Build ``network.transport`` and ``network.iana_number`` from protocol names or numbers in text."""
        encoded = names.dictionary_encode()
        words = [None if word is None else word.strip().lower() for word in encoded.dictionary.to_pylist()]
        known = [_PROTOCOL_NUMBERS.get(word or "", _protocol_number(word or "")) for word in words]
        named = [
            _PROTOCOL_NAMES[number].as_py() if number is not None else word
            for word, number in zip(words, known, strict=True)
        ]
        self.columns["network.transport"] = pa.array(named, pa.string()).take(encoded.indices)
        self.columns["network.iana_number"] = pa.array(known, pa.int32()).take(encoded.indices)

    def interval(
        self, start: pa.Array | None, end: pa.Array | None, names: tuple[str, str], *, unit: int = MICROSECONDS
    ) -> None:
        """Build ``event.start`` and ``event.end`` from integer times of ``unit`` microseconds.

        One of the two stands for both where the other is missing; an end before the start becomes the start.  A row
        without any time is refused, and so is one outside of the years 2000 to 2100.
        """
        begin, no_begin = self._times(start, names[0], unit)
        finish, no_finish = self._times(end, names[1], unit)
        self.refuse(no_begin & no_finish, f"the record has no time: neither {names[0]} nor {names[1]}")
        begin = np.where(no_begin, finish, begin) if no_begin.any() else begin
        finish = np.where(no_finish, begin, finish) if no_finish.any() else finish
        self.columns["event.start"] = pa.array(begin).view(TIMESTAMP)
        self.columns["event.end"] = pa.array(np.maximum(begin, finish)).view(TIMESTAMP)

    def _times(self, column: pa.Array | None, name: str, unit: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return microseconds, and which rows have none."""
        if column is None:
            return np.zeros(len(self._rows), dtype=np.int64), np.ones(len(self._rows), dtype=bool)
        known = present(column)
        values = numbers(column)
        wrong = known & ((values < EARLIEST // unit) | (values >= LATEST // unit))
        if wrong.any():
            self.refuse(wrong, f"{name} lies outside of the years 2000 to 2100")
            values = np.where(wrong, 0, values)
        return values * unit, ~known

    def outcome(self, action: pa.Array | None, native: str, verdicts: Mapping[str, str | None]) -> NDArray[np.bool_]:
        """Build ``event.action`` and ``event.outcome`` from the sensor's word; return the rows whose word is unknown.

        Args:
            action: string or dictionary column.
            native: its name in the log.
            verdicts: outcome by lower-case word.
        """
        unknown = np.zeros(len(self._rows), dtype=bool)
        if action is None:
            return unknown
        encoded = action if pa.types.is_dictionary(action.type) else action.dictionary_encode()
        words = [(word or "").strip().lower() for word in encoded.dictionary.to_pylist()]
        codes = places(encoded)
        table = np.array([OUTCOMES.index(v) if (v := verdicts.get(word)) else -1 for word in words] + [-1])
        strange = np.array([word not in verdicts for word in words] + [False])
        self.columns["event.action"] = pa.DictionaryArray.from_arrays(encoded.indices, pa.array(words, pa.string()))
        self.columns["event.outcome"] = choose(table.take(codes), OUTCOMES)
        unknown = strange.take(codes)
        self.refuse(unknown, f"{native} is none of {', '.join(sorted(filter(None, verdicts)))}")
        return unknown

    def log_status(self, status: pa.Array | None, reason: pa.Array | None = None) -> NDArray[np.bool_] | None:
        """Return the records in which the sensor tells that it recorded nothing, or not all; None where there are none.

        The status becomes the action of a record that has none of its own, and the reason of one that has, unless the
        log gives another ``reason``.
        """
        if status is None:
            return None
        encoded = status if pa.types.is_dictionary(status.type) else status.dictionary_encode()
        words = [(word or "").lower() for word in encoded.dictionary.to_pylist()]
        if not set(words) & set(GAPS):
            return None
        lowered = pa.array(words, pa.string()).take(encoded.indices)
        told = pc.if_else(pc.is_in(lowered, value_set=pa.array(GAPS)), lowered, pa.scalar(None, pa.string()))
        nothing = pa.nulls(len(status), pa.string())
        action = cast(self.columns.get("event.action", nothing), pa.string())
        self.columns["event.action"] = pc.coalesce(action, told)
        beside = pc.if_else(pc.is_valid(action), told, nothing)
        if beside.null_count < len(beside):
            self.columns["event.reason"] = beside if reason is None else pc.coalesce(reason, beside)
        return present(told)

    def side(self, name: str, column: pa.Array | None, sides: Mapping[str, str]) -> None:
        """Build an enum of source and destination from the sensor's word; unknown words give null."""
        if column is None:
            return
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        words = [(word or "").strip().lower() for word in encoded.dictionary.to_pylist()]
        table = np.array([SIDES.index(sides[word]) if word in sides else -1 for word in words] + [-1])
        self.columns[name] = choose(table.take(places(encoded)), SIDES)
