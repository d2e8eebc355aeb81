"""All cases, by name."""

from __future__ import annotations

from hostile import (
    cache_cases,
    class_cases,
    code_cases,
    command_cases,
    configuration_cases,
    container_cases,
    display_cases,
    good,
    header_cases,
    import_cases,
    json_cases,
    link_cases,
    lock_cases,
    made_cases,
    mapping_cases,
    metadata_cases,
    path_cases,
    pickle_cases,
    size_cases,
    tensor_cases,
    tokenizer_cases,
    uri_cases,
)

_MODULES = (
    metadata_cases,
    path_cases,
    mapping_cases,
    tensor_cases,
    container_cases,
    header_cases,
    pickle_cases,
    code_cases,
    class_cases,
    import_cases,
    configuration_cases,
    size_cases,
    tokenizer_cases,
    uri_cases,
    link_cases,
    cache_cases,
    lock_cases,
    made_cases,
    json_cases,
    display_cases,
    command_cases,
    good,
)
CASES = [case for module in _MODULES for case in module.CASES]
