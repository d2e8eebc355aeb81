"""How a fuzz target runs: on a few fixed examples in the ordinary suite, on fresh ones under `--fuzz-seconds`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

ENDLESS = "fuzz-endless"
_FIXED = "fuzz-fixed"
_COMMON = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile(_FIXED, _COMMON, derandomize=True)
# Rounds are short, so that a target stops soon after its time is up; the blob repeats a failure anywhere.
settings.register_profile(ENDLESS, _COMMON, derandomize=False, max_examples=200, print_blob=True)


def fuzz_target(examples: int = 100) -> settings:
    """Settings of a target that takes so many examples in the ordinary suite."""
    if settings.get_current_profile_name() == ENDLESS:
        return settings(settings.get_profile(ENDLESS))
    return settings(settings.get_profile(_FIXED), max_examples=examples)
