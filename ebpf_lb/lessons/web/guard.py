"""Who may ask: nobody but the page that the command's own link opens.

The page changes the machine as root, and any site that the same browser shows could send requests
to it. So three things must agree: the name that was asked for (a site's own name may be made to
lead to loopback), the site that asks, and a secret that only the link has. The link has it behind
the #, which no browser sends; the page puts it into a header, which no other site can.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import hdrs, web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def guard(port: Callable[[], int], token: str) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A middleware. `port`: where the page is served, once that is known."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        reason = objection(request.headers, request.path, port(), token)
        response = web.Response(status=403, text=f"{reason}\n") if reason else None
        return response or await handler(request)

    return check


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """A signal's receiver: every answer has them, refusals too."""
    response.headers.update(_HEADERS)


def objection(headers: Mapping[str, str], path: str, port: int, token: str) -> str:
    """Why a request is refused; "" if it is not."""
    hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
    if headers.get(hdrs.HOST) not in hosts:
        return f"this page is at http://{hosts[0]}/ only"
    origins = [None, *(f"http://{host}" for host in hosts)]
    same_site = headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
    if headers.get(hdrs.ORIGIN) not in origins or not same_site:
        return "another site's page asked"
    if not path.startswith("/api/"):
        return ""  # the page's own files, which tell nothing
    given = headers.get(hdrs.AUTHORIZATION, "").encode()
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        return "open the page by the link that `ebpf-lb lab web` has printed"
    return ""
