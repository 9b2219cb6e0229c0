"""One port for HTTP, WebSocket and the pages: Starlette routes over the table of commands."""
