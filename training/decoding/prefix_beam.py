"""CTC prefix beam search (Graves et al., 2006; Hannun et al., 2014) with scores for finished words.

A prefix is a node of a tree, so that two paths that spell the same meet in one node, and what words cost there is
computed once. Without pruning the search is exact: it sums over all paths of every label sequence.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from training.decoding.ctc_vocabulary import CtcVocabulary

NEVER = -math.inf


class WordScorer(Protocol):
    """Scores of words that are added to the log probability of the frames. ``state`` is the scorer's own and hashable-free."""

    @property
    def start(self) -> Any:
        """The state before the first word."""

    def word(self, state: Any, word: str) -> tuple[float, Any]:
        """Score of a finished word, and the state after it."""

    def pending(self, state: Any, partial: str) -> float:
        """The score of an unfinished word during the search; it is not part of the final score."""

    def end(self, state: Any) -> float:
        """Score of the sentence ending here."""


@dataclass(frozen=True)
class Pruning:
    """Limits of the search. ``Pruning.none(width)`` is exact where ``width`` is large enough.

    width: prefixes kept from frame to frame. gap: a prefix this far (natural log) below the best is dropped.
    floor: an id of a lower log probability is not tried in a frame.
    """

    width: int = 10
    gap: float = 14.0
    floor: float = -9.0

    @classmethod
    def none(cls, width: int) -> Pruning:
        """All that fits into ``width``."""
        return cls(width, math.inf, NEVER)


@dataclass(frozen=True)
class Beam:
    """A label sequence: ``frames`` is log p(ids | sound), ``score`` that and what its words add."""

    ids: tuple[int, ...]
    frames: float
    score: float


@dataclass(eq=False)
class _Node:
    """A prefix. ``given``: score of its finished words; ``pending``: of the unfinished one, for pruning only."""

    parent: _Node | None
    token: int
    partial: str
    state: Any
    given: float
    pending: float
    children: dict[int, _Node] = field(default_factory=dict)

    def ids(self) -> tuple[int, ...]:
        """From the first label to this one."""
        found, node = [], self
        while node.parent is not None:
            found.append(node.token)
            node = node.parent
        return tuple(reversed(found))


def prefix_beam_search(
    log_probs: np.ndarray, vocabulary: CtcVocabulary, pruning: Pruning, scorer: WordScorer | None = None
) -> list[Beam]:
    """The best label sequences of float ``[frames, vocabulary]``, best first, at most ``pruning.width``."""
    search = _Search(vocabulary, scorer)
    beams: dict[_Node, tuple[float, float]] = {search.root: (0.0, NEVER)}
    for frame in log_probs:
        tried = np.flatnonzero(frame >= min(pruning.floor, float(frame.max())))
        beams = _kept(_advance(search, beams, tried.tolist(), frame[tried].tolist()), pruning)
    return search.finish(beams, pruning.width)


def _advance(
    search: _Search, beams: dict[_Node, tuple[float, float]], ids: list[int], values: list[float]
) -> dict[_Node, tuple[float, float]]:
    """One frame on: every prefix stays (blank, or its last label again) or grows by a label.

    Values are the log probabilities of all paths to a prefix that end in blank, and in its last label.
    """
    after: dict[_Node, tuple[float, float]] = {}
    blank = search.vocabulary.blank
    for node, (silent, voiced) in beams.items():
        total = _add(silent, voiced)
        for i, value in zip(ids, values, strict=True):
            if i == blank:
                old = after.get(node, (NEVER, NEVER))
                after[node] = (_add(old[0], total + value), old[1])
                continue
            if i == node.token:
                old = after.get(node, (NEVER, NEVER))
                after[node] = (old[0], _add(old[1], voiced + value))
                reached = silent + value  # the same label anew: only after a blank
                if reached == NEVER:
                    continue
            else:
                reached = total + value
            child = node.children.get(i) or search.child(node, i)
            old = after.get(child, (NEVER, NEVER))
            after[child] = (old[0], _add(old[1], reached))
    return after


def _kept(beams: dict[_Node, tuple[float, float]], pruning: Pruning) -> dict[_Node, tuple[float, float]]:
    ranked = [
        (_add(*values) + node.given + node.pending, n, node) for n, (node, values) in enumerate(beams.items())
    ]
    best = heapq.nlargest(pruning.width, ranked)  # ties: the number decides, never the node
    return {node: beams[node] for score, _, node in best if score >= best[0][0] - pruning.gap}


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))"""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))


class _Search:
    """The tree of prefixes and what their words cost."""

    def __init__(self, vocabulary: CtcVocabulary, scorer: WordScorer | None) -> None:
        self.vocabulary, self.scorer = vocabulary, scorer
        self.letters, self.begins_word = vocabulary.letters, vocabulary.begins_word
        self.root = _Node(None, -1, "", scorer.start if scorer else None, 0.0, 0.0)

    def child(self, node: _Node, token: int) -> _Node:
        """The prefix one label longer; the word before it is scored where the label ends it."""
        if self.scorer is None:
            made = _Node(node, token, "", None, 0.0, 0.0)
        else:
            made = self._scored(node, token, self.scorer)
        node.children[token] = made
        return made

    def _scored(self, node: _Node, token: int, scorer: WordScorer) -> _Node:
        partial, state, given = node.partial, node.state, node.given
        if self.begins_word[token] and partial:
            value, state = scorer.word(state, partial)
            given, partial = given + value, ""
        partial += self.letters[token]
        return _Node(node, token, partial, state, given, scorer.pending(state, partial))

    def finish(self, beams: dict[_Node, tuple[float, float]], width: int) -> list[Beam]:
        """The prefixes with their last word and the end of the sentence scored, best first."""
        found = []
        for node, values in beams.items():
            frames = _add(*values)
            if frames > NEVER:
                found.append(Beam(node.ids(), frames, frames + node.given + self._end(node)))
        return sorted(found, key=lambda beam: (-beam.score, beam.ids))[:width]

    def _end(self, node: _Node) -> float:
        if self.scorer is None:
            return 0.0
        value, state = self.scorer.word(node.state, node.partial) if node.partial else (0.0, node.state)
        return value + self.scorer.end(state)
