"""A head: which outputs of a network hold its detections, and how they are decoded.

OutputFacts     name, shape, type, and what is known of the values of an output
HeadQuestion    outputs and metadata of a network, from which its head is found
Head            a head that was found: decodes the outputs of one image
Layout          a kind of head by name, and how it is recognised
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from quantkit.errors import DataError
from quantkit.metrics.heads.detections import Detections
from quantkit.metrics.task import NetworkFacts, Task
from quantkit.values import Array

Canvas = tuple[int, int]
"""Width and height of the network's input in pixels."""
ImageOutputs = tuple[Array, ...]
"""The outputs of a head for one image, without the batch axis."""


class Ending(Enum):
    """The function that an output's values come from."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """An output. shape: with the batch axis; None where a size is unknown. integers: its type is one of integers.

    ending: the function that makes its values. whole_last: whether the last of at least six columns holds class
    numbers and the one before it scores; None without an example. selected: a NonMaxSuppression makes it, rows of
    image, class and box; centred: from boxes that are centre and size. ordered: rows of four are corners in order, as
    far as an example shows.
    """

    name: str
    shape: tuple[int | None, ...]
    integers: bool = False
    ending: Ending = Ending.UNKNOWN
    whole_last: bool | None = None
    selected: bool = False
    centred: bool = False
    ordered: bool | None = None
    example: Array | None = field(default=None, repr=False, compare=False)

    @property
    def rank(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class HeadQuestion:
    """The outputs of a network and what its metadata declare."""

    outputs: tuple[OutputFacts, ...]
    network: NetworkFacts = field(default_factory=NetworkFacts)
    named: bool = False
    """True if the user named the layout: it is then recognised by shapes alone."""
    chosen: str | None = None
    """The output that the user named."""
    certain: bool = False
    """True if nobody says that the network is a detector: shapes alone then do not do."""

    @property
    def floats(self) -> tuple[OutputFacts, ...]:
        """Return the outputs that are not integers."""
        return tuple(output for output in self.outputs if not output.integers)

    @property
    def classes(self) -> int | None:
        """Return the number of classes that the metadata declare."""
        return len(self.network.names) or None


def are_rows_of_boxes(rows: Array) -> bool:
    """Return True if rows [A, 4 + …] may be centre, size and probabilities."""
    return bool((rows[:, 2:4] >= 0).all() and (rows[:, 4:] >= 0).all() and (rows[:, 4:] <= 1.001).all())


def rows_of_batch(outputs: ImageOutputs, samples: int) -> Iterable[ImageOutputs]:
    """Yield the outputs of each image: row n of every output."""
    refuse_other_rows(outputs, samples)
    return (tuple(output[n] for output in outputs) for n in range(samples))


def refuse_other_rows(outputs: ImageOutputs, samples: int) -> None:
    """Raise DataError if an output does not have one row for each image."""
    for output in outputs:
        if not output.ndim or len(output) != samples:
            raise DataError(
                f"an output {list(output.shape)} does not have one row for each of {samples} images",
                remedy="name head and output: --metric map:HEAD@OUTPUT",
            )


@dataclass(frozen=True, slots=True)
class Head:
    """A head. outputs: names of what it decodes. classes: their number; None if the outputs do not tell.

    decode: outputs of one image and the size of the input → detections in pixels of the input. split: a batch's outputs
    and the number of images → the outputs of each image. first: number of the first class; 1 where 0 is the background.
    by_id: classes are numbered by COCO's category ids, if the labels have such. parts: the first output of two networks
    for a batch → what they are compared by, name → the values of both: boxes and scores, so that large numbers of one
    do not hide the other. Boxes count by the first network's scores: those of the background lie anywhere.
    """

    layout: str
    task: Task
    outputs: tuple[str, ...]
    classes: int | None
    decode: Callable[[ImageOutputs, Canvas], Detections]
    split: Callable[[ImageOutputs, int], Iterable[ImageOutputs]] = rows_of_batch
    first: int = 0
    by_id: bool = False
    parts: Callable[[Array, Array], Mapping[str, tuple[Array, Array]]] | None = None

    @property
    def summary(self) -> str:
        """Return for example `v8 head, 80 classes`."""
        count = "" if self.classes is None else f", {self.classes} class{'' if self.classes == 1 else 'es'}"
        return f"{self.layout} head{count}"


@dataclass(frozen=True, slots=True)
class Layout:
    """A kind of head. find: the head of a network, or None if its outputs are not of this layout."""

    name: str
    summary: str
    find: Callable[[HeadQuestion], Head | None]


def sizes(output: OutputFacts) -> tuple[int, ...]:
    """Return the shape with −1 for unknown sizes."""
    return tuple(-1 if size is None else size for size in output.shape)


def may_equal(first: int | None, second: int | None) -> bool:
    """Return True if two sizes are equal, or one is unknown."""
    return first is None or second is None or first == second


def only_output(outputs: Sequence[OutputFacts], rank: int) -> OutputFacts | None:
    """Return the only output of this rank; None if there is none, or several."""
    fitting = [output for output in outputs if output.rank == rank]
    return fitting[0] if len(fitting) == 1 else None
