"""What each extra downloads and installs beside the base, and what importing each dependency costs.

Downloads are the wheels that uv would lock for this Python on Linux x86-64, of PyPI; sizes on disk are those of the
packages in this environment, as their installers recorded them; seconds are of the processor, the least of three fresh
processes, for what an import adds to the imports before it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any

from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
PLATFORMS = [*(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)), "manylinux2014_x86_64", "linux_x86_64"]
TAGS = [*cpython_tags(sys.version_info[:2], platforms=PLATFORMS), *compatible_tags(platforms=PLATFORMS)]
RANK = {tag: rank for rank, tag in enumerate(TAGS)}
CUDA = ("nvidia-", "cuda-", "triton")
IMPORTS = (
    *("re2", "huggingface_hub", "obstore", "pydantic", "rich.progress", "ruamel.yaml", "typer", "botocore.session"),
    *("numpy", "jaxtyping", "safetensors", "tokenizers", "torch", "torch transformers"),
    *("torch transformers transformers.modeling_utils", "torch accelerate", "pyarrow.parquet", "datasets"),
)  # what stands before the last word is imported first, and not counted
TIMED = """
import resource
{before}
start = resource.getrusage(resource.RUSAGE_SELF)
import {name}
end = resource.getrusage(resource.RUSAGE_SELF)
print(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
"""


def locked(directory: Path) -> dict[str, int]:
    """Return the bytes of the file that is downloaded of each package that uv locks."""
    copy(ROOT / "pyproject.toml", directory)
    copy(ROOT / "README.md", directory)
    copy(ROOT / "LICENSE", directory)
    subprocess.run([UV, "lock", "--quiet", "--project", directory], check=True)
    packages = tomllib.loads((directory / "uv.lock").read_text())["package"]
    return {f"{package['name']}=={package['version']}": _bytes(package) for package in packages}


def _bytes(package: dict[str, Any]) -> int:
    fits: dict[int, int] = {}
    for wheel in package.get("wheels", []):
        name = wheel["url"].rsplit("/", 1)[1].replace("%2B", "+")
        ranks = [RANK[tag] for tag in parse_wheel_filename(name)[3] if tag in RANK]
        if ranks:
            fits[min(ranks)] = wheel["size"]
    return fits[min(fits)] if fits else int(package.get("sdist", {}).get("size", 0))


def brought(directory: Path, *extras: str) -> list[str]:
    """Return `name==version` of what the base and some extras bring on Linux."""
    words = [word for extra in extras for word in ("--extra", extra)]
    plain = ["--frozen", "--quiet", "--no-hashes", "--no-emit-project", "--no-annotate", "--no-header"]
    line = [UV, "export", "--project", directory, *plain, *words]
    listed = subprocess.run(line, check=True, text=True, capture_output=True).stdout.splitlines()
    found = [Requirement(text) for text in listed if text.strip()]
    return [f"{each.name}{each.specifier}" for each in found if each.marker is None or each.marker.evaluate(LINUX)]


def on_disk(name: str) -> int:
    """Return the bytes of an installed package's files."""
    try:
        return sum(file.size or 0 for file in distribution(name).files or [])
    except PackageNotFoundError:
        print(f"not installed here, so counted as nothing: {name}", file=sys.stderr)
        return 0


def install_rows() -> Iterator[str]:
    """Yield a row for the base and for each extra with what it brings."""
    with TemporaryDirectory() as temporary:
        directory = Path(temporary)
        sizes = locked(directory)
        for extras in ((), ("s3",), ("torch",), ("train",)):
            names = {each: canonicalize_name(re.split("==", each)[0]) for each in brought(directory, *extras)}
            cuda = [each for each, name in names.items() if name.startswith(CUDA)]
            rest = [each for each, name in names.items() if each not in cuda and name != "torch"]
            torch = sum(sizes[each] for each, name in names.items() if name == "torch" or each in cuda)
            disk = sum(on_disk(names[each]) for each in rest)
            title = f"wmtp[{','.join(extras)}]" if extras else "wmtp"
            counts = f"{len(names) - len(cuda)} | {sum(sizes[each] for each in rest) / 1e6:.0f}"
            yield f"| `{title}` | {counts} | {disk / 1e6:.0f} | {torch / 1e6:.0f} |"


def import_rows() -> Iterator[str]:
    """Yield a row for each import."""
    for line in IMPORTS:
        *before, name = line.split()
        code = TIMED.format(before="\n".join(f"import {each}" for each in before), name=name)
        seconds = min(_output_of(code) for _ in range(3))
        after = f", after {' and '.join(before)}" if before else ""
        yield f"| `{name}`{after} | {seconds:.2f} |"


def _output_of(code: str) -> float:
    run = subprocess.run([sys.executable, "-c", code], check=True, text=True, capture_output=True)
    return float(run.stdout.split()[-1])


def main() -> None:
    """Print the two tables."""
    print("| | packages | MB to download | MB on disk | MB to download for torch with CUDA |\n|---|---|---|---|---|")
    print("\n".join(install_rows()), flush=True)
    print(f"torch on disk here: {on_disk('torch') / 1e6:.0f} MB\n\n| import | seconds |\n|---|---|")
    for row in import_rows():
        print(row, flush=True)


if __name__ == "__main__":
    main()
