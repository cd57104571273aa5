"""Tables: records whose features have units, whole numbers, categories, directions and relations.

How brittle is a decision, and what is the smallest change that turns it?
"""

from signstep.domains.tabular.beam import Effort
from signstep.domains.tabular.case import case, infer
from signstep.domains.tabular.check import check
from signstep.domains.tabular.decide import Decider
from signstep.domains.tabular.directions import moves_of
from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.forms import TabularNet, estimator_model
from signstep.domains.tabular.query import RECIPES, CoordinateSearch
from signstep.domains.tabular.schema import Feature, Schema, Target, read_relations
from signstep.domains.tabular.schema_file import parse_schema, read_schema, schema_text
from signstep.domains.tabular.sentences import change_words, decision_words
from signstep.domains.tabular.smallest import Cheapest, cheapest_flips
from signstep.domains.tabular.threat import TabularThreat, tabular_threat

CHECKERS = {"tabular": check}

__all__ = [
    "CHECKERS",
    "RECIPES",
    "Cheapest",
    "CoordinateSearch",
    "Decider",
    "Effort",
    "Feature",
    "Layout",
    "Schema",
    "TabularNet",
    "TabularThreat",
    "Target",
    "case",
    "change_words",
    "cheapest_flips",
    "check",
    "decision_words",
    "estimator_model",
    "infer",
    "moves_of",
    "parse_schema",
    "read_relations",
    "read_schema",
    "schema_text",
    "tabular_threat",
]
