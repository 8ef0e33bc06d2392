"""A PyTorch module → ONNX, and the module itself to compare with.

The module is exported as it stands: in evaluation mode, without gradients, on the CPU. What it was before it is again
afterwards. Exporters fold batch normalization into convolutions themselves where they can; what they leave, quantize
folds.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from quantkit.errors import BackendError, ModelError, UsageError, first_line
from quantkit.extras import install_command
from quantkit.frameworks.exported import Exported, Shape, example_input
from quantkit.frameworks.torch_exporters import (
    Exporter,
    ExportRequest,
    choose_exporter,
    export_module,
    flatten_outputs,
    unfused_attention,
)
from quantkit.plugin import load_plugin
from quantkit.values import Array, Batch

TRACED = 2
"""Batch of the example that is exported: torch.export takes sizes 0 and 1 for constants."""
OPTION = "from-torch"


@dataclass(frozen=True, slots=True)
class TorchOptions:
    """How a module becomes ONNX.

    opset: 13 … 20; None: 18, or 17 where PyTorch has the TorchScript exporter only. fixed_batch: None for a dynamic
    batch. tolerance: largest |difference| that is allowed, as a share of the output's largest magnitude.
    """

    opset: int | None = None
    exporter: Exporter | None = None
    fixed_batch: int | None = None
    output_names: tuple[str, ...] = ()
    tolerance: float = 1e-3


def load_torch(text: str) -> tuple[Any, Any]:
    """`module:callable` → (module, example inputs or None). UsageError, BackendError."""
    require_torch()
    import torch

    if ":" not in text:
        raise UsageError(f"{text} is not module:callable", remedy="for example quantkit from-torch nets:resnet")
    remedies = (
        "name a module in this directory, or an installed one",
        "name a function that returns a torch.nn.Module, or (module, example inputs)",
    )
    found: Any = load_plugin(text, option=OPTION, remedies=remedies)
    made = found if isinstance(found, torch.nn.Module) else found()
    if isinstance(made, torch.nn.Module):
        return made, None
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module):
        return made
    raise UsageError(
        f"{OPTION} {text} returned a {type(made).__name__}",
        remedy="return a torch.nn.Module, or (module, example inputs)",
    )


def require_torch() -> None:
    """BackendError where PyTorch is missing."""
    if importlib.util.find_spec("torch") is None:
        raise BackendError("PyTorch is not installed", remedy=install_command("torch"))


def export_torch(
    module: Any, example: Any, shapes: Mapping[str, Shape], options: TorchOptions, folder: Path
) -> Exported:
    """Export a module into `folder`. example: a tensor, a sequence or a mapping of them; None where `shapes` has them.

    ModelError where the module cannot run on the example, cannot be exported, or has no dynamic batch; UsageError,
    BackendError.
    """
    import torch

    exporter, opset = choose_exporter(options.exporter, options.opset)
    arrays = example_inputs(module, example, shapes)
    size = options.fixed_batch or TRACED
    arrays = {name: resize_batch(array, size) for name, array in arrays.items()}
    with evaluation_mode(module) as network:
        arguments = tuple(torch.from_numpy(array) for array in arrays.values())
        outputs = output_names(run_example(network, arguments, arrays), options.output_names)
        batched = frozenset() if options.fixed_batch else frozenset(n for n, array in arrays.items() if array.ndim)
        request = ExportRequest(network, arguments, tuple(arrays), outputs, batched, opset)
        path = folder / "model.onnx"
        export_or_explain(exporter, request, path)
        refuse_fixed(request, path)
    return Exported(
        path,
        source=f"PyTorch {torch.__version__.partition('+')[0]}",
        exporter=exporter.told,
        example=arrays,
        run=TorchReference(module),
        fixed_batch=options.fixed_batch,
    )


@dataclass(frozen=True, slots=True)
class TorchReference:
    """The module's own outputs for a batch."""

    module: Any

    def __call__(self, batch: Batch) -> Sequence[Array]:
        """In the order of the ONNX model's outputs. What the module raises is the caller's."""
        import torch

        with evaluation_mode(self.module) as network, unfused_attention(), torch.no_grad():
            found = network(*(torch.from_numpy(np.ascontiguousarray(array)) for array in batch.values()))
        return [np.asarray(tensor.detach().numpy()) for _, tensor in flatten_outputs(found)]


@contextlib.contextmanager
def evaluation_mode(module: Any) -> Iterator[Any]:
    """The module in evaluation mode on the CPU (a copy where it lies elsewhere); it is put back as it was."""
    tensors = (*module.parameters(), *module.buffers())
    network = module if all(t.device.type == "cpu" for t in tensors) else copy.deepcopy(module).cpu()
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for part, mode in modes:
            part.training = mode


def example_inputs(module: Any, example: Any, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """Example inputs by the names they get in ONNX, in the order of `forward`'s parameters. UsageError."""
    if example is not None and shapes:
        raise UsageError("an example and shapes are given", remedy="give one of them")
    if example is None and not shapes:
        raise UsageError(
            "there is no example input",
            remedy="--shape image=1,3,224,224, or return (module, example inputs) from the callable",
        )
    if shapes:
        return {name: example_input(shape) for name, shape in shapes.items()}
    if isinstance(example, Mapping):
        return order_by_parameters(module, {str(name): as_array(value) for name, value in example.items()})
    values = list(example) if isinstance(example, (tuple, list)) else [example]
    names = parameter_names(module)
    return {names[i] if i < len(names) else f"input_{i}": as_array(value) for i, value in enumerate(values)}


def order_by_parameters(module: Any, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs given by name, as positional ones. UsageError where `forward` takes others before them."""
    names = parameter_names(module)[: len(arrays)]
    if set(names) != set(arrays):
        raise UsageError(
            f"the example has {', '.join(arrays)}, forward's first parameters are {', '.join(names)}",
            remedy="give the first parameters by name, or wrap the module in one that takes just these",
        )
    return {name: arrays[name] for name in names}


def parameter_names(module: Any) -> list[str]:
    """Names of `forward`'s positional parameters."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds]


def as_array(value: Any) -> Array:
    """A tensor or an array as an array. UsageError."""
    if hasattr(value, "detach"):
        with contextlib.suppress(TypeError):  # bfloat16 and its like, which numpy does not have
            value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise UsageError(
            f"an example input is a {type(value).__name__} of {getattr(value, 'dtype', 'no dtype')}",
            remedy="give tensors of a dtype that numpy has; wrap the module for other arguments",
        )
    return value


def resize_batch(array: Array, size: int) -> Array:
    """The array with `size` samples: its own over and over."""
    if not array.ndim or not len(array):
        return array
    return np.ascontiguousarray(np.resize(array, (size, *array.shape[1:])))


def run_example(network: Any, arguments: tuple[Any, ...], arrays: Batch) -> list[tuple[str, Any]]:
    """What the module returns for the example. ModelError."""
    import torch

    told = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in arrays.items())
    try:
        with unfused_attention(), torch.no_grad():
            found = list(flatten_outputs(network(*arguments)))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"the module does not run on {told}: {first_line(error)}",
            remedy="correct the example or --shape; for a module with one batch size only, give --fixed-batch",
        ) from error
    if not found:
        raise ModelError("the module returns no tensors", remedy="wrap it in one that returns tensors")
    return found


def output_names(found: Sequence[tuple[str, Any]], given: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the outputs: as given, as the module named them, `output`, or `output_0`, … UsageError."""
    if given and len(given) != len(found):
        raise UsageError(f"the module has {len(found)} outputs, {len(given)} are named", remedy="name each of them")
    if given:
        return given
    names = [name for name, _ in found]
    if all(names) and len(set(names)) == len(names):
        return tuple(names)
    return ("output",) if len(found) == 1 else tuple(f"output_{i}" for i in range(len(found)))


def export_or_explain(exporter: Exporter, request: ExportRequest, path: Path) -> None:
    """Export. ModelError that tells a batch that cannot be dynamic from a module that cannot be exported."""
    try:
        export_module(exporter, request, path)
        return
    except Exception as error:
        cause = error
    if request.batched and can_export(exporter, replace(request, batched=frozenset()), path):
        raise_fixed(request, root_cause(cause))
    other = "--opset 18 (its newer exporter)" if exporter is Exporter.TORCHSCRIPT else "--exporter torchscript"
    raise ModelError(
        f"PyTorch's {exporter.told} exporter cannot export the module: {root_cause(cause)}",
        remedy=f"{other} may do it; else change what the module does there",
    ) from cause


def can_export(exporter: Exporter, request: ExportRequest, path: Path) -> bool:
    """Whether the exporter does it."""
    try:
        export_module(exporter, request, path)
    except Exception:
        return False
    return True


def raise_fixed(request: ExportRequest, why: str) -> NoReturn:
    """ModelError: the batch cannot be dynamic."""
    raise ModelError(
        f"the batch of {', '.join(sorted(request.batched))} cannot be dynamic: {why}",
        remedy="--fixed-batch 1 exports the module for one batch size; or let it compute sizes from x.shape[0]",
    )


def refuse_fixed(request: ExportRequest, path: Path) -> None:
    """ModelError where the exporter took the batch for a constant without saying so."""
    from quantkit.graph import load_model

    inputs = {i.name: i for i in load_model(path).inputs}
    if missing := [name for name in request.inputs if name not in inputs]:
        raise ModelError(
            f"the module does not use its inputs {', '.join(missing)}", remedy="leave them out of the example"
        )
    if any(inputs[name].fixed_batch is not None for name in request.batched):
        raise_fixed(request, f"the module computes with the number {TRACED} where the batch should stand")


def root_cause(error: BaseException) -> str:
    """The first line of what began it: exporters wrap errors in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
