"""The backend `onnxruntime`: it runs any ONNX network on the CPU, and on a GPU with onnxruntime-gpu."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from quantkit.backends.session import Session, SessionFields
    from quantkit.graph.model import Model


@dataclass(frozen=True, slots=True)
class OnnxRuntimeBackend:
    """The library onnxruntime; it is loaded when it is first needed."""

    name: str = "onnxruntime"
    providers: tuple[str, ...] = ("cpu", "cuda")

    def available(self) -> tuple[str, ...]:
        """Return the providers that this onnxruntime was built with."""
        from quantkit.backends.onnxruntime.inference import available_providers

        return available_providers()

    def version(self) -> str:
        """Return onnxruntime's version."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def open_session(self, model: Model, tensors: Sequence[str], **options: Unpack[SessionFields]) -> Session:
        """Open a network; see `quantkit.backends.session.SessionFields`. ModelError, BackendError."""
        from quantkit.backends.onnxruntime.inference import OnnxRuntimeSession

        return OnnxRuntimeSession(model, tensors, **options)


BACKEND = OnnxRuntimeBackend()
