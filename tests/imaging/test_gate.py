"""Who is let in: the browser with the link, once, then its cookie, from this page alone. Each other way is a 403."""

import asyncio

import pytest

from radiata_imaging.serving.gate import Gate

HOST = "127.0.0.1:8765"


async def inside(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(gate, path="/", method="GET", query="", **headers):
    """Status, headers and body of a request; `host=None` leaves the header out."""
    sent = []
    named = {"host": HOST} | headers
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in named.items() if v is not None]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": raw}

    async def send(message):
        sent.append(message)

    asyncio.run(gate(scope, None, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body.decode()


@pytest.fixture
def gate():
    return Gate(inside, 8765, token="secret-token")


@pytest.fixture
def cookie(gate):
    status, headers, _ = ask(gate, "/enter", query="token=secret-token")
    assert status == 200
    return headers[b"set-cookie"].decode().split(";")[0]


def test_link_gives_a_strict_cookie_that_no_script_reads(gate):
    status, headers, body = ask(gate, "/enter", query="token=secret-token", sec_fetch_site="cross-site")
    assert status == 200 and 'content="0;url=/"' in body
    set_cookie = headers[b"set-cookie"].decode()
    assert set_cookie.startswith("radiata-8765=") and "secret-token" not in set_cookie
    assert all(word in set_cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))


def test_link_works_once(gate, cookie):
    status, _, text = ask(gate, "/enter", query="token=secret-token")
    assert status == 403 and "used already" in text
    assert ask(gate, cookie=cookie)[0] == 200


@pytest.mark.parametrize(
    "query", ["", "token=", "token=secret-toke", "token=é", "token=" + "a" * 600, "x=secret-token"]
)
def test_another_token_is_refused_and_costs_nothing(gate, query):
    assert ask(gate, "/enter", query=query)[0] == 403
    assert ask(gate, "/enter", query="token=secret-token")[0] == 200


def test_within_a_session(gate, cookie):
    """Reading needs the cookie; changing needs our origin as well."""
    assert ask(gate, cookie=cookie)[2] == "inside"
    assert ask(gate, cookie=cookie, method="POST", origin=f"http://{HOST}")[0] == 200
    assert ask(gate, cookie=cookie, sec_fetch_site="same-origin")[0] == 200


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"host": "evil.example:8765"}),
        ("GET", {"host": "127.0.0.1"}),
        ("GET", {"host": "127.0.0.1:8766"}),
        ("GET", {"host": None}),
        ("GET", {"origin": "http://evil.example"}),
        ("GET", {"origin": "http://127.0.0.1:9999"}),
        ("GET", {"sec_fetch_site": "cross-site"}),
        ("GET", {"sec_fetch_site": "same-site"}),
        ("POST", {}),
        ("POST", {"origin": "null"}),
        ("POST", {"origin": "http://localhost:8765"}),
        ("DELETE", {"origin": f"https://{HOST}"}),
    ],
)
def test_foreign_pages_and_names_are_refused_even_with_the_cookie(gate, cookie, method, headers):
    status, answered, text = ask(gate, cookie=cookie, method=method, **headers)
    assert status == 403 and text.startswith("expected") and "\n" not in text
    assert answered[b"content-security-policy"].startswith(b"default-src 'none'")


@pytest.mark.parametrize(
    "given", [None, "radiata-8765=wrong", "radiata-8765=", "other=1", 'a="b', "radiata-8766=x"]
)
def test_without_the_cookie_nothing(gate, cookie, given):
    assert ask(gate, "/api/state", cookie=given)[0] == 403


def test_every_answer_has_the_headers_and_a_page_may_have_its_own_policy(gate, cookie):
    _, headers, _ = ask(gate, cookie=cookie)
    for name in ("x-content-type-options", "referrer-policy", "cache-control", "x-frame-options"):
        assert name.encode() in headers

    async def own(scope, receive, send):
        policy = [(b"content-security-policy", b"sandbox")]
        await send({"type": "http.response.start", "status": 200, "headers": policy})
        await send({"type": "http.response.body", "body": b""})

    gate.app = own
    assert ask(gate, cookie=cookie)[1][b"content-security-policy"] == b"sandbox"


def test_websockets_are_closed(gate):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(gate({"type": "websocket", "path": "/"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
