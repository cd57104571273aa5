"""Embedding-space adversarial training inside Hugging Face's Trainer: one method is overridden.

Needs ``pip install transformers accelerate``. The model is made from a configuration, with fresh weights, so that
nothing is downloaded; put ``AutoModelForSequenceClassification.from_pretrained(...)`` in its place.

Run ``python examples/hf_trainer.py``.
"""

import importlib
import sys
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

import signstep as ss

THREAT = ss.threat_model("token", 0.1, box=None)


class Sentences(Dataset[dict[str, Tensor]]):
    """Random words; the label is whether word 5 is among them."""

    def __init__(self, rows: int = 256) -> None:
        generator = torch.Generator().manual_seed(0)
        self.words = torch.randint(5, 40, (rows, 16), generator=generator)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        words = self.words[row]
        return {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": (words == 5).any().long()}


def trainer_class(base: Any) -> Any:
    """A Trainer whose loss is that of the clean batch plus that of the attacked one."""

    class AdversarialTrainer(base):  # type: ignore[misc]
        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,  # noqa: ARG002 - some versions pass it
        ) -> Any:
            labels, mask = inputs["labels"], inputs["attention_mask"]
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
            embedded = model.get_input_embeddings()(inputs["input_ids"])

            def scores(embeddings: Tensor) -> Tensor:
                found: Tensor = model(inputs_embeds=embeddings, attention_mask=mask).logits
                return found

            loss = loss + ss.adversarial_loss(scores, embedded, labels, "fgsm", threat=THREAT)
            return (loss, outputs) if return_outputs else loss

    return AdversarialTrainer


def main() -> int:
    """Two short epochs."""
    try:
        transformers = importlib.import_module("transformers")
        importlib.import_module("accelerate")
    except ImportError:
        print("this example needs: pip install transformers accelerate", file=sys.stderr)
        return 1
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = transformers.BertForSequenceClassification(config)
    arguments = transformers.TrainingArguments(
        output_dir="hf-run", num_train_epochs=2, report_to=[], use_cpu=True, save_strategy="no"
    )
    trainer = trainer_class(transformers.Trainer)(model=model, args=arguments, train_dataset=Sentences())
    print(trainer.train().metrics)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
