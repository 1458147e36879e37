"""The classic networks: where they come from, where they lie here, and how they get here.

They are fetched on request and never on their own. What comes is converted once, into
`<cache>/weights/NAME.safetensors` with its SHA-256 beside it, and the original is removed. The
cache is the user's (`platformdirs`), or the folder that `IMPASTO_CACHE` names.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from impasto.download import Checksum, FetchProgress, download
from impasto.errors import ImpastoError, WeightsError
from impasto.files import atomic_path, lock, os_reason, sha256_file, write_text_atomic
from impasto.foreign import READERS, require_h5py, write_weights

__all__ = [
    "CLASSICS",
    "Classic",
    "check_classic",
    "fetch",
    "find_originals",
    "is_file",
    "prepare",
    "torch_hub_folder",
    "weights_folder",
]


@dataclass(frozen=True)
class Classic:
    """A network that others have trained and published.

    Attributes:
        name: what `--encoder` calls it.
        about: what it is, for people.
        terms: what its authors ask of those who use it, for people.
        url: where its file comes from.
        checksum: of that file.
        megabytes: size of that file, 10⁶ bytes.
    """

    name: str
    about: str
    terms: str
    url: str
    checksum: Checksum
    megabytes: int

    @property
    def path(self) -> Path:
        """Where the converted file lies, once it is here."""
        return weights_folder() / f"{self.name}.safetensors"

    @property
    def original(self) -> Path:
        """Where the file is downloaded to, or put by hand."""
        return weights_folder() / PurePosixPath(urlsplit(self.url).path).name

    @property
    def record(self) -> Path:
        """Where the converted file's SHA-256 is written, as `sha256sum` does."""
        return self.path.with_name(f"{self.path.name}.sha256")


_KERAS: Final = "https://storage.googleapis.com/tensorflow/keras-applications"
_OXFORD: Final = "CC BY, Oxford VGG"
_TORCHVISION: Final = "BSD-3-Clause"

CLASSICS: Final[Mapping[str, Classic]] = {
    classic.name: classic
    for classic in (
        Classic(
            "vgg16",
            "VGG-16, the original, from Keras",
            _OXFORD,
            f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            Checksum("md5", "6d6bbae143d832006294945121d1f1fc"),
            59,
        ),
        Classic(
            "vgg16-tv",
            "VGG-16, as torchvision trained it",
            _TORCHVISION,
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            Checksum("sha256", "397923af"),
            553,
        ),
        Classic(
            "vgg19",
            "VGG-19, the original, from Keras",
            _OXFORD,
            f"{_KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
            Checksum("md5", "253f8cb515780f3b799900260a226db6"),
            80,
        ),
        Classic(
            "vgg19-tv",
            "VGG-19, as torchvision trained it",
            _TORCHVISION,
            "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
            Checksum("sha256", "dcbb9e9d"),
            575,
        ),
    )
}
"""The classic networks by name."""


def weights_folder() -> Path:
    """The folder of fetched networks; it need not exist."""
    import platformdirs

    chosen = os.environ.get("IMPASTO_CACHE")
    cache = Path(chosen) if chosen else platformdirs.user_cache_path("impasto", appauthor=False)
    return cache / "weights"


def torch_hub_folder() -> Path:
    """The folder that torch downloads its own networks to; it need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))  # noqa: PTH118
    # Unlike pathlib's, this leaves the name alone where there is no home.
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"  # noqa: PTH111


def is_file(path: Path) -> bool:
    """Whether a regular file is there; a folder that one may not look into holds none."""
    try:
        return path.is_file()
    except OSError:
        return False


def find_originals(classic: Classic) -> list[Path]:
    """The files here that may be a classic as it was published: in our cache, in torch's."""
    places = (classic.original, torch_hub_folder() / classic.original.name)
    return [path for path in places if is_file(path)]


def check_classic(classic: Classic) -> str:
    """The SHA-256 of a classic's converted file, compared with the one that was recorded.

    Raises:
        WeightsError: it is not here, or has changed.
    """
    fetch_it = f"impasto weights fetch {classic.name}"
    if not is_file(classic.path):
        raise WeightsError(
            f"the weights of {classic.name} are not here; get them with: {fetch_it} "
            f"({classic.megabytes} MB), or use --encoder slim, which works offline"
        )
    try:
        recorded = classic.record.read_text(encoding="ascii").split()[0]
    except (OSError, ValueError, IndexError):
        raise WeightsError(
            f"{classic.path} cannot be checked: {classic.record.name} does not lie beside it; "
            f"get it anew with: {fetch_it}"
        ) from None
    found = sha256_file(classic.path)
    if found != recorded:
        raise WeightsError(
            f"{classic.path} is damaged: its SHA-256 is {found[:12]}…, not {recorded[:12]}…; "
            f"get it anew with: {fetch_it}"
        )
    return found


def prepare(classic: Classic) -> None:
    """Makes the converted file of a classic if only the original is here; downloads nothing.

    Raises:
        WeightsError: what lies in the original's place is something else.
    """
    if is_file(classic.path) or not find_originals(classic):
        return
    _make_folder(classic)
    with lock(classic.path, timeout=None):
        originals = find_originals(classic)
        if is_file(classic.path) or not originals:
            return
        sound = _sound_original(classic)
        if sound is None:
            _check_original(classic, originals[0])
        else:
            _convert(classic, sound)


def fetch(classic: Classic, *, url: str | None = None) -> Iterator[FetchProgress]:
    """Brings a classic here, unless it is: downloads, checks and converts it.

    Another process that does the same is waited for.

    Args:
        classic: the network.
        url: a mirror to download from; the checksum stays the same.

    Yields:
        What is being done and how far it is.

    Raises:
        ImpastoError: it cannot be had; the line says what to do.
    """
    if _is_sound(classic):
        return
    if classic.original.suffix == ".h5":
        require_h5py(f"the file of {classic.name}")  # before it is downloaded
    _make_folder(classic)
    if _is_locked(classic):
        yield FetchProgress("waiting")
    with lock(classic.path, timeout=None):
        if _is_sound(classic):
            return
        original = _sound_original(classic)
        if original is None:
            original = classic.original
            yield from download(url or classic.url, original, classic.checksum)
        yield FetchProgress("converting")
        _convert(classic, original)


def _convert(classic: Classic, original: Path) -> None:
    """Makes the converted file of a classic and removes the original if it lies in our cache."""
    weights = READERS[original.suffix](original)
    source = {"source": classic.url, "source_checksum": ":".join(classic.checksum)}
    with atomic_path(classic.path) as temporary:
        write_weights(temporary, weights._replace(metadata={**weights.metadata, **source}))
        line = f"{sha256_file(temporary)}  {classic.path.name}\n"
        write_text_atomic(classic.record, line)
    if original == classic.original:
        with suppress(OSError):
            original.unlink()


def _is_sound(classic: Classic) -> bool:
    try:
        check_classic(classic)
    except ImpastoError:
        return False
    return True


def _sound_original(classic: Classic) -> Path | None:
    """The first file here that is the one that was published."""
    for path in find_originals(classic):
        with suppress(ImpastoError):
            _check_original(classic, path)
            return path
    return None


def _check_original(classic: Classic, path: Path) -> None:
    """Raises WeightsError if the file is not the one that was published."""
    checksum = classic.checksum
    found = checksum.of(path)
    if not checksum.fits(found):
        raise WeightsError(
            f"{path} is not the file of {classic.name}: its {checksum.label} is "
            f"{found[: len(checksum.digits)]}, not {checksum.digits}; remove it, "
            f"then: impasto weights fetch {classic.name}"
        )


def _is_locked(classic: Classic) -> bool:
    """Whether another process is at it right now."""
    try:
        with lock(classic.path):
            return False
    except ImpastoError:
        return True


def _make_folder(classic: Classic) -> None:
    folder = classic.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"cannot make the folder {folder}: {os_reason(error)}; IMPASTO_CACHE names another"
        ) from None
