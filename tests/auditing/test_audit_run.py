"""An audit counts what the engine found: denominators, streaming, random models, interruption."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import signstep as ss
from signstep.auditing.evidence import Evidence
from signstep.auditing.findings import examine
from signstep.errors import InputError


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def data(rows: int = 60, wrong: int = 6) -> tuple[Tensor, Tensor]:
    """Inputs, and labels that the network gives, but for the first few, which are one too small."""
    x = torch.rand(rows, 8, generator=torch.Generator().manual_seed(2))
    y = network()(x).argmax(1)
    y[:wrong] = (y[:wrong] - 1) % 4
    return x, y


def test_counts_add_up_and_clean_errors_count_as_errors() -> None:
    result = ss.audit(network(), data(), threat=ss.linf(0.05))
    assert result.examples == 60
    assert result.clean_right == 54
    assert result.clean_accuracy == 54 / 60
    for entry in result.attacks:
        assert entry.fooled + entry.held + entry.undetermined == 54
        assert entry.unverified == 0
    assert result.fooled + result.held + result.undetermined == 54
    assert result.robust_accuracy == result.held / 60
    assert 0 < result.attack("fgsm").fooled < 54


def test_attacks_combine_pointwise() -> None:
    result = ss.audit(network(), data(), threat=ss.linf(0.05))
    verdicts = result.per_example.verdicts
    worst = sum(
        clean == "r" and any(column[row] == "f" for column in verdicts.values())
        for row, clean in enumerate(result.per_example.clean)
    )
    assert result.fooled == worst
    assert worst >= max(entry.fooled for entry in result.attacks)


def test_accuracy_at_attacked_points_may_exceed_the_pointwise_one() -> None:
    """Examples wrong untouched may come out right at the attacked point: two different numbers."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model.bias.zero_()

    def masked(u: Tensor) -> Tensor:  # a gradient that points the wrong way
        out: Tensor = model(2 * u.detach() - u)
        return out

    result = ss.audit(
        masked, (torch.tensor([[0.1]]), torch.tensor([1])), threat=ss.linf(0.2, box=None), attacks=["fgsm"]
    )
    assert (result.clean_right, result.robust_accuracy, result.attack("fgsm").right_after) == (0, 0.0, 1)


@pytest.mark.kernels
@pytest.mark.parametrize("size", [1, 7, 60])
def test_batch_size_and_order_do_not_matter(size: int) -> None:
    x, y = data()
    model = network().double()
    whole = ss.audit(model, (x.double(), y), threat=ss.linf(0.05))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    shuffled = DataLoader(TensorDataset(x.double()[order], y[order]), batch_size=size)
    parts = ss.audit(model, shuffled, threat=ss.linf(0.05))
    assert parts.held == whole.held
    assert [entry.fooled for entry in parts.attacks] == [entry.fooled for entry in whole.attacks]
    assert parts.curves == whole.curves
    for name, column in whole.per_example.verdicts.items():
        assert "".join(column[row] for row in order.tolist()) == parts.per_example.verdicts[name]
    assert tuple(whole.per_example.ids[row] for row in order.tolist()) == parts.per_example.ids


def test_any_iterable_dataset_or_loader_will_do() -> None:
    x, y = data()
    expected = ss.audit(network(), (x, y), threat=ss.linf(0.05)).held
    batches = [(x[:50], y[:50]), (x[50:], y[50:])]
    for source in (batches, iter(batches), TensorDataset(x, y), DataLoader(TensorDataset(x, y), 13)):
        assert ss.audit(network(), source, threat=ss.linf(0.05)).held == expected


def test_limit_cuts_within_a_batch_and_reads_no_further() -> None:
    x, y = data()
    read = []

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, 60, 10):
            read.append(start)
            yield x[start : start + 10], y[start : start + 10]

    result = ss.audit(network(), stream(), threat=ss.linf(0.05), limit=25)
    assert result.examples == 25
    assert read == [0, 10, 20]
    assert result.per_example.clean == "w" * 6 + "r" * 19


def test_without_labels_the_models_own_predictions_count() -> None:
    x, _ = data()
    result = ss.audit(network(), (x, None), threat=ss.linf(0.05))
    assert result.clean_right == 60
    assert result.terms["labels"] == "predicted"
    assert "agreement with its own labels" in str(result)


def test_targeted_success_is_over_those_not_already_there() -> None:
    def every_other(x: Tensor) -> Tensor:
        return x[:, ::2]

    x, _ = data()
    y = every_other(x).argmax(1)
    y[:6] = (y[:6] - 1) % 4  # the next class after a label that is one too small is what the model says
    result = ss.audit(every_other, (x, y), threat=ss.linf(0.3), attacks=["pgd"], search=ss.Search(target="next"))
    reachable = every_other(x)[6:].gather(1, (y[6:, None] + 1) % 4).squeeze(1) + 0.6 > every_other(x)[6:].amax(1)
    entry = result.attacks[0]
    assert (entry.already, entry.reached) == (6, int(reachable.sum()))
    assert 0 < int(reachable.sum()) < 54
    assert result.clean_right == 54


def test_eps_per_example_is_sliced_along_the_stream() -> None:
    x, y = data()
    eps = torch.linspace(0, 0.1, 60)
    whole = ss.audit(network(), [(x, y)], threat=ss.linf(eps))
    parts = ss.audit(network(), [(x[:17], y[:17]), (x[17:], y[17:])], threat=ss.linf(eps))
    assert whole.per_example.verdicts == parts.per_example.verdicts
    assert whole.per_example.verdicts["pgd"][6] == "h"  # hardly any room
    with pytest.raises(ss.SignstepError, match="eps has 60 entries, the data has at least 120"):
        ss.audit(network(), [(torch.cat([x, x]), torch.cat([y, y]))], threat=ss.linf(eps[:60]))


def test_vanished_gradients_are_undetermined_and_never_robust() -> None:
    def flat(x: Tensor) -> Tensor:
        z: Tensor = network()(x)
        return torch.where(z > z.mean(1, keepdim=True), 1.0, 0.0) + 0 * z

    x, _ = data()
    y = flat(x).argmax(1)
    result = ss.audit(flat, (x, y), threat=ss.linf(0.01), attacks=["random-sign", "fgsm"], curve=False)
    assert result.undetermined > 0
    assert result.held == 0
    assert result.attack("fgsm").dead_gradients == 60
    assert "undetermined" in str(result)


def test_nan_outputs_are_never_robust() -> None:
    class Poisoned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = torch.stack([x.sum(1), 1 - x.sum(1)], 1)
            return torch.where(x[:, :1] > 0.5, z * float("nan"), z)

    x = torch.full((4, 3), 0.45)
    y = Poisoned()(x).argmax(1)
    result = ss.audit(Poisoned(), (x, y), threat=ss.linf(0.2), attacks=["random-sign", "fgsm", "pgd"], curve=False)
    assert result.held + result.undetermined + result.fooled == 4
    for entry, column in result.per_example.verdicts.items():
        assert len(column) == 4, entry
    assert "n" not in str(result.robust_accuracy)


def test_a_model_with_a_generator_of_its_own_is_found_to_be_random() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()
            self.generator = torch.Generator().manual_seed(0)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out + 0.5 * torch.randn(out.shape, generator=self.generator)

    result = ss.audit(Noisy(), data(12), threat=ss.linf(0.05), attacks=["fgsm"], curve=False)
    assert result.terms["random_model"]
    assert result.attacks[0].forwards >= 32


def test_interruption_keeps_what_was_done_and_says_so() -> None:
    x, y = data()

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        yield x[:30], y[:30]
        raise KeyboardInterrupt

    model = network().train()
    with warnings.catch_warnings():
        result = ss.audit(model, stream(), threat=ss.linf(0.05))
    assert result.partial
    assert result.examples == 30
    assert str(result).startswith("PARTIAL")
    assert model.training


def test_interruption_before_the_first_batch_is_not_a_result() -> None:
    def stopped(x: Tensor) -> Tensor:
        raise KeyboardInterrupt(x)

    with pytest.raises(KeyboardInterrupt):
        ss.audit(stopped, data(), threat=ss.linf(0.05))


def test_progress_counts_examples() -> None:
    seen: list[int] = []
    x, y = data()
    ss.audit(network(), [(x[:40], y[:40]), (x[40:], y[40:])], threat=ss.linf(0.05), run=ss.Run(progress=seen.append))
    assert seen == [40, 60]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "data gave no batches"),
        (torch.zeros(3, 8), "data is one tensor; pass"),
        ([torch.zeros(3, 8)], "make each batch a pair"),
        ([("a", torch.zeros(3))], "inputs of type str"),
        ((torch.zeros(3, 8), torch.zeros(2)), "3 inputs and 2 labels"),
    ],
)
def test_data_that_does_not_fit_gets_one_sentence(source: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ss.audit(network(), source, threat=ss.linf(0.05))  # type: ignore[arg-type]


def test_data_of_which_all_is_left_out_says_so() -> None:
    x, _ = data(9, wrong=0)
    with pytest.raises(InputError, match="no examples but those left out: 9 with the label -100, which is to be igno"):
        ss.audit(
            ss.Model(network(), task=ss.Multiclass(ignore=-100)), (x, torch.full((9,), -100)), threat=ss.linf(0.05)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacks": []}, "one or more different recipes"),
        ({"attacks": ["fgsm", "fgsm"]}, "one or more different recipes"),
        ({"attacks": ["fgms"]}, "recipe='fgms' is not known"),
        ({"attacks": ["pgd:stepps=3"]}, "has no option 'stepps=3'"),
        ({"limit": 0}, "limit=0"),
        ({"curve": [0.2, 0.1]}, "ascending"),
        ({"search": ss.Search(target=torch.zeros(60))}, "target is a tensor"),
    ],
)
def test_wrong_options_get_one_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ss.audit(network(), data(), threat=ss.linf(0.05), **options)  # type: ignore[arg-type]


def test_curves_of_other_attacks_keep_what_they_found() -> None:
    x, y = data()
    levels = [0.01, 0.03, 0.1, 0.2]
    result = ss.audit(network(), (x, y), threat=ss.linf(0.05), curve=ss.Curve(levels, ["random-sign", "pgd"]))
    for name in ("random-sign", "pgd"):
        counts = [point.fooled for point in result.curves[name]]
        assert counts == sorted(counts)
    for point in result.curves["pgd"]:
        alone = ss.audit(network(), (x, y), threat=ss.linf(point.eps), attacks=["pgd"], curve=False)
        assert point.fooled >= alone.attacks[0].fooled
    with pytest.raises(InputError, match="curve_attacks names"):
        ss.audit(network(), (x, y), threat=ss.linf(0.05), attacks=["fgsm"], curve=ss.Curve(True, ["pgd"]))


def test_answers_and_labels_are_recorded() -> None:
    x, y = data()
    result = ss.audit(network(), (x, y), threat=ss.linf(0.05), attacks=["fgsm"])
    examples = result.per_example
    assert examples.labels == tuple(y.tolist())
    assert examples.answers["clean"] == tuple(network()(x).argmax(1).tolist())
    attacked = ss.fgsm(network(), x, y, eps=0.05)
    assert examples.answers["fgsm"] == tuple(network()(attacked).argmax(1).tolist())


def test_evidence_holds_a_point_for_each_fooled_example(tmp_path: Path) -> None:
    x, y = data()
    evidence = Evidence()
    result = ss.audit(
        network(), [(x[:25], y[:25]), (x[25:], y[25:])], threat=ss.linf(0.05), run=ss.Run(evidence=evidence)
    )
    kept = evidence.tensors()
    assert kept["row"].sort().values.tolist() == [row for row, letter in enumerate(result.worst_case) if letter == "f"]
    assert torch.equal(kept["x"], x[kept["row"]])
    assert bool((network()(kept["x_adv"]).argmax(1) != y[kept["row"]]).all())
    assert torch.equal(network()(kept["x_adv"]).argmax(1), kept["answer_adv"])
    evidence.save(tmp_path / "points.safetensors")
    for name, part in Evidence.load(tmp_path / "points.safetensors").items():
        assert torch.equal(part, kept[name])


def test_evidence_stops_at_its_limit_and_counts_what_it_dropped() -> None:
    whole, part = Evidence(), Evidence(limit=2 * 8 * 4 * 3)
    for evidence in (whole, part):
        ss.audit(network(), data(), threat=ss.linf(0.05), run=ss.Run(evidence=evidence))
    assert len(part) == 3
    assert part.dropped == len(whole) - 3


def test_data_is_drawn_under_the_callers_own_generators() -> None:
    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(4):
            yield torch.rand(3, 8), torch.zeros(3, dtype=torch.long)

    with torch.random.fork_rng():
        torch.manual_seed(5)
        result = ss.audit(network(), stream(), threat=ss.linf(0.05), attacks=["fgsm"], curve=False)
    assert len(set(result.per_example.ids)) == 12


def test_masks_for_each_example_are_sliced_along_the_stream() -> None:
    x, y = data()
    mask = torch.rand(60, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    whole = ss.audit(network(), [(x, y)], threat=ss.linf(0.1, mask=mask))
    parts = ss.audit(network(), [(x[:17], y[:17]), (x[17:], y[17:])], threat=ss.linf(0.1, mask=mask))
    assert whole.per_example.verdicts == parts.per_example.verdicts
    with pytest.raises(ss.SignstepError, match="mask has 40 entries"):
        ss.audit(network(), [(x, y)], threat=ss.linf(0.1, mask=mask[:40]))


def test_single_steps_stay_single_steps_with_several_surrogates() -> None:
    others = [network(1), network(2)]
    result = ss.audit(
        network(), data(), threat=ss.linf(0.05), attacks=["fgsm"], curve=False, search=ss.Search(surrogate=others)
    )
    assert result.attacks[0].backwards == 2
    assert "SS109" in {finding.code for finding in examine(result)}


def test_an_interruption_while_evidence_is_gathered_keeps_it_whole() -> None:
    class Stopping(nn.Module):
        def __init__(self, calls: int) -> None:
            super().__init__()
            self.inner, self.calls = network(), calls

        def forward(self, x: Tensor) -> Tensor:
            self.calls -= 1
            if self.calls == 0:
                raise KeyboardInterrupt
            out: Tensor = self.inner(x)
            return out

    x, y = data()
    for calls in range(8, 18):
        evidence = Evidence()
        try:
            result = ss.audit(
                Stopping(calls),
                [(x[:30], y[:30]), (x[30:], y[30:])],
                threat=ss.linf(0.05),
                attacks=["fgsm"],
                curve=False,
                run=ss.Run(evidence=evidence),
            )
        except KeyboardInterrupt:
            continue
        kept = evidence.tensors()
        assert {len(part) for part in kept.values()} <= {result.fooled}
