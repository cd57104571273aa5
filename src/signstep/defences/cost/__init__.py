"""What each defence costs on a model, and what it is worth against attackers who do not know of it and who do."""

from signstep.defences.cost.bench import Bench, Candidate
from signstep.defences.cost.measure import table
from signstep.defences.cost.record import CostRow, CostTable

__all__ = ["Bench", "Candidate", "CostRow", "CostTable", "table"]
