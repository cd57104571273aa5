"""Models of several inputs: an image with a text, a text alone, other named tensors."""

from signstep.domains.language.tokenizers import PretrainedTokenizer, Tokenizer, WordTokenizer
from signstep.domains.language.victim import Channel, Victim, tokens_of
from signstep.domains.multimodal.attacks import Partial, Witness, on
from signstep.domains.multimodal.case import case
from signstep.domains.multimodal.check import check
from signstep.domains.multimodal.choices import Offers, choices_of, ids_of, offers
from signstep.domains.multimodal.crossover import Cross, Crossover, crossover
from signstep.domains.multimodal.pairing import pair_scores
from signstep.domains.multimodal.prepare import Text, text_input
from signstep.domains.multimodal.substitute import Substituted, TokenArguments, substitute
from signstep.domains.multimodal.threat import KIND, TokenThreat, substitutions

CHECKERS = {KIND: check}

__all__ = [
    "CHECKERS",
    "Channel",
    "Cross",
    "Crossover",
    "Offers",
    "Partial",
    "PretrainedTokenizer",
    "Substituted",
    "Text",
    "TokenArguments",
    "TokenThreat",
    "Tokenizer",
    "Victim",
    "Witness",
    "WordTokenizer",
    "case",
    "check",
    "choices_of",
    "crossover",
    "ids_of",
    "offers",
    "on",
    "pair_scores",
    "substitute",
    "substitutions",
    "text_input",
    "tokens_of",
]
