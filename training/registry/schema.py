"""The tables. Content decides what is the same: recordings and transcripts are unique by SHA-256.

Hashes are hexadecimal. Unbounded texts have no index (MySQL cannot index them); where one must be found by its
value, a hash of it stands beside it.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

HASH = String(64)


class Base(DeclarativeBase):
    """Names for every constraint, so that a migration can find it again on any database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double()}


class AudioFile(Base):
    """A recording, by content. ``path`` is null once the file that lay there holds something else."""

    __tablename__ = "audio_files"
    id: Mapped[int] = mapped_column(primary_key=True)
    content_hash: Mapped[str] = mapped_column(HASH, unique=True)
    path: Mapped[str | None] = mapped_column(Text)
    path_key: Mapped[str | None] = mapped_column(HASH, index=True)
    converted_path: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    sample_rate: Mapped[int]
    channels: Mapped[int]
    frames: Mapped[int] = mapped_column(BigInteger)
    duration: Mapped[float]
    added_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: now())


class Transcript(Base):
    """The transcript of a recording, or of the stretch from ``start_s`` to ``end_s`` of it, and its acoustic properties."""

    __tablename__ = "transcripts"
    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(HASH, unique=True)
    audio_id: Mapped[int] = mapped_column(ForeignKey("audio_files.id"), index=True)
    start_s: Mapped[float | None]
    end_s: Mapped[float | None]
    duration: Mapped[float]
    text: Mapped[str] = mapped_column(Text)
    translation: Mapped[str | None] = mapped_column(Text)
    language: Mapped[str | None] = mapped_column(Text)
    target_language: Mapped[str | None] = mapped_column(Text)
    domain: Mapped[str | None] = mapped_column(Text)
    speaker: Mapped[str | None] = mapped_column(Text)
    recording_group: Mapped[str | None] = mapped_column(Text)
    words: Mapped[str | None] = mapped_column(Text)
    word_languages: Mapped[str | None] = mapped_column(Text)
    extra: Mapped[str | None] = mapped_column(Text)
    peak_db: Mapped[float | None]
    rms_db: Mapped[float | None]
    clipped_share: Mapped[float | None]
    silent_share: Mapped[float | None]
    added_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: now())


class DatasetVersion(Base):
    """A frozen choice of transcripts with their splits. It is written whole, in one transaction, and never changed."""

    __tablename__ = "dataset_versions"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    fingerprint: Mapped[str] = mapped_column(HASH, index=True)
    source: Mapped[str] = mapped_column(Text)
    source_hash: Mapped[str] = mapped_column(HASH)
    options: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: now())


class VersionItem(Base):
    """One utterance of a version: its name there, its split, its place in the order of the rows."""

    __tablename__ = "version_items"
    version_id: Mapped[int] = mapped_column(ForeignKey("dataset_versions.id"), primary_key=True)
    transcript_id: Mapped[int] = mapped_column(ForeignKey("transcripts.id"), primary_key=True)
    utterance: Mapped[str] = mapped_column(Text)
    split: Mapped[str] = mapped_column(String(16))
    position: Mapped[int]
    __table_args__ = (Index("ix_version_items_version_id_split", "version_id", "split"),)


class Run(Base):
    """A training run, by its folder."""

    __tablename__ = "runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    folder_key: Mapped[str] = mapped_column(HASH, unique=True)
    folder: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    version_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_versions.id"))
    config: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    results: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: now())
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class EpochMetric(Base):
    """One logged figure of a run (``loss``, ``eval_loss``, ``eval_wer``, …)."""

    __tablename__ = "epoch_metrics"
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    epoch: Mapped[float | None]
    value: Mapped[float]


class Prediction(Base):
    """The prediction of a run's model for one utterance. ``key`` hashes split, task and utterance."""

    __tablename__ = "predictions"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    key: Mapped[str] = mapped_column(HASH)
    transcript_id: Mapped[int | None] = mapped_column(ForeignKey("transcripts.id"))
    utterance: Mapped[str] = mapped_column(Text)
    split: Mapped[str] = mapped_column(String(16))
    task: Mapped[str] = mapped_column(String(32))
    reference: Mapped[str | None] = mapped_column(Text)
    hypothesis: Mapped[str] = mapped_column(Text)
    confidence: Mapped[float | None]
    __table_args__ = (UniqueConstraint("run_id", "key"),)


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def hash_of(*parts: str) -> str:
    """SHA-256 of texts, kept apart from each other."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
