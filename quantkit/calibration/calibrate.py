"""The verb calibrate: from a model and data to statistics and calibration tables."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.artifact import check_destinations, refuse_overwriting, write_all
from quantkit.backends.session import AUTO, DEFAULT_BACKEND, TENSORRT
from quantkit.calibration.backend_choice import choose_backend
from quantkit.calibration.checkpoint import refuse_interrupted_run
from quantkit.calibration.files import PassCounts, table_with_provenance, write_calibration
from quantkit.calibration.job import CalibrationJob, output_path, prepare_job
from quantkit.calibration.onnxruntime_run import calibrate_by_watching
from quantkit.calibration.options import CalibrateFields, CalibrateOptions
from quantkit.calibration.recorded_table import RecordedTable
from quantkit.calibration.result import Calibration, CalibrationFigures, summarize_calibration
from quantkit.calibration.reuse import FittingTables, find_fitting_tables, known_identity, matching_statistics
from quantkit.calibration.tables import checkpoint_path, make_tables, statistics_path, weighed
from quantkit.data import DataIdentity, DataOptions
from quantkit.data.image_list import given_data
from quantkit.data.preprocess_choice import BESIDE, AnyPreprocess
from quantkit.errors import StaleError, UsageError
from quantkit.executors.work_folder import settle_interrupted_shards
from quantkit.graph import AnyModel
from quantkit.graph.load import model_place
from quantkit.keywords.option_fields import takes_fields
from quantkit.locations import is_url
from quantkit.paths import beside, exists, given_path, is_file
from quantkit.progress import NoProgress, Progress
from quantkit.provenance import is_provenance, provenance_path, read_provenance
from quantkit.regular_file import stamp_of
from quantkit.rules import DEFAULT_RULE, Rule, as_rules
from quantkit.sharding.folder import given_place
from quantkit.staging import claimed_outputs
from quantkit.statistics import Statistics
from quantkit.table import CalibrationTable, Header
from quantkit.values import checked_options

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_fields(CalibrateOptions, DataOptions)
def calibrate(
    model: AnyModel,
    data: Any,
    *,
    rule: str | Rule | Sequence[Rule] = DEFAULT_RULE,
    preprocess: AnyPreprocess = None,
    output: str | os.PathLike[str] | None = None,
    options: CalibrateOptions | None = None,
    progress: Progress | None = None,
    **_: Unpack[CalibrateFields],
) -> Calibration:
    """Calibrate an ONNX model on real data: one pass, statistics, and a table for every rule.

    model: path of the ONNX file, or an `onnx.ModelProto`. data: folder of images, `.npy`, `.npz`, folder of `.npz`
    batches, `module:callable`, a list of images (paths or PIL images), or an iterable of batches (input name → array
    [N, …]). rule: one or several, by name (`"entropy,percentile:99.99,mse"`) or as values. preprocess: preset, path of
    a TOML file, or a `Preprocess`; None looks beside the model. output: path of the first rule's table, or with
    `shard` the folder or the URL of all shards; None writes nothing. The other keywords are the fields of
    `CalibrateOptions` and `DataOptions`.

    The histogram and the entropy search are the same as TensorRT's (docs/decisions/0002-entropy-search.md). Raises
    ModelError, DataError, PreprocessError, StaleError (something else exists at `output`), OutputError, BackendError,
    Interrupted, UsageError.
    """
    options = checked_options(options, CalibrateOptions)
    started = time.monotonic()
    chosen_rules = as_rules(rule)
    data = given_data(data)
    if options.shard is not None:
        from quantkit.calibration.shard_files import calibrate_shard

        place = given_place(output, "output")
        job = prepare_job(model, data, chosen_rules, preprocess, None, with_watching_backend(options))
        return calibrate_shard(job, options.shard, place, progress or NoProgress(), started)
    refuse_url(output)
    if output is not None:
        output = output_path(given_path(output, "output"), model_place(model))
    backend, why = choose_backend(options, chosen_rules, output)
    options = replace(options, backend=backend)
    job = prepare_job(model, data, chosen_rules, preprocess, output, options)
    places = [*job.paths(), statistics_path(job.output)] if job.output else []
    if job.output:
        records = map(provenance_path, job.paths())
        refuse_replaced_sources(job, [*places, *records, checkpoint_path(job.output)], (data, preprocess))
    occupied = not options.force and any(exists(path) for path in places)
    previous = read_provenance(provenance_path(job.output)) if occupied and job.output else None
    divided = options.placement.divides
    identity = None if divided and not occupied else known_identity(job.feed, previous, needed=occupied)
    if occupied and identity and (found := reuse_what_fits(job, identity, started)) is not None:
        return found
    if job.output:
        job = replace(job, may_replace=check_pass_outputs(job))
    with claimed_outputs([*places, checkpoint_path(job.output)] if job.output else []):
        if job.output:
            refuse_other_runs(job, places, occupied=occupied)
        if divided:
            from quantkit.calibration.workers.divided_run import calibrate_by_workers

            return calibrate_by_workers(job, (model, data), progress or NoProgress(), started, why)
        return run_backend(job, identity, progress or NoProgress(), started, why)


def run_backend(
    job: CalibrationJob, identity: DataIdentity | None, progress: Progress, started: float, why: tuple[str, ...]
) -> Calibration:
    """Calibrate with the backend of a job. Raises what `calibrate` raises."""
    if job.options.backend == TENSORRT:
        from quantkit.calibration.tensorrt_run import calibrate_by_calibrator

        return calibrate_by_calibrator(job, identity, progress, started, why)
    return calibrate_by_watching(job, identity, progress, started, why)


def with_watching_backend(options: CalibrateOptions) -> CalibrateOptions:
    """Return options in which a backend that collects statistics stands for `auto`."""
    return replace(options, backend=DEFAULT_BACKEND) if options.backend == AUTO else options


def refuse_url(output: object) -> None:
    """Raise UsageError where tables would be written to a URL."""
    if is_url(output):
        raise UsageError(
            f"cannot write a calibration table to {output}",
            remedy="give a file on this machine, or write one --shard there",
        )


def refuse_other_runs(job: CalibrationJob, places: Sequence[Path], *, occupied: bool) -> None:
    """Check for the traces of other runs, when no other run can write any more. StaleError.

    occupied: some of `places` existed before, and fit.
    """
    assert job.output is not None
    written = [path for path in places if exists(path)]
    if written and not (occupied or job.options.force):
        raise StaleError(f"another run wrote {written[0]} meanwhile", remedy="start again, to reuse or to replace it")
    if not (job.options.resume or job.options.force):
        refuse_interrupted_run(checkpoint_path(job.output))
    if not job.options.placement.divides:
        settle_interrupted_shards(job.output, force=job.options.force)


def refuse_replaced_sources(job: CalibrationJob, written: Sequence[Path], given: Iterable[object]) -> None:
    """Raise UsageError where an output is one of the files that are read: also the spec beside the model, or a sample.

    given: data and preprocessing, ignored where they are no paths.
    """
    refuse_overwriting(written, [*job.model.files, *given, beside(job.model.path, BESIDE)])
    samples = {stamp.record[1:] for stamp in job.feed.stamps()} if any(map(is_file, written)) else set()
    for path in filter(is_file, written):
        if stamp_of(path, path.name).record[1:] in samples:
            raise UsageError(f"{path} would replace a sample of the data", remedy="give another --output")


def check_pass_outputs(job: CalibrationJob) -> Callable[[Path], bool]:
    """Check the files of a pass before it, and return which may be replaced after it. Tables and statistics that exist
    were found to fit.

    OutputError; StaleError if something else lies in the place of a record.
    """
    assert job.output is not None
    force = job.options.force
    places = [*job.paths(), statistics_path(job.output), checkpoint_path(job.output)]
    records = [provenance_path(path) for path in job.paths()]

    def ours(path: Path) -> bool:
        return path in places or is_provenance(path)

    return check_destinations([*places, *records], force=force, ours=ours)


def describe_conversion(before: RecordedTable, header: Header) -> str:
    """Return the note on a table that gets the header of another TensorRT version."""
    old, new = before.table.header.version_text, header.version_text
    return f"{before.path.name} was for TensorRT {old} and is now for {new}: its header changed, and no scale"


def reuse_what_fits(job: CalibrationJob, identity: DataIdentity, started: float) -> Calibration | None:
    """Return the result from tables and statistics that exist; None if the data have to run. StaleError."""
    assert job.output is not None
    request = job.request(identity)
    there = find_fitting_tables(job.paths(), request)
    statistics = matching_statistics(job.output, request, tables=bool(there.tables))
    statistics = statistics and weighed(statistics, job.model)
    if there.tables and (statistics or len(there.tables) == len(job.rules)):
        return reuse_tables(job, statistics, there, started)
    if statistics and not (there.tables or job.options.learning_curve or job.options.resume):
        return tables_of_statistics(job, statistics, identity, started)
    return None


def tables_of_statistics(
    job: CalibrationJob, statistics: Statistics, identity: DataIdentity, started: float
) -> Calibration:
    """Make the tables from statistics of exactly this run, such as those that shards were merged to. StaleError."""
    origin, left_out = statistics.origin, identity.samples - statistics.origin.samples
    if left_out and not job.options.data.skip_corrupt:
        raise StaleError(
            f"the statistics beside {job.output} were made without {left_out} samples that could not be read",
            remedy="accept that with --skip-corrupt, or fix the files and give --force",
        )
    tables = make_tables(statistics, {rule: job.headers[rule.name] for rule in job.rules})
    batches = origin.batches or job.feed.batches or 1
    job = replace(job, may_replace=check_pass_outputs(job))
    skipped = (f"{left_out} samples: left out when the statistics were collected",) if left_out else ()
    counted = PassCounts(identity, origin.samples, batches, origin.backend, origin.slice)
    files = write_calibration(job, None, tables, counted, skipped)
    figures = CalibrationFigures(origin.samples, batches, time.monotonic() - started, False, files, skipped, False)
    note = "the tables are made from the existing statistics, without the data"
    return summarize_calibration(job, statistics, tables, figures, (note,), (), None)


def reuse_tables(
    job: CalibrationJob, statistics: Statistics | None, there: FittingTables, started: float
) -> Calibration:
    """Reuse the tables that exist; make those that are missing from the statistics, without the data. StaleError."""
    assert there.provenance is not None
    data, run = there.provenance.data, there.provenance.run
    assert data is not None
    assert run is not None
    if data.skipped and not job.options.data.skip_corrupt:
        raise StaleError(
            f"{job.output} was made without {len(data.skipped)} samples that could not be read",
            remedy="accept that with --skip-corrupt, or fix the files",
        )
    missing = {rule: job.headers[rule.name] for rule in job.rules if rule.name not in there.tables}
    made_now = make_tables(statistics, missing) if statistics else {}
    tables: dict[str, CalibrationTable] = {}
    new: dict[Path, bytes] = {}
    for path, rule in job.paths().items():
        if rule.name in there.outdated:
            tables[rule.name] = there.tables[rule.name].table.with_header(job.headers[rule.name])
            new |= table_with_provenance(job, path, rule, tables[rule.name], data, run)
        elif rule.name in made_now:
            tables[rule.name] = made_now[rule.name]
            check_destinations([provenance_path(path)], force=job.options.force, ours=is_provenance)
            new |= table_with_provenance(job, path, rule, tables[rule.name], data, run)
        else:
            tables[rule.name] = there.tables[rule.name].table
    write_all(new)
    made = CalibrationFigures(
        data.samples,
        run.batches,
        time.monotonic() - started,
        not new,
        tuple(new) or tuple(job.paths()),
        data.skipped,
        False,
    )
    notes = [] if new else ["nothing changed: the existing tables are reused"]
    if made_now:
        notes.append("the new tables are made from the existing statistics, without the data")
    notes += [describe_conversion(there.tables[rule], job.headers[rule]) for rule in sorted(there.outdated)]
    if job.options.learning_curve:
        notes.append("no learning curve: it needs a pass over the data; --force repeats it")
    return summarize_calibration(job, statistics, tables, made, tuple(notes), (), None)
