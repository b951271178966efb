"""The files of a sealed run, their digests in `run.json` and `SHA256SUMS`, and writing them."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from blackboxml import manifest as manifests
from blackboxml.base.files import check_relative, raise_refusal
from blackboxml.errors import BlackboxError, UnsafePathError
from blackboxml.model import LIMITS, MANIFEST, SUMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blackboxml.base.files import Directory
    from blackboxml.manifest import Manifest
    from blackboxml.model import Limits

_HASH_BLOCK: Final = 2**20
_MOST_SUMS: Final = 2**30


def digest(directory: Directory, name: str) -> tuple[int, str]:
    """Return the size in bytes and the SHA-256 of a file of the run."""
    sha = hashlib.sha256()
    size = 0
    with directory.reading(name) as descriptor:
        while part := os.read(descriptor, _HASH_BLOCK):
            sha.update(part)
            size += len(part)
    return size, sha.hexdigest()


def find_digest(directory: Directory, name: str) -> tuple[int, str] | None:
    """Return what `digest` does, None where no file of a run is.

    Raises:
        OSError: If the file system refuses to show it.
    """
    try:
        return digest(directory, name)
    except (OSError, UnsafePathError) as error:
        raise_refusal(error)
        return None


def is_unchanged(directory: Directory, name: str, files: Mapping[str, Any]) -> bool:
    """Tell whether a file is what the manifest says of it; a digest that it lacks is not asked.

    Raises:
        OSError: If the file system refuses to show it.
    """
    entry = files.get(name, {})
    size, sha = find_digest(directory, name) or (None, None)
    return bool(size is not None and size == entry.get("bytes") and sha == entry.get("sha256", sha))


def list_files(directory: Directory, without: set[Any]) -> dict[str, Any]:
    """Return size and digest of every file of a run but the manifest and the sums.

    Links, special files, scratch and names that a run must not hold are left out: they are not
    part of the run.
    """
    files: dict[str, Any] = {}
    for name in walk(directory):
        if name not in without and name not in {MANIFEST, SUMS}:
            size, sha = digest(directory, name)
            files[name] = {"bytes": size, "sha256": sha}
    return files


def walk(directory: Directory, folder: str = "") -> Iterator[str]:
    """Yield the regular files of a run in byte order of their paths, following no link.

    Folders that lie too deep are left out: no reader looks into them.
    """
    place = directory.path / folder if folder else directory.path
    found = sorted(os.scandir(place), key=lambda entry: entry.name)
    for entry in found:
        name = f"{folder}/{entry.name}" if folder else entry.name
        try:
            check_relative(name)
        except UnsafePathError:
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and name.count("/") < LIMITS.folders:
            yield from walk(directory, name)
        elif stat.S_ISREG(mode):
            yield name


def fits(manifest: Manifest, limits: Limits) -> bool:
    """Tell whether a reader accepts the size of a manifest."""
    return len(manifests.encode(manifest)) <= limits.manifest_bytes


def write_manifest(directory: Directory, manifest: Manifest) -> None:
    """Replace the checksums, then the manifest that says that the run is sealed, and is theirs.

    In between, whatever happens, `run.json` says that the run is not sealed: the checksums count
    for nothing then, and the journals for all. Of a run that was sealed before, it says so first.
    """
    try:
        before = manifests.read(directory)
    except BlackboxError:
        before = {}
    if "sealed" in before:
        manifests.unseal(before)
        directory.replace(MANIFEST, manifests.next_generation(before))
        manifest["generation"] = before["generation"]
    data = manifests.next_generation(manifest)
    directory.replace(SUMS, sums(manifest, data))
    directory.replace(MANIFEST, data)


def has_sums(directory: Directory, manifest: Manifest) -> bool:
    """Tell whether the checksums of a sealed run are what they should be.

    Raises:
        OSError: If the file system refuses.
        LimitError: If they are larger than a reader accepts.
    """
    return directory.read(SUMS, _MOST_SUMS) == _expected(directory, manifest)


def write_sums(directory: Directory, manifest: Manifest) -> None:
    """Replace the checksums of a sealed run, unless they are what they should be."""
    expected = _expected(directory, manifest)
    try:
        same = directory.read(SUMS, _MOST_SUMS) == expected
    except (FileNotFoundError, BlackboxError):
        same = False
    if not same:
        directory.replace(SUMS, expected)


def _expected(directory: Directory, manifest: Manifest) -> bytes:
    """Return the checksums that go with `run.json` as it is."""
    return sums(manifest, directory.read(MANIFEST, LIMITS.manifest_bytes))


def sums(manifest: Manifest, data: bytes) -> bytes:
    """Return `SHA256SUMS`: what `sha256sum -c` reads, sorted by path.

    Args:
        manifest: The manifest of a sealed run.
        data: Its bytes in `run.json`.
    """
    files = manifest["files"].items()
    digests = {name: entry["sha256"] for name, entry in files if "sha256" in entry}
    digests[MANIFEST] = hashlib.sha256(data).hexdigest()
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()
