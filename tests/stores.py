"""A real S3 server in a process of its own (moto's), and a proxy before it that drops and stalls requests."""

import http.client
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "videos"
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server"}
START_S = 60.0


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that was dropped, or has given up


class FaultyProxy:
    """Passes requests on to a server; drops every `drop`-th and keeps every `stall`-th waiting for `stall_s`.

    `url` stays the same while the server behind is killed and started; while `down`, connections are closed at once.
    """

    def __init__(self, port: int, drop: int = 0, stall: int = 0, stall_s: float = 20.0) -> None:
        self.port, self.drop, self.stall, self.stall_s = port, drop, stall, stall_s
        self.down = False
        self.forbidden: set[str] = set()  # keys
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):
                    self.close_connection = True

            def pass_on(self) -> None:
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self.lock:
            self.counts["requests"] += 1
            number = self.counts["requests"]
            dropped = self.down or (self.drop and number % self.drop == 0)
            stalled = not dropped and self.stall and (number + 1) % self.stall == 0  # not those that are dropped
            self.counts.update(["dropped"] * bool(dropped) + ["stalled"] * bool(stalled))
        if stalled:
            time.sleep(self.stall_s)
        if dropped or stalled:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        if any(request.path.partition("?")[0].endswith(f"/{key}") for key in self.forbidden):
            request.send_error(403)
        else:
            self.forward(request, body)

    def forward(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        server = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            server.request(request.command, request.path, body, headers)
            answer = server.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):  # the server is being killed
            request.close_connection = True
            return
        finally:
            server.close()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length or "0")
        request.end_headers()
        request.wfile.write(content)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Store:
    """An S3 server with one bucket. It keeps all in memory: `restart` fills it again before anybody can ask it."""

    def __init__(self, drop: int = 0, stall: int = 0, stall_s: float = 20.0) -> None:
        self.port = free_port()
        self.proxy = FaultyProxy(self.port, drop, stall, stall_s)
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """What makes drivers find it, with invented credentials."""
        return {
            "AWS_ENDPOINT_URL": self.proxy.url,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "hushhush",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.ask("PUT", f"/{BUCKET}")
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, "moto's server does not start"
                time.sleep(0.1)

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Ask the server itself, behind the proxy."""
        server = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            signed = "AWS4-HMAC-SHA256 Credential=a/b/us-east-1/s3/aws4"
            server.request(method, path, body, {"Authorization": signed, "x-amz-acl": "public-read"})
            answer = server.getresponse()
            content = answer.read()
        finally:
            server.close()
        assert answer.status < 300, (method, path, answer.status, content[:300])
        return content

    def put(self, key: str, data: bytes) -> None:
        self.ask("PUT", f"/{BUCKET}/{key}", data)

    def get(self, key: str) -> bytes:
        return self.ask("GET", f"/{BUCKET}/{key}")

    def remove(self, key: str) -> None:
        self.ask("DELETE", f"/{BUCKET}/{key}")

    def kill(self) -> None:
        self.proxy.down = True
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self, objects: Mapping[str, bytes], down_s: float = 0.0) -> None:
        """Kill the server, and start one anew with these objects after a while."""
        self.kill()
        time.sleep(down_s)
        self.start()
        for key, data in objects.items():
            self.put(key, data)
        self.proxy.down = False

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self.proxy.close()


@contextmanager
def running_store(drop: int = 0, stall: int = 0, stall_s: float = 20.0) -> Iterator[Store]:
    store = Store(drop, stall, stall_s)
    try:
        yield store
    finally:
        store.close()


def free_port() -> int:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        return server.server_address[1]


def put_folder(store: Store, folder: Path, prefix: str) -> dict[str, bytes]:
    """Put all files below a folder under a prefix; return what lies there now, by key."""
    found = {f"{prefix}/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for key, data in found.items():
        store.put(key, data)
    return found
