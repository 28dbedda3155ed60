"""The pictures of ``srt show`` as files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..errors import MediaError, SRTError
from ..evaluation.files import output_folder
from ..evaluation.keywords import literal
from ..settings import Settings
from .load import load_subject, quiet
from .model_options import loading
from .overlay import REST
from .panels import Key, Panel, resize_smooth, save_picture, sheet, strip
from .show import DEFAULT, Look, Show, Shown
from .show_checks import check, check_packages, given_basis
from .sources import Source, sources, spread
from .video import write_video

# Rows of a contact sheet, and the width of its panels in pixels.
_ROWS, _THUMB = 40, 240


def show(args: argparse.Namespace, keywords: dict[str, Any], layer: int | str | None) -> int:
    """Make the pictures of ``srt show``, print their names.

    Args:
        args: parsed arguments.
        keywords: settings of SRT that were given.
        layer: block to look at, None = the output.

    Returns:
        0, or 1 where some of several images could not be read; their errors are on stderr.

    Raises:
        SRTError: nothing can be shown; nothing is written by then.
    """
    check(args)
    settings = Settings.of(**keywords) if keywords else DEFAULT
    point = None if args.point is None else (args.point[0], args.point[1])
    output = None if args.output is None else literal(args.output)
    look = Look(settings, layer, output, point, args.panels)
    basis = given_basis(args)
    found = sources(args.images, args.limit, args.size)
    check_packages(found, look)
    out = output_folder(args.out)
    # Whatever the frameworks print must not get between the lines of the JSON.
    with redirect_stdout(sys.stderr), quiet(args.model):
        subject = load_subject(args.model, **loading(args))
        for note in subject.notes:
            print(f"srt: note: {note}", file=sys.stderr)
        pictures = _Pictures(args, Show(subject, look, basis), found, out)
        pictures.fit()
        pictures.make()
    if args.json:
        told = {"views": pictures.show.views, "files": pictures.records}
        print(json.dumps({**told, "failed": sorted(pictures.failed)}, indent=2))
    else:
        for record in pictures.records:
            print(*record["files"], sep="\n")
    return 1 if pictures.failed else 0


class _Pictures:
    """Goes through images and videos and writes what is made of them."""

    def __init__(
        self, args: argparse.Namespace, show: Show, found: list[Source], out: Path
    ) -> None:
        self.args, self.show, self.found, self.out = args, show, found, out
        self.suffix = ".jpg" if args.jpg else ".png"
        self.records: list[dict[str, Any]] = []
        self.failed: set[str] = set()
        self._read_once: tuple[np.ndarray, tuple[int, int]] | None = None

    def fit(self) -> None:
        """Fit the colours on some of the images, unless they were given."""
        wanted = self.show.coloured or self.args.save_basis is not None
        if self.show.basis is None and wanted:
            self.show.fit(self._fitted_on(), self.args.no_background)
        if self.args.save_basis is not None and self.show.basis is not None:
            self.show.basis.save(self.args.save_basis)

    def _fitted_on(self) -> Iterator[np.ndarray]:
        """Images and frames, evenly spread."""
        count = self.args.fit
        if len(self.found) == 1 and self.found[0].moves:
            source = self.found[0]
            there = source.clip().count or count * self.args.every
            wanted = there if self.args.limit is None else self.args.limit * self.args.every
            yield from source.frames(max(1, -(-min(there, wanted) // count)), count)
            return
        chosen = [self.found[i] for i in spread(len(self.found), count)]
        read = 0
        last: MediaError | None = None
        # Where none of those can be read, the first that can.
        for i, source in enumerate((*chosen, *self.found)):
            if i >= len(chosen) and read:
                return
            if source.name in self.failed:
                continue
            try:
                yield next(source.frames()) if source.moves else self._read(source)[0]
                read += 1
            except MediaError as error:
                if len(self.found) == 1:
                    raise
                self._tell(source, error)
                last = error
        if not read and last is not None:
            raise last

    def _read(self, source: Source) -> tuple[np.ndarray, tuple[int, int]]:
        """An image and its size in the file; a single one is read once, for colours and picture."""
        if len(self.found) > 1:
            return source.sized()
        if self._read_once is None:
            self._read_once = source.sized()
        return self._read_once

    def make(self) -> None:
        """Write the pictures of all images and videos, and a contact sheet of several images."""
        rows: list[tuple[str, Shown]] = []
        several = len(self.found) > 1
        if self.args.separate and any(source.moves for source in self.found):
            print("srt: note: --separate is for images; videos have one mp4", file=sys.stderr)
        for source in tqdm(self.found, disable=None if several else True, unit="image"):
            try:
                if source.moves:
                    self._video(source)
                    continue
                shown = self.show(*self._read(source))
            except SRTError as error:
                # What is wrong with settings is so from the first image on.
                if not several or not (isinstance(error, MediaError) or self.records):
                    raise
                self._tell(source, error)
                continue
            self._write(source, shown)
            if several and len(rows) < _ROWS:
                small = [(name, _small(panel, _THUMB)) for name, panel in shown.panels]
                rows.append((source.name, Shown(small, shown.key)))
        if len(rows) > 1:
            path = self.out / f"sheet{self.suffix}"
            panels = [[panel for _, panel in shown.panels] for _, shown in rows]
            key = _joined([shown.key for _, shown in rows])
            names = [name for name, _ in rows]
            width = _THUMB * max(len(row) for row in panels)
            save_picture(path, sheet(panels, width=width, labels=names, key=key))
            self.records.append({"name": "sheet", "files": [str(path)]})

    def _write(self, source: Source, shown: Shown) -> None:
        panels = [panel for _, panel in shown.panels]
        if self.args.separate:
            paths = [
                self.out / f"{source.name}_{_slug(panel.title)}{self.suffix}" for panel in panels
            ]
            for path, panel in zip(paths, panels):
                save_picture(path, panel.picture)
        else:
            paths = [self.out / f"{source.name}_show{self.suffix}"]
            save_picture(paths[0], self._strip(shown, shown.key))
        self.records.append(
            {
                "name": source.name,
                "files": [str(path) for path in paths],
                "panels": [name for name, _ in shown.panels],
                **shown.figures,
            }
        )

    def _strip(self, shown: Shown, key: Key | None) -> np.ndarray:
        panels = [panel for _, panel in shown.panels]
        columns = min(self.args.columns, len(panels))
        return strip(panels, width=columns * self.args.width, columns=columns, key=key)

    def _video(self, source: Source) -> None:
        every, limit = self.args.every, self.args.limit
        clip = source.clip()
        total = None if clip.count is None else -(-clip.count // every)
        total = limit if total is None else min(total, limit or total)
        moving = tqdm(source.frames(every, limit), total=total, disable=None, unit="frame")
        # One legend and one range, so that frames have one size and colours mean the same.
        key = self.show.whole_key()
        strips = (self._strip(self.show(frame, clip.size), key) for frame in moving)
        path = self.out / f"{source.name}_show.mp4"
        with self.show.steady():
            write_video(path, strips, clip.fps / every)
        self.records.append({"name": source.name, "files": [str(path)]})

    def _tell(self, source: Source, error: SRTError) -> None:
        if source.name not in self.failed:
            self.failed.add(source.name)
            about = "" if isinstance(error, MediaError) else f"{source.name}: "
            print(f"srt: error: {about}{' '.join(str(error).split())}", file=sys.stderr)


def _joined(keys: list[Key | None]) -> Key | None:
    """One legend of several."""
    entries = {
        name: colour
        for key in keys
        if key is not None
        for name, colour in key.entries
        if colour != REST  # of each image other classes
    }
    return Key(tuple(entries.items())) if entries else None


def _small(panel: Panel, width: int) -> Panel:
    """A panel of at most this width, in pixels."""
    height, wide = panel.picture.shape[:2]
    if wide <= width:
        return panel
    size = (max(1, round(height * width / wide)), width)
    return replace(panel, picture=resize_smooth(panel.picture, size))


def _slug(title: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in title.lower()).split()
    return "_".join(words)
