"""The verb `serve` of every application: a page on this machine until Ctrl-C, and nothing left behind.

An application's own verb is five lines: a subclass whose docstring is its help and whose `offer` says what is served.
Server and framework (uvicorn and starlette) are an extra: without them the verb fails with the line that installs them.
"""

import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_imaging.serving.presets import Offer

__all__ = ["ServeOptions", "serve"]


@dataclass(frozen=True)
class ServeOptions:
    """Options that all applications' `serve` have."""

    port: int = 0
    """Of 127.0.0.1; 0 takes a free one. No other address is ever listened on."""
    folder: Path | None = None
    """Folder of runs whose report.html pages are listed and shown, too."""
    max_upload: int = 512
    """Most MiB of an uploaded file."""
    browser: bool = True
    """The page is opened in this machine's browser; --no-browser only prints its link."""

    def offer(self) -> Offer:
        """What is served."""
        raise NotImplementedError

    def run(self) -> None:
        """Serve until Ctrl-C.

        Raises:
            InputError: a port that is taken, options out of range, or the server's packages are missing.
        """
        if not 0 <= self.port < 65536 or not 1 <= self.max_upload <= 65536:
            raise InputError(
                f"expected --port in 0 to 65535 and --max-upload in 1 to 65536 MiB; got {self.port} and {self.max_upload}."
            )
        serve(self.offer(), self.port, self.folder, self.max_upload * 2**20, browser=self.browser)


def serve(offer: Offer, port: int, folder: Path | None, limit: int, *, browser: bool) -> None:
    """Serve an offer until Ctrl-C or SIGTERM.

    Args:
        offer: Of the application.
        port: Of 127.0.0.1, or 0.
        folder: Of runs, or None.
        limit: Most bytes of an upload.
        browser: Open the page.

    Raises:
        InputError: the port is taken, the folder is none, or the server's packages are missing.
    """
    uvicorn = _uvicorn()
    from radiata_imaging.serving.application import application, reports_in
    from radiata_imaging.serving.gate import ENTRANCE, Gate
    from radiata_imaging.serving.intake import Intake
    from radiata_imaging.serving.work import Jobs

    reports = reports_in(folder) if folder is not None else []
    listener = _listener(port)
    own = listener.getsockname()[1]
    temporary = Path(tempfile.mkdtemp(prefix="radiata-serve-"))  # for nobody else: mode 700
    intake = Intake(temporary / "uploads", {reader.name: reader for reader in offer.readers}, limit)
    jobs = Jobs(temporary / "jobs", offer)
    try:
        gate = Gate(application(offer, intake, jobs, reports), own)
        link = f"http://127.0.0.1:{own}{ENTRANCE}?token={gate.token}"
        config = uvicorn.Config(
            gate, log_level="error", access_log=False, server_header=False, ws="none", lifespan="off",
            timeout_keep_alive=20, timeout_graceful_shutdown=2, limit_concurrency=64,
        )  # fmt: skip
        print(f"{offer.app} serve: open {link}", flush=True)
        print(
            "The link works once. Not for clinical use. Ctrl-C stops it and removes what was uploaded.",
            flush=True,
        )
        if browser:
            _open(temporary, link)
        uvicorn.Server(config).run(sockets=[listener])  # it raises the signal again that ended it
    finally:
        jobs.close()
        listener.close()
        shutil.rmtree(temporary, ignore_errors=True)
        print(
            f"{offer.app} serve: stopped; uploads and results that were not downloaded are removed",
            file=sys.stderr,
        )


def _uvicorn() -> Any:
    try:
        import starlette
        import uvicorn
    except ImportError:
        raise InputError(
            'expected the server\'s packages; got none. Install them: pip install "starlette>=0.40" "uvicorn>=0.30".'
        ) from None
    assert starlette
    return uvicorn


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(64)  # before the link is printed: who is quick waits, and is not refused
    except OSError:
        listener.close()
        raise InputError(
            f"expected a free port; got {port}, which is taken or not permitted. Choose another --port, or 0."
        ) from None
    return listener


def _open(temporary: Path, link: str) -> None:
    """A page that leads on, readable to us alone: on the browser's command line other people could read the token."""
    import webbrowser

    page = temporary / "open.html"
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={link}">', encoding="utf-8")
    page.chmod(0o600)
    webbrowser.open(page.as_uri())
