#!/usr/bin/env python3
"""Compares include/samba/io/unicode_tables.hpp with Python's own unicodedata, and, where the packages are installed
that make_unicode_tables.py needs, with what it writes.

Categories of characters stay what they are once they are assigned, so any version of Unicode can judge its own characters.
"""
import pathlib
import re
import sys
import unicodedata

HEADER = pathlib.Path(__file__).resolve().parents[2] / "include" / "samba" / "io" / "unicode_tables.hpp"
OF_HEADER = (16, 0)


def arrays(text):
    """The arrays of the header by name."""
    found = re.findall(r"inline constexpr std::uint\d+_t (\w+)\[\] = \{(.*?)\};", text, re.S)
    return {name: [int(number, 0) for number in re.findall(r"\w+", numbers)] for name, numbers in found}


def members(bounds):
    assert bounds == sorted(set(bounds)) and len(bounds) % 2 == 0
    return {c for begin, end in zip(bounds[::2], bounds[1::2]) for c in range(begin, end)}


def problems(tables, unicode, version):
    """What differs from this version of Unicode among its characters, those of the header's version if it is later."""
    codes = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    category = {c: unicode.category(chr(c)) for c in codes}
    letters, numbers = members(tables["letters"]), members(tables["numbers"])
    digits, spaces = numbers | members(tables["later_numbers"]), members(tables["white_space"])
    classes, last = {}, 0
    changes = [(value >> 8, value & 255) for value in tables["combining_classes"]]
    for (begin, k), (end, _) in zip(changes, changes[1:] + [(0x110000, 0)]):
        classes.update((c, k) for c in range(begin, end) if k)
    pairs = {}
    for value in tables["decompositions"]:
        c, parts = value >> 42, [value >> 21 & 0x1FFFFF, value & 0x1FFFFF]
        pairs[c] = [part for part in parts if part]
    old = unicodedata.ucd_3_2_0
    for c in codes:
        kind = category[c]
        if kind == "Cn" or (version > OF_HEADER and old.category(chr(c)) == "Cn"):
            continue
        if (c in letters) != (kind[0] == "L"):
            yield f"U+{c:04X} is {kind}: letters"
        if (c in numbers) != (kind[0] == "N") or (c in digits) != (kind[0] == "N"):
            yield f"U+{c:04X} is {kind}: numbers"
        if (c in spaces) != (kind[0] == "Z" or 9 <= c <= 13 or c == 0x85):
            yield f"U+{c:04X} is {kind}: white_space"
        # Normalisation knows no characters that are newer than Unicode 9.0, but all that Python knows of Unicode 3.2.
        k, text = unicode.combining(chr(c)), unicode.decomposition(chr(c))
        computed = 0xAC00 <= c <= 0xD7A3  # Hangul, of which some versions of Python say the parts
        decomposition = [int(part, 16) for part in text.split()] if text and text[0] != "<" and not computed else []
        known = old.category(chr(c)) != "Cn"
        if classes.get(c, 0) != k and (known or c in classes):
            yield f"U+{c:04X} has class {k}: combining_classes"
        if pairs.get(c, []) != decomposition and (known or c in pairs):
            yield f"U+{c:04X} decomposes into {decomposition}: decompositions"
    entries = tables["decompositions"]
    composites = {entries[i] >> 42 for i in tables["composites"]}
    expected = {c for c in pairs if len(pairs[c]) == 2 and category[c] != "Cn" and unicode.normalize("NFC", chr(c)) == chr(c)}
    for c in sorted(c for c in composites ^ expected if category[c] != "Cn"):
        yield f"U+{c:04X}: composites"


def main():
    text = HEADER.read_text()
    version = tuple(map(int, unicodedata.unidata_version.split(".")[:2]))
    found = list(problems(arrays(text), unicodedata, version))
    print("\n".join(found[:20] + [f"Unicode {unicodedata.unidata_version} of Python: {len(found)} differences"]))
    try:
        import make_unicode_tables
        same = make_unicode_tables.text() == text
    except (ImportError, AssertionError):
        same = True
        print("not written again: needs unicodedata2 16.0.0 and tokenizers 0.23.3")
    else:
        print("written again: " + ("the same" if same else "another text"))
    return 1 if found or not same else 0


if __name__ == "__main__":
    sys.exit(main())
