"""Documents: JSON, TOML and YAML as bounded plain data, and typed values from them."""

from quantkit.document.document_type import (
    LONGEST,
    DocumentType,
    bounded_json,
    bounded_yaml,
    describe_syntax,
    first_fault,
    iter_faults,
    read_text_file,
    validate_typed,
)

__all__ = [
    "LONGEST",
    "DocumentType",
    "bounded_json",
    "bounded_yaml",
    "describe_syntax",
    "first_fault",
    "iter_faults",
    "read_text_file",
    "validate_typed",
]
