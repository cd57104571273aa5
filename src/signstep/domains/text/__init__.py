"""Classifiers of texts: how few words must change, and what may stand in their place, for the answer to change."""

from signstep.domains.text.attacks import RECIPES, HotFlip, RandomWords, WordSearch
from signstep.domains.text.case import case
from signstep.domains.text.check import check
from signstep.domains.text.codes import codes_of, texts_of
from signstep.domains.text.edits import Edits
from signstep.domains.text.letters import escaped
from signstep.domains.text.reading import CallableReader, TextModel, TokenReader
from signstep.domains.text.summary import typed
from signstep.domains.text.threat import KIND, TextThreat, text_threat

CHECKERS = {KIND: check}

__all__ = [
    "CHECKERS",
    "RECIPES",
    "CallableReader",
    "Edits",
    "HotFlip",
    "RandomWords",
    "TextModel",
    "TextThreat",
    "TokenReader",
    "WordSearch",
    "case",
    "check",
    "codes_of",
    "escaped",
    "text_threat",
    "texts_of",
    "typed",
]
