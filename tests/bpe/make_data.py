#!/usr/bin/env python3
"""Writes the data of test_bpe: small tokenizers, trained here, and what the package tokenizers makes of hard texts.

usage: make_data.py [FOLDER]    (default: ../data/bpe; pip install tokenizers==0.23.3)

  <name>.json      tokenizer.json of gpt2, smollm, llama3, qwen2 and neox, with the chains of the real ones
  expected.json    texts; by name their ids, with and without special tokens in the text, and the bytes of their words;
                   what the regular expressions of tokenizers take for letters, numbers and white space; the texts in
                   normalisation form C
"""

import json
import pathlib
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
ROOT = pathlib.Path(__file__).resolve().parents[2]

# Enough of each script for a few merges.
SENTENCES = """
Alle Menschen sind frei und gleich an Würde und Rechten geboren. Größe, Straße, über, schön.
Tous les êtres humains naissent libres et égaux en dignité et en droits. Où est la forêt ? Ça va.
Todos los seres humanos nacen libres e iguales en dignidad y derechos. ¿Qué pasó? ¡Mañana!
Все люди рождаются свободными и равными в своём достоинстве и правах. Привет, мир.
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.
すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。
人人生而自由,在尊严和权利上一律平等。东京 北京 東京 日本語 中文
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।
يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. السلام عليكم
כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.
มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ
I'm sure they're right, we've said it's what he'd do; I'll go, don't you? THEY'RE, IT'S, WE'LL, DON'T.
def fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\n\n\n
\tint main() {\r\n\t\treturn 0;\r\n\t}\r\n 1 22 333 4444 55555 1234567890 3.14159 0x7fff 1,000,000
😀 😃 🎉 👍 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 🇫🇷 ❤️ ☃ → ≤ ½ € £ © ® ™ … — “ ” ‘ ’
"""

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", " \n \n  x", "\t", "\t\t x", "\r\n", "\r\n\r\n  y", "a", "a ", " a", " a ",
    "  a  b   c    d     e      f", " " * 7, " " * 23, " " * 24, " " * 25, " " * 100, "x" + " " * 80 + "y",
    "x" + "\t" * 9 + "y", "a\n\n\nb", "a \n\n b", "a\r\n\r\nb", "a\u3000\u3000b", "a\u00a0\u00a0b", "a\u2003 \u2003b",
    "a\u2028b\u2029c\u0085d", "\u00a0x", " \u3000", "\u3000 x", "a\x0b\x0cb \x0b c",
    "Hello, world!", "The quick brown fox jumps over the lazy dog.", "I'm sure they're right, we've said it's what he'd do.",
    "THEY'RE IT'S WE'LL DON'T I'D I'M I'VE", "ThEy'Re iT'S we'lL 'Tis 'twas ''s '' ' 's 't 're 've 'm 'll 'd",
    "x's x'S x'\u017f y'\u017fz '\u017f 'l 'v 'r 'le 'lL 'RE 'rE", "can't've o'clock rock'n'roll l'été d'où 'é' a'1 'sport",
    "\u2019s \u2019t they\u2019re", "0 1 12 123 1234 12345 123456 1234567", "a1b22c333d4444", "  1  22   333    4444", "1 2\n3\t4",
    "3.14159, 1,000,000; 0x7fff; 1e-9; 2nd; x2; 5%", "٠١٢٣٤٥٦٧٨٩ ४२ ௧௨௩ 五十 Ⅷ ² ³ ½ ⅔ ① 𝟘𝟙𝟚 ㊿",
    "\U00011de0\U00011de5x \U00016ff4 \U00016ff6\U00016ff6 \U00010d40", "(a) [b] {c} <d> \"e\" 'f' `g` *h* _i_ ~j~ #k @l",
    "!!! ??? ... --- === +++ $$$ \n!!!\n ???\r\n\r\n...", " !!! \n\n  ??? \t...", "a!b ?c \n!d\n?e", "foo_bar fooBar FOO_BAR __init__ a.b.c a->b",
    "def f(x):\n    return x  # comment\n\n\nclass A:\n\tpass\n", "if (a && b) {\r\n\treturn *c++;\r\n}\r\n",
    "https://example.com/a?b=c&d=e#f user@example.com C:\\dir\\file",
    "Naïve café — 東京 😀 ≤ ½\tend  \n\n  two  spaces", "Straße Größe über ÄÖÜ ẞ ﬁ ŉ", "Où est la forêt ? Ça va.", "¿Qué pasó? ¡Mañana!",
    "Привет, мир! Ёлка", "Όλοι οι άνθρωποι", "すべての人間は、自由である。", "人人生而自由,在尊严和权利上一律平等。", "모든 인간은 자유로우며",
    "सभी मनुष्यों को गौरव", "جميع الناس أحرارا", "כל בני האדם", "มนุษย์ทั้งหลาย", "Tiếng Việt có dấu", "ქართული ენა Հայերեն አማርኛ ᏣᎳᎩ",
    "e\u0301 a\u0308 o\u0302\u0323 c\u0327 x\u0301\u0323\u0327 \u0301", "\u1112\u1161\u11ab\u1100\u1173\u11af \uac00\u11a8 \uac01\u11a8",
    "\u0958\u0929\u0931 \u0928\u093c \ufb2c \u2126\u212b\u2000 \uf900\U0002f800 \u0344 \u1e9b\u0323",
    "a\u0323\u0302 a\u0302\u0323 q\u0307\u0323 \u0b47\u0b3e \u0cc6\u0cc2\u0cd5", "a\u0310\u0301 o\u0313\u0308 \u1100\u0301\u1161 \uac00\u11a7 \uac00\u0301\u11a8", "\U00011099\U000110ba \U0001d157\U0001d165 \U0001d15e",
    "😀😃🎉 👍👍🏽 👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇩🇪🇫🇷 ❤️ 1️⃣ #️⃣", "\u200b\u200c\u200d\u2060\ufeff x\u200by \u00ad \u202eabc\u202c",
    "\x00\x01\x02 \x1b[31m\x7f \x80\x9f", "\ue000\uf8ff \U000f0000\U0010ffff \ufffd\ufffe\uffff", "𝒳𝔘𝕏 𐍈 𒀀 𓀀 \U00020000\U0002a6df",
    "\u0378\u0380 \U000e0001\U000e0100", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "thethethethethetheinginginginging" * 3, "the" + "\u0301" * 30, "!" * 70, "=" * 64 + "\n" + "-" * 64, "ab" * 50,
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|><|endoftext|><|endoftext|>", "<|im_start <|im_start| <|im_start|", "<|im_<|im_end|>end|>", "  <|im_end|>  \n 5<|im_end|>7 ",
    "x  <|left|>  y  <|right|>  z <|both|> <|both|>\n\n<|both|> \u3000<|both|>\u3000 w", "tool_calls<tool>x</tool> <tool_call> <tool_caller>",
    "na\u0308ive_na\u00efve cafe\u0301 caf\u00e9 <caf\u00e9> <cafe\u0301>",
]


def corpus():
    text = (ROOT / "examples" / "demo_model" / "heldout.txt").read_text()
    return [text] + [SENTENCES.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r")] * 3


def special(*contents, **flags):
    return [AddedToken(content, special=True, normalized=False, **flags) for content in contents]


def train(pre_tokenizer, specials, size, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def byte_level(**options):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **options)


def gpt2():
    tokenizer = train(byte_level(), special("<|endoftext|>"), 900)
    tokenizer.add_special_tokens([AddedToken("<|left|>", lstrip=True, normalized=False), AddedToken("<|right|>", rstrip=True, normalized=False),
                                  AddedToken("<|both|>", lstrip=True, rstrip=True, normalized=False)])
    tokenizer.add_tokens(["<tool>", "<tool_call>", "tool_call"])
    return tokenizer


def smollm():
    chain = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])
    return train(chain, special("<|endoftext|>", "<|im_start|>", "<|im_end|>"), 800)


def llama3():
    chain = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level(use_regex=False)])
    tokenizer = train(chain, [], 900)
    # Words that merges no longer reach: only `ignore_merges` finds them.
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    model["merges"] = [merge for i, merge in enumerate(model["merges"]) if i % 7 != 3]
    model["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens(special("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"))
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{begin} $A", pair=f"{begin} $A {begin} $B:1", special_tokens=[(begin, tokenizer.token_to_id(begin))])])
    return tokenizer


def qwen2():
    chain = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), byte_level(use_regex=False)])
    tokenizer = train(chain, [], 700, normalizers.NFC())
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    return tokenizer


def neox():
    tokenizer = train(byte_level(), special("<|endoftext|>", "<|padding|>"), 700, normalizers.NFC())
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)] + [AddedToken("<cafe\u0301>", normalized=True)])
    return tokenizer


def encoded(tokenizer, texts, as_text):
    tokenizer.encode_special_tokens = as_text
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    tokenizer.encode_special_tokens = False
    return ids


def bounds(expression):
    """Where the characters that match begin and end, in turn."""
    codes = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    text = "".join(map(chr, codes))
    rest = set()
    for _, (begin, end) in pre_tokenizers.Split(Regex(expression), "removed").pre_tokenize_str(text):
        rest.update(text[begin:end])
    result, inside = [], False
    for c in range(0x110000):
        if (chr(c) not in rest and not 0xD800 <= c <= 0xDFFF) != inside:
            inside = not inside
            result.append(c)
    return result + [0x110000] * inside


def main():
    assert tokenizers.__version__ == "0.23.3"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "data" / "bpe"
    folder.mkdir(parents=True, exist_ok=True)
    expected = {"texts": TEXTS}
    for make in (gpt2, smollm, llama3, qwen2, neox):
        tokenizer = make()
        (folder / f"{make.__name__}.json").write_text(tokenizer.to_str())
        parsed = encoded(tokenizer, TEXTS, False)
        expected[make.__name__] = {"ids": parsed, "bos": tokenizer.encode("").ids,
                                   # null where special tokens as text change nothing
                                   "words": [[len(word) for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)] for text in TEXTS],
                                   "plain": [a if a != b else None for a, b in zip(encoded(tokenizer, TEXTS, True), parsed)]}
    for name, expression in {"letters": r"\p{L}", "numbers": r"\p{N}", "white_space": r"\s"}.items():
        expected[name] = bounds(expression)
    nfc = normalizers.NFC().normalize_str
    expected["nfc"] = [nfc(text) for text in TEXTS]
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
