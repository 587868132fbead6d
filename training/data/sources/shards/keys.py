"""Which members of a shard are one sample: members whose names share a key.

A name is a key, a dot and a suffix. Where the key ends is a matter of the rule:

- ``first_dot``, that of WebDataset: at the first dot of the file's name. Where that would give one key to several
  clips (``ep1.5_0000.wav`` and ``ep1.5_0001.wav`` are both ``ep1``), their names are read by the other rule.
- ``suffix``: before the suffix of a sound or a text, which is what follows the last dot.

A text goes to the sound of its own name. By the first rule one with a shorter name (``clip.json`` beside
``clip.seg.wav``) goes to the only sound that it can belong to. One with a longer name (``clip.seg.json`` beside
``clip.wav``) is something else that is kept with the clip. Dots in the names of folders belong to the key.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from training.data import audio
from training.data.file_names import same_name
from training.data.sources.shards.archive import Member, Refused

FIRST_DOT, SUFFIX = "first_dot", "suffix"
RULES = (FIRST_DOT, SUFFIX)
AUDIO_SUFFIXES = frozenset(suffix.removeprefix(".") for suffix in audio.SOUND_SUFFIXES)
TEXT_SUFFIXES = ("json", "txt")
_SHOWN = 6


class Name(NamedTuple):
    """A member's name taken apart: up to its first dot, up to its last dot, and what follows that in lower case.

    Accents are composed (NFC): a sound and its text may come from two systems. Dots are those of the file's name, without its folders.
    """

    key: str
    stem: str
    suffix: str


@dataclass(frozen=True, slots=True)
class Part:
    """A member at its place among those that have a key."""

    place: int
    name: Name
    member: Member | Refused

    @property
    def is_sound(self) -> bool:
        return self.name.suffix in AUDIO_SUFFIXES

    @property
    def is_text(self) -> bool:
        return self.name.suffix in TEXT_SUFFIXES


@dataclass
class Sample:
    """The members of one key, in their order. ``problem``: a countable reason why they are no sample, and the detail.

    ``number`` is the sample's place in the shard, from 1.
    """

    key: str
    parts: list[Part]
    number: int = 0
    problem: tuple[str, str] | None = None

    @property
    def sounds(self) -> list[Part]:
        """The members that are sound."""
        return [part for part in self.parts if part.is_sound]

    def text(self, suffix: str) -> Part | None:
        """The ``.json`` or the ``.txt``: the one named as the sound is, else the one with the shorter name.

        ``clip.seg.json`` beside ``clip.wav`` is something else that belongs to the clip.
        """
        found = [part for part in self.parts if part.name.suffix == suffix]
        stems = {part.name.stem for part in self.sounds} or {part.name.stem for part in found}
        fitting = [
            p for p in found if any(s == p.name.stem or s.startswith(f"{p.name.stem}.") for s in stems)
        ]
        return max(fitting, key=lambda part: len(part.name.stem), default=None)

    @property
    def utterances(self) -> int:
        """How many utterances are lost with it: one, but more where whole copies of it follow each other."""
        wanted = [part.name for part in self.parts if part.is_sound or part.is_text]
        return max(1, min(Counter(wanted).values(), default=1))

    def described(self) -> str:
        """Its members' suffixes, for a message."""
        names = [self._suffix(part) for part in self.parts]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more

    def _suffix(self, part: Part) -> str:
        full = f"{part.name.stem}.{part.name.suffix}"
        return full.removeprefix(f"{self.key}.")


@dataclass
class _Group:
    """The members that may be one sample or several, sorted by the sound (or the lone text) that each belongs to."""

    parts: Sequence[Part]
    rule: str
    owned: dict[str, list[Part]] = field(default_factory=lambda: defaultdict(list))
    shared: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sounds = dict.fromkeys(part.name.stem for part in self.parts if part.is_sound)
        self.longer = _by_shorter_names(self.sounds) if self.rule == FIRST_DOT else {}
        loose = [part for part in self.parts if not self._place(part)]
        lone = dict.fromkeys(part.name.stem for part in loose if part.is_text)
        for part in loose:
            if part.is_text:
                self.owned[_shortest(part.name.stem, lone)].append(part)
        keys = {part.name.key for parts in self.owned.values() for part in parts}
        for (
            part
        ) in loose:  # a picture beside clips is part of none; a picture alone is a sample without sound
            if not part.is_text and part.name.key not in keys:
                self.owned[part.name.stem].append(part)

    def _place(self, part: Part) -> bool:
        """Whether a member belongs to a sound, or to several of them and so to none."""
        stem = part.name.stem
        if own := next((name for name in _shorter(stem) if name in self.sounds), None):
            self.owned[own].append(part)
            return True
        longer = self.longer.get(stem, ())
        if len(longer) == 1 and part.is_text:
            self.owned[longer[0]].append(part)
        elif part.is_text:
            detail = f"{stem}.{part.name.suffix} is one text for {len(longer)} sounds: which one?"
            self.shared |= dict.fromkeys(longer, ("several_audio", detail))
        return bool(longer)


def taken_apart(name: str) -> Name | None:
    """A member's name; None where it has no key, no dot or no suffix."""
    folder, slash, base = name.rpartition("/")
    first, _, rest = base.partition(".")
    stem, _, suffix = base.rpartition(".")
    if not first or not rest or not suffix:
        return None
    key, whole = (same_name(f"{folder}{slash}{part}") for part in (first, stem))
    return Name(key, whole, suffix.lower())


def assemble(parts: Sequence[Part], rule: str = FIRST_DOT) -> list[Sample]:
    """The samples of a shard's members, in the order of their first ones; every member is in one at most.

    Members of a sample need not be neighbours. A second sample of a key has a problem (``duplicate_key``), as has one
    with two members of one name (``duplicate_member``), one with a refused member, and every sound of several that
    only have one text between them (``several_audio``).
    """
    samples = [one for group in _groups(parts, rule) for one in _samples(group, rule)]
    samples.sort(key=lambda sample: sample.parts[0].place)
    for number, sample in enumerate(samples, 1):
        sample.number = number
    return samples


def _groups(parts: Sequence[Part], rule: str) -> Iterable[Sequence[Part]]:
    if rule == SUFFIX:
        return [parts] if parts else []
    found: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        found[part.name.key].append(part)
    return found.values()


def _samples(parts: Sequence[Part], rule: str) -> Iterator[Sample]:
    stem = parts[0].name.stem
    if all(part.name.stem == stem for part in parts):  # nearly always: no name has a dot too many
        yield from _told_apart(parts[0].name.key if rule == FIRST_DOT else stem, parts, None)
        return
    group = _Group(parts, rule)
    one = rule == FIRST_DOT and len(group.owned) == 1
    for stem, owned in group.owned.items():
        key = parts[0].name.key if one else min((stem, *_texts(owned)), key=len)
        shared = group.shared.get(stem) if not any(part.is_text for part in owned) else None
        yield from _told_apart(key, sorted(owned, key=lambda part: part.place), shared)


def _texts(owned: Iterable[Part]) -> list[str]:
    return [part.name.stem for part in owned if part.is_text]


def _told_apart(key: str, parts: Sequence[Part], problem: tuple[str, str] | None) -> Iterator[Sample]:
    """One sample, and those that repeat names of it in another place of the shard."""
    whole, *others = [Sample(key, run, problem=problem) for run in _runs(parts)]
    names = {part.name for part in whole.parts}
    repeated = []
    for other in others:
        if names.isdisjoint(part.name for part in other.parts):
            whole.parts += other.parts
            names |= {part.name for part in other.parts}
        else:
            other.problem = ("duplicate_key", f"another sample of its shard has the key {key!r}")
            repeated.append(other)
    whole.problem = whole.problem or _problem(whole)
    yield from (whole, *repeated)


def _runs(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts in stretches of neighbours."""
    runs: list[list[Part]] = []
    for part in parts:
        if runs and runs[-1][-1].place + 1 == part.place:
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _problem(sample: Sample) -> tuple[str, str] | None:
    seen: set[Name] = set()
    for part in sample.parts:
        if isinstance(part.member, Refused):
            return part.member.reason, part.member.detail
        if part.name in seen:
            return "duplicate_member", f"{part.member.name} is there twice"
        seen.add(part.name)
    return None


def _shorter(stem: str) -> Iterator[str]:
    """A name, and what is left of it before each of its dots, the longest first."""
    folder, slash, base = stem.rpartition("/")
    while base:
        yield f"{folder}{slash}{base}"
        base = base.rpartition(".")[0]


def _by_shorter_names(stems: Iterable[str]) -> dict[str, list[str]]:
    """Every name that a stem has before one of its dots → the stems that have it."""
    found: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        for name in list(_shorter(stem))[1:]:
            found[name].append(stem)
    return found


def _shortest(stem: str, names: Iterable[str]) -> str:
    return next(name for name in reversed(list(_shorter(stem))) if name in names)
