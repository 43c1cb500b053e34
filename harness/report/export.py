"""Writes frames as CSV and Parquet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pandas

from levelfield.harness.analysis.summary import summary
from levelfield.harness.analysis.verdicts import judge, verdict_frame
from levelfield.harness.records.frames import Frames
from levelfield.harness.records.store import write_atomically, writing_failed


def write_csv(frames: Frames, folder: Path) -> list[Path]:
    """Write each frame, the summary and the verdicts as ``folder/<name>.csv``; missing is empty.

    The format is RFC 4180 in UTF-8.
    """

    def encode(frame: pandas.DataFrame) -> bytes:
        return frame.to_csv(index=False, lineterminator="\r\n").encode()

    return _write(frames, Path(folder), "csv", encode)


def write_parquet(frames: Frames, folder: Path) -> list[Path]:
    """Write each frame, the summary and the verdicts as ``folder/<name>.parquet``."""
    return _write(frames, Path(folder), "parquet", lambda frame: frame.to_parquet(index=False))


def _write(
    frames: Frames, folder: Path, suffix: str, encode: Callable[[pandas.DataFrame], bytes]
) -> list[Path]:
    tables = {field.name: getattr(frames, field.name) for field in fields(frames)}
    table = summary(frames)
    tables |= {"summary": table, "verdicts": verdict_frame(judge(frames, table))}
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in tables.items():
            paths.append(folder / f"{name}.{suffix}")
            write_atomically(paths[-1], encode(frame))
    except OSError as error:
        advice = "choose a folder that you may write to by --output"
        raise writing_failed(error, folder, advice=advice) from error
    return paths
