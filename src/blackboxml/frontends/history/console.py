"""One line of a console for one update: `iter=180   loss=0.078(± 0.026) lr=0.000059`.

The format is that of ezpz 0.18.2, to the character. Of a metric with statistics across ranks only
the standard deviation is shown, in a column of its own width, so that lines can be read as a table.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Iterator, Mapping

COUNTERS: Final = ("iter", "epoch", "step", "batch", "idx", "bidx")
"""Last parts of names that count; also `<anything>_<counter>`."""

CONSTANTS: Final = frozenset(
    "lr learning_rate momentum beta1 beta2 weight_decay wd eps epsilon clip_grad grad_clip "  # noqa: SIM905 - one a line is long
    "clip_norm max_grad_norm warmup_steps warmup_iters warmup".split()
)
"""Hyper-parameters, which are the same on all ranks."""

STATISTICS: Final = ("mean", "max", "min", "std")
"""Statistics across ranks as `History` and its backends name them, `loss/mean`."""

DEBUG_PREFIXES: Final = ("hist/",)

_COMPANIONS: Final = ("/mean", "/min", "/max", "/std", "/avg")
_WITHOUT_STD: Final = frozenset(["iter", "step", "epoch", "batch", "idx"])
_WIDTHS: Final = {"iter": 9, "step": 9, "epoch": 7, "batch": 9, "idx": 9, "bidx": 9}
_STD_WIDTH: Final = 6
_NO_STD: Final = " " * (_STD_WIDTH + len("(±)"))
_LEAST_FIXED: Final = 0.01
_MEMORY: Final = frozenset(["mem_alloc", "mem_peak_alloc", "mem_reserved", "mem_peak_reserved"])
_GIB: Final = 2**30


def format_compact_summary(
    metrics: Mapping[str, Any],
    precision: int = 6,
    keys_to_skip: Iterable[str] | None = None,
    min_widths: Mapping[str, int] | None = None,
    constant_keys: Iterable[str] | None = None,
) -> str:
    """Return metrics as one line, `key=value(±std)` each; those of memory are left out.

    Args:
        metrics: Values by name; `loss/std` gives the deviation of `loss`, and `/mean`, `/min`,
            `/max` and `/avg` of a metric that is there are left out.
        precision: Decimals of a float.
        keys_to_skip: Names to leave out.
        min_widths: Least width of a counter with its name, by the last part of the name.
        constant_keys: Last parts of names that are the same on all ranks, besides `CONSTANTS`.

    >>> format_compact_summary({"iter": 7, "loss": 0.5, "loss/std": 0.02, "loss/max": 0.6})
    'iter=7    loss=0.500000(± 0.020)'
    """
    return " ".join(
        _tokens(metrics, precision, keys_to_skip, min_widths, constant_keys)[0]
    ).rstrip()


def _tokens(
    metrics: Mapping[str, Any],
    precision: int,
    keys_to_skip: Iterable[str] | None = None,
    min_widths: Mapping[str, int] | None = None,
    constant_keys: Iterable[str] | None = None,
) -> tuple[list[str], bool]:
    """Return the parts of a line, and whether there is memory among the metrics."""
    skipped = frozenset(keys_to_skip or ())
    constants = frozenset(constant_keys or ())
    tokens: list[str] = []
    lone: list[str] = []
    has_memory = False
    for key, value in metrics.items():
        name = _look(key)
        if key in skipped or name.is_memory:
            has_memory |= name.is_memory
            continue
        if name.base is not None:
            if name.base not in metrics or name.base in skipped:
                lone.append(_pair(key, value, precision))
            continue
        token = _pair(key, value, precision)
        std = metrics.get(name.std)
        if std is None or name.without_std or name.last in constants:
            width = min_widths.get(name.last) if min_widths else None
            tokens.append(token.ljust(name.width if width is None else width))
        else:
            tokens.append(token + _deviation(float(std)))
    return tokens + lone, has_memory


class _Name(NamedTuple):
    """What a name says about how its value is shown."""

    last: str
    std: str
    base: str | None
    is_memory: bool
    without_std: bool
    width: int


@lru_cache(maxsize=4096)
def _look(key: str) -> _Name:
    """Return what a name says; the names of a training are few and come again."""
    base, slash, last = key.rpartition("/")
    companion = base if slash and f"/{last}" in _COMPANIONS else None
    bare = last in _WITHOUT_STD or last in CONSTANTS
    return _Name(
        last, f"{key}/std", companion, is_memory_metric_key(key), bare, _WIDTHS.get(last, 0)
    )


def format_memory_summary(
    metrics: Mapping[str, Any], *, device: Any = None, prefix: str | None = None
) -> str:
    """Return the memory of a device as `<allocated>/<peak>GiB (<allocated % of all>%)`.

    Args:
        metrics: What `get_memory_metrics` returned, and perhaps others.
        device: Whose whole memory gives the percentage; by default the current one. Without a
            device there is no percentage.
        prefix: What the names begin with; by default that of the first that fits.

    Returns:
        The text; empty where `metrics` has no memory.
    """
    if prefix is None:
        found = next((key for key in metrics if _look(key).is_memory), None)
        if found is None:
            return ""
        base = _look(found).base or found
        prefix = base[: len(base) - len(base.rpartition("/")[2])]
    used, peak = (metrics.get(f"{prefix}{name}") for name in ("mem_alloc", "mem_peak_alloc"))
    there = [f"{float(each):.2f}" for each in (used, peak) if each is not None]
    if not there:
        return ""
    share = ""
    if used is not None:
        total = _total_gib(device)
        share = f" ({100 * float(used) / total:.0f}%)" if total else ""
    return f"{'/'.join(there)}GiB{share}"


def summary_line(metrics: Mapping[str, Any], precision: int = 6) -> str:
    """Return metrics as one line, their memory as its last part."""
    tokens, has_memory = _tokens(metrics, precision)
    line = " ".join(tokens).rstrip()
    used = format_memory_summary(metrics) if has_memory else ""
    return " ".join(part for part in (line, used and f"memory={used}") if part)


def is_memory_metric_key(key: str) -> bool:
    """Tell whether a name is one of the four of memory, or a statistic of it.

    >>> is_memory_metric_key("train/mem_alloc/max"), is_memory_metric_key("mem_loss")
    (True, False)
    """
    base, slash, last = key.rpartition("/")
    if slash and f"/{last}" in _COMPANIONS:
        last = base.rpartition("/")[2]
    return last in _MEMORY


def is_counter(key: str, counters: Iterable[str] = COUNTERS) -> bool:
    """Tell whether a name counts: `iter`, `train/step`, `global_step`."""
    last = key.replace("\\", "/").rpartition("/")[2]
    return any(last == each or last.endswith(f"_{each}") for each in counters)


def split_metrics_for_logging(
    metrics: Mapping[str, Any], debug_prefixes: tuple[str, ...] = DEBUG_PREFIXES
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics for people, and those whose name begins with one of the prefixes."""
    quiet = {key: value for key, value in metrics.items() if key.startswith(debug_prefixes)}
    return {key: value for key, value in metrics.items() if key not in quiet}, quiet


def summarize_min_max_std(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the statistics of each number by itself: all equal to it, `std` 0 (NaN of NaN)."""
    from blackboxml.frontends.history.values import scalar

    found: dict[str, float] = {}
    for key, value in metrics.items():
        number = scalar(value)
        if number is not None:
            own = float(number)
            found |= {f"{key}/{each}": own for each in ("mean", "min", "max")}
            found[f"{key}/std"] = own - own
    return found


def log_metrics(
    metrics: Mapping[str, Any],
    *,
    logger: logging.Logger,
    summarize: Callable[[dict[str, Any]], Mapping[str, float]] | None = None,
    debug_prefixes: tuple[str, ...] = DEBUG_PREFIXES,
    precision: int = 6,
    omit_counter_metrics: bool = True,
    counter_tokens: tuple[str, ...] = COUNTERS,
) -> None:
    """Log metrics as one line at level INFO, and those of `debug_prefixes` as one at DEBUG.

    Args:
        metrics: Values by name; `train/` is left out of the lines.
        logger: Where to.
        summarize: Returns the statistics across ranks of metrics.
        debug_prefixes: What names begin with that are for debugging.
        precision: Decimals of a float.
        omit_counter_metrics: Take no statistics of counters.
        counter_tokens: Last parts of names that count.
    """
    shown, quiet = split_metrics_for_logging(metrics, debug_prefixes)
    merged = dict(shown)
    if summarize is not None:
        counted = omit_counter_metrics and counter_tokens
        taken = {
            key: value
            for key, value in shown.items()
            if not (counted and is_counter(key, counter_tokens))
        }
        merged.update(summarize(taken))
    line = format_compact_summary(merged, precision).replace("train/", "")
    used = format_memory_summary(shown)
    message = " ".join(part for part in (line, used and f"memory={used}") if part)
    if message:
        logger.info("%s", message)
    details = " ".join(_pair(key, value, precision) for key, value in quiet.items())
    if details:
        logger.debug("%s", details.replace("train/", ""))


def _deviation(std: float) -> str:
    """Return a standard deviation in its column; blanks for zero."""
    if std == 0:
        return _NO_STD
    return f"(±{_two_digits(std).rjust(_STD_WIDTH)})"


def _two_digits(std: float) -> str:
    """Return a number with two significant digits, in at most six characters where it is below 1e4.

    >>> [_two_digits(each) for each in (12.97, 1.297, 0.157, 0.0123, 0.000279)]
    ['13', '1.3', '0.16', '0.012', '2.8e-4']
    """
    if not math.isfinite(std):
        return str(std)
    if std >= _LEAST_FIXED:
        return f"{std:.{max(0, 1 - math.floor(math.log10(std)))}f}"
    mantissa, _, exponent = f"{std:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _pair(key: str, value: Any, precision: int) -> str:
    """Return `key=value`; of what holds several values one pair for each, on the same line."""
    kind = type(value)
    if kind is float:
        return f"{key}={value:.{precision}f}" if math.isfinite(value) else f"{key}={value}"
    if kind is int or kind is bool:
        return f"{key}={value}"
    return " ".join(_leaf(name, leaf, precision) for name, leaf in _leaves(key, value))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value holds: `key.sub` of mappings, `key[0]` of sequences and arrays."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(f"{key}.{name}", each)
    elif isinstance(value, (list, tuple, set, frozenset)):
        ordered = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        for at, each in enumerate(ordered):
            yield from _leaves(f"{key}[{at}]", each)
    else:
        yield key, value


def _leaf(key: str, value: Any, precision: int) -> str:
    """Return `key=value` of a single value, on one line."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{key}={value:.{precision}f}"
    return f"{key}={' '.join(str(value).splitlines())}"


def _total_gib(device: Any) -> float:
    """Return the whole memory of a device in GiB, 0 where there is none or nobody knows."""
    torch: Any = sys.modules.get("torch")
    try:
        if torch is None:
            return 0.0
        index = device if isinstance(device, int) or device is None else torch.device(device).index
        kind = device if device is not None and not isinstance(device, int) else None
        name = torch.device(kind).type if kind is not None else None
        for each in ("cuda", "xpu"):
            accelerator = getattr(torch, each, None)
            if name in (None, each) and accelerator is not None and accelerator.is_available():
                at = accelerator.current_device() if index is None else index
                return float(accelerator.get_device_properties(at).total_memory) / _GIB
    except Exception:  # noqa: BLE001 - the percentage is a convenience; the line comes without it
        return 0.0
    return 0.0
