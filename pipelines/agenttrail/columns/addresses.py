"""IP addresses as columns: text to 16 bytes and back, and where an address stands in a sorted set.

In flight an address is 16 bytes in network order, IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2), so that one column
holds both families and compares as memory.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.schema import ADDRESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DOT, _ZERO = 46, 48
_MAPPED = np.frombuffer(b"\x00\x00\xff\xff", dtype=np.uint32)[0]  # third word of every IPv4-mapped address
_OCTETS = pa.array([str(octet) for octet in range(256)])


def parse_addresses(text: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Turn a column of address text into 16-byte addresses.

    Args:
        text: string or binary array, or a dictionary of strings, each of which is looked at once; nulls stay null.

    Returns:
        The addresses (null where the text is null or no address; a dictionary where the text is one) and a mask of the
        rows whose text is no address.  Octets with leading zeros and zone ids are refused, since readers disagree on
        what they mean.
    """
    if pa.types.is_dictionary(text.type):
        parsed, bad = parse_addresses(text.dictionary)
        if not parsed.null_count:
            return pa.DictionaryArray.from_arrays(text.indices, parsed, safe=False), np.zeros(len(text), dtype=bool)
        wrong = pa.array(bad).take(text.indices).fill_null(fill_value=False)
        # what is null by its word is made null by its place: that is where others look
        gone = pc.is_null(parsed).take(text.indices)
        indices = pc.if_else(gone, pa.scalar(None, text.indices.type), text.indices)
        return pa.DictionaryArray.from_arrays(indices, parsed, safe=False), _to_numpy(wrong)
    count = len(text)
    words = np.zeros((count, 4), dtype=np.uint32)
    known = np.zeros(count, dtype=bool)
    if count:
        offsets, data = _offsets_and_data(text)
        rows, values = _parse_ipv4(offsets, data)
        words[rows, 2] = _MAPPED
        words[rows, 3] = _network_order(values)
        known[rows] = True
    filled = present(text)
    rest = np.flatnonzero(filled & ~known)
    if len(rest):
        _parse_distinct(text.take(pa.array(rest)), rest, words, known)
    known &= filled
    return from_packed(words, known), filled & ~known


def _network_order(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Swap 32-bit numbers between host and network order."""
    return values.astype(">u4").view(np.uint32)


def _to_numpy(mask: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(mask.to_numpy(zero_copy_only=False), dtype=bool)


def _offsets_and_data(text: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return int32 offsets (length + 1) and the bytes that they point into."""
    _, offsets, data = text.buffers()
    size = len(text)
    positions = np.frombuffer(offsets, dtype=np.int32, count=size + 1, offset=text.offset * 4)
    return positions, np.frombuffer(data or b"", dtype=np.uint8)


def _parse_ipv4(
    offsets: NDArray[np.int32], data: NDArray[np.uint8]
) -> tuple[NDArray[np.intp] | slice, NDArray[np.uint32]]:
    """Return the rows that hold a dotted quad (a slice where all do), and its value as a number in host order."""
    base = int(offsets[0])
    dots = np.flatnonzero(data[base : offsets[-1]] == _DOT)
    dots += base
    rows, dots = _rows_with_three_dots(offsets, dots)
    starts = np.empty((4, len(dots)), dtype=np.int32)
    ends = np.empty_like(starts)
    ends[:3] = dots.T
    ends[3] = offsets[1:][rows]
    starts[0] = offsets[:-1][rows]
    np.add(ends[:3], 1, out=starts[1:])
    values, fine = _octets(data, ends, ends - starts)
    if fine.all():
        return rows, values
    chosen = np.arange(len(offsets) - 1)[rows] if isinstance(rows, slice) else rows
    return chosen[fine], values[fine]


def _octets(
    data: NDArray[np.uint8], ends: NDArray[np.int32], lengths: NDArray[np.int32]
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Read four decimal octets a row, given where each ends; return the values and which rows are well formed.

    Digits are taken from the right, and one that lies before the octet is multiplied away: no row needs a branch.
    """
    ends = ends - 1
    ones = data.take(ends) - np.uint8(_ZERO)
    ends -= 1
    tens = data.take(ends) - np.uint8(_ZERO)
    ends -= 1
    hundreds = data.take(ends) - np.uint8(_ZERO)
    two, three = lengths > 1, lengths > 2  # noqa: PLR2004 - digits
    leading_zero = two & np.where(three, hundreds == 0, tens == 0)
    tens *= two
    hundreds *= three
    bad = (np.maximum(np.maximum(ones, tens), hundreds) > 9) | (lengths < 1) | (lengths > 3) | leading_zero  # noqa: PLR2004
    octets = hundreds * np.uint16(100) + tens * np.uint16(10) + ones
    bad |= octets > 255  # noqa: PLR2004 - largest octet
    words = octets.astype(np.uint32)
    return words[0] << 24 | words[1] << 16 | words[2] << 8 | words[3], ~bad.any(axis=0)


def _rows_with_three_dots(
    offsets: NDArray[np.int32], dots: NDArray[np.intp]
) -> tuple[NDArray[np.intp] | slice, NDArray[np.intp]]:
    """Return the rows with exactly three dots (a slice where all have), and those dots as a (rows, 3) array."""
    count = len(offsets) - 1
    if len(dots) == 3 * count:
        triples = dots.reshape(count, 3)
        if (triples[:, 0] >= offsets[:-1]).all() and (triples[:, 2] < offsets[1:]).all():
            return slice(None), triples
    before = np.searchsorted(dots, offsets)
    rows = np.flatnonzero(np.diff(before) == 3)  # noqa: PLR2004 - dots of a dotted quad
    return rows, dots[before[rows][:, None] + np.arange(3)]


def _parse_distinct(
    text: pa.Array, rows: NDArray[np.intp], words: NDArray[np.uint32], known: NDArray[np.bool_]
) -> None:
    """Parse what is no plain dotted quad, once per distinct text, into ``words`` and ``known`` at ``rows``."""
    encoded = text.dictionary_encode()
    distinct = [_pack_ipv6(value) for value in encoded.dictionary.cast(pa.binary()).to_pylist()]
    table = np.frombuffer(b"".join(value or bytes(16) for value in distinct), dtype=np.uint32).reshape(-1, 4)
    codes = encoded.indices.to_numpy()
    words[rows] = table[codes]
    known[rows] = np.array([value is not None for value in distinct])[codes]


def _pack_ipv6(text: bytes) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6, text.decode("ascii"))
    except (OSError, ValueError):
        return None


def from_packed(words: NDArray[np.uint32], known: NDArray[np.bool_]) -> pa.Array:
    """Wrap an (n, 4) array of words in memory order as an address column that is null where not ``known``."""
    validity = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(ADDRESS, len(words), [validity, pa.py_buffer(np.ascontiguousarray(words))])


def packed(addresses: pa.Array) -> NDArray[np.uint32]:
    """Return the (n, 4) words of an address column in memory order, without a copy; null rows hold anything.

    Raises:
        TypeError: another type, such as a dictionary, whose indices would be read as if they were addresses.
    """
    if addresses.type != ADDRESS:
        message = f"addresses row by row are needed, not {addresses.type}"
        raise TypeError(message)
    words = np.frombuffer(addresses.buffers()[1], dtype=np.uint32)
    start = addresses.offset * 4
    return words[start : start + len(addresses) * 4].reshape(-1, 4)


def ipv4(addresses: pa.Array) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Return the 32-bit value of every IPv4 address in host order, and a mask of the rows that are IPv4."""
    words = packed(addresses)
    mask = (words[:, 2] == _MAPPED) & (words[:, 0] == 0) & (words[:, 1] == 0)
    if addresses.null_count:
        mask &= present(addresses)
    return _network_order(words[:, 3]), mask


def present(column: pa.Array) -> NDArray[np.bool_]:
    """Return a mask of the rows that are not null."""
    if not column.null_count:
        return np.ones(len(column), dtype=bool)
    return _to_numpy(column.is_valid())


def as_bytes(addresses: pa.Array) -> NDArray[np.bytes_]:
    """Return the addresses as NumPy ``S16``, whose order is that of the network bytes."""
    return packed(addresses).view("S16").ravel()


def format_addresses(addresses: pa.Array) -> pa.Array:
    """Return the canonical text (dotted quad, RFC 5952) of an address column, also of a dictionary; nulls stay null."""
    if pa.types.is_dictionary(addresses.type):
        return format_addresses(addresses.dictionary).take(addresses.indices)
    values, is_ipv4 = ipv4(addresses)
    if is_ipv4.all():
        return _format_ipv4(values)
    out = np.full(len(addresses), None, dtype=object)
    out[is_ipv4] = _format_ipv4(values[is_ipv4])
    rest = np.flatnonzero(present(addresses) & ~is_ipv4)
    encoded = addresses.take(pa.array(rest)).dictionary_encode()
    distinct = np.array([str(ipaddress.IPv6Address(value)) for value in encoded.dictionary.to_pylist()], dtype=object)
    if len(rest):
        out[rest] = distinct[encoded.indices.to_numpy()]
    return pa.array(out, pa.string())


def _format_ipv4(values: NDArray[np.uint32]) -> pa.Array:
    octets = (_OCTETS.take(pa.array(values >> shift & 0xFF)) for shift in (24, 16, 8, 0))
    return pc.binary_join_element_wise(*octets, ".")


def address(text: str) -> bytes:
    """Return the 16 bytes of one address.

    Raises:
        ValueError: ``text`` is no address.
    """
    parsed = ipaddress.ip_address(text)
    return parsed.packed if parsed.version == 6 else b"\x00" * 10 + b"\xff\xff" + parsed.packed  # noqa: PLR2004 - IPv6
