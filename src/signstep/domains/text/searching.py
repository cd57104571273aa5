"""Running the searches of many texts side by side: their questions go to the model together, the accounts are kept."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from signstep.domains.language.spelling import tokens_within
from signstep.domains.text.gains import gains
from signstep.domains.text.reading import Leaning, TextModel, TokenReader
from signstep.domains.text.region import TextRegion
from signstep.domains.text.walk import Answers, Ask, Gain, Lean, Probe, Question, Search, Seen, Walk
from signstep.domains.text.words import words_of
from signstep.engine.interrupted import Run, found, settle
from signstep.engine.keys import Key
from signstep.engine.ledger import Ledger
from signstep.engine.outcome import Found
from signstep.engine.problem import ModelProblem, Problem
from signstep.engine.region import Region
from signstep.engine.tree import Tree
from signstep.errors import InputError, ModelError, VictimError
from signstep.messages import Arg

_TOGETHER = 256  # texts that are asked about in one call
_LEANING = 32  # of which gradients are taken in one call: their graphs are held


def searched(
    name: str,
    problem: Problem,
    region: Region,
    clean: Tree,
    key: Key,
    queries: int,
    search: Callable[[Walk], Search],
    *,
    smallest: bool,
) -> Found:
    """Search every text, and let the model judge what was found.

    Args:
        name: of the attack, for messages.
        problem: the question; its margin is what is searched.
        region: a `TextRegion`.
        clean: rows (R, width).
        key: randomness.
        queries: passes of each text; the verdict comes on top.
        search: of one text.
        smallest: whether it looks for the smallest number of words.

    Raises:
        InputError: model or region are not of texts.
    """
    if not isinstance(region, TextRegion) or not isinstance(clean, Tensor):
        raise InputError(f"{name} searches among texts", remedy=("pass", Arg("domain", "text"), ", or another attack"))
    model = text_model(problem, name)
    walks = [_walk(model, region, row, queries, key.fold("text", id_)) for row, id_ in enumerate(problem.ids.tolist())]
    ledger = Ledger(problem.ids)
    crowd = _Crowd(problem.with_loss("margin"), region, model, walks, ledger, key, name)
    crowd.run([search(walk) if walk.allowance and walk.places else None for walk in walks])
    everyone = torch.arange(len(walks), dtype=torch.int64, device=problem.ids.device)
    forwards = torch.tensor([walk.asked for walk in walks], dtype=torch.int64, device=everyone.device)
    backwards = torch.tensor([walk.leaned for walk in walks], dtype=torch.int64, device=everyone.device)
    ledger.spend(everyone, forwards, backwards)
    point = region.codes([walk.typed(walk.best) for walk in walks]).to(clean.dtype)
    hit = torch.tensor([walk.seen.fooled for walk in walks], dtype=torch.bool, device=everyone.device)
    ended = settle(ledger, problem, everyone, Run(point, hit, None, crowd.ended), key.fold("restart", 0))
    whole = found(ledger, region, ended)
    if not smallest:
        return whole
    wrong = torch.tensor([walk.wrong for walk in walks], dtype=torch.bool, device=everyone.device)
    sizes = torch.tensor([float(len(walk.best)) for walk in walks], dtype=torch.float32, device=everyone.device)
    nearest = torch.where(whole.verdict.fooled, sizes, torch.inf)
    return whole._replace(smallest=torch.where(wrong, 0.0, nearest))


def text_model(problem: Problem, name: str) -> TextModel:
    """The model of texts behind a problem.

    Raises:
        InputError: it is another one.
    """
    model = problem.predictor.model if isinstance(problem, ModelProblem) else None
    if not isinstance(model, TextModel):
        raise InputError(f"{name} asks a model of texts", remedy=("pass", Arg("domain", "text")))
    return model


def read_to(model: TextModel, text: str) -> int | None:
    """Up to which letter the model reads a text; None: all of it, or nobody knows."""
    reader = model.tokens
    read = None if reader is None else reader.read(text)
    if read is None or not read.cut or read.spans is None:
        return None
    return max((end for _, end in read.spans), default=0)


def _walk(model: TextModel, region: TextRegion, row: int, queries: int, key: Key) -> Walk:
    text = region.texts[row]
    room = region.width - len(text)
    allowance = region.allowance(row)
    growth = region.edits.growth
    allowance = min(allowance, room // growth) if growth * allowance > room else allowance
    return Walk.of(text, allowance, region.edits, queries, random.Random(key.integer()), read_to(model, text))


@dataclass
class _Crowd:
    """The searches that go on, their questions and answers."""

    problem: Problem
    region: TextRegion
    model: TextModel
    walks: Sequence[Walk]
    ledger: Ledger
    key: Key
    name: str
    ended: str | None = None
    _rounds: int = 0
    _waiting: dict[int, tuple[Search, Question]] = field(default_factory=dict)

    def run(self, searches: Sequence[Search | None]) -> None:
        """Until every search has ended, or the model has stopped answering."""
        for row, search in enumerate(searches):
            if search is not None:
                self._go_on(row, search, None)
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                self._rounds += 1
                answers = self._asked(waiting) | self._leaned(waiting)
                for row, (search, _) in waiting.items():
                    self._go_on(row, search, answers[row])
        except VictimError as error:
            self.ended = str(error)

    def _go_on(self, row: int, search: Search, answer: Answers | None) -> None:
        try:
            question = next(search) if answer is None else search.send(answer)
        except StopIteration:
            return
        self._waiting[row] = (search, question)

    @torch.no_grad()
    def _asked(self, waiting: dict[int, tuple[Search, Question]]) -> dict[int, Answers]:
        """All questions about scores, so many texts at a time."""
        owners: list[int] = []
        texts: list[str] = []
        for row, (_, question) in waiting.items():
            walk = self.walks[row]
            if isinstance(question, Lean):
                continue
            asked = question.texts if isinstance(question, Probe) else [walk.typed(one) for one in question.changes]
            owners += [row] * len(asked)
            texts += asked
        seen: list[Seen] = []
        for start in range(0, len(texts), _TOGETHER):
            seen += self._scored(owners[start : start + _TOGETHER], texts[start : start + _TOGETHER])
        answers: dict[int, Answers] = {}
        here = 0
        for row, (_, question) in waiting.items():
            if isinstance(question, Lean):
                continue
            walk = self.walks[row]
            count = len(question.texts if isinstance(question, Probe) else question.changes)
            mine = seen[here : here + count]
            here += count
            walk.asked += count
            for changes, one in zip(question.changes if isinstance(question, Ask) else (), mine, strict=False):
                walk.told(changes, one)
            answers[row] = mine
        return answers

    def _scored(self, owners: list[int], texts: list[str]) -> list[Seen]:
        index = torch.tensor(owners, dtype=torch.int64, device=self.problem.ids.device)
        score = self.problem.take(index)(self.region.codes(texts), self.key.fold("round", self._rounds))
        fooled = (score.fooled & score.valid).tolist()
        return [Seen(_number(loss), hit) for loss, hit in zip(score.loss.tolist(), fooled, strict=True)]

    def _leaned(self, waiting: dict[int, tuple[Search, Question]]) -> dict[int, Answers]:
        """All questions about gradients."""
        jobs = [
            (row, changes)
            for row, (_, question) in waiting.items()
            if isinstance(question, Lean)
            for changes in question.changes
        ]
        listed: dict[int, list[list[Gain]]] = {row: [] for row, _ in jobs}
        reader = self.model.tokens
        if jobs and reader is None:
            raise ModelError(
                f"{self.name} needs gradients, and this model gives scores alone", remedy="use word-search instead"
            )
        for start in range(0, len(jobs), _LEANING):
            assert reader is not None
            part = jobs[start : start + _LEANING]
            texts = [self.walks[row].typed(changes) for row, changes in part]
            slopes = self._slopes(reader, [row for row, _ in part], texts)
            for (row, changes), text, (leaning, slope) in zip(part, texts, slopes, strict=True):
                walk = self.walks[row]
                owner = torch.tensor([row], dtype=torch.int64, device=self.problem.ids.device)
                usable = self.ledger.count(owner, self.region, slope.unsqueeze(0).to(owner.device))
                assert isinstance(usable, Tensor)
                walk.asked += 1
                walk.leaned += 1
                listed[row].append(gains(reader, walk, changes, words_of(text), leaning.read, usable[0]))
        return {**listed}

    def _slopes(self, reader: TokenReader, owners: list[int], texts: list[str]) -> list[tuple[Leaning, Tensor]]:
        """For each text what the model read, and the gradient (T, D) of the loss at its tokens' embedding."""
        index = torch.tensor(owners, dtype=torch.int64, device=self.problem.ids.device)
        with torch.enable_grad(), reader.leaning() as seen:
            score = self.problem.take(index)(self.region.codes(texts), self.key.fold("round", self._rounds))
            usable = torch.where(torch.isfinite(score.loss), score.loss, 0.0)
            leaves = list({id(one.leaf): one.leaf for one in seen}.values())
            slopes = torch.autograd.grad(usable.sum(), leaves, allow_unused=True)
        of = {id(leaf): slope for leaf, slope in zip(leaves, slopes, strict=True)}
        by_row = {one.row: one for one in seen}
        listed = []
        for row in range(len(texts)):
            one = by_row[row]
            slope = of[id(one.leaf)]
            whole = (torch.zeros_like(one.leaf) if slope is None else slope).detach().float()
            listed.append((one, whole[one.place, : len(one.read.ids)]))
        return listed


def _number(loss: float) -> float:
    return -math.inf if math.isnan(loss) else loss


def read_words(model: TextModel, text: str) -> int | None:
    """How many words of a text the model reads, where it reads not all of them; None where it reads all."""
    end = read_to(model, text)
    if end is None:
        return None
    reader = model.tokens
    assert reader is not None
    return sum(1 for word in words_of(text) if word.core and tokens_within(reader.read(text), word.start, word.end))
