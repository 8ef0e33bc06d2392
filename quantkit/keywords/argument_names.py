"""The options of the command line by their names in Python: `--skip-corrupt` is `skip_corrupt=True`.

Messages are written once, with the options of the command line. In Python they are shown in Python's words:

    another --output keeps both; --force replaces it      another output= keeps both; force=True replaces it
    for example --metric top1@logits                      for example metric="top1@logits"

Whole commands (`quantkit calibrate … --force`) stay commands, which also work in a notebook behind `!`.
"""

from __future__ import annotations

import re

COMMAND = re.compile(r"quantkit [a-z]+(?:-[a-z]+)*(?: (?!quantkit\b)[^\s,;:()`]+)*|trtexec(?: --[^\s,;:()`]+)+")
"""`quantkit`, a verb, and the words behind it up to a comma or a bracket; `trtexec` and its options."""
RENAMED = {
    "batch": "batches",
    "for": "architectures",
    "for-batch": "gpu_batch",
    "max-evaluations": "evaluations",
    "max-float": "most",
    "model": "plain",
    "repair": "repairs",
    "shape": "shapes",
    "stats": "statistics",
    "time-limit": "seconds",
}
"""Options that have another name in Python; the others differ in their hyphens."""
FLAGS = {
    "allow-code": "allow_code=True",
    "allow-duplicates": "allow_duplicates=True",
    "clean": "clean=True",
    "dequantize": "dequantize=True",
    "fix": "fix_to=",
    "force": "force=True",
    "fp16": "fp16=True",
    "gpu": "gpu=True",
    "inputs-as-nchw": "inputs_as_nchw=True",
    "learning-curve": "learning_curve=True",
    "no-fp16": "fp16=False",
    "no-gpu": "gpu=False",
    "no-labels": "without_labels=True",
    "no-tf32": "tf32=False",
    "no-timing-cache": "timing_cache=False",
    "refit": "refit=True",
    "resume": "resume=True",
    "retarget": "retarget=True",
    "shuffle": "shuffle=True",
    "skip-corrupt": "skip_corrupt=True",
    "strongly-typed": "strongly_typed=True",
}
"""Options without a value."""
VALUED = frozenset({
    "accelerator", "against", "algorithm", "backend", "batch-size", "bench", "classes", "compile-for", "compiled",
    "data", "device", "engine", "exclude", "exporter", "fixed-batch", "fp8", "frame-step", "gpus-per-worker",
    "histogram", "holdout", "include", "int8", "labels", "level", "limit", "max-batch", "max-drop", "max-memory",
    "memory", "merge", "metric", "min-coverage", "name", "names", "objective", "on", "opset", "output", "policy",
    "precision", "preprocess", "provider", "record", "rule", "save", "seed", "shapes", "shard", "signature",
    "streams", "table", "tensorrt-version", "threads", "tolerance", "tune-time", "tuned", "type", "version",
    "weights", "workers", "workspace",
    *RENAMED,
})  # fmt: skip
"""Options with a value."""
WORDS = (
    "accuracy", "all", "balanced", "best", "conv-only", "cpu", "cuda", "dynamo", "entropy", "invariant",
    "keypoint-map", "latency", "map", "mask-map", "minmax", "miou", "mse", "none", "onnxruntime", "tensorrt",
    "torchscript",
)  # fmt: skip
"""Values that look like words of a sentence."""
VALUE = "|".join((
    "'[^']*'",
    '"[^"]*"',
    rf"(?:{'|'.join(WORDS)})(?![\w-]|[:@]\w)",
    r"[A-Z]+(?:\.\w+)?(?![\w-])",  # a placeholder: FILE, FILE.json
    r"(?=[a-z_.-]*[\d:=@/_])[^\s;()]*[^\s;(),.:]",  # no word of a sentence
))  # fmt: skip
OPTION = re.compile(rf"(?<![\w-])--([a-z][a-z0-9-]*[a-z0-9])(?:[ ]({VALUE})|(?![\w=]))?")
TEXTS = frozenset({"names", "signature", "tensorrt_version"})
"""Keywords whose values are texts even if they look like numbers."""
SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def in_python(text: str) -> str:
    """Return a message with the options of the command line as arguments in Python; commands stay as they are."""
    parts, end = [], 0
    for command in COMMAND.finditer(text):
        parts += [OPTION.sub(as_argument, text[end : command.start()]), command[0]]
        end = command.end()
    return "".join([*parts, OPTION.sub(as_argument, text[end:])])


def as_argument(option: re.Match[str]) -> str:
    """Return an option as Python writes it, with its value if one follows; an unknown option as it is."""
    name, value = option[1], option[2]
    if name in FLAGS:
        return FLAGS[name] + ("" if value is None else f" {value}")
    if name not in VALUED:
        return option[0]
    keyword = RENAMED.get(name, name.replace("-", "_"))
    return f"{keyword}=" + ("" if value is None else as_literal(value, text=keyword in TEXTS))


def as_literal(value: str, *, text: bool) -> str:
    """Return the value of an option as Python writes it: `32`, `(1, 32)`, bytes for `64K`, and text in quotes."""
    if value[0] in "'\"" or (not text and re.fullmatch(r"\d+|0?\.\d+|\d+\.\d+", value)):
        return value
    if re.fullmatch(r"\d+(,\d+)+", value):
        return f"({value.replace(',', ', ')})"
    if size := re.fullmatch(r"(\d+)([KMG])", value):
        return str(int(size[1]) * SIZES[size[2]])
    return f'"{value}"'
