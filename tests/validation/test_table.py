"""Reading tables part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blackboxml.validation.table import batches

if TYPE_CHECKING:
    from pathlib import Path

ROWS, GROUPS = 65_536, 24


def test_a_long_table_takes_the_memory_of_a_few_row_groups(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pa.table({"value": random.standard_normal(ROWS * GROUPS), "step": range(ROWS * GROUPS)})
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=ROWS)
    del table
    with pq.ParquetFile(tmp_path / "table.parquet", pre_buffer=False) as file:
        before, rows, most = pa.total_allocated_bytes(), 0, 0
        for batch in batches(file):
            rows += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before)
    assert rows == ROWS * GROUPS
    assert most < 6 * ROWS * 16  # of two columns
