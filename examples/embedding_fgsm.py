"""Three lines for embedding-space adversarial training of a text model, in a loop of one's own.

Miyato, Dai & Goodfellow 2017 ("Adversarial Training Methods for Semi-Supervised Text Classification", section 3): the
words stay as they are, and their embeddings are moved by the steepest step; here with a radius for each token. The toy
task, does word 1 come before word 2, stands for a data set; the model for any that takes embeddings.

Run ``python examples/embedding_fgsm.py``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss

WORDS, LENGTH, WIDTH = 30, 12, 16


class Classifier(nn.Module):
    """Embeddings, a small recurrent network, two scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.body = nn.GRU(WIDTH, 32, batch_first=True)
        self.head = nn.Linear(32, 2)

    def scores(self, embedded: Tensor) -> Tensor:
        """From embeddings (R, T, WIDTH)."""
        outputs, _ = self.body(embedded)
        result: Tensor = self.head(outputs[:, -1])
        return result

    def forward(self, words: Tensor) -> Tensor:
        """From word numbers (R, T)."""
        return self.scores(self.embedding(words))


def batch(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sentences of filler words with a 1 and a 2 somewhere; the label is whether the 1 comes first."""
    words = torch.randint(3, WORDS, (rows, LENGTH), generator=generator)
    places = torch.rand(rows, LENGTH, generator=generator).argsort(1)[:, :2]
    words.scatter_(1, places, torch.tensor([[1, 2]]).expand(rows, 2))
    return words, (places[:, 0] < places[:, 1]).long()


def train(steps: int = 300) -> tuple[float, float]:
    """Accuracy on new sentences, untouched and under FGSM in the embeddings."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Classifier()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    threat = ss.threat_model("token", 0.5, box=None)
    for _ in range(steps):
        words, y = batch(64, generator)
        loss = F.cross_entropy(model(words), y)
        # The three lines: the embeddings with their graph, the same loss where they are attacked, the sum of both.
        embedded = model.embedding(words)
        attacked = ss.adversarial_loss(model.scores, embedded, y, "fgsm", threat=threat)
        loss = loss + attacked
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    words, y = batch(1000, generator)
    with torch.no_grad():
        clean = float((model(words).argmax(1) == y).float().mean())
        embedded = model.embedding(words)
    outcome = ss.attack(model.scores, embedded, y, threat=threat)
    return clean, 1 - float(outcome.fooled.float().mean())


if __name__ == "__main__":
    print("untouched {:.1%}, under FGSM in the embeddings {:.1%}".format(*train()))
