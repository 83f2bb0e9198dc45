"""Small tokenizers of the kinds that Hugging Face folders have, learnt from a few lines of text."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    f"The ship {i} sailed past the old harbour, and 那船 was seen no more: {i * 7}.\n"
    for i in range(60)
]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def write_tokenizer(folder: Path, library: Library, **settings: Any) -> Path:
    """A tokenizer folder as transformers writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    library.save(str(folder / "tokenizer.json"))
    if settings:
        content = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder


def _added(name: str) -> dict[str, Any]:
    """A token as transformers writes it into tokenizer_config.json."""
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {"__type": "AddedToken", "content": name, "special": True, **flags}


def byte_level(special: list[str], size: int = 330) -> Library:
    """As of Llama 3 and Granite: all bytes are tokens, special ones have names of their own."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=ALPHABET, show_progress=False
    )
    library.train_from_iterator(TEXTS, trainer)
    return library


def pieces() -> Library:
    """As of Llama 2 and Mistral: SentencePiece's pieces, bytes where there is none, a BOS."""
    library = Library(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *BYTES]
    words = [word for text in TEXTS for word in text.replace("那船", "").split()]
    trainer = trainers.BpeTrainer(vocab_size=350, special_tokens=special, show_progress=False)
    library.train_from_iterator(words, trainer)
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    # The trainer takes the bytes for special; SentencePiece's are tokens as all others.
    content = json.loads(library.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in BYTES]
    return Library.from_str(json.dumps(content))


def unigram() -> Library:
    """As of SentencePiece's unigram models, which change the text to NFKC first."""
    library = Library(models.Unigram())
    library.normalizer = normalizers.NFKC()
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    library.train_from_iterator(TEXTS, trainer)
    return library


def foreign(root: Path) -> dict[str, Path]:
    """A folder of each kind."""
    own = ["<|begin|>", "<|end|>"]
    named = {"bos_token": own[0], "eos_token": _added(own[1])}
    folders = {
        "named": write_tokenizer(root / "named", byte_level(own), **named),
        "mapped": write_tokenizer(root / "mapped", byte_level(own)),
        "no-pad": write_tokenizer(root / "no-pad", byte_level(["<unk>", "<s>", "</s>"])),
        "pieces": write_tokenizer(
            root / "pieces", pieces(), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        ),
        "unigram": write_tokenizer(root / "unigram", unigram(), eos_token="</s>"),
    }
    (root / "mapped" / "special_tokens_map.json").write_text(json.dumps(named))
    return folders
