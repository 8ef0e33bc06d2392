"""TensorRT's calibrators, fed by quantkit: `EntropyCalibrator2`, `MinMaxCalibrator`, `EntropyCalibrator`,
`LegacyCalibrator`.

    calibrator = EntropyCalibrator2("model.onnx", "images/", table="model.calib", preprocess="imagenet")
    config.int8_calibrator = calibrator
    engine = calibrator.build(builder, network, config)

The classes are created on first use, because their bases come from the installed TensorRT.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from quantkit.artifact import check_writable
from quantkit.backends.session import TENSORRT, usable_cores
from quantkit.backends.tensorrt.device import GpuDevice, open_device
from quantkit.backends.tensorrt.network import calibration_profile, network_inputs
from quantkit.backends.tensorrt.versions import (
    calibration_shapes,
    calibrator_base,
    detect_features,
    set_calibration,
    tensorrt,
)
from quantkit.calibration.files import PassCounts, write_calibration
from quantkit.calibration.job import CalibrationJob, prepare_job
from quantkit.calibration.options import CalibrateOptions
from quantkit.calibration.reuse import find_fitting_tables, known_identity
from quantkit.calibration.tensorrt.batch_source import BatchSource, CalibratorOutcome
from quantkit.data import DataIdentity, DataOptions, Portion
from quantkit.data.feed import Identifier, identity_as_read, portion_digests
from quantkit.errors import BackendError, TableError, UsageError
from quantkit.graph import refuse_changed_weights
from quantkit.paths import exists
from quantkit.preprocess import Preprocess
from quantkit.provenance import provenance_path, read_provenance
from quantkit.rules import rule_of_calibrator
from quantkit.table import Algorithm, CalibrationTable, parse_table, table_bytes

MOST_THREADS = 8
"""Threads that decode: more of them wait for each other (16 cores: 8 threads took 0.85 ms an image, 16 took 1.08)."""
DEFAULT_QUANTILE = 0.9999


class StreamingCalibrator:
    """The base of all four calibrators: a job, its batches, and a table on disk that is written whole or not at all.

    model: path of the ONNX file that the network was parsed from. data, preprocess: as for `quantkit.calibrate`.
    table: path of the calibration table; an existing one is reused if it belongs to this model, data, preprocessing and
    TensorRT, and refused (StaleError) otherwise, unless `force`. batch_size, limit: how the data is read; the batch
    size of a network with a fixed batch is that of the network. device: number of the GPU. quantile: the fraction of
    the values that a LegacyCalibrator keeps, 0.9999 by default. `calls` counts how often TensorRT asked for a batch in
    the last build: 0 proves that a table was reused. Raises what `quantkit.calibrate` raises.
    """

    algorithm: Algorithm

    def __init__(
        self,
        model: str | os.PathLike[str],
        data: Any,
        *,
        table: str | os.PathLike[str] | None = None,
        preprocess: str | Path | Preprocess | None = None,
        batch_size: int | None = None,
        limit: int | None = None,
        force: bool = False,
        device: int = 0,
        quantile: float | None = None,
    ) -> None:
        if quantile is not None and self.algorithm is not Algorithm.LEGACY:
            raise UsageError("only the LegacyCalibrator has a quantile", remedy="leave out quantile")
        about_data = DataOptions(limit=limit, batch_size=batch_size, threads=min(MOST_THREADS, usable_cores()))
        options = CalibrateOptions(data=about_data, backend=TENSORRT, algorithm=self.algorithm, force=force)
        rule = rule_of_calibrator(self.algorithm, DEFAULT_QUANTILE if quantile is None else quantile)
        source = CalibratorData(prepare_job(model, data, rule, preprocess, table, options), device=device)
        there = source.reusable()
        self._take_over(source, BatchSource(source.gpu, source.portions, there), there)

    def _take_over(self, source: CalibratorData, streaming: BatchSource, there: bytes | None = None) -> None:
        """Serve a job that is already prepared; `there`: a table that is reused."""
        self.source, self.job, self.streaming = source, source.job, streaming
        self._attached = self._used = False
        self._table = there
        calibrator_base(tensorrt(), self.algorithm).__init__(self)

    @property
    def calls(self) -> int:
        """The number of batches that TensorRT asked for."""
        return self.streaming.calls

    # ── called by TensorRT ──

    def get_batch_size(self) -> int:
        """Return the samples per batch; TensorRT takes the shape from the network or the calibration profile."""
        return self.job.feed.batch_size or 1

    def get_batch(self, names: list[str], *_: Any) -> list[int] | None:
        """Return the device addresses of the next batch, in the order of `names`."""
        if not self._attached:  # with another shape TensorRT would read beyond a batch, or skip a part of it
            self.streaming.fail(
                UsageError(
                    "TensorRT asks for data, but the calibrator does not know the shape of the calibration",
                    remedy="call calibrator.attach(builder, network, config), or calibrator.build(…), which calls it",
                )
            )
        return self.streaming.batch(names)

    def read_calibration_cache(self, *_: Any) -> bytes | None:
        """Return the table that is reused, if there is one."""
        return self.streaming.read()

    def write_calibration_cache(self, cache: Any, *_: Any) -> None:
        """Take the table that TensorRT made; `cache` points into TensorRT's memory and is copied."""
        try:
            self.streaming.write(bytes(cache))
        except BaseException as error:
            self.streaming.fail(error)

    # ── called by the user ──

    def build(self, builder: Any, network: Any, config: Any) -> Any:
        """Call `builder.build_serialized_network` with this calibrator, write the table, and return the engine.

        Returns TensorRT's IHostMemory. Raises errors in the data or in a callback, KeyboardInterrupt included, and
        BackendError if TensorRT built nothing; then neither a table nor an engine remains. Another build with the same
        calibrator reuses its table.
        """
        with self:
            self.attach(builder, network, config)
            plan = builder.build_serialized_network(network, config)
            if plan is None:
                self.streaming.fail(BackendError("TensorRT built no engine", remedy="see the messages of its logger"))
        return plan

    def attach(self, builder: Any, network: Any, config: Any) -> None:
        """Give a build this calibrator and the one shape that it calibrates with, which is that of the batches.

        UsageError where the network, or a calibration profile that the caller has set, has another shape: TensorRT
        would read beyond a smaller batch, and skip a part of a larger one.
        """
        if self._used:  # after an earlier build, successful or not, the data starts again and its table is reused
            self.streaming = BatchSource(self.source.gpu, self.source.portions, self._table)
        profile = None
        if self.streaming.read() is None:
            shapes = {name: tuple(array.shape) for name, array in self.streaming.first().batch.items()}
            there = calibration_shapes(network, config)
            fixed = {name: shape for name, shape in network_inputs(network).items() if -1 not in shape}
            for name, shape in {**fixed, **there}.items():
                if shape != shapes.get(name):
                    raise UsageError(
                        f"the calibration runs with {name} {list(shape)}, the batches are {list(shapes.get(name, ()))}",
                        remedy="give batches of that size (batch_size), or leave out set_calibration_profile",
                    )
            profile = None if there else calibration_profile(builder, network, shapes)
        set_calibration(config, self, profile)
        self._attached = True

    def __enter__(self) -> StreamingCalibrator:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._used = True
        if error is None:
            self.finish()
        else:
            self.streaming.close()

    def finish(self) -> CalibrationTable:
        """After a build: raise its error, write the table with its provenance record, and free GPU memory."""
        outcome = self.streaming.outcome()
        table = parse_table(outcome.table, "TensorRT's table")
        refuse_changed_weights(self.job.model)
        check_header(self.job, table)
        self._table = outcome.table
        if self.job.output is not None and not outcome.reused:
            write_calibration(self.job, None, {self.job.rules[0].name: table}, self.source.counted(outcome))
        return table


class LegacyStreamingCalibrator(StreamingCalibrator):
    """The Legacy calibrator, which TensorRT also asks for the quantile to keep and for a stored histogram."""

    def get_quantile(self) -> float:
        """Return the fraction of the values that is not clipped."""
        return self.job.headers[self.job.rules[0].name].quantile

    def get_regression_cutoff(self) -> float:
        """Return 1, so that the quantile alone decides."""
        return 1.0

    def read_histogram_cache(self, *_: Any) -> None:
        """Return None: no histogram is stored."""

    def write_histogram_cache(self, *_: Any) -> None:
        """Do nothing: no histogram is stored."""


class CalibratorData:
    """The data of a job for a calibrator, and its identity: known beforehand, or computed while it is read."""

    def __init__(
        self,
        job: CalibrationJob,
        identity: DataIdentity | None = None,
        see: Callable[[Portion], None] | None = None,
        device: int = 0,
    ) -> None:
        self.job, self.device = job, device
        self._identity, self._see = identity, see
        self._learnt: Identifier | None = None

    def gpu(self) -> GpuDevice:
        """Return the GPU."""
        return open_device(self.device)

    def portions(self) -> Iterator[Portion]:
        """Yield the batches."""
        if self._identity is None and not self.job.feed.stamps():  # the identity of a stream needs all of its samples
            self._learnt = Identifier()
        for portion in self.job.feed.portions():
            if self._learnt is not None:
                self._learnt.add(portion_digests(portion))
            if self._see:
                self._see(portion)
            yield portion

    def reusable(self) -> bytes | None:
        """Return the table at the job's output, if it is the one that would be made. StaleError where it is another."""
        job = self.job
        if job.output is None:
            return None
        if job.options.force or not exists(job.output):
            check_writable(job.output)
            return None
        previous = read_provenance(provenance_path(job.output))
        self._identity = known_identity(job.feed, previous, needed=True)
        assert self._identity is not None
        there = find_fitting_tables(job.paths(), job.request(self._identity))
        found = there.tables.get(job.rules[0].name)
        return None if found is None else table_bytes(found.table)

    def counted(self, outcome: CalibratorOutcome) -> PassCounts:
        """Return the counts of the calibration, for the record."""
        identity = self._learnt.identity() if self._learnt else self._identity or self.job.feed.identity()
        assert identity is not None
        identity = identity_as_read(self.job.feed, identity)
        return PassCounts(identity, outcome.seen.samples, outcome.seen.taken, tensorrt_label(self.device))


def check_header(job: CalibrationJob, table: CalibrationTable) -> None:
    """Raise TableError where TensorRT's header differs from that of its version: the table could not be reused."""
    wanted = job.headers[job.rules[0].name].text
    if table.header.text != wanted:
        raise TableError(
            f"TensorRT wrote the header {table.header.text!r}, but its library's version requires {wanted!r}",
            remedy="check that the bindings and the library of TensorRT match (quantkit doctor)",
        )


def tensorrt_label(device: int) -> str:
    """Return library, version and GPU as records keep them: `tensorrt 8.6.0 NVIDIA H200`."""
    return f"tensorrt {detect_features(tensorrt()).version} {open_device(device).name}"


@cache
def calibrator_class(algorithm: Algorithm) -> type[Any]:
    """Return the calibrator class of an algorithm, over the installed TensorRT's. BackendError if it has none."""
    base = calibrator_base(tensorrt(), algorithm)
    shared = LegacyStreamingCalibrator if algorithm is Algorithm.LEGACY else StreamingCalibrator
    body = {"algorithm": algorithm, "__doc__": StreamingCalibrator.__doc__, "__module__": __name__}
    return type(base.__name__.removeprefix("IInt8"), (shared, base), body)


def calibrator_for(source: CalibratorData, streaming: BatchSource) -> Any:
    """Return a calibrator for a job that is already prepared."""
    kind: Any = calibrator_class(source.job.headers[source.job.rules[0].name].algorithm)
    made = kind.__new__(kind)
    made._take_over(source, streaming)
    return made
