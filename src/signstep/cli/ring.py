"""Training, where there is a recipe, and auditing one candidate of a comparison after another, on the same rows."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from safetensors.torch import save
from torch import Tensor

from signstep.auditing.pairwise import Training
from signstep.auditing.result import Result
from signstep.cli.candidates import Candidate
from signstep.cli.final_audit import Held, Terms, audited, held_out, kept_weights, whole
from signstep.cli.signals import asked_to_stop
from signstep.cli.terminal import say
from signstep.data import DataSource
from signstep.domains.case import Request
from signstep.domains.image.declared import declared_beside, in_order_of
from signstep.errors import InputError
from signstep.io.files import write_whole
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.train.loop import Moment, fit
from signstep.train.view import View


@dataclass
class Ring:
    """Trains and audits one candidate after another on the same rows."""

    source: DataSource
    request: Request
    terms: Terms
    folder: Path
    quiet: Console
    limit: int
    train_on: tuple[Tensor, Tensor] | None = None
    held: Held | None = None
    results: dict[str, Result] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def prepare(self, candidates: tuple[Candidate, ...], test: str | None) -> None:
        """Rows to train on and rows to audit on.

        Raises:
            InputError: the candidates would be audited on rows that differ.
        """
        self.train_on = whole(self.source)
        first = candidates[0].settings
        self.held = held_out(self.request, test, self.source, self.train_on, first)
        kept = {(candidate.settings.seed, candidate.settings.validation) for candidate in candidates}
        if self.held.chosen_by and len(kept) > 1:
            raise InputError(
                "recipes with other seeds or validation shares hold out other rows, and there is no test data",
                remedy=("pass", Arg("test")),
            )
        ones = "one training run each: the tests say whether these models differ, not whether another seed would agree"
        self.notes = (*self.held.notes, ones)

    def enter(self, candidate: Candidate) -> bool:
        """Train, where there is a recipe, and audit; False where that was interrupted."""
        model = self._opened(candidate).to(self.terms.device)
        where = self.folder / candidate.folder
        where.mkdir(exist_ok=True)
        if candidate.recipe is None:
            say(self.quiet, f"{candidate.name}: {model.title}", *model.notes)
        else:
            if not self._train(candidate, model, where):
                return False
            kept = save(kept_weights(model.module))
            write_whole(where / "weights.safetensors", kept)
            name = f"{candidate.name}: {model.title}, {candidate.recipe.name}"
            model = replace(model, name=name, hashes={"weights": hashlib.sha256(kept).hexdigest()}, notes=())
        held = self.held
        result = audited(
            model,
            self.source if held is None else held.batches(self.limit),
            self.terms,
            where / "report",
            self.quiet,
            total=min(self.limit, self.source.len_hint if held is None else len(held.x)),
            data=self.source.description if held is None else held.description,
            hashes={"data": self.source.fingerprint()},
            word=f"{candidate.name}: auditing",
        )
        if result is None or result.partial:
            return False
        self.results[candidate.name] = result
        return True

    def _opened(self, candidate: Candidate) -> Model:
        """The candidate's model, with the terms of the request where it says nothing itself.

        Raises:
            InputError: it takes other inputs, or numbers the classes otherwise than the data.
        """
        model = declared_beside(self.request, candidate.network.load(trust=self.request.trust, mode=self.request.mode))
        model = in_order_of(self.source, candidate.name, model, self.request)
        hashes = {name: digest for name, digest in model.hashes.items() if name == "weights"}
        return replace(model, hashes=hashes)

    def _train(self, candidate: Candidate, model: Model, where: Path) -> bool:
        assert self.train_on is not None
        assert candidate.recipe is not None
        say(self.quiet, f"{candidate.name}: {candidate.recipe.title}")
        with View(self.quiet, brief=True) as view, asked_to_stop() as asked:

            def watch(moment: Moment) -> bool:
                view(moment)
                return bool(asked)

            trained = fit(
                model,
                *self.train_on,
                threat=self.terms.threat,
                recipe=candidate.recipe,
                settings=candidate.settings,
                folder=where,
                watch=watch,
            )
        if asked and trained.partial:
            say(self.quiet, f"{candidate.name}: interrupted at step {trained.steps} of {trained.total}")
            return False
        say(self.quiet, *trained.notes)
        self.trainings[candidate.name] = Training(
            candidate.recipe.name,
            trained.training_seconds,
            trained.steps,
            candidate.recipe.passes,
            tuple(str(event) for event in trained.events),
        )
        self.notes = (*self.notes, *(f"{candidate.name}: {note}" for note in trained.notes if "went on" not in note))
        return True
