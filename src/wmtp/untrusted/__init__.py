"""Reading what a stranger wrote: strict JSON, relative names, and how to show foreign text.

Every rule about untrusted text stands here once; the rooms above call it.
"""

from wmtp.untrusted.names import MAX_LEVELS, has_unprintable, relative_name_fault
from wmtp.untrusted.showing import MAX_SHOWN, did_you_mean, first_few, plain, show, show_all, shown_text
from wmtp.untrusted.strict_json import (
    LFS_ADVICE,
    LFS_BEGINNING,
    MAX_INDEX_BYTES,
    MAX_JSON_BYTES,
    JSONFault,
    json_text,
    parse_json,
    parse_json_object,
    refuse_pointer,
)

__all__ = [
    "LFS_ADVICE",
    "LFS_BEGINNING",
    "MAX_INDEX_BYTES",
    "MAX_JSON_BYTES",
    "MAX_LEVELS",
    "MAX_SHOWN",
    "JSONFault",
    "did_you_mean",
    "first_few",
    "has_unprintable",
    "json_text",
    "parse_json",
    "parse_json_object",
    "plain",
    "refuse_pointer",
    "relative_name_fault",
    "show",
    "show_all",
    "shown_text",
]
