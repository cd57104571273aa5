"""A cure made harder: what is run on the few examples that it left standing."""

from signstep.diagnosing.bench import Cure

_TARGETED = "apgd:loss=margin,steps=40,targets=4"
_QUERIES = Cure("square:queries=500")


def harder(cure: Cure) -> tuple[Cure, ...]:
    """Attacks that go the same way further: more steps and restarts through stand-ins, else targeted margins.

    Gradients come from where the cure takes them; of its loss nothing is left, since margins have their own.
    """
    name = cure.rung.partition(":")[0]
    if name == "bpda-pgd":
        soft = ",backward=soft" if "backward=soft" in cure.rung else ""
        return Cure(f"bpda-pgd:steps=100,restarts=3{soft}", cure.changes, cure.name), _QUERIES
    if name == "averaged-pgd":
        return Cure("averaged-pgd:steps=30,samples=16,reach=1", cure.changes, cure.name), _QUERIES
    changes = {key: value for key, value in cure.changes.items() if key != "loss"}
    # The user's own loss may be what hides.
    return Cure(_TARGETED, {**changes, "loss": None}, cure.name), _QUERIES
