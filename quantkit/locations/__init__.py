"""Objects under URLs, wherever they are stored."""

from quantkit.locations.objects import (
    StoredObject,
    find_object,
    is_url,
    join_url,
    list_objects,
    object_exists,
    open_object,
    read_object,
    refuse_other_scheme,
    url_name,
    write_object,
)

__all__ = [
    "StoredObject",
    "find_object",
    "is_url",
    "join_url",
    "list_objects",
    "object_exists",
    "open_object",
    "read_object",
    "refuse_other_scheme",
    "url_name",
    "write_object",
]
