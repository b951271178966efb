"""What a history shows: datasets, pictures, texts, and all of it in a folder when training ends."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.frontends.history.columns import Columns

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    import xarray as xr

    from blackboxml.frontends.history.final import Scene
    from blackboxml.frontends.history.place import State
    from blackboxml.frontends.history.recording import Recording
    from blackboxml.tracker import Tracker

    Data = Mapping[str, Any]
    Options = Mapping[str, Any]

logger = logging.getLogger("blackboxml")

REPORT: Final = "report.md"
_CHAINS: Final = 128


class Presenting:
    """The half of `History` that reads; see there."""

    report_enabled: bool
    _rank: int
    _columns: Columns
    _recording: Recording
    _tracker: Tracker
    _own_files: dict[Path, State]
    _sections: list[str]
    _lock: AbstractContextManager[Any]

    def _end(self, error: BaseException | None) -> None:
        """End the run."""
        raise NotImplementedError

    def _scene(self) -> Scene:
        """Return what there is to present."""
        raise NotImplementedError

    # -- datasets

    def to_DataArray(self, x: Any, warmup: float | None = 0.0) -> xr.DataArray:  # noqa: N802
        """Return values of all steps as an array of dimensions chain, leapfrog and draw, as needed.

        Args:
            x: A list, array or tensor; its first axis is the steps.
            warmup: How many of the first steps to leave out; a float is their fraction.

        Raises:
            ValueError: If the values are no numbers, of unequal shapes, or have over two axes more.
        """
        from blackboxml.frontends.history.datasets import to_data_array

        return to_data_array(x, warmup)

    def get_grouped_datasets(self, warmup: float | None = 0.0) -> dict[str, xr.Dataset]:
        """Return a dataset for each group, its variables named without it; `""` is the unnamed one.

        Args:
            warmup: How many of the first steps to leave out; a float is their fraction.
        """
        from blackboxml.frontends.history.datasets import grouped

        return grouped(self._columns, warmup, {}, self._recording.described)

    def get_dataset(self, data: Data | None = None, warmup: float | None = 0.0) -> xr.Dataset:
        """Return all groups in one dataset, with variables such as `train_loss`.

        Args:
            data: Values by name in place of those recorded.
            warmup: How many of the first steps to leave out; a float is their fraction.
        """
        from blackboxml.frontends.history.datasets import flat

        return flat(self._columns_of(data), warmup, {}, self._recording.described)

    def history_to_dict(self) -> dict[str, Any]:
        """Return the values of each metric as an array; one whose values make none is a list."""
        from blackboxml.frontends.history.values import array

        found = {key: (array(own), own) for key, own in self._columns.flat.items()}
        return {key: list(own) if made is None else made for key, (made, own) in found.items()}

    def save_dataset(
        self,
        outdir: str | os.PathLike[str],
        fname: str = "dataset",
        *,
        use_hdf5: bool = True,
        data: Data | None = None,
        dataset: xr.Dataset | None = None,
        warmup: float | None = None,
    ) -> Path:
        """Write a dataset that `xarray.open_dataset` opens, and log it to the backends as a table.

        Args:
            outdir: A folder; it is made.
            fname: Name of the file without extension.
            use_hdf5: Call it `.h5`, and otherwise `.nc`; it is HDF5 and netCDF-4 both ways.
            data: Values by name in place of those recorded.
            dataset: What to write in place of what was recorded.
            warmup: How many of the first steps to leave out.

        Raises:
            OSError: If the file system refuses.
        """
        from blackboxml.frontends.history.datasets import save
        from blackboxml.frontends.history.place import Place

        found = self.get_dataset(data, warmup) if dataset is None else dataset
        self._log_table(fname if fname == "dataset" else f"{fname}_dataset", found)
        name = f"{fname}.{'h5' if use_hdf5 else 'nc'}"
        return Place(Path(outdir), self._own_files).put(name, lambda path: save(found, path))

    def _log_table(self, key: str, dataset: xr.Dataset) -> None:
        """Pass a dataset on to the backends."""
        if self._rank == 0 and dataset.data_vars:
            frame = dataset.to_dataframe().reset_index()
            self._tracker.log_table(key, list(map(str, frame.columns)), frame.to_numpy().tolist())

    def _columns_of(self, data: Data | None) -> Columns:
        """Return values to show: those recorded, or others."""
        if data is None or data is self._columns.flat:
            return self._columns
        found = Columns()
        found.replace(data)
        return found

    # -- pictures

    def plot(
        self,
        val: Any,
        key: str | None = None,
        *,
        warmup: float | None = 0.0,
        num_chains: int | None = _CHAINS,
        title: str | None = None,
        outdir: str | os.PathLike[str] | None = None,
        subplots_kwargs: Options | None = None,
        plot_kwargs: Options | None = None,
        verbose: bool = False,
    ) -> Any:
        """Draw values, write `<key>.png` and `.svg`, and add them to the report.

        Args:
            val: A list, array or tensor; its first axis is the steps.
            key: What they are called.
            warmup: How many of the first steps to leave out; a float is their fraction.
            num_chains: Most chains of a vector that are drawn.
            title: Above the picture.
            outdir: A folder for the files; none are written without it.
            subplots_kwargs: For the figure: `figsize`, `dpi` and so on.
            plot_kwargs: For the line: `color`, `linewidth` and so on.
            verbose: Log where the picture was written.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ValueError: If the values are no numbers.
            MissingDependencyError: If matplotlib is not installed.
        """
        return self.plot_dataArray(
            self.to_DataArray(val, warmup),
            key,
            num_chains=num_chains,
            title=title,
            outdir=outdir,
            subplots_kwargs=subplots_kwargs,
            plot_kwargs=plot_kwargs,
            verbose=verbose,
        )

    def plot_dataArray(  # noqa: N802
        self,
        val: xr.DataArray,
        key: str | None = None,
        *,
        warmup: float | None = 0.0,
        num_chains: int | None = _CHAINS,
        title: str | None = None,
        outdir: str | os.PathLike[str] | None = None,
        subplots_kwargs: Options | None = None,
        plot_kwargs: Options | None = None,
        verbose: bool = False,
        line_labels: bool = False,  # noqa: ARG002 - kept for scripts that give it
        logfreq: int | None = None,
    ) -> Any:
        """Draw an array that has the dimension `draw`; see `plot`.

        `logfreq` is what the numbers of the draws are multiplied by.
        """
        from blackboxml.frontends.history.curves import DRAW, curves
        from blackboxml.frontends.history.datasets import dropped
        from blackboxml.frontends.history.plots import draw_curve

        name = key or ("value" if val.name is None else str(val.name))
        first = dropped(val.sizes[DRAW], warmup)
        array = val.isel({DRAW: slice(first, None)}).rename(name.replace("/", "_"))
        if logfreq:
            array = array.assign_coords({DRAW: array[DRAW] * logfreq})
        (curve,) = curves(array.assign_attrs(metric=name).to_dataset(), DRAW)
        figure = draw_curve(
            curve,
            title=title,
            num_chains=num_chains,
            subplots_kwargs=subplots_kwargs,
            plot_kwargs=plot_kwargs,
        )
        if outdir is not None:
            self._save_picture(figure, name, Path(outdir), verbose=verbose)
        return figure

    def plot_2d_xarr(
        self,
        xarr: xr.DataArray,
        label: str | None = None,
        *,
        num_chains: int | None = None,
        title: str | None = None,
        outdir: str | os.PathLike[str] | None = None,
        subplots_kwargs: Options | None = None,
        plot_kwargs: Options | None = None,
    ) -> Any:
        """Draw an array of the dimensions chain and draw; see `plot`."""
        chains = xarr.sizes.get("chain", 0) if num_chains is None else num_chains
        return self.plot_dataArray(
            xarr,
            label,
            num_chains=chains,
            title=title,
            outdir=outdir,
            subplots_kwargs=subplots_kwargs,
            plot_kwargs=plot_kwargs,
        )

    def plot_dataset(
        self,
        title: str | None = None,
        *,
        nchains: int | None = None,
        outdir: str | os.PathLike[str] | None = None,
        dataset: xr.Dataset | None = None,
        data: Data | None = None,
        warmup: float | None = None,
    ) -> Any:
        """Draw all metrics on one page, and write `summary.png` and `.svg`; see `plot`."""
        from blackboxml.frontends.history.curves import curves
        from blackboxml.frontends.history.plots import draw_summary

        found = self.get_dataset(data, warmup) if dataset is None else dataset
        chains = _CHAINS if nchains is None else nchains
        figure = draw_summary(curves(found), title or self._title, num_chains=chains)
        if outdir is not None:
            self._save_picture(figure, "summary", Path(outdir))
        return figure

    def plot_all(
        self,
        num_chains: int = _CHAINS,
        *,
        warmup: float | None = 0.0,
        title: str | None = None,
        verbose: bool = False,
        outdir: str | os.PathLike[str] | None = None,
        subplots_kwargs: Options | None = None,
        plot_kwargs: Options | None = None,
        dataset: xr.Dataset | None = None,
        data: Data | None = None,
        group_prefix: str = "",  # noqa: ARG002 - the variables know the names of their metrics
    ) -> xr.Dataset:
        """Draw every metric into a picture of its own, and all on one page; see `plot`."""
        from blackboxml.frontends.history.gallery import draw_pictures
        from blackboxml.frontends.history.place import Place

        found = self.get_dataset(data, warmup) if dataset is None else dataset
        if outdir is not None:
            place = Place(Path(outdir), self._own_files)
            drawn = draw_pictures(
                found,
                place,
                "",
                title=title or self._title,
                xkey=None,
                num_chains=num_chains,
                subplots_kwargs=subplots_kwargs,
                plot_kwargs=plot_kwargs,
            )
            if verbose:
                logger.info("%d pictures are in %s", len(drawn.images), outdir)
        return found

    def tplot_all(
        self,
        outdir: str | os.PathLike[str] | None = None,
        *,
        warmup: float | None = 0.0,
        append: bool = True,
        xkey: str | None = None,
        dataset: xr.Dataset | None = None,
        data: Data | None = None,
        logfreq: int | None = None,  # noqa: ARG002 - the steps are recorded
        plot_type: str | None = None,
        verbose: bool = False,
        group_prefix: str = "",  # noqa: ARG002 - the variables know the names of their metrics
    ) -> list[Path]:
        """Draw every metric but counters as text, into files of a folder.

        Args:
            outdir: The folder; the current one by default.
            warmup: How many of the first steps to leave out; a float is their fraction.
            append: Append to files that are there.
            xkey: A metric to draw against; by default the step.
            dataset: What to draw in place of what was recorded.
            data: Values by name in place of those recorded.
            logfreq: Of no effect.
            plot_type: `line`, `hist` or `scatter`; `EZPZ_TPLOT_TYPE`, then `line`.
            verbose: Log where the files are.
            group_prefix: Of no effect.

        Returns:
            The files.
        """
        from blackboxml.frontends.history.gallery import draw_texts
        from blackboxml.frontends.history.place import Place

        found = self.get_dataset(data, warmup) if dataset is None else dataset
        place = Place(Path(outdir or "."), self._own_files)
        written = draw_texts(found, place, "", plot_type=plot_type, append=append, xkey=xkey)
        if verbose:
            logger.info("%d texts are in %s", len(written), place.root)
        return [place.root / name for name in written]

    def _save_picture(self, figure: Any, name: str, folder: Path, *, verbose: bool = False) -> None:
        """Write a picture, and tell the report of it."""
        from blackboxml.frontends.history import report
        from blackboxml.frontends.history.gallery import save_figure
        from blackboxml.frontends.history.place import Place, file_names

        place = Place(folder.expanduser().absolute(), self._own_files)
        paths = save_figure(figure, place, file_names([name])[name])
        if verbose:
            logger.info("%s is drawn in %s", name, paths[0])
        if self.report_enabled and self._rank == 0 and self._recording.path is not None:
            self._add_to_report(report, name, paths[0])

    def _add_to_report(self, report: Any, name: str, picture: Path) -> None:
        """Put a picture that a script has drawn into the report of the run directory."""
        import os

        folder = self._recording.path
        if folder is None or not folder.is_dir():
            return
        link = os.path.relpath(picture, folder).replace(os.sep, "/")
        if not self._sections:
            self._sections += report.header(self._title, {"Run": self._recording.run_id or ""})
        self._sections += report.pictures(name, [(name, link, ())])
        from blackboxml.frontends.history.place import Place

        Place(folder, self._own_files).put_text(REPORT, "\n".join(self._sections))

    @property
    def _title(self) -> str:
        """What reports and pages are called."""
        return f"History Report ({self._recording.name})"

    # -- the end

    def finalize(
        self,
        outdir: str | os.PathLike[str] | None = None,
        run_name: str | None = None,
        *,
        dataset_fname: str | None = None,
        num_chains: int = _CHAINS,
        warmup: float | None = 0.0,
        verbose: bool = False,
        save: bool = True,
        plot: bool = True,
        append_tplot: bool = True,
        title: str | None = None,
        data: Data | None = None,
        dataset: xr.Dataset | None = None,
        xkey: str | None = None,
        plot_kwargs: Options | None = None,
        subplots_kwargs: Options | None = None,
        tplot_type: str | None = None,
        env_info: Mapping[str, Any] | None = None,
        timings: Mapping[str, float] | None = None,
    ) -> dict[str, xr.Dataset] | xr.Dataset:
        """End the run, seal it, and write what people look at into a folder.

        The folder gets `<group>.h5`, `metrics.jsonl`, `config.json`, `run_info.json`, `report.md`,
        pictures below `plots/mplot/<group>/` and texts below `plots/tplot/<group>/`, and what the
        backend `csv` wrote. A file that is in the way is kept, as `report~1.md`. Whatever fails is
        logged and noted in the report. Ranks other than 0 write nothing.

        Args:
            outdir: The folder; `./outputs/<run name>/<time>` by default.
            run_name: Title of the report, and part of the default folder; `History-<time>`.
            dataset_fname: Name of the dataset of the unnamed group, and of folders of its own for
                the report, `report-<name>.md`, and for the plots.
            num_chains: Most chains of a vector that are drawn.
            warmup: How many of the first steps of each group to leave out of datasets and plots; a
                float is their fraction.
            verbose: Log the files.
            save: Write the datasets.
            plot: Draw pictures and texts.
            append_tplot: Append to texts that are there.
            title: Above the pages of pictures.
            data: Values by name to show in place of those recorded.
            dataset: What to show in place of what was recorded.
            xkey: A metric to draw against; by default the step.
            plot_kwargs: For lines: `color`, `linewidth` and so on.
            subplots_kwargs: For figures: `figsize`, `dpi` and so on.
            tplot_type: `line`, `hist` or `scatter`; `EZPZ_TPLOT_TYPE`, then `line`.
            env_info: For the report, in place of what is known of the process.
            timings: Seconds by name, for the report.

        Returns:
            The dataset, with variables such as `train_loss`; if there are several groups, one for
            each, with variables such as `loss`.
        """
        from blackboxml.frontends.history.final import Finale, Wishes

        wishes = Wishes(
            run_name=run_name,
            dataset_fname=dataset_fname,
            num_chains=num_chains,
            warmup=warmup,
            verbose=verbose,
            save=save,
            plot=plot,
            append=append_tplot,
            title=title,
            xkey=xkey,
            plot_kwargs=plot_kwargs,
            subplots_kwargs=subplots_kwargs,
            plot_type=tplot_type,
            env_info=env_info,
            timings=timings,
        )
        with self._lock:
            self._end(None)
            work = Finale(self._scene(), wishes)
            return work.present(self._columns_of(data), dataset, outdir)
