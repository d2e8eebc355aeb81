"""Signatures over a whole checkpoint directory, in the format of OpenSSF's model-signing, with elliptic-curve keys.

The library leaves git's files out by default, and a signature may name more paths to leave out. Here nothing is left
out: a signature holds for every file below the directory, hidden ones included, or it does not hold.
"""

from __future__ import annotations

import ast
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from typing_extensions import override

from wmtp.errors import IntegrityError, NotFoundError, StorageError, TrustError
from wmtp.extras import install_hint
from wmtp.storage.replace import replace_file
from wmtp.untrusted import MAX_INDEX_BYTES, first_few, parse_json_object, plain, show_all

if TYPE_CHECKING:
    from model_signing import manifest

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_NEW_KEYS = "make one with 'openssl ecparam -name prime256v1 -genkey -noout -out key.pem'"
_PUBLIC_KEYS = "give the file that 'openssl ec -in key.pem -pubout' prints, got from the signer by a way you trust"


def verify_signature(directory: Path, signature: Path, public_key: Path) -> list[str]:
    """Return the names of all files of a directory, each covered by a signature that was made with a key.

    Args:
        directory: The checkpoint.
        signature: The signature, a file outside the directory.
        public_key: The signer's public key in PEM form, a file outside the directory.

    Raises:
        IntegrityError: If the signature was not made with that key, or any file was added, removed or changed, or lies
            outside of what was signed; names the files.
        TrustError: If the key cannot be used, or one of the two lies in the directory, which cannot vouch for itself.
        NotFoundError: If one of the three is not there.
    """
    directory = _directory(directory, signature, public_key)
    with _library():
        from model_signing import verifying

        hashing = _hash_everything()
    _check_key(public_key, is_private=False)
    _check_signature_file(signature)
    with _failing(signature, directory):
        config = _new(verifying.Config).use_elliptic_key_verifier(public_key=public_key).set_hashing_config(hashing)
        config.verify(directory, signature)
    return _covered(directory, hashing)


def sign_directory(directory: Path, signature: Path, private_key: Path) -> list[str]:
    """Sign every file of a directory; returns their names.

    Args:
        directory: The checkpoint.
        signature: Where to write the signature, outside the directory; a file there is replaced.
        private_key: An elliptic-curve key in PEM form without a password, a file outside the directory.

    Raises:
        TrustError: If the key cannot be used, or one of the two lies in the directory.
        IntegrityError: If the directory has something that cannot be signed, as a symbolic link.
        NotFoundError: If the directory or the key is not there.
        StorageError: If the signature cannot be written.
    """
    directory = _directory(directory, signature, private_key)
    if signature.resolve() == private_key.resolve():
        raise TrustError(f"{signature}: this is the private key", hint="name another file for the signature")
    with _library():
        from model_signing import signing

        hashing = _hash_everything()
    _check_key(private_key, is_private=True)
    with tempfile.TemporaryDirectory() as temporary, _failing(signature, directory):
        written = Path(temporary, "signature")
        config = _new(signing.Config).use_elliptic_key_signer(private_key=private_key).set_hashing_config(hashing)
        config.sign(directory, written)
        data = written.read_bytes()
    names = _covered(directory, hashing)
    replace_file(signature, data)
    return names


def _directory(directory: Path, *files: Path) -> Path:
    """The real directory, which the library wants, after a look at where the other files are."""
    real = directory.resolve()
    if not real.is_dir():
        raise NotFoundError(f"{directory}: no such directory", hint="name the directory of a checkpoint")
    for file in files:
        if file.resolve().is_relative_to(real):
            raise TrustError(
                f"{file}: inside the checkpoint, which cannot vouch for itself",
                hint="keep keys and signatures outside the directory that they are about",
            )
    return real


@contextmanager
def _library() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise TrustError(f"signatures need the package model-signing: {error}", hint=install_hint("signing")) from error


def _new(kind: Any) -> Any:
    return kind()  # none of the library's classes says what its __init__ takes


def _hash_everything() -> Any:
    from model_signing import hashing

    class Everything(hashing.Config):
        """Hashes every file below a directory, whatever a signature asks to leave out, and keeps the outcome."""

        found: manifest.Manifest | None = None

        @override
        def add_ignored_paths(self, **_: object) -> None: ...

        @override
        def hash(self, model_path: Any, **_: object) -> manifest.Manifest:
            self.found = super().hash(model_path)
            return self.found

    return _new(Everything).set_ignored_paths(paths=(), ignore_git_paths=False)


def _covered(directory: Path, hashing: Any) -> list[str]:
    """The files that were hashed, after a look of our own that there are no others."""
    names = [descriptor.identifier for descriptor in hashing.found.resource_descriptors()]
    if others := uncovered_files(directory, names):
        raise IntegrityError(
            f"{directory}: {len(others)} files are not covered by the signature: {', '.join(show_all(others))}",
            hint="remove them, or ask the signer to sign the directory as it is",
        )
    return sorted(names)


def uncovered_files(directory: Path, names: Iterable[str]) -> list[str]:
    """Return what lies below a directory, hidden or not, and is none of the named files; sorted."""

    def refuse(error: OSError) -> NoReturn:
        raise _unreadable(directory, error) from error

    found = {
        Path(folder, name).relative_to(directory).as_posix()
        for folder, _, files in os.walk(directory, onerror=refuse)
        for name in files
    }
    return sorted(found - set(names))


def _check_key(path: Path, *, is_private: bool) -> None:
    """Raise TrustError unless the library can use that key; its own errors would not say why."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    what, hint = ("private", _NEW_KEYS) if is_private else ("public", _PUBLIC_KEYS)
    data = _read(path, f"{what} key")
    try:
        key = load_pem_private_key(data, None) if is_private else load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        raise TrustError(f"{path}: cannot be used as a {what} key: {plain(str(error))}", hint=hint) from error
    kinds = EllipticCurvePrivateKey | EllipticCurvePublicKey
    if not isinstance(key, kinds) or key.curve.name not in _CURVES:
        found = key.curve.name if isinstance(key, kinds) else type(key).__name__
        raise TrustError(f"{path}: the key is {found}, not one on {', '.join(_CURVES)}", hint=hint)


def _check_signature_file(path: Path) -> None:
    parse_json_object(_read(path, "signature"), where=str(path), error=IntegrityError, max_bytes=MAX_INDEX_BYTES)


def _read(path: Path, what: str) -> bytes:
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file, which should be the {what}", hint="check the path")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


@contextmanager
def _failing(signature: Path, directory: Path) -> Iterator[None]:
    """Say in our own words what the library has against a signature or a directory."""
    from cryptography.exceptions import InvalidSignature

    try:
        with redirect_stdout(io.StringIO()):  # where the library prints warnings of its own
            yield
    except OSError as error:
        raise _unreadable(directory, error) from error
    # A signature is a stranger's: a bundle that lacks something makes the library stumble in any of these ways.
    except (InvalidSignature, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _refusal(signature, directory, error) from error


def _refusal(signature: Path, directory: Path, error: Exception) -> IntegrityError:
    mismatch, told = "Signature mismatch: ", str(error)
    if told.startswith(mismatch):
        return IntegrityError(
            f"{directory}: the files are not those that were signed with {signature}",
            hint="fetch the checkpoint again, or ask the signer what changed; nothing here has been changed",
            faults=first_few(_differences(told.removeprefix(mismatch))),
        )
    if told.startswith("Cannot use "):
        return IntegrityError(
            f"{directory}: {plain(told)}",
            hint="a signature is about the files themselves: copy the checkpoint with its links resolved (cp -rL)",
        )
    reason = told if isinstance(error, ValueError) else f"{type(error).__name__} {told}"
    return IntegrityError(
        f"{signature}: no valid signature of this key: {plain(reason.strip())}",
        hint="check that the key is the signer's and that the signature was made with an elliptic-curve key, or fetch"
        " the signature again",
    )


def _differences(told: str) -> list[str]:
    try:
        listed = ast.literal_eval(told)  # the library prints a list of texts
    except (ValueError, SyntaxError):
        listed = [told]
    return [plain(text.partition(": Expected")[0]) for text in listed]


def _unreadable(place: Path, error: OSError) -> StorageError:
    return StorageError(f"{error.filename or place}: {error.strerror}", hint="check the path and its permissions")
