"""The end of a training: datasets, pictures, texts, a report and copies, in one folder.

Strategy: every step is taken by itself; what fails is logged, noted in the report, and costs none
of the others. The run directory was sealed before any of this and is not touched.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml.base.naming import file_stems
from blackboxml.frontends.history import report
from blackboxml.frontends.history.datasets import flat, grouped, save
from blackboxml.frontends.history.gallery import Drawn, draw_pictures, draw_texts
from blackboxml.frontends.history.place import Place
from blackboxml.frontends.history.values import PLAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from blackboxml.frontends.history.columns import Columns
    from blackboxml.frontends.history.lines import Lines
    from blackboxml.frontends.history.place import State
    from blackboxml.frontends.history.recording import Recording
    from blackboxml.tracker import Tracker

logger = logging.getLogger("blackboxml")

REPORT = "report.md"
CSV_FILES = ("metrics.csv", "config.json", "training_history.csv")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `finalize` was asked for; see there."""

    run_name: str | None
    dataset_fname: str | None
    num_chains: int
    warmup: float | None
    verbose: bool
    save: bool
    plot: bool
    append: bool
    title: str | None
    xkey: str | None
    plot_kwargs: Mapping[str, Any] | None
    subplots_kwargs: Mapping[str, Any] | None
    plot_type: str | None
    env_info: Mapping[str, Any] | None
    timings: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to present.

    Attributes:
        rank: Rank of this process; only 0 writes.
        world: Number of ranks.
        recording: The run.
        tracker: The backends.
        tracked: Whether they are still to be told of the end.
        lines: The log in JSON Lines.
        config: Hyper-parameters as they were given.
        outputs: Where folders go by default.
        csv_folder: Where the backend `csv` writes; None if there is none.
        own_files: What this history wrote before.
        report_enabled: Whether there is to be a report.
        happened: What else there is to say.
    """

    rank: int
    world: int
    recording: Recording
    tracker: Tracker
    tracked: bool
    lines: Lines | None
    config: Mapping[str, Any]
    outputs: Path
    csv_folder: Path | None
    own_files: dict[Path, State]
    report_enabled: bool
    happened: list[str] = field(default_factory=list)


class Finale:
    """One call of `finalize`."""

    def __init__(self, scene: Scene, wishes: Wishes) -> None:
        """Begin."""
        self._scene = scene
        self._wishes = wishes
        self._failed: list[str] = []
        self._left: dict[str, str] = {}
        self._images: list[tuple[str, str, list[str]]] = []
        self._summaries: list[tuple[str, str, list[str]]] = []

    def present(
        self, columns: Columns, given: xr.Dataset | None, outdir: str | os.PathLike[str] | None
    ) -> dict[str, xr.Dataset] | xr.Dataset:
        """Write everything, and return the datasets as `finalize` does."""
        import xarray as xr

        scene, wishes = self._scene, self._wishes
        described = scene.recording.described
        parts: dict[str, xr.Dataset] = {}
        whole = xr.Dataset()
        with self._step("the datasets"):
            parts = grouped(columns, wishes.warmup, self._left, described)
            whole = given if given is not None else flat(columns, wishes.warmup, {}, described)
        shown = {"": given} if given is not None else parts
        if scene.rank == 0:
            now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            name = wishes.run_name or f"History-{now}"
            root = scene.outputs / name / now if outdir is None else Path(outdir).expanduser()
            place = Place(root.absolute(), scene.own_files)
            with self._step(f"the folder {root}"):
                root.mkdir(parents=True, exist_ok=True)
                self._write(place, name, columns, shown)
        return parts if len(parts) > 1 and given is None else whole

    def _write(
        self, place: Place, name: str, columns: Columns, shown: Mapping[str, xr.Dataset]
    ) -> None:
        """Write all files."""
        scene, wishes = self._scene, self._wishes
        label = wishes.dataset_fname
        if wishes.save:
            stems = file_stems(shown)
            if label and "" in stems:
                stems[""] = label
            for group, dataset in shown.items():
                with self._step(f"the dataset of {group or 'the unnamed group'}"):
                    place.put(f"{stems[group]}.h5", partial(save, dataset))
        if wishes.plot:
            self._draw(place, f"plots/{label}/" if label else "plots/", shown)
        if scene.lines is not None:
            with self._step("metrics.jsonl"):
                place.copy(scene.lines.path, "metrics.jsonl")
        self._tell_backends(place, columns)
        with self._step("config.json"):
            if scene.csv_folder is None:
                place.put_text("config.json", _json(scene.config))
        details = self._details(place)
        with self._step("run_info.json"):
            place.put_text("run_info.json", _json(details))
        if scene.report_enabled:
            with self._step("the report"):
                self._report(place, name, details, shown, _latest(columns))
        self._finish_backends(place)
        if wishes.verbose:
            for each in place.written:
                logger.info("%s", place.root / each)

    def _draw(self, place: Place, folder: str, shown: Mapping[str, xr.Dataset]) -> None:
        """Write pictures and texts."""
        wishes = self._wishes
        stems = file_stems(shown)
        for group, dataset in shown.items():
            below = f"{stems[group]}/" if group else ""
            title = " — ".join(
                each for each in (wishes.title or self._scene.recording.name, group) if each
            )
            with self._step(f"the pictures of {group or 'the unnamed group'}"):
                drawn = draw_pictures(
                    dataset,
                    place,
                    f"{folder}mplot/{below}",
                    title=title,
                    xkey=wishes.xkey,
                    num_chains=wishes.num_chains,
                    subplots_kwargs=wishes.subplots_kwargs,
                    plot_kwargs=wishes.plot_kwargs,
                )
                self._take(drawn, group)
            with self._step(f"the texts of {group or 'the unnamed group'}"):
                draw_texts(
                    dataset,
                    place,
                    f"{folder}tplot/{below}",
                    plot_type=wishes.plot_type,
                    append=wishes.append,
                    xkey=wishes.xkey,
                )

    def _take(self, drawn: Drawn, group: str) -> None:
        """Note what was drawn, for the report."""
        if drawn.summary:
            self._summaries.append((group or "all metrics", drawn.summary, _forms(drawn.summary)))
        self._images += [(name, path, _forms(path)) for name, path in drawn.images.items()]
        for name, reason in drawn.failed.items():
            self._failed.append(f"{name} is not drawn: {reason}")

    def _tell_backends(self, place: Place, columns: Columns) -> None:
        """Pass the table of all values and the pictures on to the backends."""
        scene = self._scene
        if not scene.tracked:
            return
        with self._step("the table of the backends"):
            names = list(columns.flat)
            longest = max(map(len, columns.flat.values()), default=0)
            if names:
                rows = [
                    [own[at] if at < len(own) else None for own in columns.flat.values()]
                    for at in range(longest)
                ]
                scene.tracker.log_table("training_history", columns=names, data=rows)
        with self._step("the pictures of the backends"):
            for name, path, _ in self._images:
                scene.tracker.log_image(f"plots/{name}", str(place.root / path), caption=name)

    def _finish_backends(self, place: Place) -> None:
        """Give the files to the backends, finish them, and take over what `csv` wrote."""
        scene = self._scene
        if scene.tracked:
            with self._step("the artifacts of the backends"):
                scene.tracker.log_artifacts(
                    {each: str(place.root / each) for each in place.written}
                )
            with self._step("the end of the backends"):
                scene.tracker.finish()
        if scene.csv_folder is not None:
            with self._step("the files of the backend csv"):
                for name in CSV_FILES:
                    place.copy(scene.csv_folder / name)

    def _details(self, place: Place) -> dict[str, Any]:
        """Return what is known of the process and of the files."""
        scene, wishes = self._scene, self._wishes
        details: dict[str, Any] = dict(
            report.environment(scene.rank, scene.world)
            if wishes.env_info is None
            else wishes.env_info
        )
        if wishes.timings:
            details["Timings"] = {name: f"{each:.2f}s" for name, each in wishes.timings.items()}
        paths = dict(details["Paths"]) if isinstance(details.get("Paths"), dict) else {}
        paths.setdefault("Working directory", os.getcwd())
        paths["Run"] = _relative(scene.recording.path, place.root)
        paths["Output Directory"] = "."
        if scene.report_enabled:
            paths["Report"] = self._report_name
        if wishes.plot:
            below = f"plots/{wishes.dataset_fname}" if wishes.dataset_fname else "plots"
            paths |= {"Plots (matplotlib)": f"{below}/mplot", "Plots (terminal)": f"{below}/tplot"}
        if scene.lines is not None:
            paths["Metrics JSONL"] = "metrics.jsonl"
        if scene.csv_folder is not None:
            paths["Metrics CSV"] = "metrics.csv"
        details["Paths"] = paths
        return {"Paths": details.pop("Paths"), **details}

    @property
    def _report_name(self) -> str:
        """Path of the report in its place."""
        label = self._wishes.dataset_fname
        return f"{label}/report-{label}.md" if label else REPORT

    def _report(
        self,
        place: Place,
        name: str,
        details: Mapping[str, Any],
        shown: Mapping[str, xr.Dataset],
        latest: Mapping[str, float],
    ) -> None:
        """Write the report."""
        from blackboxml.frontends.history.curves import curves

        scene = self._scene
        up = "../" * self._report_name.count("/")
        run = scene.recording
        facts = {"Name": name}
        if run.path is not None:
            where = _relative(run.path, place.root / Path(self._report_name).parent)
            facts |= {"Run": f"`{run.run_id}` in [{run.path.name}]({where})", "Status": run.status}
        found = [each for dataset in shown.values() for each in curves(dataset, self._wishes.xkey)]
        lines = report.header(f"History Report ({name})", facts)
        lines += report.environment_section(details)
        lines += report.overview(found, latest)
        for title, images in (("Summary", self._summaries), ("Plots", self._images)):
            if images:
                lines += report.pictures(
                    title,
                    [
                        (each, up + path, [up + own for own in forms])
                        for each, path, forms in images
                    ],
                )
        listed = [up + each for each in place.written if not each.startswith("plots/")]
        if scene.csv_folder is not None:
            listed += [up + each for each in CSV_FILES if up + each not in listed]
        lines += report.notes(self._happened(place))
        lines += report.files(listed)
        place.put_text(self._report_name, "\n".join(lines))

    def _happened(self, place: Place) -> list[str]:
        """Return what a reader of the report should know."""
        scene = self._scene
        found = list(scene.happened)
        found += [
            f"{name} is not recorded: {why}" for name, why in scene.recording.left_out.items()
        ]
        found += [
            f"{name} is in no dataset and no plot: {why}; the run has what was logged"
            for name, why in self._left.items()
        ]
        found += self._failed
        found += [
            f"{new} was {old} before, and is not of this run" for new, old in place.kept.items()
        ]
        return found

    def _step(self, what: str) -> _Step:
        """Return a guard for one step: what it raises is logged, noted, and goes no further."""
        return _Step(what, self._failed)


class _Step:
    """Guards one step."""

    def __init__(self, what: str, failed: list[str]) -> None:
        self._what = what
        self._failed = failed

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        reason = f"{self._what} failed: {type(error).__name__}: {error}"
        self._failed.append(reason)
        logger.warning("%s", reason)
        return True


def _forms(path: str) -> list[str]:
    """Return the other forms of a picture: its SVG."""
    return [path.removesuffix(".png") + ".svg"]


def _latest(columns: Columns) -> dict[str, float]:
    """Return the last value of each metric that is a number, also if that is NaN."""
    return {key: own[-1] for key, own in columns.flat.items() if own and type(own[-1]) in PLAIN}


def _relative(path: Path | None, start: Path) -> str:
    """Return a path as it is written from a folder, so that both may be moved together."""
    return "" if path is None else os.path.relpath(path, start).replace(os.sep, "/")


def _json(tree: Any) -> str:
    """Return a tree as JSON for people; what JSON lacks becomes text."""
    from blackboxml.frontends.history.values import plain, snapshot

    return json.dumps(plain(snapshot(tree)), indent=2, ensure_ascii=False) + "\n"
