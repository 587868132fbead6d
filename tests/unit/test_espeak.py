"""The wrapper of espeak-ng."""

from __future__ import annotations

import builtins
import functools
import subprocess
import sys
from unittest.mock import MagicMock
from xml.etree import ElementTree

import numpy as np
import pytest

from training.base.errors import UserError
from training.synthetic import espeak as wrapper
from training.synthetic.espeak import Espeak, ssml

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    return Espeak(seed=1)


def seconds(espeak: Espeak, voice: str, text: str) -> float:
    espeak.set_voice(voice)
    return len(espeak.speak(text)) / espeak.sample_rate


def test_ssml_is_well_formed_whatever_the_text() -> None:
    document = ElementTree.fromstring(ssml([("a < b & c ", None), ('R&D "x"', "en"), ("</speak>", None)]))
    assert "".join(document.itertext()) == 'a < b & c R&D "x"</speak>'
    assert [child.attrib for child in document] == [
        {"{http://www.w3.org/XML/1998/namespace}lang": "en"},
    ]


def test_speaks_vietnamese_aloud_without_clipping(espeak: Espeak) -> None:
    espeak.set_voice("vi-vn-x-south+f2")
    samples = espeak.speak(ssml([("hôm nay trời đẹp quá.", None)]))
    assert samples.dtype == np.int16
    assert 0.8 < len(samples) / espeak.sample_rate < 2.5
    assert 5_000 < np.abs(samples.astype(int)).max() < 32_000


def test_a_number_is_a_pause_also_inside_a_word(espeak: Espeak) -> None:
    espeak.set_voice("ko", rate=150)
    plain = len(espeak.speak(ssml([("학교에 갔어요.", None)]))) / espeak.sample_rate
    for pieces in ([("학", None), 0.5, ("교에 갔어요.", None)], [("학교에 ", None), 0.5, (" 갔어요.", None)]):
        assert ElementTree.fromstring(ssml(pieces))[0].attrib == {"time": "500ms"}
        assert 0.35 < len(espeak.speak(ssml(pieces))) / espeak.sample_rate - plain < 0.7


def test_rate_shortens(espeak: Espeak) -> None:
    text = ssml([("mẹ đang nấu cơm trong bếp.", None)])
    espeak.set_voice("vi", rate=150)
    slow = len(espeak.speak(text))
    espeak.set_voice("vi", rate=250)
    assert len(espeak.speak(text)) < 0.8 * slow


# Trap 29.
def test_a_voice_element_switches_the_language_inside_a_sentence(espeak: Espeak) -> None:
    english = seconds(espeak, "en", ssml([("work from home", None)]))
    switched = seconds(espeak, "vi", ssml([("work from home", "en")]))
    read_as_vietnamese = seconds(espeak, "vi", ssml([("work from home", None)]))
    assert abs(switched - english) < 0.02 * english
    assert abs(read_as_vietnamese - english) > 0.06 * english


def test_unknown_voice_is_named(espeak: Espeak) -> None:
    with pytest.raises(UserError, match="no voice 'nosuch'"):
        espeak.set_voice("nosuch")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_loader(name: str, *args: object, **kwargs: object) -> object:
        if name == "espeakng_loader":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_loader)
    monkeypatch.setattr(wrapper, "_started", wrapper._started.__wrapped__)
    with pytest.raises(UserError, match=r"\.\[demo\]"):
        Espeak()


def test_it_is_initialised_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time frees tables that the state of the last voice still points to: crashes, garbled speech."""
    library = MagicMock()
    library.espeak_Initialize.return_value = 22050
    monkeypatch.setattr(wrapper, "_load", lambda: (library, "data"))
    monkeypatch.setattr(wrapper, "_started", functools.cache(wrapper._started.__wrapped__))
    assert [Espeak(seed).sample_rate for seed in (1, 2)] == [22050, 22050]
    assert library.espeak_Initialize.call_count == 1
    assert [call.args[0].value for call in library.espeak_ng_SetRandSeed.call_args_list] == [1, 2]


def test_fresh_processes_with_equal_seeds_speak_equal_bytes() -> None:
    program = (
        "import hashlib; from training.synthetic.espeak import Espeak, ssml\n"
        "e = Espeak(7); e.set_voice('vi+f2')\n"
        "print([hashlib.sha256(e.speak(ssml([('chào em', None)])).tobytes()).hexdigest() for _ in range(3)])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True) for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
