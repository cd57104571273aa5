"""What an attack does inside the shipped CNN and transformer, against noise of the same size: `--show stain,layers`.

The networks are those of `signstep.networks`, trained on the built-in digits on the spot, once as usual and once
against PGD; weights are kept in a folder of the temporary one. A row for each network: how much more than noise the
attack changes the first layer, the last, and the one with the largest effect; attention maps; gradients.

    python benchmarks/stain.py
    python benchmarks/stain.py --full
"""

import argparse
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

import signstep as ss
from harness import machine, table
from masking.networks import trained
from signstep.data.digits import digits
from signstep.diagnosing.bench import Bench
from signstep.diagnosing.views import shown
from signstep.model.declaration import Model
from signstep.networks.small import digits_cnn
from signstep.networks.vit import vit

MAKES: dict[str, Callable[[], nn.Module]] = {"CNN": digits_cnn, "transformer": lambda: vit(width=24, depth=2)}
COLUMNS = {
    "first layer, times noise": "stain in the first layer, times noise",
    "last layer": "stain in the last layer, times noise",
    "largest effect": "stain, largest effect",
    "attention, effect": "attention, largest effect",
    "half of the change, over noise": "half of the change in the last layer with places, attack over noise",
    "gradient size": "gradient size",
    "its rank correlation with falling": "gradient size and falling, rank correlation",
    "layers, log10": "product of layer bounds, log10",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--examples", type=int, default=60)
    parser.add_argument("--attack", default="pgd:steps=20")
    parser.add_argument("--full", action="store_true", help="print the tables of every layer")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    x, y = digits("test")
    x, y = x[: asked.examples], y[: asked.examples]
    print(machine())
    rows = []
    for name, make in MAKES.items():
        for how in ("natural", "pgd"):
            net = trained(f"stain-{name}-{how}", make, how=how, seed=50)
            bench = Bench(Model.of(net), x, y, ss.linf(asked.eps), ss.Search(), asked.attack)
            bench.look()
            bench.named = bench.run(asked.attack)
            measures: dict[str, Any] = {}
            for view in ("gradients", "layers", "stain"):
                made = shown(bench, view)
                measures |= made.measures
                for section in made.sections if asked.full else ():
                    print(f"\n{name}, {how}: {section.title}", *section.text, sep="\n")
                    print(table(section.header, section.rows) if section.rows else "")
            cells = (f"{measures[key]:.2f}" if key in measures else "-" for key in COLUMNS.values())
            stands = f"{int(bench.held.sum())} of {asked.examples}"
            rows.append((f"{name}, {'against PGD' if how == 'pgd' else 'as usual'}", stands, *cells))
            print(" | ".join(rows[-1]), flush=True)
    print(f"\n{table(('network', 'stands', *COLUMNS), rows)}")


if __name__ == "__main__":
    main()
