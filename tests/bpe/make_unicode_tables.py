#!/usr/bin/env python3
"""Writes include/samba/io/unicode_tables.hpp from unicodedata2, and what the package tokenizers does differently.

usage: make_unicode_tables.py [FILE]    (pip install unicodedata2==16.0.0 tokenizers==0.23.3)

Letters, numbers and white space are those of Unicode 16.0, as in the regular expressions of tokenizers. Its NFC is older:
what it does not know is left out of the tables of normalisation.
"""

import pathlib
import sys

import tokenizers
import unicodedata2 as unicode

HEADER = pathlib.Path(__file__).resolve().parents[2] / "include" / "samba" / "io" / "unicode_tables.hpp"
CODES = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
TEXT = "".join(map(chr, CODES))

nfc = tokenizers.normalizers.NFC().normalize_str


def matching(expression):
    """The code points that match a regular expression of tokenizers."""
    removed = tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "removed")
    rest = set()
    for _, (begin, end) in removed.pre_tokenize_str(TEXT):
        rest.update(TEXT[begin:end])
    return [c for c in CODES if chr(c) not in rest]


def isolated_digits():
    """The code points that the pre-tokenizer Digits takes for numbers."""
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    return [c for c in CODES if len(digits.pre_tokenize_str("a" + chr(c) + "a")) == 3]


def boundaries(codes):
    """Where membership begins and ends, in turn."""
    members, result = set(codes), []
    for c in sorted(members):
        if c - 1 not in members:
            result.append(c)
        if c + 1 not in members:
            result.append(c + 1)
    return result


def class_is_known(c):
    """Whether tokenizers orders this combining mark among others as Unicode says."""
    texts = [t for mark in "\u0301\u0334\u0323\u0345\u3099\u05b0" for t in ("x" + mark + chr(c), "x" + chr(c) + mark)]
    return all(nfc(text) == unicode.normalize("NFC", text) for text in texts)


def classes():
    """(first code point, combining class) wherever the class changes."""
    result, last = [], 0
    for c in range(0x110000):
        k = unicode.combining(chr(c))
        if k and not class_is_known(c):
            k = 0
        if k != last:
            result.append((c, k))
            last = k
    return result


def decompositions():
    """(code point, first, second or 0) of canonical decompositions but those of Hangul."""
    result = []
    for c in CODES:
        text = unicode.decomposition(chr(c))
        if not text or text[0] == "<":
            continue
        parts = [int(part, 16) for part in text.split()]
        pair = "".join(map(chr, parts))
        assert len(parts) <= 2 and nfc(chr(c)) == unicode.normalize("NFC", chr(c))
        if nfc(pair) == unicode.normalize("NFC", pair):
            result.append((c, parts[0], parts[1] if len(parts) == 2 else 0))
    return result


def array(kind, name, comment, values):
    lines, line = [], "   "
    for value in values:
        if len(line) + len(value) + 2 > 100:
            lines.append(line)
            line = "   "
        line += f" {value},"
    lines.append(line)
    return f"/// {comment}\ninline constexpr {kind} {name}[] = {{\n" + "\n".join(lines) + "\n};\n"


def text():
    assert unicode.unidata_version == "16.0.0" and tokenizers.__version__ == "0.23.3"
    category = {c: unicode.category(chr(c))[0] for c in CODES}
    letters = [c for c in CODES if category[c] == "L"]
    numbers = [c for c in CODES if category[c] == "N"]
    spaces = matching(r"\s")
    assert letters == matching(r"\p{L}") and numbers == matching(r"\p{N}")
    digits = isolated_digits()
    assert set(numbers) < set(digits)
    pairs = decompositions()
    composites = [i for i, (c, _, second) in enumerate(pairs) if second and unicode.normalize("NFC", chr(c)) == chr(c)]
    composites.sort(key=lambda i: pairs[i][1:])
    number = lambda values: map(str, values)
    return "\n".join([
        "#pragma once\n/// \\file\n/// Properties of characters, written by tests/bpe/make_unicode_tables.py.\n"
        "#include <samba/core/config.hpp>\n\n#include <cstdint>\n\n"
        "namespace samba::inline SAMBA_TARGET {\nnamespace unicode::tables {\n\n// clang-format off\n",
        array("std::uint32_t", "letters", "Where the category L begins and ends, in turn, in Unicode 16.0.",
              number(boundaries(letters))),
        array("std::uint32_t", "numbers", "Where the category N begins and ends, in turn, in Unicode 16.0.",
              number(boundaries(numbers))),
        array("std::uint32_t", "later_numbers", "Where what is of category N since Unicode 17.0 begins and ends, in turn.",
              number(boundaries(set(digits) - set(numbers)))),
        array("std::uint32_t", "white_space", "Where White_Space begins and ends, in turn.", number(boundaries(spaces))),
        array("std::uint32_t", "combining_classes",
              "256 c + k: the canonical combining class is k from code point c on.",
              number(c << 8 | k for c, k in classes())),
        array("std::uint64_t", "decompositions",
              "c << 42 | a << 21 | b: c decomposes into a and b, or into a if b is 0. Sorted.",
              (hex(c << 42 | a << 21 | b) for c, a, b in pairs)),
        array("std::uint16_t", "composites", "Indices of decompositions that are undone, sorted by a and b.",
              number(composites)),
        "// clang-format on\n\n}  // namespace unicode::tables\n}  // namespace samba::inline SAMBA_TARGET\n"])


if __name__ == "__main__":
    pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HEADER).write_text(text())
