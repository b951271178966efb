"""Arrays and histograms of a dataset: what they are called, where they stand, and every value.

Which series a dataset holds, it says itself: each variable names its medium. Where they stand
follows from these, and is compared with what is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blackboxml.errors import FormatError
from blackboxml.media.placement import DRAW, dimensions, place_series
from blackboxml.media.series import find_series
from blackboxml.seal.dataset_series import batches, differing
from blackboxml.validation.netcdf import plain_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    import numpy.typing as npt

    from blackboxml.media.placement import Placed, Variable
    from blackboxml.media.series import Series
    from blackboxml.seal import Spill
    from blackboxml.seal.dataset_reader import Dataset
    from blackboxml.seal.sealed import GroupFiles
    from blackboxml.validation.netcdf import Report
    from blackboxml.validation.subject import Subject

STRUCTURE: Final = ("BB-DAT-019", "BB-DAT-020", "BB-DAT-021")
VALUES: Final = "BB-DAT-022"


class Held:
    """The series that a dataset holds.

    Attributes:
        placed: Where they should stand.
        unknown: Variables and dimensions that cannot be judged, because files of media are gone;
            and those that are called otherwise, which is said already.
    """

    def __init__(self, subject: Subject, dataset: Dataset, columns: Collection[str]) -> None:
        """Look at the variables that name a medium.

        Args:
            subject: The run.
            dataset: One of its datasets.
            columns: The variables of columns, and the coordinates.
        """
        self.placed: list[Placed] = []
        self.unknown: set[str] = set()
        self._subject = subject
        self._dataset = dataset
        self._columns = columns
        self._media: dict[str, str] = {}
        for name, variable in dataset.variables.items():
            medium = plain_text(variable.attributes.values.get("medium"))
            if name not in columns and isinstance(medium, str):
                self._media[name] = medium

    def place(self, group: str, files: GroupFiles, spill: Spill, report: Report) -> None:
        """Find out where the series should stand, and what the dataset names that is none."""
        if not self._media:
            return
        verify, damaged = self._subject.asks(VALUES), set[str]()
        given = self._subject.directory, str((self._subject.sealed or {})["id"])
        limits = self._subject.limits
        found = find_series(*given, limits=limits, group=group, verify=verify, damaged=damaged)
        wanted = set(self._media.values())
        if lost := wanted & damaged:
            self.unknown = self._dataset.variables.keys() - {DRAW, *self._columns}
            why = f"a file of {min(lost)!r:.80} is missing or damaged"
            self._subject.skip(why, *STRUCTURE, VALUES)
            return
        self._subject.look(*STRUCTURE, VALUES)
        held: list[Series] = [each for each in found if each.name in wanted]
        self.placed = place_series(held, self._columns, files.index(held, spill))
        wanted_names = self.names
        for name, medium in self._media.items():
            if name not in wanted_names:
                message = f"a series of arrays or histograms {medium!r:.80} has no such variable"
                report("BB-DAT-019", message, name)
        self.unknown = self._media.keys() - wanted_names
        if self.unknown:
            every = self._dataset.variables.items()
            scales = {name for name, each in every if each.is_scale}
            self.unknown |= scales - wanted_names - {DRAW}

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables that should be there, by name."""
        every = (
            each for placed in self.placed for each in (*placed.coordinates, *placed.variables)
        )
        return {variable.name: variable for variable in every}

    @property
    def names(self) -> set[str]:
        """The variables and dimensions that should be there."""
        return {*self.variables, *dimensions(self.placed)}

    def check(self, report: Report) -> bool:
        """Tell whether each variable is there, and of the right shape; check what it says."""
        valid = True
        for name, variable in self.variables.items():
            found = self._dataset.variables.get(name)
            if found is None:
                medium = variable.attributes["medium"]
                report("BB-DAT-019", f"there is no such variable of {medium!r:.80}", name)
                valid = False
                continue
            shape, kind = found.shape, found.dtype
            if shape != variable.shape or kind != variable.dtype:
                wanted = f"{variable.dtype} of shape {variable.shape}"
                report("BB-DAT-020", f"is {kind} of shape {shape}, wanted {wanted}", name)
                valid = False
            self._check_labels(variable, found.attributes.values, report)
        return valid

    @staticmethod
    def _check_labels(variable: Variable, found: Mapping[str, Any], report: Report) -> None:
        """Check the attributes of a variable."""
        for key in ("medium", "coordinates", "dtype"):
            text, wanted = plain_text(found.get(key)), variable.attributes.get(key)
            if text != wanted:
                message = f"{key!r} is {text!r:.80}, wanted {wanted!r:.80}"
                report("BB-DAT-021", message, variable.name)
        if "_FillValue" in found:
            report(VALUES, "has a _FillValue", variable.name)

    def compare(self, report: Report) -> None:
        """Compare every value with the media; the first difference of each variable is reported."""
        for placed in self.placed:
            told: set[str] = set()
            for variable in placed.coordinates:
                self._compare(variable, slice(None), placed.coordinate(variable), told, report)
            try:
                for where, values in batches(placed):
                    for variable, wanted in zip(placed.variables, values, strict=True):
                        self._compare(variable, where, wanted, told, report)
            except FormatError as error:  # it changes while it is read
                self._subject.skip(str(error), VALUES)

    def _compare(
        self,
        variable: Variable,
        where: slice,
        wanted: npt.NDArray[Any],
        told: set[str],
        report: Report,
    ) -> None:
        """Compare a part of a variable."""
        if variable.name in told:
            return
        at = differing(self._dataset.read(variable.name, where), wanted)
        if at is not None:
            told.add(variable.name)
            place = (where.start or 0) + at
            medium = variable.attributes["medium"]
            message = f"place {place} of its first dimension is not what {medium!r:.80} holds"
            report(VALUES, message, variable.name)


def scan_chunks(dataset: Dataset, names: Iterable[str], most: int) -> None:
    """Read every chunk of some variables, some values at a time.

    Raises:
        TableError: If one does not decode, or its checksum is wrong.
    """
    for name in names:
        length, *rest = dataset.variables[name].shape
        size = 1
        for each in rest:
            size *= each
        count = max(1, most // max(size, 1))
        for start in range(0, length, count):
            dataset.read(name, slice(start, start + count))
