#!/usr/bin/env python3
"""Writes the data of test_sentencepiece_bpe: small tokenizers of SentencePiece's kind, trained here, and what the
packages tokenizers and sentencepiece make of hard texts.

usage: make_sentencepiece_data.py [FOLDER]
       (default: ../data/sentencepiece; pip install tokenizers==0.23.3 sentencepiece==0.2.3 gguf==0.19.0)

  <name>.json     tokenizer.json of prepend (as Phi 3 and Llama 2), replace (as Gemma 3), metaspace (as Mistral)
  <name>.model    files of sentencepiece: prefix (as Llama 2), user (as Gemma: user-defined runs of spaces), unknown
                  (no tokens of bytes, some pieces unused)
  <name>.gguf     their vocabularies as metadata of GGUF files
  expected.json   texts; by name their ids, those of tokenizers also without special tokens in the text, and decoded
"""

import json
import pathlib
import sys

import gguf
import make_data
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPACE = "\u2581"
BYTES = [f"<0x{b:02X}>" for b in range(256)]
TEXTS = make_data.TEXTS + [
    "<s>", "<s>a", "a<s>b", " <s> ", "<s><s> a</s>", "x </s> y", "<|user|>\nHi there<|end|>\n<|assistant|>\n", "a<|user|>  b",
    "<unk>", "\u2581", "a\u2581b", "\u2581\u2581 \u2581a", "<0x41>", "<0x0A>x", "<table><td>a</td>  </table>", "<start_of_turn>user\nHi<end_of_turn>\n",
    "a  b    c", "\n\n\n\n\n", "  \n  \n", "x\n\n\n y", "== == ====", "a" * 33, "the the  the   the", ">\u2581</", "> </p> > </",
]


def corpus():
    return [line for text in make_data.corpus() for line in text.splitlines()]


def trained(split, normalizer, alphabet):
    """A BPE model with tokens of bytes; `split`: words end at spaces."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next") if split else None
    trainer = trainers.BpeTrainer(vocab_size=1100, special_tokens=["<unk>", "<s>", "</s>"] + BYTES, limit_alphabet=alphabet,
                                  show_progress=False, max_token_length=12)
    tokenizer.train_from_iterator(corpus(), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in BYTES]
    content["model"].update(byte_fallback=True, fuse_unk=True)
    content["pre_tokenizer"] = None
    return content


def begins(tokenizer, name):
    return processors.TemplateProcessing(single=f"{name} $A", pair=f"{name} $A {name} $B:1", special_tokens=[(name, tokenizer.token_to_id(name))])


def prepend():
    steps = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer = Tokenizer.from_str(json.dumps(trained(True, steps, 120)))
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken("<|user|>", rstrip=True, normalized=False), AddedToken("<|end|>", rstrip=True, normalized=False),
                                  AddedToken("<|assistant|>", normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("tool_call", normalized=True)])
    tokenizer.post_processor = begins(tokenizer, "<s>")
    return tokenizer


def replace():
    tokenizer = Tokenizer.from_str(json.dumps(trained(False, normalizers.Replace(" ", SPACE), 160)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken("<table>", normalized=False), AddedToken("  a", normalized=True)])
    tokenizer.post_processor = begins(tokenizer, "<s>")
    return tokenizer


def metaspace():
    content = trained(True, normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]), 120)
    content["normalizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_tokens([AddedToken("<table>", normalized=False), AddedToken(SPACE + SPACE, normalized=True)])
    return tokenizer


def sentencepiece_model(folder, name, **options):
    path = folder / name
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in corpus() if line), model_prefix=str(path), model_type="bpe", vocab_size=900,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2, num_threads=1, input_sentence_size=0,
        max_sentencepiece_length=12, character_coverage=0.995, **options)
    path.with_suffix(".vocab").unlink()
    return path.with_suffix(".model")


def parsed(path):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    return proto


def write_gguf(path, proto):
    """The vocabulary as the converters of llama.cpp write it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    user = proto.SentencePiece.USER_DEFINED
    writer.add_token_list([piece.piece.replace(SPACE, " ") if piece.type == user else piece.piece for piece in proto.pieces])
    writer.add_token_scores([piece.score for piece in proto.pieces])
    writer.add_token_types([piece.type for piece in proto.pieces])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(proto.normalizer_spec.add_dummy_prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def main():
    assert tokenizers.__version__ == "0.23.3" and sentencepiece.__version__ == "0.2.3"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else make_data.ROOT / "tests" / "data" / "sentencepiece"
    folder.mkdir(parents=True, exist_ok=True)
    expected = {"texts": TEXTS}
    for make in (prepend, replace, metaspace):
        tokenizer = make()
        (folder / f"{make.__name__}.json").write_text(tokenizer.to_str())
        ids = make_data.encoded(tokenizer, TEXTS, False)
        expected[make.__name__] = {"ids": ids, "plain": [a if a != b else None for a, b in zip(make_data.encoded(tokenizer, TEXTS, True), ids)],
                                   "bos": tokenizer.encode("").ids, "decoded": [tokenizer.decode(i) for i in make_data.encoded(tokenizer, TEXTS, True)]}
    runs = ["\n" * n for n in range(1, 6)] + [SPACE * n for n in range(2, 9)] + ["<table>", "<td>", "</table>", "a" + SPACE + "b"]
    paths = [sentencepiece_model(folder, "prefix", byte_fallback=True, allow_whitespace_only_pieces=True), sentencepiece_model(folder, "user", byte_fallback=True, add_dummy_prefix=False,
             user_defined_symbols=runs, control_symbols=["<start_of_turn>", "<end_of_turn>"]), sentencepiece_model(folder, "unknown")]
    proto = parsed(paths[2])
    for piece in proto.pieces[3:203:2]:  # the first merges, on which others build
        piece.type = proto.SentencePiece.UNUSED
    paths[2].write_bytes(proto.SerializeToString())
    for path in paths:
        proto = parsed(path)
        for i, piece in enumerate(proto.pieces):  # runs of spaces, of Llama 2 too, have one score
            if set(piece.piece) == {SPACE} and len(piece.piece) > 1:
                piece.score = -1e9
        proto.trainer_spec.model_prefix = ""
        path.write_bytes(proto.SerializeToString())
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        ids = [model.encode(text) for text in TEXTS]
        expected[path.stem] = {"ids": ids, "decoded": [model.decode(i) for i in ids]}
        write_gguf(path.with_suffix(".gguf"), proto)
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
