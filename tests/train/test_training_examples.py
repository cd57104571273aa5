"""The examples of training do what they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("no_global_seed")
def test_embedding_fgsm_learns() -> None:
    clean, robust = loaded("embedding_fgsm").train(steps=150)
    assert clean > 0.9
    assert robust > 0.75


def test_the_trainer_adds_the_attacked_loss() -> None:
    """Without transformers: the base class is stood in for."""
    import torch
    from torch import nn

    class Base:
        def compute_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool) -> object:
            loss = model(inputs_embeds=model.table(inputs["input_ids"]), attention_mask=None).logits.sum() * 0  # type: ignore[operator]
            return (loss, None) if return_outputs else loss

    class Scores:
        def __init__(self, logits: torch.Tensor) -> None:
            self.logits = logits

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(40, 4), nn.Linear(4, 2)

        def get_input_embeddings(self) -> nn.Module:
            return self.table

        def forward(self, inputs_embeds: torch.Tensor, attention_mask: object) -> Scores:  # noqa: ARG002
            return Scores(self.head(inputs_embeds.mean(1)))

    example = loaded("hf_trainer")
    row = example.Sentences(4)[0]
    inputs = {name: part[None] for name, part in row.items()}
    model = Model()
    loss = example.trainer_class(Base)().compute_loss(model, inputs)
    assert float(loss.detach()) > 0
    loss.backward()
    assert model.table.weight.grad is not None


@pytest.mark.usefixtures("no_global_seed")
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_with_the_real_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("transformers", "accelerate"):
        pytest.importorskip(package, reason=f"needs {package}")
    monkeypatch.chdir(tmp_path)
    assert loaded("hf_trainer").main() == 0
    assert "train_loss" in capsys.readouterr().out
