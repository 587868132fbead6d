"""When each word of a text is spoken: pointers from words to frames, on top of a frozen encoder and language model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from training.models.common.ctc import ctc_loss
from training.models.ctc.model import TransformerBlock, TransformerCtcConfig, sinusoids

KERNEL = 9
"""Kernel of a convolution in frames: 180 ms at 50 frames a second, about two phones."""


@dataclass(frozen=True)
class AlignerOutput:
    """Logits of the pointers ``[batch, words, frames]``, -inf on frames of padding, and of the characters
    ``[batch, frames, characters + 1]``, blank at 0."""

    start_logits: torch.Tensor
    end_logits: torch.Tensor
    ctc_logits: torch.Tensor


class WordAligner(nn.Module):
    """Points from every word to the frames in which it starts and ends (Vinyals et al., 2015: pointer networks).

    Frames go through convolutions and self-attention, words through self-attention and cross-attention to the
    frames; a pointer is a scaled dot product of the two. The place of a word in the text indicates its place in
    the clip: a learned term of the distance between the two is added to every logit. The output of a row depends on
    that row only. All parameters belong to stock layers, so that a model that loads itself onto the meta device can
    initialise them.
    """

    def __init__(
        self,
        *,
        frame_width: int,
        word_width: int,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        characters: int,
    ) -> None:
        super().__init__()
        self.frames_in = nn.Sequential(nn.LayerNorm(frame_width), nn.Linear(frame_width, width))
        self.words_in = nn.Sequential(nn.LayerNorm(word_width), nn.Linear(word_width, width))
        self.dropout = nn.Dropout(dropout)
        block = TransformerCtcConfig(
            d_model=width, num_heads=heads, d_ff=4 * width, dropout=dropout, conv_kernel=KERNEL
        )
        self.frame_layers = nn.ModuleList(TransformerBlock(block) for _ in range(layers))
        self.word_layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.frame_norm, self.word_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.keys = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.distance = nn.Linear(2, 2, bias=False)
        self.ctc_head = nn.Linear(width, characters + 1)

    def forward(
        self,
        frames: torch.Tensor,
        frame_lengths: torch.Tensor,
        words: torch.Tensor,
        word_lengths: torch.Tensor,
    ) -> AlignerOutput:
        """Logits of the pointers and of the characters.

        Args:
            frames: encoder states ``[batch, frames, frame_width]``.
            frame_lengths: real frames of each row, int64 ``[batch]``.
            words: states of the language model ``[batch, words, word_width]``.
            word_lengths: words of each row, int64 ``[batch]``.

        Returns:
            See `AlignerOutput`; pointers of padding words have no meaning.
        """
        no_frame = _padding(frame_lengths, frames.shape[1])
        no_word = _padding(word_lengths, words.shape[1])
        frame_states = self._frame_states(frames, no_frame)
        word_states = self._word_states(words, no_word, frame_states, no_frame)
        pointers = self._pointers(word_states, frame_states) + self._from_distance(
            words.shape[1], word_lengths, frames.shape[1], frame_lengths
        )
        start, end = pointers.masked_fill(no_frame[:, None, :], -math.inf)
        return AlignerOutput(start, end, self.ctc_head(frame_states))

    def _frame_states(self, frames: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        states = self._placed(self.frames_in, frames)
        for layer in self.frame_layers:
            states = layer(states, padding)
        return self.frame_norm(states)

    def _word_states(
        self, words: torch.Tensor, padding: torch.Tensor, frame_states: torch.Tensor, no_frame: torch.Tensor
    ) -> torch.Tensor:
        states = self._placed(self.words_in, words)
        for layer in self.word_layers:
            states = layer(
                states, frame_states, tgt_key_padding_mask=padding, memory_key_padding_mask=no_frame
            )
        return self.word_norm(states)

    def _placed(self, project: nn.Module, states: torch.Tensor) -> torch.Tensor:
        """States in the aligner's type and width, with their positions. The frozen parts may be of another type."""
        states = project(states.to(self.ctc_head.weight.dtype))
        return self.dropout(states + sinusoids(*states.shape[1:]).to(states))

    def _pointers(self, words: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Logits ``[2, batch, words, frames]`` of starts and ends."""
        queries, keys = (
            layer(states).unflatten(-1, (2, -1)).permute(2, 0, 1, 3)
            for layer, states in ((self.queries, words), (self.keys, frames))
        )
        return queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])

    def _from_distance(
        self, words: int, word_lengths: torch.Tensor, frames: int, frame_lengths: torch.Tensor
    ) -> torch.Tensor:
        """The term of the logits ``[2, batch, words, frames]`` from a word's place in the text and a frame's place in the clip."""
        distance = _progress(words, word_lengths)[:, :, None] - _progress(frames, frame_lengths)[:, None, :]
        features = torch.stack((distance.abs(), distance.square()), dim=-1)
        return self.distance(features.to(self.distance.weight.dtype)).movedim(-1, 0)


def _padding(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """True on padding, ``[batch, size]``; never in a whole row, because attention over no place is not defined."""
    return torch.arange(size, device=lengths.device) >= lengths.clamp(min=1)[:, None]


def _progress(size: int, lengths: torch.Tensor) -> torch.Tensor:
    """The relative position of each place in its row, 0 to 1: ``[batch, size]``."""
    return (torch.arange(size, device=lengths.device) + 0.5) / lengths.clamp(min=1)[:, None]


def alignment_loss(
    output: AlignerOutput,
    starts: torch.Tensor,
    ends: torch.Tensor,
    frame_lengths: torch.Tensor,
    word_lengths: torch.Tensor,
    *,
    frame_seconds: float,
    ctc_labels: torch.Tensor | None = None,
    alignment_weight: float = 1.0,
    ctc_weight: float = 0.3,
    sharpness: float = 1.0,
) -> torch.Tensor:
    """The sum over all words of the cross entropies of both pointers, and of CTC over the utterances.

    starts and ends: seconds ``[batch, words]``, whatever stands in words of padding; ctc_labels ``[batch, length]``
    as `ctc_loss` takes them. A start is the beginning of a frame, an end the end of one (see `word_times`).
    sharpness: share of a target that stands on the frames beside its time, see `soft_targets`.
    """
    loss = ctc_weight * _characters(output, frame_lengths, ctc_labels)
    known = torch.arange(starts.shape[1], device=starts.device) < word_lengths[:, None]
    pairs = ((output.start_logits, starts / frame_seconds), (output.end_logits, ends / frame_seconds - 1))
    for logits, positions in pairs:
        targets = soft_targets(positions, frame_lengths, logits.shape[-1], sharpness)
        # Padding has log-probability -inf, and no target stands on it.
        log_probs = logits.float().log_softmax(dim=-1).masked_fill(logits.isinf(), 0.0)
        loss = loss - alignment_weight * (targets * log_probs)[known].sum()
    return loss


def _characters(
    output: AlignerOutput, frame_lengths: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    if labels is None:
        return output.ctc_logits.float().sum() * 0.0
    return ctc_loss(output.ctc_logits, frame_lengths, labels)


def soft_targets(
    positions: torch.Tensor, lengths: torch.Tensor, frames: int, sharpness: float = 1.0
) -> torch.Tensor:
    """Distributions ``[batch, words, frames]`` over frames whose means are the positions ``[batch, words]``.

    A time between two frames is shared by them as linear interpolation would. ``1 - sharpness`` is taken off
    and given to the frames one step before and one after, half to each. Positions outside the clip count as
    its first or last frame.
    """
    last = (lengths - 1).clamp(min=0)[:, None]
    grid = torch.arange(frames, device=positions.device)

    def share(shift: int) -> torch.Tensor:
        position = (positions + shift).clamp(min=0).minimum(last)
        return (1 - (grid - position[..., None]).abs()).clamp(min=0)

    if sharpness == 1.0:
        return share(0)
    return sharpness * share(0) + (1 - sharpness) / 2 * (share(-1) + share(1))
