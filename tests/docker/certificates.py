"""Certificates for tests, made by the openssl program: authorities and what they sign."""

import pathlib
import shutil
import subprocess
from typing import NamedTuple

from tests import programs
from tests.docker import engines


class Pair(NamedTuple):
    """A certificate and its key, PEM files."""

    cert: str
    key: str


class Authority:
    """A certificate authority of its own."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        if shutil.which("openssl") is None:
            engines.absent(programs.want("openssl"))
        self._folder = folder / name
        self._folder.mkdir()
        self.pair = Pair(f"{self._folder}/ca.pem", f"{self._folder}/ca.key")
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-days", "2", "-subj", f"/CN={name}",
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                      "-keyout", self.pair.key, "-out", self.pair.cert)  # fmt: skip

    @property
    def file(self) -> str:
        """The authority's own certificate."""
        return self.pair.cert

    def signed(self, name: str, alternative: str = "", *, days: int = 2) -> Pair:
        """Return a certificate for both ends; ``days`` below zero: it has expired."""
        made = Pair(f"{self._folder}/{name}.pem", f"{self._folder}/{name}.key")
        request = f"{self._folder}/{name}.csr"
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)  # fmt: skip
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(
            "extendedKeyUsage=serverAuth,clientAuth\n"
            + (f"subjectAltName={alternative}\n" if alternative else "")
        )
        self._openssl("x509", "-req", "-in", request, "-CA", self.pair.cert, "-CAkey",
                      self.pair.key, "-CAcreateserial", "-days", str(days), "-extfile",
                      str(extensions), "-out", made.cert)  # fmt: skip
        return made

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)
