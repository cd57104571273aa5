"""Does it answer twice the same?"""

from signstep.diagnosing.battery import graph
from signstep.diagnosing.bench import Bench, Cure, TooDearError, cosine, median
from signstep.diagnosing.test import Observed, Suspect, Test
from signstep.engine.keys import Key
from signstep.errors import GradientError

FEW = 16
CAUSE = "random defence"
DRAWS = (4, 8, 16, 32)
# Doubling the draws ends where robust accuracy moves by less.
MOVED = 0.005


def _run(bench: Bench) -> Observed:
    if not bench.random:
        return Observed(0.0, False, "two passes give the same answer")
    turned = None
    try:
        with bench.asking(bench.few(FEW)) as question:
            key = Key(bench.search.seed).fold("random")
            two = [bench.gradient(question, question.x, key.fold(number))[1] for number in range(2)]
        turned = median(cosine(*two))
    except GradientError:
        pass
    said = "" if turned is None else f"; gradients of two passes have a cosine of {turned:.2f}"
    if turned is None:
        return Observed(1.0, True, "answers differ from pass to pass", suspects=(Suspect(CAUSE, "answers differ"),))
    told = f"answers differ from pass to pass{said}"
    path = "pgd:steps=30" if bench.seen.get("path", True) else "bpda-pgd:steps=30"
    cures, before, settled = [], None, False
    for draws in DRAWS:
        try:
            ran = bench.run(path, changes={"eot": draws})
        except TooDearError:
            break
        cures.append(Cure(path, {"eot": draws}, upon="" if path.startswith("pgd") else graph.CAUSE))
        bench.eot = draws
        standing = int((bench.right & ~ran.fooled).sum()) / bench.count
        if before is not None and abs(before - standing) < MOVED:
            settled = True
            break
        before = standing
    told += f"; robust accuracy over {', '.join(str(cure.changes['eot']) for cure in cures) or 'no'} draws"
    told += " settles" if settled else " has not settled"
    remedy = "" if settled else "take more draws: ss.Search(eot=64), --eot 64"
    return Observed(1.0 - turned, True, told, suspects=(Suspect(CAUSE, told, tuple(cures), remedy),))


ROW = Test(
    "random",
    "Does it answer twice the same?",
    "whether passes differ; 1 - cosine of the gradients of two passes",
    "any difference",
    "Athalye, Carlini & Wagner 2018 (arXiv:1802.00420), section 4.2; AutoAttack's check of randomised defences",
    (CAUSE,),
    "expectation over 4, 8, 16, 32 draws until robust accuracy moves by less than half a point",
    "for random models alone: 30 steps at each number of draws",
    _run,
)
