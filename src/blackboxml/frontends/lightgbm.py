"""LightGBM: each training is a run, each boosting round a step of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from blackboxml.frontends.driven import Driven

if TYPE_CHECKING:
    from typing import Self


class BlackBoxCallback(Driven):
    """Records the evaluations of each round, as `valid/auc`; those of `cv` with a deviation.

    LightGBM does not tell its callbacks that a training ends. A `with` block does, so that early
    stops are completed and crashes failed; without, the run is completed after the last round, and
    `interrupted` if that is not reached. The parameters are hyper-parameters below `params`.

    with BlackBoxCallback("leaves") as callback:
        lightgbm.train(params, data, valid_sets=[valid], callbacks=[callback])

    Attributes:
        order: When it is called: before early stopping, which ends a round.
    """

    package: ClassVar[tuple[str, str]] = ("lightgbm", "lightgbm")
    order = 25
    _awaits = False

    def __enter__(self) -> Self:
        """Start the run: of a training that fails in its first round nobody tells."""
        super().__enter__()
        self.begin()
        self._awaits = True
        return self

    def __call__(self, env: Any) -> None:
        """Record a round; the first one starts the run, if a block did not."""
        if env.iteration == env.begin_iteration:
            if not self._awaits:
                self.begin()
            self._awaits = False
            self.configure({"params": env.params})
            self.go_on(env.begin_iteration)
        metrics: dict[str, Any] = {}
        for data, metric, value, _, *deviation in env.evaluation_result_list or []:
            metrics[f"{data}/{metric}"] = value
            if deviation and deviation[0] is not None:
                metrics[f"{data}/{metric}_std"] = deviation[0]
        self.record(metrics, env.iteration)
        if env.iteration == env.end_iteration - 1 and not self.in_block:
            self.end()
