"""Text to batches: corpora, the tokenizer, token stores, mixtures and the loader."""
