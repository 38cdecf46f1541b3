"""The addresses of the page, and what each answers. Whatever a request names is looked up in a table of ours, or is 404.

    GET  /                                the page               GET  /static/NAME      its script and style
    GET  /api/state                       presets, files, jobs, reports
    POST /api/uploads?reader=…&name=…     the body is the file   GET  /api/uploads/KEY/volume
    POST /api/jobs                        {preset, upload, values}
    GET  /api/jobs/KEY                    POST …/stop            GET  …/view   …/volumes/N   …/files/N
    GET  /reports/N                       a report of the folder that was given, in a sandbox

No address holds a path, and no answer one of this machine's. Errors are one line of text.
"""

import html
import json
import string
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from radiata_core.errors import InputError
from radiata_imaging.serving.intake import Intake, TooLarge
from radiata_imaging.serving.presets import Offer
from radiata_imaging.serving.work import Job, Jobs

__all__ = ["application", "reports_in"]

_STATIC = {
    "report.css": ("radiata_imaging", "report.css", "text/css"),
    "viewer.js": ("radiata_imaging", "viewer.js", "text/javascript"),
    "serve.css": ("radiata_imaging.serving", "serve.css", "text/css"),
    "serve.js": ("radiata_imaging.serving", "serve.js", "text/javascript"),
}
_BODY = 16 * 1024  # bytes of a request that is no file
_DEEPEST, _MOST = 4, 100
# A report is ours, but the folder may be anybody's: it gets no cookie, no address of ours and no network.
_SANDBOX = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


class _Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Pages:
    """The answers; an object of one server."""

    def __init__(self, offer: Offer, intake: Intake, jobs: Jobs, reports: Sequence[Path]) -> None:
        self.offer, self.intake, self.jobs, self.reports = offer, intake, jobs, list(reports)
        self.presets = {preset.key: preset for preset in offer.presets}
        template = files("radiata_imaging.serving").joinpath("serve.html").read_text(encoding="utf-8")
        self.page = string.Template(template).substitute(
            app=html.escape(offer.app), summary=html.escape(offer.summary)
        )

    async def index(self, request: Request) -> Response:
        return HTMLResponse(self.page)

    async def static(self, request: Request) -> Response:
        package, name, kind = self._of(_STATIC, request.path_params["name"])
        return Response(files(package).joinpath(name).read_bytes(), media_type=kind)

    async def state(self, request: Request) -> Response:
        readers = [
            {"name": r.name, "label": r.label, "suffixes": list(r.suffixes)}
            for r in self.intake.readers.values()
        ]
        return JSONResponse({
            "limit": self.intake.limit, "readers": readers, "presets": [p.card() for p in self.offer.presets],
            "uploads": [u.card() for u in self.intake.uploads.values()],
            "jobs": [job.card() for job in self.jobs.jobs.values()],
            "reports": [{"name": self._said(p), "url": f"/reports/{n}"} for n, p in enumerate(self.reports)],
        })  # fmt: skip

    async def upload(self, request: Request) -> Response:
        reader = self._of(self.intake.readers, request.query_params.get("reader", ""))
        declared = request.headers.get("content-length", "")
        if not declared.isdigit():
            raise _Refused(411, "expected the length of the file; got none.")
        if int(declared) > self.intake.limit:
            raise _Refused(413, self.intake.refusal(f"{int(declared) / 2**20:.0f} MiB"))
        name = request.query_params.get("name", "")
        path, label = await self.intake.receive(request.stream(), reader, name)
        upload = await run_in_threadpool(self.intake.accept, path, reader, label)
        self.intake.forget(self.jobs.busy())
        return JSONResponse(upload.card(), 201)

    async def uploaded(self, request: Request) -> Response:
        upload = self._of(self.intake.uploads, request.path_params["key"])
        if upload.view is None:
            raise _Refused(404, "expected a volume; got another kind of file.")
        return FileResponse(upload.view, media_type="application/octet-stream")

    async def start(self, request: Request) -> Response:
        asked = await self._asked(request)
        preset = self._of(self.presets, asked.get("preset"))
        key, given = asked.get("upload"), asked.get("values") or {}
        upload = None if key is None or preset.reads is None else self._of(self.intake.uploads, key)
        if not isinstance(given, dict):
            raise _Refused(400, "expected values by name; got something else.")
        return JSONResponse(self.jobs.start(preset, given, upload).card(), 201)

    async def job(self, request: Request) -> Response:
        return JSONResponse(self._job(request).card())

    async def stop(self, request: Request) -> Response:
        job = self._job(request)
        self.jobs.stop(job)
        return JSONResponse(job.card())

    async def view(self, request: Request) -> Response:
        return JSONResponse(self._job(request).page())

    async def volume(self, request: Request) -> Response:
        path = self._nth(self._job(request).views, request)
        return FileResponse(path, media_type="application/octet-stream")

    async def file(self, request: Request) -> Response:
        path = self._nth(self._job(request).files, request)
        if path.suffix == ".html" and "show" in request.query_params:
            return _report(path)
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)

    async def report(self, request: Request) -> Response:
        return _report(self._nth(self.reports, request))

    def _said(self, path: Path) -> str:
        return path.parent.name if path.name == "report.html" else path.name

    def _job(self, request: Request) -> Job:
        return self._of(self.jobs.jobs, request.path_params["key"])

    @staticmethod
    def _of(table: Any, key: Any) -> Any:
        if not isinstance(key, str) or key not in table:
            raise _Refused(
                404, "expected something that is there; got a name that this server does not know."
            )
        return table[key]

    @staticmethod
    def _nth(items: Sequence[Path], request: Request) -> Path:
        number = request.path_params["number"]
        if number >= len(items) or not items[number].is_file():
            raise _Refused(404, "expected a file that is there; got a number beyond the last.")
        return items[number]

    @staticmethod
    async def _asked(request: Request) -> dict[str, Any]:
        body = b""
        async for block in request.stream():
            body += block
            if len(body) > _BODY:
                raise _Refused(413, "expected a short request; got a long one.")
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            raise _Refused(400, "expected a JSON object; got something else.")
        return asked


def _report(path: Path) -> Response:
    return FileResponse(path, media_type="text/html", headers={"content-security-policy": _SANDBOX})


def application(offer: Offer, intake: Intake, jobs: Jobs, reports: Sequence[Path] = ()) -> Starlette:
    """The ASGI application; put a `Gate` in front of it.

    Args:
        offer: What is served.
        intake: Where uploads go.
        jobs: Where commands run.
        reports: Pages to list.
    """
    pages = _Pages(offer, intake, jobs, reports)

    async def refused(_: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, _Refused) else 413 if isinstance(error, TooLarge) else 400
        return JSONResponse({"error": " ".join(str(error).split())}, status)

    async def full(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "no space left for files on this machine; free some."}, 507)

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=400)

    routes = [
        Route("/", pages.index), Route("/static/{name}", pages.static), Route("/api/state", pages.state),
        Route("/api/uploads", pages.upload, methods=["POST"]), Route("/api/uploads/{key}/volume", pages.uploaded),
        Route("/api/jobs", pages.start, methods=["POST"]), Route("/api/jobs/{key}", pages.job),
        Route("/api/jobs/{key}/stop", pages.stop, methods=["POST"]), Route("/api/jobs/{key}/view", pages.view),
        Route("/api/jobs/{key}/volumes/{number:int}", pages.volume),
        Route("/api/jobs/{key}/files/{number:int}", pages.file), Route("/reports/{number:int}", pages.report),
    ]  # fmt: skip
    handlers = {_Refused: refused, InputError: refused, OSError: full, ClientDisconnect: gone}
    return Starlette(routes=routes, exception_handlers=handlers)


def reports_in(folder: Path) -> list[Path]:
    """Reports of a folder of runs: `report.html` up to four levels down, at most a hundred, the newest first.

    Raises:
        InputError: it is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of runs; got {folder}. Check the path.")
    root, found = folder.resolve(), []
    for depth in range(_DEEPEST + 1):
        for path in folder.glob("/".join(["*"] * depth + ["report.html"])):
            if path.is_file() and path.resolve().is_relative_to(root):  # no link out of the folder
                found.append(path)
    return sorted(found, key=lambda path: -path.stat().st_mtime)[:_MOST]
