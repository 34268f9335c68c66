"""Texts to rows of token ids, and answers back to texts: the only room that touches the tokenizers library."""
