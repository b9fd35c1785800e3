"""
Splitters: from the text of a document to its chunks.

    recursive.py    RecursiveSplitter, the default, by characters; where chunks may be cut
    tokens.py       TokenSplitter, by tokens, at the boundaries of `recursive`
    semantic.py     SemanticTextSplitter, the package semantic-text-splitter

A splitter is called with a Document or a text and returns its Chunks in order. Token counts come
from `documents.tokenizers`. Lines, pages and headings are added later, by `documents.locations`.
"""
