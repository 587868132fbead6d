"""The upload against a stand-in for the Hub: private, whole, resumed, refused; the token nowhere but in its header."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_hub
import published_run
import pytest
from fake_hub import TOKEN, FakeHub

from training import cli

NAME = "clinic/whisper-ko"
LARGE = [f"model-{number:05}-of-00002.safetensors" for number in (1, 2)]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub.running() as found:
        yield found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return published_run.make(tmp_path)


@pytest.fixture
def here(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The fake as the Hub of this process."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def command(run: Path, *options: str) -> list[str]:
    return ["publish", "--model_dir", str(run), "--repo_id", NAME, *options]


def environment(hub: FakeHub, folder: Path, **more: str) -> dict[str, str]:
    """A process that has nothing but a token and an address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
    }
    return {**kept, **own, "HF_HUB_OFFLINE": "0", **more}


def started(run: Path, hub: FakeHub, **more: str) -> subprocess.Popen[str]:
    """The literal command."""
    return subprocess.Popen(
        [sys.executable, "-m", "training.cli", *command(run)],
        cwd=run.parents[1],
        env=environment(hub, run.parents[1], PYTHONPATH=str(Path(cli.__file__).parents[1]), **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.recipe
def test_a_run_arrives_private_and_the_token_is_in_its_header_alone(run: Path, hub: FakeHub) -> None:
    process = started(run, hub)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == f"{hub.url}/{NAME} (private)"
    repository = hub.repositories[NAME]
    assert repository.private and b'"visibility":"private"' in hub.asked("repos/create")[0].body.replace(
        b" ", b""
    )
    assert (
        sorted(repository.files)[:3] == ["README.md", "clinic.log", "config.json"]
        and len(repository.files) == 14
    )
    for name in (*LARGE, "tokenizer.json"):
        assert repository.files[name] == (run / name).read_bytes()
    card = repository.files["README.md"].decode()
    assert (
        card.startswith("---\n")
        and "\nlanguage:\n- ko\n" in card
        and "# whisper-ko" in card
        and "Verdict: " in card
    )
    told_to_nobody_else(hub, run, out + err)


def told_to_nobody_else(hub: FakeHub, run: Path, shown: str) -> None:
    for request in hub.requests:
        headers = {name for name, value in request.headers.items() if TOKEN in value}
        assert (
            headers <= {"authorization"} and TOKEN.encode() not in request.body and TOKEN not in request.path
        )
        assert not headers or request.path.startswith(("/api/", f"/{NAME}.git/"))
    assert TOKEN not in shown
    everything = [path for path in run.parents[1].rglob("*") if path.is_file()]
    assert not [path for path in everything if TOKEN.encode() in path.read_bytes()]


@pytest.mark.recipe
def test_a_call_that_was_killed_goes_on_with_the_rest(run: Path, hub: FakeHub) -> None:
    hub.held = 1
    process = started(run, hub)
    assert hub.waiting.wait(120), process.communicate(timeout=5)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    hub.go.set()
    assert len(hub.large) == 1 and hub.repositories[NAME].commits == []
    there, hub.held = set(hub.large), None
    before = len(hub.asked("^/large/"))
    process = started(run, hub)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    sent = [request.path.removeprefix("/large/") for request in hub.asked("^/large/")[before:]]
    assert len(sent) == 1 and not there & set(sent)
    assert all(hub.repositories[NAME].files[name] == (run / name).read_bytes() for name in LARGE)


def test_a_second_call_sends_nothing_and_a_change_only_itself(
    run: Path, here: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(run)) == 0
    assert cli.main(command(run)) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("(private): all of it was there already")
    assert len(here.repositories[NAME].commits) == 1
    published_run.write_json(run / "generation_config.json", {"max_length": 100})
    assert cli.main(command(run)) == 0
    assert here.repositories[NAME].commits[1:] == [["generation_config.json"]]
    assert len(here.asked("^/large/")) == 2


def test_public_only_when_asked(run: Path, here: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command(run, "--public")) == 0
    assert not here.repositories[NAME].private
    assert "(public)" in capsys.readouterr().out
    before = dict(here.repositories[NAME].files)
    published_run.write_json(run / "generation_config.json", {"max_length": 100})
    assert cli.main(command(run)) == 2
    assert "is a public repository, so everybody would see the files" in capsys.readouterr().err
    assert here.repositories[NAME].files == before


def test_public_does_not_open_a_private_repository(
    run: Path, here: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    here.repositories[NAME] = fake_hub.Repository(private=True)
    assert cli.main(command(run, "--public")) == 0
    assert here.repositories[NAME].private and "stays private" in capsys.readouterr().err


def test_the_users_own_card_arrives_byte_for_byte(run: Path, here: FakeHub) -> None:
    own = b"---\nlicense: mit\n---\n\nMine.\n"
    (run / "README.md").write_bytes(own)
    assert cli.main(command(run)) == 0
    assert here.repositories[NAME].files["README.md"] == own


def test_a_dry_run_asks_nobody(
    run: Path, here: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(command(run, "--dry_run")) == 0
    assert here.requests == [] and sorted(tmp_path.rglob("*")) == before


REFUSALS: list[tuple[str, int, dict[str, Any], str]] = [
    ("repos/create", 401, {}, "does not take the token"),
    ("repos/create|api/models", 403, {}, "may not write there"),
    ("repos/create", 404, {}, "no such owner"),
    ("/commit/", 409, {"error": "busy"}, "something else is changing the repository"),
    ("/commit/", 412, {}, "has changed meanwhile"),
    ("/commit/", 413, {}, "too large"),
    ("repos/create", 500, {}, "call again later"),
    ("validate-yaml", 400, {"errors": [{"message": "license is wrong"}]}, "license is wrong"),
    ("^/large/", 403, {}, "may not write there"),
    ("/preupload/", 400, {"error": f"what is {TOKEN}?"}, "it refuses (status 400"),
]


@pytest.mark.parametrize(("path", "status", "body", "told"), REFUSALS)
def test_refusals_are_one_message_and_status_2(
    path: str,
    status: int,
    body: dict[str, Any],
    told: str,
    run: Path,
    here: FakeHub,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here.answers[path] = (status, {"errors": [], "warnings": [], **body})
    assert cli.main(command(run)) == 2
    shown = capsys.readouterr().err
    assert f"error: {here.url}: {NAME}: " in shown and told in shown
    assert "Traceback" not in shown and TOKEN not in shown


def test_no_network_is_one_message(
    run: Path, here: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert cli.main(command(run)) == 2
    shown = capsys.readouterr().err
    assert "error: http://127.0.0.1:9: " in shown and "goes on where it stopped" in shown


def test_offline_and_without_a_token(
    run: Path,
    here: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cli.main(command(run)) == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.delenv("HF_TOKEN")
    assert cli.main(command(run)) == 2
    assert "set the variable HF_TOKEN" in capsys.readouterr().err
    assert here.requests == []


def test_what_xet_storage_refuses_is_explained_and_what_this_machine_refuses_passes() -> None:
    from training.base.errors import UserError
    from training.publishing.upload import explained

    with (
        pytest.raises(UserError, match="the Hub: token expired; the same command goes on"),
        explained("the Hub"),
    ):
        raise PermissionError("token expired")
    with pytest.raises(PermissionError), explained("the Hub"):
        raise PermissionError(13, "Permission denied", "model.safetensors")


@pytest.mark.parametrize("name", ["whisper", "a/b/c", "a/--b", "a/b.git", "ä/b"])
def test_names_that_no_repository_can_have(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["publish", "--model_dir", str(run), "--repo_id", name, "--dry_run"]) == 2
    assert f"--repo_id {name}: " in capsys.readouterr().err


def test_there_is_no_option_for_the_token(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["publish", "--model_dir", "x", "--repo_id", "o/n", "--token", "hf_x"])
    assert left.value.code == 2 and "unknown option --token" in capsys.readouterr().err
