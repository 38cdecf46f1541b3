"""Who may come in: the browser that was given the link, from this machine, at this address. Everybody else gets 403.

A server on 127.0.0.1 is reached by every program of the machine, by other people's too, and by every web page that the
browser has open. Against these:

    a token in the link, used once, then a cookie         other people and programs of the machine
    Host must be ours, to the port                        DNS rebinding: a foreign name that resolves to 127.0.0.1
    Origin must be ours wherever something changes        forms and scripts of foreign pages (CSRF)
    Sec-Fetch-Site must not be another site               the same, and pictures and frames of ours in foreign pages
    cookie HttpOnly and SameSite=Strict                   scripts, and links from foreign pages
    content security policy, no framing, no sniffing      a name or a message that were taken for a script

References: OWASP, "Cross-Site Request Forgery Prevention" (Origin and Fetch Metadata); RFC 6265, section 8.
"""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

__all__ = ["ENTRANCE", "POLICY", "Gate"]

ENTRANCE = "/enter"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-frame-options": b"DENY",
    b"content-security-policy": POLICY.encode(),
}
# A redirect would still belong to whatever opened the link, and a strict cookie stay at home; a page of ours does not.
_WELCOME = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'
    b'<link rel="icon" href="data:,"><title>Radiata</title><a href="/">Go on</a></html>'
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Gate:
    """ASGI middleware in front of everything.

    Args:
        app: What is behind it.
        port: That the server listens on, at 127.0.0.1.
        token: In the link, once; drawn if None.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], port: int, token: str | None = None) -> None:
        self.app = app
        self.hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self.cookie = f"radiata-{port}"  # cookies know no ports: two servers must not overwrite each other's
        self.token: str | None = token or secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._refused(scope)
        if refused:
            await _answer(send, 403, refused.encode(), b"text/plain; charset=utf-8")
        elif scope["path"] == ENTRANCE:
            await self._enter(scope, send)
        else:
            await self.app(scope, receive, _covered(send))

    def _refused(self, scope: Message) -> str:
        """Why a request may not pass; empty if it may."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        named: dict[str, list[str]] = {}
        for name, value in headers:
            named.setdefault(name, []).append(value)
        host = named.get("host", [])
        if len(host) != 1 or host[0] not in self.hosts:
            return f"expected the host {self.hosts[0]}; got another. Use the link that was printed."
        origin = named.get("origin", [])
        if any(one != f"http://{host[0]}" for one in origin):
            return "expected a request from this page; got one from another origin."
        if scope["path"] == ENTRANCE:
            return ""
        if scope["method"] not in ("GET", "HEAD") and not origin:
            return "expected an Origin; got a request without one that would change something."
        if any(site not in ("same-origin", "none") for site in named.get("sec-fetch-site", [])):
            return "expected a request from this page; got one from another site."
        if not self._known(named.get("cookie", [])):
            return "expected the cookie of this session; got none or another. Open the link that was printed, once."
        return ""

    def _known(self, cookies: list[str]) -> bool:
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load("; ".join(cookies))
        except CookieError:
            return False
        found = jar.get(self.cookie)
        return found is not None and secrets.compare_digest(found.value.encode(), self._session.encode())

    async def _enter(self, scope: Message, send: Send) -> None:
        query = scope.get("query_string", b"").decode("latin-1")
        given = parse_qs(query, max_num_fields=4).get("token", [""])[0] if len(query) < 512 else ""
        if self.token is None or not secrets.compare_digest(given.encode(), self.token.encode()):
            what = "a link that was used already" if self.token is None else "another token"
            text = f"expected the link that was printed when the server started; got {what}. Start it again."
            await _answer(send, 403, text.encode(), b"text/plain; charset=utf-8")
            return
        self.token = None
        cookie = f"{self.cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/".encode()
        await _answer(send, 200, _WELCOME, b"text/html; charset=utf-8", (b"set-cookie", cookie))


def _covered(send: Send) -> Send:
    """The headers of every answer; a page may bring a policy of its own."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", [])}
            more = [(name, value) for name, value in _HEADERS.items() if name not in own]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sent


async def _answer(send: Send, status: int, body: bytes, kind: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
    covered = _covered(send)
    await covered({"type": "http.response.start", "status": status, "headers": headers})
    await covered({"type": "http.response.body", "body": body})
