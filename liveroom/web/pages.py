"""The pages: files that Vite built at install, or one plain page that says how to build them.

Everything is served under a strict policy: scripts and styles from our own files alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

BUILT: Final = Path(__file__).parent / "built"
PLAIN: Final = Path(__file__).parent / "plain"
PICTURES: Final = Path(__file__).parent.parent / "pictures"
"""The demo's product pictures; a product names its own by URL."""

# Streams and pictures may come from other hosts; players of YouTube, Twitch and Owncast live
# in frames. Nothing inline runs, so text in a comment can never become a script.
_SOURCES: Final = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data: blob: https:",
    "media-src": "'self' blob: https: http:",
    "connect-src": "'self' ws: wss: https: http:",
    "worker-src": "'self' blob:",
    "frame-src": "https:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
}
POLICY: Final = "; ".join(f"{what} {sources}" for what, sources in _SOURCES.items())
MISSING: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>liveroom</title>
<link rel="stylesheet" href="/plain/plain.css">
<main>
<h1>The pages are not built</h1>
<p>The server is running and its API works: see <a href="/docs">/docs</a>.</p>
<p>To build the pages, run this in the project's folder, with Node 20.19 or later:</p>
<pre>cd clients/pages &amp;&amp; npm ci &amp;&amp; npm run build</pre>
</main>
</html>
"""


class Cached(StaticFiles):
    """Built assets: their names hold a digest of their content, so they never change."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """The file, good for a year."""
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


class Pages:
    """The routes of the pages; `built` is where Vite left them."""

    def __init__(self, built: Path = BUILT) -> None:
        self._built = built

    def routes(self) -> list[BaseRoute]:
        """The routes, for the app; to be mounted last, since other built files lie at `/`."""
        found: list[BaseRoute] = [
            Route("/", self.page("index.html"), methods=["GET"]),
            Route("/room/{room}", self.page("room.html"), methods=["GET"]),
            Route("/console/{room}", self.page("console.html"), methods=["GET"]),
            Mount("/plain", StaticFiles(directory=PLAIN)),
            Mount("/pictures", StaticFiles(directory=PICTURES)),
            Mount("/assets", Cached(directory=self._built / "assets", check_dir=False)),
        ]
        if self._built.is_dir():
            found.append(Mount("/", StaticFiles(directory=self._built)))
        return found

    def page(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that serves one built page."""
        path = self._built / name

        async def serve(_request: Request) -> Response:
            headers = {"cache-control": "no-cache"}
            if not path.is_file():
                return HTMLResponse(MISSING, headers=headers)
            return FileResponse(path, headers=headers, media_type="text/html")

        return serve
