"""The certificate that the door shows: the operator's, or a self-signed one made here."""

import hashlib
import ipaddress
import subprocess
from pathlib import Path
from typing import NamedTuple

from daemons.errors import ConfigurationError
from daemons.settings import PREFIX, Settings

VALID_DAYS = 825
RENEW_BEFORE_S = 30 * 24 * 3600


class Certificate(NamedTuple):
    cert: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.cert.read_bytes()).hexdigest()


def is_self_signed(settings: Settings) -> bool:
    return bool(settings.public_host) and not settings.tls_by_proxy and settings.tls_cert is None


def certificate(settings: Settings) -> Certificate:
    """The one to show for public_host; a self-signed one is renewed in time. Raises ConfigurationError."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigurationError(f"{PREFIX}TLS_CERT and {PREFIX}TLS_KEY go together: set both or neither")
    if settings.tls_cert is not None and settings.tls_key is not None:
        given = Certificate(settings.tls_cert.absolute(), settings.tls_key.absolute())
        for path in given:
            if not path.is_file():
                raise ConfigurationError(f"{path}: no such file; {PREFIX}TLS_CERT and {PREFIX}TLS_KEY name it")
        return given
    folder = settings.var_dir.resolve() / "tls"
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    if not _still_good(made, settings.public_host):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make(made, settings.public_host)
    return made


def _still_good(made: Certificate, host: str) -> bool:
    if not (made.cert.exists() and made.key.exists()):
        return False
    lasts = _openssl("x509", "-in", str(made.cert), "-noout", "-checkend", str(RENEW_BEFORE_S))
    option = "-checkip" if _is_address(host) else "-checkhost"
    names = _openssl("x509", "-in", str(made.cert), "-noout", option, host)
    return lasts.returncode == 0 and names.returncode == 0 and "NOT match" not in names.stdout


def _make(made: Certificate, host: str) -> None:
    name = f"{'IP' if _is_address(host) else 'DNS'}:{host}"
    said = _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", str(VALID_DAYS), "-subj", f"/CN={host[:64]}"),
        *("-addext", f"subjectAltName={name},DNS:localhost,IP:127.0.0.1"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),  # some clients refuse a server that could sign others
        *("-keyout", str(made.key), "-out", str(made.cert)),
    )
    if said.returncode:
        raise ConfigurationError(f"openssl makes no certificate for {host!r}:\n  {said.stderr.strip()}")
    made.key.chmod(0o600)


def _openssl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(("openssl", *arguments), capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        raise ConfigurationError(f"openssl cannot be run ({error.strerror}); install it") from error


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
