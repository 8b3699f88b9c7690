"""How the shipped tiny foundation is made: a synthetic corpus, a tokenizer, a training run, an evaluation."""
