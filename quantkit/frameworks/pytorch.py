"""Conversion of PyTorch modules to ONNX, with the module itself as reference.

The module is exported in evaluation mode, without gradients, on the CPU, and restored afterwards. Exporters fold batch
normalization into convolutions where they can; quantize folds the rest.
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
from quantkit.frameworks.options import ConversionFields, ConversionOptions
from quantkit.frameworks.torch_exporters import (
    Exporter,
    ExportRequest,
    choose_exporter,
    export_module,
    flatten_outputs,
    unfused_attention,
)
from quantkit.plugin import call_factory, load_plugin
from quantkit.values import Array, Batch

TRACED = 2
"""Batch size of the exported example: torch.export treats sizes 0 and 1 as constants."""
OPTION = "from-torch"


@dataclass(frozen=True, slots=True)
class TorchOptions(ConversionOptions):
    """How a module is converted.

    opset: 13 … 20; None: 18, or 17 if PyTorch only has the TorchScript exporter.
    """

    exporter: Exporter | None = None
    output_names: tuple[str, ...] = ()


class TorchFields(ConversionFields, total=False):
    """The keywords of `from_torch` that are fields of `TorchOptions`."""

    exporter: Exporter | str | None
    output_names: str | Sequence[str]


def load_torch(text: str) -> tuple[Any, Any]:
    """Return (module, example inputs or None) of `module:callable`. UsageError, BackendError."""
    require_torch()
    import torch

    if ":" not in text:
        raise UsageError(f"{text} is not module:callable", remedy="for example quantkit from-torch nets:resnet")
    remedies = (
        "name a Python module in this directory, or an installed one",
        "name a function that returns a torch.nn.Module, or (module, example inputs)",
    )
    found: Any = load_plugin(text, option=OPTION, remedies=remedies)
    made = found if isinstance(found, torch.nn.Module) else call_factory(found, OPTION, text, remedies[1])
    if isinstance(made, torch.nn.Module):
        return made, None
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module):
        return made
    raise UsageError(
        f"{OPTION} {text} returned a value of type {type(made).__name__}",
        remedy="return a torch.nn.Module, or (module, example inputs)",
    )


def require_torch() -> None:
    """Raise BackendError if PyTorch is missing."""
    if importlib.util.find_spec("torch") is None:
        raise BackendError("PyTorch is not installed", remedy=install_command("torch"))


def export_torch(
    module: Any, example: Any, shapes: Mapping[str, Shape], options: TorchOptions, folder: Path
) -> Exported:
    """Export a module into `folder`.

    example: a tensor, a sequence or a mapping of them; None if `shapes` describes the inputs. ModelError if the module
    cannot run on the example, cannot be exported, or has no dynamic batch; UsageError, BackendError.
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
        exporter=exporter.full_name,
        example=arrays,
        run=TorchReference(module),
        fixed_batch=options.fixed_batch,
    )


@dataclass(frozen=True, slots=True)
class TorchReference:
    """A frozen function that returns the module's own outputs for a batch."""

    module: Any

    def __call__(self, batch: Batch) -> Sequence[Array]:
        """Return the outputs in the order of the ONNX model's. Exceptions of the module pass through."""
        import torch

        with evaluation_mode(self.module) as network, unfused_attention(), torch.no_grad():
            found = network(*(torch.from_numpy(np.ascontiguousarray(array)) for array in batch.values()))
        return [np.asarray(tensor.detach().numpy()) for _, tensor in flatten_outputs(found)]


@contextlib.contextmanager
def evaluation_mode(module: Any) -> Iterator[Any]:
    """Yield the module in evaluation mode on the CPU (a copy if it is elsewhere); restore its mode afterwards."""
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
    """Return example inputs by the names they get in ONNX, in the order of `forward`'s parameters. UsageError."""
    if example is not None and shapes:
        raise UsageError("both an example and shapes are given", remedy="give one of the two")
    if example is None and not shapes:
        raise UsageError(
            "there is no example input",
            remedy="give --shape image=1,3,224,224, or return (module, example inputs) from the callable",
        )
    if shapes:
        return {name: example_input(shape) for name, shape in shapes.items()}
    if isinstance(example, Mapping):
        return order_by_parameters(module, {str(name): as_array(value) for name, value in example.items()})
    values = list(example) if isinstance(example, (tuple, list)) else [example]
    names = parameter_names(module)
    return {names[i] if i < len(names) else f"input_{i}": as_array(value) for i, value in enumerate(values)}


def order_by_parameters(module: Any, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return named inputs in positional order. UsageError if `forward` takes others before them."""
    names = parameter_names(module)[: len(arrays)]
    if set(names) != set(arrays):
        raise UsageError(
            f"the example has {', '.join(arrays)}, forward's first parameters are {', '.join(names)}",
            remedy="name the first parameters, or wrap the module in one that takes only these",
        )
    return {name: arrays[name] for name in names}


def parameter_names(module: Any) -> list[str]:
    """Return the names of `forward`'s positional parameters."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds]


def as_array(value: Any) -> Array:
    """Return a tensor or an array as an array. UsageError."""
    if hasattr(value, "detach"):
        with contextlib.suppress(TypeError):  # bfloat16 and other dtypes that numpy does not have
            value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise UsageError(
            f"an example input is of type {type(value).__name__} and dtype {getattr(value, 'dtype', 'none')}",
            remedy="give tensors of a dtype that numpy supports; wrap the module for other arguments",
        )
    return value


def resize_batch(array: Array, size: int) -> Array:
    """Return the array with `size` samples, its own repeated as needed."""
    if not array.ndim or not len(array):
        return array
    return np.ascontiguousarray(np.resize(array, (size, *array.shape[1:])))


def run_example(network: Any, arguments: tuple[Any, ...], arrays: Batch) -> list[tuple[str, Any]]:
    """Return the named outputs of the module for the example. ModelError."""
    import torch

    inputs = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in arrays.items())
    try:
        with unfused_attention(), torch.no_grad():
            found = list(flatten_outputs(network(*arguments)))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"the module does not run on {inputs}: {first_line(error)}",
            remedy="correct the example or --shape; if the module has one batch size only, give --fixed-batch",
        ) from error
    if not found:
        raise ModelError("the module returns no tensors", remedy="wrap it in one that returns tensors")
    return found


def output_names(found: Sequence[tuple[str, Any]], given: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of the outputs: as given, as the module names them, `output`, or `output_0`, … UsageError."""
    if given and len(given) != len(found):
        raise UsageError(
            f"the module has {len(found)} outputs, but {len(given)} names are given", remedy="name every output"
        )
    if given:
        return given
    names = [name for name, _ in found]
    if all(names) and len(set(names)) == len(names):
        return tuple(names)
    return ("output",) if len(found) == 1 else tuple(f"output_{i}" for i in range(len(found)))


def export_or_explain(exporter: Exporter, request: ExportRequest, path: Path) -> None:
    """Export. ModelError says whether only the dynamic batch fails, or the module cannot be exported at all."""
    try:
        export_module(exporter, request, path)
        return
    except Exception as error:
        cause = error
    if request.batched and can_export(exporter, replace(request, batched=frozenset()), path):
        raise_fixed(request, root_cause(cause))
    other = "--opset 18 (its newer exporter)" if exporter is Exporter.TORCHSCRIPT else "--exporter torchscript"
    raise ModelError(
        f"PyTorch's {exporter.full_name} exporter cannot export the module: {root_cause(cause)}",
        remedy=f"try {other}; else change that part of the module",
    ) from cause


def can_export(exporter: Exporter, request: ExportRequest, path: Path) -> bool:
    """Return True if the exporter succeeds."""
    try:
        export_module(exporter, request, path)
    except Exception:
        return False
    return True


def raise_fixed(request: ExportRequest, why: str) -> NoReturn:
    """Raise ModelError: the batch cannot be dynamic."""
    raise ModelError(
        f"the batch of {', '.join(sorted(request.batched))} cannot be dynamic: {why}",
        remedy="export it for one batch size with --fixed-batch 1, or let it compute sizes from x.shape[0]",
    )


def refuse_fixed(request: ExportRequest, path: Path) -> None:
    """Raise ModelError if the exporter silently made the batch a constant."""
    from quantkit.graph import load_model

    inputs = {i.name: i for i in load_model(path).inputs}
    if missing := [name for name in request.inputs if name not in inputs]:
        raise ModelError(
            f"the module does not use its inputs {', '.join(missing)}", remedy="leave them out of the example"
        )
    if any(inputs[name].fixed_batch is not None for name in request.batched):
        raise_fixed(request, f"the module computes with the constant {TRACED} instead of the batch size")


def root_cause(error: BaseException) -> str:
    """Return the first line of the original error: exporters wrap errors in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
