"""What an audit asked of an endpoint, for its record."""

from dataclasses import dataclass
from typing import Any

from signstep.auditing.table import requests_said
from signstep.model.victims.endpoint import HttpVictim
from signstep.model.victims.pace import Spent


@dataclass(frozen=True)
class Asked:
    """A model, and what had been asked of it before; nothing where it is no endpoint."""

    victim: HttpVictim | None
    before: Spent

    @classmethod
    def of(cls, model: object) -> "Asked":
        """Begin to count."""
        victim = model if isinstance(model, HttpVictim) else None
        return cls(victim, Spent() if victim is None else victim.spent())

    @property
    def spent(self) -> Spent | None:
        """What was asked since; None of what is no endpoint."""
        return None if self.victim is None else self.victim.spent().since(self.before)

    @property
    def interrupted(self) -> bool:
        """Whether somebody interrupted a request."""
        return self.victim is not None and self.victim.interrupted

    @property
    def terms(self) -> dict[str, Any]:
        """For the terms of a record."""
        return {} if self.spent is None else {"requests": self.spent.plain()}

    def notes(self, name: str) -> list[str]:
        """What a reader must know of it; ``name`` is that of another model than the audited one."""
        spent = self.spent
        if spent is None:
            return []
        who = name or "the endpoint"
        notes = [f"{name} was sent {requests_said(spent.plain())}"] if name else []
        if spent.contradictions:
            notes.append(
                f"{who} changed its mind: {spent.contradictions} of its answers differ from an earlier one to the same "
                "question"
            )
        return notes
