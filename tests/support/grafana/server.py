"""The stand-in: an HTTP server that checks every request against the OpenAPI subset.

Covers: folders and dashboards by uid, bearer tokens, Grafana's status codes for what is wrong.
Does not cover: anything else of Grafana; it is no Grafana.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from openapi_core import OpenAPI
from openapi_core.datatypes import RequestParameters
from openapi_core.exceptions import OpenAPIError

TOKEN = "glsa_the-right-token"
DESCRIPTION = OpenAPI.from_dict(
    yaml.safe_load(Path(__file__).with_name("openapi.yaml").read_text(encoding="utf-8"))
)


class _Request:
    """A request as openapi-core wants it."""

    content_type = "application/json"

    def __init__(self, handler, body):
        self.host_url = ""
        self.path = urlsplit(handler.path).path
        self.method = handler.command.lower()
        self.body = body or None
        self.parameters = RequestParameters(header=dict(handler.headers))


class GrafanaStandIn(ThreadingHTTPServer):
    """Folders and dashboards in memory."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders, self.dashboards = {}, {}
        self.calls, self.wrong = [], []
        self.answer = None  # (status, content type, text): instead of everything

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reply(self, method, path, value):
        """Do what a valid request asks for; return status and answer."""
        uid = path.rpartition("/")[2]
        match method, path:
            case "POST", "/api/folders":
                self.folders[value["uid"]] = {**value, "version": 1}
                return 200, self.folders[value["uid"]]
            case "GET", _ if uid not in self.folders:
                return 404, {"message": "folder not found"}
            case "GET", _:
                return 200, self.folders[uid]
            case "PUT", _:
                self.folders[uid]["title"] = value["title"]
                return 200, self.folders[uid]
            case _:
                return self._save(value)

    def _save(self, value):
        dashboard = value["dashboard"]
        if value.get("folderUid") not in self.folders:
            return 400, {"message": "folder not found"}
        known = self.dashboards.get(dashboard["uid"])
        if known and not value.get("overwrite"):
            return 412, {"message": "a dashboard with this uid is there", "status": "name-exists"}
        version = known["version"] + 1 if known else 1
        self.dashboards[dashboard["uid"]] = {**value, "version": version}
        place = f"/d/{dashboard['uid']}/{dashboard['title'].lower()}"
        return 200, {"status": "success", "uid": dashboard["uid"], "url": place}


class _Handler(BaseHTTPRequestHandler):
    server: GrafanaStandIn

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.calls.append((self.command, self.path))
        if self.server.answer is not None:
            return self._send(*self.server.answer)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json(401, {"message": "Invalid API key"})
        try:
            DESCRIPTION.validate_request(_Request(self, body))
        except OpenAPIError as error:
            self.server.wrong.append(f"{self.command} {self.path}: {error} {error.__cause__}")
            return self._json(400, {"message": str(error)})
        value = json.loads(body) if body else None
        return self._json(*self.server.reply(self.command, self.path, value))

    do_GET = do_POST = do_PUT = _serve

    def _json(self, status, value):
        self._send(status, "application/json", json.dumps(value))

    def _send(self, status, kind, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        """Nobody reads it."""


@contextmanager
def running_grafana():
    """Yield a stand-in that listens."""
    with GrafanaStandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
