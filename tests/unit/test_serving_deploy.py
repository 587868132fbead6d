"""``deploy/``: what the files say, and nginx before two servers of which one is killed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import serving_assets
import yaml
from serving_assets import Server

from training.transcription.transcriber import Transcriber

DEPLOY = Path(__file__).parents[2] / "deploy"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def kubernetes() -> dict[str, Any]:
    found = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf8")))
    return {one["kind"]: one for one in found}


def test_kubernetes_asks_the_right_routes_and_runs_nothing_as_root() -> None:
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    paths = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")
    }
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    grace = int(container["args"][container["args"].index("--grace") + 1])
    assert pod["terminationGracePeriodSeconds"] > grace + int(
        container["lifecycle"]["preStop"]["exec"]["command"][1]
    )
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}
    labels = kubernetes()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kubernetes()["Service"]["spec"]["selector"] == labels


def test_prometheus_asks_with_a_key() -> None:
    (monitor,) = yaml.safe_load_all((DEPLOY / "prometheus.yaml").read_text(encoding="utf8"))
    (endpoint,) = monitor["spec"]["endpoints"]
    service = kubernetes()["Service"]
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert endpoint["port"] in {one["name"] for one in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics" and endpoint["authorization"]["type"] == "Bearer"
    assert set(endpoint["authorization"]["credentials"]) == {"name", "key"}
    pod = kubernetes()["Deployment"]["spec"]["template"]["metadata"]
    assert not any("prometheus" in name for name in pod.get("annotations", {}))  # which would ask without one


def test_the_options_that_deploy_names_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    from training.cli.serve import parser

    (container,) = kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"]
    docker = (DEPLOY / "Dockerfile").read_text(encoding="utf8")
    entry = re.search(r"ENTRYPOINT \[(.*)\]", docker)
    assert entry is not None
    words = [word.strip('" ') for word in entry[1].split(",")][2:]
    args = parser().parse_args([*words, *container["args"]])
    assert args.model == ["model=/model"] and args.host == "0.0.0.0"
    assert re.search(r"^USER \d+:\d+$", docker, re.M) and "[serve,export]" in docker


@pytest.fixture
def balanced(tmp_path: Path) -> Iterator[tuple[str, list[Server], Path]]:
    """nginx with the project's file before two servers: its address, the servers, their model."""
    model = serving_assets.models(tmp_path)["ctc"]
    servers = [Server({"ctc": model}, log=tmp_path / f"{n}.log") for n in range(2)]
    try:
        for server in servers:
            server.wait_ready()
        port = _free_port()
        text = (DEPLOY / "nginx.conf").read_text(encoding="utf8")
        text = text.replace("127.0.0.1:8001", f"127.0.0.1:{servers[0].port}")
        text = text.replace("127.0.0.1:8002", f"127.0.0.1:{servers[1].port}").replace(
            "127.0.0.1:8000", f"127.0.0.1:{port}"
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {tmp_path}/{kind}; " for kind in kinds)
        text = text.replace("http {", f"http {{ {places}", 1).replace("/dev/stdout", f"{tmp_path}/access.log")
        (tmp_path / "nginx.conf").write_text(text, encoding="utf8")
        with (tmp_path / "nginx.log").open("w") as log:
            nginx = subprocess.Popen(
                [
                    *(
                        str(NGINX),
                        "-p",
                        tmp_path,
                        "-c",
                        tmp_path / "nginx.conf",
                        "-e",
                        tmp_path / "error.log",
                    ),
                    *("-g", f"daemon off; pid {tmp_path}/nginx.pid;"),
                ],
                stdout=log,
                stderr=log,
            )
        try:
            for _ in range(200):
                if (tmp_path / "nginx.pid").exists():
                    break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}", servers, model
        finally:
            nginx.terminate()
            nginx.wait(20)
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait()


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.mark.skipif(NGINX is None, reason="no nginx")
def test_nginx_loses_nothing_when_one_of_two_servers_is_killed(
    balanced: tuple[str, list[Server], Path], tmp_path: Path
) -> None:
    url, servers, model = balanced
    clip = serving_assets.clip(tmp_path / "clip.wav", 1.5)
    expected, data = Transcriber(model)(clip).text, clip.read_bytes()

    def ask(_: int) -> tuple[int, str]:
        answer = httpx2.post(f"{url}/v1/audio/transcriptions", files={"file": ("a", data)}, timeout=60)
        return answer.status_code, answer.text

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, n) for n in range(120)]
        while sum(one.done() for one in answers) < 30:
            time.sleep(0.01)
        servers[0].process.kill()
        found = [one.result() for one in answers]
    assert {status for status, _ in found} == {200}
    assert {json.loads(text)["text"] for _, text in found} == {expected}
    assert servers[1].metric("polyvox_requests_total") > 30
