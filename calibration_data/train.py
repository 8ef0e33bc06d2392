"""Rebuild this folder: write the digit images, train the network, export it, write the manifest.

Needs Python 3.10 or newer and: pip install torch scikit-learn onnx onnxruntime pillow

    python train.py                  rebuild images/, test/, model.onnx and manifest.json
    python train.py --check          compare every file with manifest.json, change nothing
    python train.py --manifest-only  only write manifest.json anew, say after editing README.md

The images and the choice of images are the same on every machine. The weights are the same from
run to run on one machine; another processor or another PyTorch may round differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent
MANIFEST = "manifest.json"

CLASSES = 10
IMAGES_PER_CLASS = 20
SEED = 1998
EPOCHS = 30
BATCH = 64
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-3
MAX_SHIFT = 1  # pixels of the enlarged image

OPSET = 17
IR_VERSION = 8  # the ONNX file format that goes with opset 17
MIN_ACCURACY = 0.97

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


# --- images ---------------------------------------------------------------------------------


def load_images() -> tuple[list[Image.Image], IntArray]:
    """All 1797 digits as 8x8 grey images, and their classes."""
    data = load_digits()
    pixels = np.round(data.images * 255 / 16).astype(np.uint8)
    return [Image.fromarray(p) for p in pixels], data.target.astype(np.int64)


def choose(labels: IntArray, offset: float) -> list[int]:
    """IMAGES_PER_CLASS indices of every class, evenly spaced through the data set.

    `offset`, from 0 to 1, places them within their intervals. A class has at least 174 images,
    so the intervals are at least 8 long and two offsets 0.5 apart never meet.
    """
    chosen: list[int] = []
    for digit in range(CLASSES):
        of_class = np.flatnonzero(labels == digit)
        step = len(of_class) / IMAGES_PER_CLASS
        chosen += [int(of_class[int((k + offset) * step)]) for k in range(IMAGES_PER_CLASS)]
    return sorted(chosen)


def write_images(folder: Path, images: list[Image.Image], labels: IntArray, indices: Iterable[int]) -> None:
    """Write folder/<class>/<index>.png, replacing what the folder held."""
    shutil.rmtree(folder, ignore_errors=True)
    for index in indices:
        path = folder / str(labels[index]) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Stored, not deflated: 64 pixels gain nothing, and no zlib version can change the bytes.
        images[index].save(path, compress_level=0)


def read_config(path: Path) -> dict[str, Any]:
    """The keys of preprocess.toml: flat, with values that are JSON too (tomllib needs 3.11)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {key.strip(): json.loads(value) for key, value in pairs}


def preprocess(image: Image.Image, config: dict[str, Any]) -> FloatArray:
    """One image as a [1, height, width] array, as preprocess.toml says."""
    done_here = {"channels": "grey", "resize": "exact", "interpolation": "bilinear"}
    if any(config[key] != value for key, value in done_here.items()):
        raise ValueError("preprocess.toml asks for something that this script does not do")
    height, width = config["size"]
    grey = image.convert("L").resize((width, height), Image.Resampling.BILINEAR)
    scaled = np.asarray(grey, dtype=np.float64) * config["scale"]
    value = (scaled - config["mean"][0]) / config["std"][0]
    return np.asarray(value[np.newaxis], dtype=np.float32)


# --- network --------------------------------------------------------------------------------


class Add(nn.Module):
    """The sum of two tensors, as a layer, so that it can be exported like the others."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum of both."""
        return a + b


class GlobalAveragePool(nn.Module):
    """The mean over height and width, both kept with size 1."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, 1, 1]."""
        return x.mean(dim=(2, 3), keepdim=True)


class Step(NamedTuple):
    """One layer: its name and the names of the layers it reads."""

    name: str
    inputs: tuple[str, ...]


class Network(nn.Module):
    """A small residual network, kept as a list of named layers.

    One list serves training (forward) and export (to_onnx): the names of the ONNX nodes are the
    names given here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.layers = nn.ModuleDict()

        x = self.conv("stem", "image", 1, 16, kernel=3)
        x = self.layer("stem/relu", nn.ReLU(), x)

        # Residual block of two 3x3 convolutions, at 16x16.
        skip = x
        x = self.conv("block1/a", x, 16, 16, kernel=3)
        x = self.layer("block1/a/relu", nn.ReLU(), x)
        x = self.conv("block1/b", x, 16, 16, kernel=3)
        x = self.layer("block1/add", Add(), x, skip)
        x = self.layer("block1/relu", nn.ReLU(), x)
        x = self.layer("pool", nn.MaxPool2d(2), x)

        # Inverted residual blocks with depthwise convolutions, at 8x8 and then 4x4.
        x = self.inverted("block2", x, 16, 64, 16)
        x = self.inverted("block3", x, 16, 64, 32, stride=2)
        x = self.inverted("block4", x, 32, 128, 32)

        x = self.conv("head", x, 32, 64, kernel=1)
        x = self.layer("head/relu", nn.ReLU(), x)
        x = self.layer("gap", GlobalAveragePool(), x)
        x = self.layer("flatten", nn.Flatten(), x)
        self.layer("classifier", nn.Linear(64, CLASSES), x)

    def layer(self, name: str, module: nn.Module, *inputs: str) -> str:
        """Append a layer that reads the layers `inputs`; returns its name."""
        self.layers[name] = module
        self.steps.append(Step(name, inputs))
        return name

    def conv(
        self,
        name: str,
        x: str,
        inward: int,
        outward: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
    ) -> str:
        """Convolution and batch normalization."""
        module = nn.Conv2d(inward, outward, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        x = self.layer(f"{name}/conv", module, x)
        return self.layer(f"{name}/bn", nn.BatchNorm2d(outward), x)

    def inverted(self, name: str, x: str, inward: int, hidden: int, outward: int, stride: int = 1) -> str:
        """Widen, depthwise 3x3, narrow; with a residual Add where the shapes allow it."""
        skip = x
        x = self.conv(f"{name}/expand", x, inward, hidden, kernel=1)
        x = self.layer(f"{name}/expand/relu6", nn.ReLU6(), x)
        x = self.conv(f"{name}/depthwise", x, hidden, hidden, 3, stride, groups=hidden)
        x = self.layer(f"{name}/depthwise/relu6", nn.ReLU6(), x)
        x = self.conv(f"{name}/project", x, hidden, outward, kernel=1)
        if stride == 1 and inward == outward:
            x = self.layer(f"{name}/add", Add(), x, skip)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """[N, 1, H, W] to the logits, [N, CLASSES]."""
        values = {"image": image}
        for name, inputs in self.steps:
            values[name] = self.layers[name](*(values[i] for i in inputs))
        return values[self.steps[-1].name]


def random_shift(batch: Tensor, generator: torch.Generator) -> Tensor:
    """The batch moved by up to MAX_SHIFT pixels each way, its border repeated."""
    height, width = batch.shape[2:]
    padded = nn.functional.pad(batch, (MAX_SHIFT,) * 4, mode="replicate")
    top, left = torch.randint(2 * MAX_SHIFT + 1, (2,), generator=generator).tolist()
    return padded[:, :, top : top + height, left : left + width]


def train(inputs: FloatArray, labels: IntArray) -> Network:
    """A network trained on these images, in evaluation mode."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)

    network = Network()
    batches = len(x) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, EPOCHS * batches)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        total = 0.0
        for k in range(batches):
            pick = order[k * BATCH : (k + 1) * BATCH]
            loss = nn.functional.cross_entropy(network(random_shift(x[pick], generator)), y[pick])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:2d}/{EPOCHS}  loss {total / batches:.4f}")
    return network.eval()


# --- export ---------------------------------------------------------------------------------


def to_onnx(network: Network, height: int, width: int) -> onnx.ModelProto:
    """The network as ONNX, layer by layer: batch normalization stays a node of its own."""
    last = network.steps[-1].name
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []

    def tensor(name: str) -> str:
        """The name of the tensor that a layer writes."""
        return {"image": "image", last: "logits"}.get(name, f"{name}_out")

    def constant(name: str, value: Tensor) -> str:
        if all(i.name != name for i in initializers):
            initializers.append(numpy_helper.from_array(value.detach().numpy(), name))
        return name

    def parameters(name: str, module: nn.Module, *keys: str) -> list[str]:
        return [constant(f"{name}.{key}", module.state_dict()[key]) for key in keys]

    for name, inputs in network.steps:
        module = network.layers[name]
        operands = [tensor(i) for i in inputs]
        attributes: dict[str, Any] = {}
        if isinstance(module, nn.Conv2d):
            op = "Conv"
            operands += parameters(name, module, "weight")
            pad = module.kernel_size[0] // 2
            attributes = {
                "group": module.groups,
                "kernel_shape": list(module.kernel_size),
                "pads": [pad] * 4,
                "strides": list(module.stride),
            }
        elif isinstance(module, nn.BatchNorm2d):
            op = "BatchNormalization"
            operands += parameters(name, module, "weight", "bias", "running_mean", "running_var")
            attributes = {"epsilon": module.eps}
        elif isinstance(module, nn.ReLU6):
            op = "Clip"
            operands += [
                constant("relu6.min", torch.tensor(0.0)),
                constant("relu6.max", torch.tensor(6.0)),
            ]
        elif isinstance(module, nn.MaxPool2d):
            op = "MaxPool"
            attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
        elif isinstance(module, nn.Linear):
            op = "Gemm"
            operands += parameters(name, module, "weight", "bias")
            attributes = {"transB": 1}
        elif isinstance(module, nn.Flatten):
            op = "Flatten"
            attributes = {"axis": 1}
        else:
            op = {nn.ReLU: "Relu", Add: "Add", GlobalAveragePool: "GlobalAveragePool"}[type(module)]
        nodes.append(helper.make_node(op, operands, [tensor(name)], name=name, **attributes))

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, height, width])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(nodes, "digits", [image], [logits], initializers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="calibration_data",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run_onnx(path: Path, inputs: FloatArray) -> FloatArray:
    """The logits that ONNX Runtime computes from the model at `path`."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": inputs})[0], dtype=np.float32)


def measure(folder: Path, config: dict[str, Any], model: Path) -> tuple[int, int]:
    """How many images of folder/<class>/ the exported model gets right, and of how many."""
    paths = sorted(folder.glob("*/*.png"))
    inputs = []
    for path in paths:
        with Image.open(path, formats=["PNG"]) as image:
            inputs.append(preprocess(image, config))
    answers = run_onnx(model, np.stack(inputs)).argmax(axis=1)
    return sum(int(p.parent.name) == a for p, a in zip(paths, answers, strict=True)), len(paths)


# --- manifest -------------------------------------------------------------------------------


def manifest_text(folder: Path) -> str:
    """The SHA-256 of every file but the manifest, as JSON sorted by path."""
    sums: dict[str, str] = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        cache = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not cache and relative.as_posix() != MANIFEST:
            sums[relative.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return json.dumps(sums, indent=2, sort_keys=True) + "\n"


def write_manifest(folder: Path) -> None:
    """Write manifest.json for the files as they are now."""
    (folder / MANIFEST).write_text(manifest_text(folder), encoding="utf-8", newline="\n")


def check_manifest(folder: Path) -> None:
    """Exit with the list of files that differ from the manifest, if there are any."""
    want = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    have = json.loads(manifest_text(folder))
    wrong = sorted(p for p in want.keys() | have.keys() if want.get(p) != have.get(p))
    if wrong:
        raise SystemExit("differs from manifest.json: " + ", ".join(wrong))
    print(f"{len(have)} files as in manifest.json")


# --- all of it ------------------------------------------------------------------------------


def rebuild(folder: Path) -> None:
    """Write images, model and manifest, checking each on the way."""
    config = read_config(folder / "preprocess.toml")
    images, labels = load_images()
    test = choose(labels, 0.25)
    calibration = choose(labels, 0.75)
    if not set(test).isdisjoint(calibration):
        raise RuntimeError("an image is both in the test and in the calibration set")
    write_images(folder / "test", images, labels, test)
    write_images(folder / "images", images, labels, calibration)

    training = np.setdiff1d(np.arange(len(images)), test)
    inputs = np.stack([preprocess(images[i], config) for i in training])
    if abs(inputs.mean()) > 0.05 or abs(inputs.std() - 1) > 0.05:
        raise RuntimeError("mean and std of preprocess.toml are not those of the images")
    network = train(inputs, labels[training])

    height, width = config["size"]
    path = folder / "model.onnx"
    path.write_bytes(to_onnx(network, height, width).SerializeToString(deterministic=True))

    with torch.no_grad():
        expected = network(torch.from_numpy(inputs)).numpy()
    if not np.allclose(run_onnx(path, inputs), expected, rtol=1e-3, atol=1e-3):
        raise RuntimeError("the exported model does not compute what the network computes")
    print(f"{sum(p.numel() for p in network.parameters())} parameters")
    right, total = measure(folder / "test", config, path)
    print(f"test accuracy {right}/{total} = {right / total:.2%}")
    if right / total < MIN_ACCURACY:
        raise RuntimeError(f"test accuracy is under {MIN_ACCURACY:.0%}")
    write_manifest(folder)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Rebuild or check the calibration data.")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true", help="compare the files with the manifest")
    group.add_argument("--manifest-only", action="store_true", help="only write the manifest")
    arguments = parser.parse_args()
    if arguments.check:
        check_manifest(FOLDER)
    elif arguments.manifest_only:
        write_manifest(FOLDER)
    else:
        rebuild(FOLDER)


if __name__ == "__main__":
    main()
