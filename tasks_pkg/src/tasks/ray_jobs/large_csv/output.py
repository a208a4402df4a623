"""One output file, published atomically, with the rejects beside it and a manifest last."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from .. import artefacts
from ..csv.files import rejects_of, require_output_apart
from ..csv.plan import Plan
from ..files import sha256, write_json
from ..protocol import InputProblemError, JobRequest
from .parquet_join import Joiner


def write_csv(frame: pl.DataFrame, target: Path, *, header: bool = True) -> None:
    """Write a table as CSV that has the same rows when it is read."""
    # A row with a single missing value would be a blank line, and a blank line is no row.
    frame.write_csv(target, include_header=header, null_value='""' if frame.width == 1 else "")


class Output:
    """The output of a run, under temporary names until :meth:`publish`.

    Args:
        path: the final name.
        request: provides the parameters that decide the content.
        inputs: the identities of the inputs.
        overwrite: whether a file that celray did not write may be replaced.
    """

    def __init__(
        self, path: Path, request: JobRequest, inputs: list[str], *, overwrite: bool
    ) -> None:
        self.path = path
        self.request = request
        self.overwrite = overwrite
        self.manifest_path = path.with_name(f"{path.name}.manifest.json")
        self.rejects_path = rejects_of(path)
        self.digest = artefacts.digest(request, inputs, {"overwrite"})
        self._folder = path.with_name(f".{path.name}.{request.submission_id}.tmp")
        self._stream: BinaryIO | None = None

    def _manifest(self) -> dict[str, Any] | None:
        """Return the manifest beside the output, if celray wrote it."""
        try:
            manifest = json.loads(self.manifest_path.read_text())
        except (OSError, ValueError):
            return None
        ours = isinstance(manifest, dict) and {"task", "submission_id", "digest"} <= set(manifest)
        return manifest if ours else None

    def finished(self) -> dict[str, Any] | None:
        """Return the result of an identical request, if its files are unchanged."""
        manifest = self._manifest()
        if manifest is None or manifest["digest"] != self.digest:
            return None
        return artefacts.finished(self.manifest_path)

    def require_allowed(self, *sources: Path) -> None:
        """Refuse to overwrite the input, or a file that celray did not write.

        Raises:
            InputProblemError: names the file, and what to do.
        """
        for source in sources:
            require_output_apart(source, self.path)
        if self.overwrite:
            return
        ours: set[str] = set()
        if (manifest := self._manifest()) is not None:
            # The manifest of a run that was killed during publication does not list its files yet.
            files = manifest.get("files", (self.path.name, self.rejects_path.name))
            ours = {self.manifest_path.name, *files}
        for path in (self.path, self.rejects_path, self.manifest_path):
            if path.exists() and path.name not in ours:
                raise InputProblemError(
                    "output_exists",
                    f"output_path {str(self.path)!r}: {path} is there, and celray did not write"
                    " it.",
                    "Remove it, choose another name, or allow it with 'overwrite': true.",
                )

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield a folder for parts, and remove it afterwards."""
        artefacts.require_writable(self.path.parent)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        try:
            yield self._folder
        finally:
            if self._stream is not None:
                self._stream.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def begin(self, plan: Plan) -> None:
        """Start with empty files, also when a pass is repeated with wider types."""
        if self._stream is not None:
            self._stream.close()
        self.plan, self._sha = plan, hashlib.sha256()
        self._stream = (self._folder / "output").open("wb")
        self._parts = 0
        self._joiner = (
            Joiner(self._stream, self._sha.update) if plan.output_format == "parquet" else None
        )
        if self._joiner is None:
            self._put(plan.empty().write_csv().encode())
        (self._folder / "rejects").unlink(missing_ok=True)

    def append(self, part: Path | None, rejects: Path | None, rows_before: int) -> None:
        """Append a range's part and rejects to those of the ranges before it."""
        if part is not None:
            self._append(part)
        if rejects is not None:
            target = self._folder / "rejects"
            header = not target.exists()
            frame = pl.read_parquet(rejects).with_columns(pl.col("row") + rows_before + 1)
            with target.open("ab") as stream:
                frame.write_csv(stream, include_header=header)

    def _append(self, part: Path) -> None:
        self._parts += 1
        if self._joiner is not None:
            self._joiner.append(part)
            return
        with part.open("rb") as source:
            while block := source.read(4 << 20):
                self._put(block)

    def _put(self, block: bytes) -> None:
        if self._stream is not None:
            self._stream.write(block)
            self._sha.update(block)

    def write(self, frame: pl.DataFrame) -> None:
        """Write a table in memory to the file, under its temporary name."""
        temporary = self._folder / "output"
        if self.path.suffix.lower() == ".csv":
            write_csv(frame, temporary)
        else:
            frame.write_parquet(temporary)
        self._sha = hashlib.sha256(temporary.read_bytes())

    def end(self) -> None:
        """Complete the file, still under its temporary name."""
        if self._joiner is not None:
            if not self._parts:
                empty = self._folder / "empty"
                self.plan.empty().write_parquet(empty)
                self._joiner.append(empty)
            self._joiner.close()
        if self._stream is not None:
            self._stream.close()

    def publish(self, task: str, result: dict[str, Any], inputs: list[Any]) -> dict[str, Any]:
        """Rename the files to their final names, and write the manifest.

        Returns:
            ``result``.
        """
        output, rejects = self._folder / "output", self._folder / "rejects"
        files = {self.path.name: {"sha256": self._sha.hexdigest(), "bytes": output.stat().st_size}}
        if rejects.exists():
            found = {"sha256": sha256(rejects), "bytes": rejects.stat().st_size}
            files[self.rejects_path.name] = found
        manifest = {**artefacts.identity(self.request, task), "digest": self.digest}
        with artefacts.publishing(self.request):
            self.require_allowed()  # another program may have written there
            # The old files, if any, no longer match their manifest. But without a manifest, the
            # file of a run that is killed below would count as somebody else's.
            write_json(self.manifest_path, manifest)
            self.rejects_path.unlink(missing_ok=True)
            output.replace(self.path)
            if rejects.exists():
                rejects.replace(self.rejects_path)
            whole = {**manifest, "inputs": inputs, "files": files, "result": result}
            write_json(self.manifest_path, whole)
        return result
