"""The command line: `cascade predict | inspect | demo`.

    main          the group, and one way for errors to reach the reader: one line, status 2
    predict       a file or standard input to lines of JSON (`predict_tags`: of taggers; `writer`: a line per row)
    inspect       what a bundle says about itself
    demo          the project's own sentences through the bundles that come with it (`demo_tags`: of the tagger)
    turns         two ways of answering the same, timed in turns
    show          tables and words for terminals
 Training
and export have commands of their own, because they need packages that this one must not load.
"""

from __future__ import annotations

from cascade.cli.main import cascade, main

__all__ = ["cascade", "main"]
