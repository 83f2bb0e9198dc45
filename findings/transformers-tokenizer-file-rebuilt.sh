#!/usr/bin/env bash
# A model folder has a `tokenizer.json`, and `AutoTokenizer` gives the token ids that it gives, one
# would think. With transformers 5.24.0 it depends on one word beside it: where
# `tokenizer_config.json` has `"tokenizer_class": "LlamaTokenizer"` (as the folders of Llama 2 and
# Mistral do), vocabulary and merges are taken out of the file and a tokenizer is built anew around
# them, with another treatment of spaces. A text that begins with a space loses it.
#
# Seen with transformers 5.24.0 and tokenizers 0.23.2: of " the sea" the file itself and the class
# PreTrainedTokenizerFast have a token more than the class LlamaTokenizer, without a warning. Texts
# that begin with a letter are alike. This script fails where that is no longer so. It needs Python >=
# 3.11 and some minutes of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "transformers==5.24.0" "tokenizers==0.23.2"

cat > "$folder/spaces.py" <<'PYTHON'
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import transformers
from tokenizers import Tokenizer, models, normalizers, trainers

folder = sys.argv[1]
made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
made.normalizer = normalizers.Sequence(
    [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
)
special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
made.train_from_iterator(["the ship sailed on the sea and the sea was calm"] * 10, trainer)
made.save(f"{folder}/tokenizer.json")

print("transformers", transformers.__version__)
for kind in ("PreTrainedTokenizerFast", "LlamaTokenizer"):
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    with open(f"{folder}/tokenizer_config.json", "w") as file:
        json.dump({"tokenizer_class": kind, **names}, file)
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("the sea", " the sea"):
        theirs = loaded(text, add_special_tokens=False)["input_ids"]
        of_file = made.encode(text).ids
        print(f"{kind:24} {text!r:10} {theirs} (the file: {of_file})")
        differs = kind == "LlamaTokenizer" and text.startswith(" ")
        assert theirs == (of_file[1:] if differs else of_file), "other tokens than seen"
PYTHON
mkdir "$folder/model"
"$folder/venv/bin/python" "$folder/spaces.py" "$folder/model"
echo "as seen: with the class LlamaTokenizer a text is not read as tokenizer.json says"
