"""Texts to rows of token ids, answers back to texts, examples from files. Only here is the tokenizers library used.

texts          what a caller may give as a text
tokenizer      texts and pairs to rows; `wordpiece`: the fast path for plain ASCII; `truncation`: rows that are too long
word_encoding  sentences of words, and texts in which the tokenizer finds the words, to rows that know their words
entities       answers for pieces or words to transformers' entities
reading        examples from files; `sources`: opened and unpacked; `records`: the lines of each format
"""
