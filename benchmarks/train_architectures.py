"""Train a dozen small architectures on a GPU and export them, so that defaults are judged on more than four networks.

    python benchmarks/train_architectures.py CIFAR10 TARGET [NAME…] [--epochs 120]

CIFAR10 is a folder with `train/CLASS` and `test/CLASS`. Needs torch, torchvision and timm. One process trains one
network: start one for each name, they share a GPU well. Writes TARGET/NAME.onnx and NAME.json; weights are not kept in
the repository.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import torch
from architectures.compositions import read_objects
from architectures.networks import ARCHITECTURES
from architectures.training import COMPOSED, SEED, TEST_SEED, TESTED, export, right, train, training_data


def main() -> None:
    """Train the networks in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(ARCHITECTURES))
    parser.add_argument("--epochs", type=int, default=120)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    seen, unseen = (read_objects(given.cifar10 / part) for part in ("train", "test"))
    for name in given.names:
        made = ARCHITECTURES[name]
        network = train(
            made, training_data(made, seen, COMPOSED, SEED), given.epochs, lambda text: print(text, flush=True)
        )
        accuracy = right(made, network, training_data(made, unseen, TESTED, TEST_SEED))
        export(made, network, given.target / f"{name}.onnx")
        figures = {
            "network": name,
            "task": made.task,
            "side": made.side,
            "epochs": given.epochs,
            "right": round(100 * accuracy, 2),
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "torch": torch.__version__,
        }
        (given.target / f"{name}.json").write_text(json.dumps(figures) + "\n")
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
