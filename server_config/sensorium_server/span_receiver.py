"""A small OTLP/HTTP receiver on this machine, to which Triton sends its spans as JSON."""

import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/v1/traces"


class SpanReceiver:
    """Hands each document that Triton posts to `take`; it listens until it is closed."""

    def __init__(self, take: Callable[[Mapping[str, Any]], None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status = HTTPStatus.OK if self.path == PATH else HTTPStatus.NOT_FOUND
                try:
                    if status is HTTPStatus.OK:
                        take(json.loads(body))
                except (ValueError, KeyError, TypeError, AttributeError):
                    status = HTTPStatus.BAD_REQUEST
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[0.1], name="span-receiver", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{PATH}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
