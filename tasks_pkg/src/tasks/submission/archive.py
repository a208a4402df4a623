"""A job's code as one zip, which is uploaded to Ray or unpacked beside a local process."""

import io
import zipfile
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from tasks.credentials import ConfigurationError

PACKAGE = "ray_jobs"


@lru_cache(maxsize=8)
def package(entrypoint: str) -> bytes:
    """Return the zip with a job's code: the same bytes for the same code on every machine.

    It holds :mod:`tasks.ray_jobs` and, for a job of another package, the package that contains the
    job's module. Parent packages are left out: they hold worker code.
    """
    folders = {PACKAGE: Path(__file__).parents[1] / PACKAGE}
    if own := entrypoint.rpartition(".")[0]:
        folders[own] = _folder(own, entrypoint)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, folder in folders.items():
            for file in sorted(folder.rglob("*")):
                if not file.is_file() or file.suffix == ".pyc":
                    continue
                inside = f"{name.replace('.', '/')}/{file.relative_to(folder)}"
                entry = zipfile.ZipInfo(inside)  # its default date is 1980-01-01
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, file.read_bytes())
    return buffer.getvalue()


def _folder(package: str, entrypoint: str) -> Path:
    """Return the folder of a package that holds jobs.

    Raises:
        ConfigurationError: there is no such package, or it also contains tasks.
    """
    try:
        spec = find_spec(package)
        module = find_spec(entrypoint)
    except ModuleNotFoundError:
        spec = module = None
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places or module is None or "." not in package:
        message = (
            f"job {entrypoint!r}: name a module in a package of jobs alone, as in "
            "'my_package.jobs.count'; only my_package/jobs/ then travels to Ray"
        )
        raise ConfigurationError(message)
    return Path(places[0])
