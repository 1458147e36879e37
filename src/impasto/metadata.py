"""What a picture file says beside its pixels: the photo's EXIF tags, and the record.

EXIF is read and written here and not by Pillow, which spells é as ? and knows the types of few
tags. Only tags that are listed here are taken along, so that none can hide a position in another;
what cannot be read is left out, whatever a file claims.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL.ExifTags import GPS, Base

from impasto._version import __version__

__all__ = ["SOFTWARE", "Exif", "Field"]

SOFTWARE = f"impasto {__version__}"
"""How a file with a record names its maker."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_WORDS = _SIZES | {5: 4, 10: 4}  # what a byte order turns round: a fraction is two numbers
_ASCII, _SHORT, _LONG, _UNDEFINED, _IFD, _UTF_8 = 2, 3, 4, 7, 13, 129
_MAX_FIELD = 1 << 20  # bytes of one value: a record is long, a hostile file could be longer
_EXIF_POINTER, _GPS_POINTER = int(Base.ExifOffset), int(Base.GPSInfo)
_HEADER = b"Exif\0\0"

_MAIN_TEXTS = {
    Base.DocumentName, Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime,
    Base.Artist, Base.HostComputer, Base.Copyright,
}  # fmt: skip
_MAIN_TAGS = _MAIN_TEXTS | {
    Base.Orientation, Base.Rating, Base.RatingPercent, *range(Base.XPTitle, Base.XPSubject + 1),
    Base.UserComment,  # where Pillow's TIFFs have it
    _EXIF_POINTER, _GPS_POINTER,
}  # fmt: skip
_PHOTO_TAGS = {
    Base.ExposureTime, Base.FNumber, Base.ExposureProgram, Base.SpectralSensitivity,
    Base.ISOSpeedRatings, *range(0x8830, 0x8836), Base.ExifVersion, Base.DateTimeOriginal,
    Base.DateTimeDigitized, *range(0x9010, 0x9013), *range(0x9201, 0x920B), Base.UserComment,
    *range(0x9290, 0x9293), *range(0x9400, 0x9406), Base.FlashPixVersion, Base.ColorSpace,
    Base.ExifImageWidth, Base.ExifImageHeight, Base.FlashEnergy, *range(0xA20E, 0xA211),
    Base.ExposureIndex, Base.SensingMethod, Base.FileSource, Base.SceneType,
    *range(0xA401, 0xA40B), Base.SubjectDistanceRange, *range(0xA430, 0xA43D),
}  # fmt: skip
_GPS_TAGS = {int(tag) for tag in GPS}

_TEXT, _UNICODE = b"ASCII\0\0\0", b"UNICODE\0"  # how an EXIF UserComment says its encoding


class Field(NamedTuple):
    """The value of a tag: its TIFF type, how many there are, and their bytes, little-endian."""

    kind: int
    number: int
    data: bytes


Directory = dict[int, Field]


@dataclass
class Exif:
    """The EXIF tags of a picture: of the file, of the exposure, and of the place."""

    main: Directory = field(default_factory=dict)
    photo: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)

    @classmethod
    def read(cls, file: BinaryIO) -> Exif:
        """The tags of a TIFF file, or of an EXIF block without its six first bytes.

        Orientation is set to 1. The thumbnail and the maker's note are not read.

        Raises:
            ValueError: It is no such file, or its directory cannot be found.
        """
        file.seek(0)
        start = file.read(8)
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(start[:4])
        if order is None or len(start) < 8:
            raise ValueError("not an EXIF block")
        main = _directory(file, order, struct.unpack(order + "L", start[4:])[0], _MAIN_TAGS)
        if main is None:
            raise ValueError("no EXIF directory")
        for tag in _MAIN_TEXTS & main.keys():
            if main[tag].kind not in (_ASCII, _UTF_8):
                del main[tag]
        if Base.Orientation in main:
            main[Base.Orientation] = Field(_SHORT, 1, b"\1\0")
        behind = []
        for pointer, tags in ((_EXIF_POINTER, _PHOTO_TAGS), (_GPS_POINTER, _GPS_TAGS)):
            place = main.pop(pointer, None)
            found = place and place.kind in (_LONG, _IFD) and place.number == 1
            offset = int.from_bytes(place.data, "little") if place and found else 0
            behind.append((offset and _directory(file, order, offset, tags)) or {})
        exif = cls(main, *behind)
        if Base.UserComment in main:
            exif.photo.setdefault(Base.UserComment, main.pop(Base.UserComment))
        return exif

    @classmethod
    def parse(cls, block: bytes) -> Exif:
        """The tags of an EXIF block, with the six bytes before it or without.

        Raises:
            ValueError: It cannot be read.
        """
        # Some writers put the six bytes there twice.
        return cls.read(io.BytesIO(block.removeprefix(_HEADER).removeprefix(_HEADER)))

    def __bool__(self) -> bool:
        return bool(self.main or self.photo or self.gps)

    def copy(self) -> Exif:
        """The same tags, to be changed."""
        return Exif(dict(self.main), dict(self.photo), dict(self.gps))

    def fit(self, size: tuple[int, int], *, gps: bool) -> None:
        """Makes the tags of a photo true of a picture of ``size`` in sRGB that was made from it.

        Args:
            size: W and H, px.
            gps: Whether the place is told.
        """
        if not gps:
            self.gps.clear()
        for tag, side in zip((Base.ExifImageWidth, Base.ExifImageHeight), size, strict=True):
            if tag in self.photo:
                self.photo[tag] = Field(_LONG, 1, struct.pack("<L", side))
        if Base.ColorSpace in self.photo:
            self.photo[Base.ColorSpace] = Field(_SHORT, 1, b"\1\0")
        if self._is_ours():  # what made the photo did not make this
            self.main.pop(Base.Software)
            self.photo.pop(Base.UserComment, None)

    @property
    def record(self) -> str | None:
        """The record that was stored as a comment; None if there is none of ours."""
        comment = self.photo.get(Base.UserComment)
        if comment is None or not self._is_ours():
            return None
        code, text = comment.data[:8], comment.data[8:]
        if code == _TEXT:
            return text.decode("ascii")
        return text.decode("utf-16le") if code == _UNICODE else None

    @record.setter
    def record(self, record: str) -> None:
        comment = (
            _TEXT + record.encode() if record.isascii() else _UNICODE + record.encode("utf-16le")
        )
        name = SOFTWARE.encode() + b"\0"
        self.photo[Base.UserComment] = Field(_UNDEFINED, len(comment), comment)
        self.main[Base.Software] = Field(_ASCII, len(name), name)

    def _is_ours(self) -> bool:
        software = self.main.get(Base.Software)
        return software is not None and software.data.startswith(b"impasto ")

    def tobytes(self) -> bytes:
        """The tags as an EXIF block, with the six bytes before it."""
        return _HEADER + b"II*\0" + struct.pack("<L", 8) + self._directories(8, {})

    def into_tiff(self, tiff: bytes) -> bytes:
        """A TIFF file with the tags added: Pillow gives compressed ones no EXIF directory.

        The first directory is written anew at the end; what it points to stays where it is.

        Args:
            tiff: A little-endian file of one picture.
        """
        (offset,) = struct.unpack_from("<4xL", tiff)
        (count,) = struct.unpack_from("<H", tiff, offset)
        table = tiff[offset + 2 : offset + 2 + 12 * count]
        # Each value as it stands in the directory: the short ones themselves, else their offsets.
        old = {tag: Field(*rest) for tag, *rest in struct.iter_unpack("<HHL4s", table)}
        whole = bytearray(tiff) + bytes(len(tiff) % 2)
        struct.pack_into("<L", whole, 4, len(whole))
        return bytes(whole + self._directories(len(whole), old))

    def _directories(self, offset: int, others: Directory) -> bytes:
        """The main directory, together with ``others``, and behind it those it points to."""
        main = self.main | others
        behind = {_EXIF_POINTER: self.photo, _GPS_POINTER: self.gps}
        places = {tag: Field(_LONG, 1, bytes(4)) for tag, inner in behind.items() if inner}
        end = offset + len(_packed(main | places, offset))
        rest = b""
        for tag in places:
            places[tag] = Field(_LONG, 1, struct.pack("<L", end + len(rest)))
            rest += _packed(behind[tag], end + len(rest))
        return _packed(main | places, offset) + rest


def _directory(
    file: BinaryIO, order: str, offset: int, wanted: Collection[int]
) -> Directory | None:
    """The fields of the wanted tags; None if there is no directory at ``offset``."""
    file.seek(offset)
    start = file.read(2)
    if len(start) < 2:
        return None
    table = file.read(12 * struct.unpack(order + "H", start)[0])
    found: Directory = {}
    for tag, kind, number, data in struct.iter_unpack(
        order + "HHL4s", table[: len(table) // 12 * 12]
    ):
        size = number * _SIZES.get(kind, 0)
        if tag not in wanted or tag in found or not 0 < size <= _MAX_FIELD:
            continue
        if size > 4:
            file.seek(struct.unpack(order + "L", data)[0])
            data = file.read(size)
        if len(data) >= size:
            found[tag] = Field(kind, number, _little_endian(tag, kind, data[:size], order))
    return found


def _little_endian(tag: int, kind: int, data: bytes, order: str) -> bytes:
    """The bytes of a value from a file of the byte order ``order``."""
    if order == "<":
        return data
    if tag == Base.UserComment and data.startswith(_UNICODE) and len(data) % 2 == 0:
        return _UNICODE + np.frombuffer(data[8:], ">u2").astype("<u2").tobytes()
    word = _WORDS[kind]
    return np.frombuffer(data, f">u{word}").astype(f"<u{word}").tobytes()


def _packed(directory: Directory, offset: int) -> bytes:
    """A directory that stands at ``offset``, an even number, with its longer values behind it."""
    table, values = struct.pack("<H", len(directory)), b""
    start = offset + 2 + 12 * len(directory) + 4
    for tag, (kind, number, data) in sorted(directory.items()):
        if len(data) > 4:
            stored = struct.pack("<L", start + len(values))
            values += data + bytes(len(data) % 2)
        else:
            stored = data.ljust(4, b"\0")
        table += struct.pack("<HHL4s", tag, kind, number, stored)
    return table + bytes(4) + values
