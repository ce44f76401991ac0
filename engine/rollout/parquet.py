"""Write and read Parquet files with page checksums, in pieces, by rows and columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

# The least that is read at once: small enough that ranks can share a step out between them, large
# enough that an evaluation with one sample per group does not drown in footers.
ROWS_PER_PIECE = 64


def write_tables(file: BinaryIO, tables: Iterable[pa.Table], compression: str) -> None:
    """Write the rows of ``tables`` (at least one, equal schemas) into ``file`` one after another.

    A row group ends with the table that fills it to ``ROWS_PER_PIECE`` rows; no more than that is
    held in memory. Dictionaries and statistics would help queries that nobody asks of samples, and
    are three quarters of the cost of a small file.
    """
    tables = iter(tables)
    first = next(tables)
    writer = pq.ParquetWriter(
        file,
        first.schema,
        compression=compression,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    try:
        waiting: list[pa.Table] = []
        for table in chain([first], tables):
            waiting.append(table)
            if sum(map(len, waiting)) >= ROWS_PER_PIECE:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    except BaseException:
        # The writer would close itself later, on a closed file, and complain to nobody.
        with suppress(Exception):
            writer.close()
        raise
    writer.close()


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file of :func:`write_tables`; every page that is read is held against its checksum.

    Raises:
        OSError, pyarrow.ArrowInvalid: not a whole Parquet file; reading a page may raise them too.
    """
    return pq.ParquetFile(path, page_checksum_verification=True)


def read_rows(file: pq.ParquetFile, columns: Sequence[str] | None, rows: Sequence[int]) -> pa.Table:
    """Return the given rows in the given order, reading only the row groups that hold them.

    Raises:
        IndexError: a row is outside 0 .. number of rows - 1.
    """
    total = file.metadata.num_rows
    if rows and (min(rows) < 0 or max(rows) >= total):
        raise IndexError(f"rows {min(rows)} .. {max(rows)} wanted of {total}")
    wanted = set(rows)
    pieces: list[int] = []
    place: dict[int, int] = {}  # row number in the file -> row number in what is read
    start = read = 0
    for piece in range(file.metadata.num_row_groups):
        size = file.metadata.row_group(piece).num_rows
        if not wanted.isdisjoint(range(start, start + size)):
            pieces.append(piece)
            place.update(zip(range(start, start + size), range(read, read + size), strict=True))
            read += size
        start += size
    table = file.read_row_groups(pieces, columns=columns, use_threads=False)
    return table.take(pa.array([place[row] for row in rows], pa.int64()))
