"""A student of the model: trained on its answers around the chosen examples, so that its gradients may stand in.

Source: substitute models, Papernot et al. 2017 (arXiv:1602.02697), on noise of the threat's size instead of their
Jacobian-based augmentation, which needs one more training for each round.
"""

import torch
from torch import Tensor, nn

from signstep.diagnosing.bench import Bench, Cure, pieces
from signstep.engine.keys import Key
from signstep.model.declaration import Model
from signstep.networks.student import student

COPIES = 5
EPOCHS = 30
NAME = "a student"


def imitated(bench: Bench) -> list[Cure]:
    """Attacks along the gradients of a student, which is trained once; none where there can be no student.

    Raises:
        TooDearError: its questions may cost more than is left.
    """
    if "student" not in bench.seen:
        bench.seen["student"] = distilled(bench)
    model = bench.seen["student"]
    if model is None:
        return []
    changes = {"surrogate": model}
    return [Cure("mi-fgsm:steps=20", changes, NAME), Cure("pgd:steps=40", changes, NAME, last=True)]


def distilled(bench: Bench) -> Model | None:
    """A student that answers like the model; None where it has no classes or more than one input.

    Raises:
        TooDearError: its questions may cost more than is left.
    """
    if not isinstance(bench.x, Tensor) or bench.classes is None or bench.classes < 2 or bench.model.inputs != "raw":
        return None
    bench.need(2 * COPIES * bench.count)
    points, answers = _asked(bench)
    shape = "x".join(map(str, bench.x.shape[1:]))
    spread = 1.0
    if bench.form == "labels" or answers.ndim == 1:
        goal = nn.functional.one_hot(answers.long(), bench.classes).float()
    else:
        # Scores on the scale of a softmax that is neither flat nor hard.
        middle = answers - answers.mean(1, keepdim=True)
        spread = float(middle.std().clamp_min(1e-12))
        goal = torch.softmax(2 * torch.nan_to_num(middle / spread).clamp(-20, 20), 1)
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.inference_mode(False):
        # Not torch.manual_seed, which seeds all cards as well: they are not restored here.
        torch.default_generator.manual_seed(Key(bench.search.seed).fold("student").integer() % 2**31)
        network = student(shape=shape, classes=bench.classes)
        _trained(network, points, goal)
    name = f"student:shape={shape},classes={bench.classes}"
    network.requires_grad_(False)
    return Model(network.eval().to(bench.x.device), outputs="logits", name=name)


def _asked(bench: Bench) -> tuple[Tensor, Tensor]:
    """Points around the examples, raw (R, ...), and what the model says of each: scores (R, K) or labels (R,)."""
    points, answers = [], []
    for index in pieces(torch.arange(bench.count, dtype=torch.int64, device="cpu")):
        with bench.asking(index) as question, torch.no_grad():
            key = Key(bench.search.seed).fold("student")
            draws = key.draws(question.problem.ids, question.problem.ids.device)
            for copy in range(COPIES):
                region = question.region.resized(question.region.radius * (1 if copy < 3 else 2))
                d = (
                    region.zero()
                    if copy == 0
                    else region.vertex(draws.of(copy))
                    if copy % 2
                    else region.sample(draws.of(copy))
                )
                point = region.land(d)
                outputs = question.problem.ask(point, key.fold(copy))
                bench.spend(len(index))
                assert isinstance(point, Tensor)
                points.append(point.float().cpu())
                labels = outputs.form == "labels"
                answers.append((outputs.raw if labels else question.problem.task.logits(outputs).float()).cpu())  # type: ignore[attr-defined]
    return torch.cat(points), torch.cat(answers)


def _trained(network: nn.Module, points: Tensor, goal: Tensor) -> None:
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for index in pieces(torch.randperm(len(points), dtype=torch.int64, device="cpu")):
            optimiser.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(network(points[index]), goal[index])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
