"""Every error that scgraft raises on purpose: one class for each thing that a user can fix.

::

    ScgraftError
    |-- HubError                 the repository could not be fetched
    |   |-- RepositoryNotFound   no such repository, or private and no access
    |   |-- GatedRepository      access must be requested first
    |   |-- RevisionNotFound     no such branch, tag or commit
    |   |-- InvalidToken         the token was refused
    |   |-- NoWriteAccess        the token may read the repository, but not write to it
    |   |-- CommitConflict       somebody else committed in the meantime
    |   |-- HubUnreachable       no network (or offline mode) and not in the cache
    |   `-- IncompleteRepository a needed file is missing
    |-- UnsafeFile               the file holds something that would run code
    |-- CorruptFile              cut, changed, or not the format that it claims to be
    |-- MovedFile                a file that was there when the reference was loaded is gone
    |-- UnsupportedModel         a model class or option that scgraft does not know
    |-- QueryError               the query cannot be used as it is
    |   |-- NotCounts            no raw counts found, and none recoverable
    |   |-- GenesNotFound        too few of the reference's genes
    |   |-- AmbiguousGenes       several genes answer to one name
    |   |-- CovariateMissing     a column that the reference needs is absent
    |   |-- BatchColumn          the batch column is absent or has missing values
    |   `-- EmptyCells           cells without any count
    |-- UnknownBatch             a batch that neither the reference nor the graft knows
    |-- NoLabels                 nothing to transfer labels from
    |-- FitDiverged              the loss became NaN
    |-- GraftError               a saved graft cannot be used
    |   |-- BaseMismatch         made for another reference
    |   |-- CorruptGraft         cut or changed
    |   |-- UnpublishedBase      its reference is a local folder, which nobody else has
    |   `-- FormatTooNew         written by a newer scgraft
    |-- BatchClash               two grafts name the same batch
    |-- HoldsCounts              raw counts would be uploaded without having been asked for
    |-- OutputExists             the output is there already
    |-- ClusterError             the workers of a cluster cannot be used, or went away
    `-- CannotWrite              the disk is full, or the place may not be written to
"""

from __future__ import annotations


class ScgraftError(Exception):
    """Base of every error that scgraft raises on purpose."""


class HubError(ScgraftError):
    """The repository could not be fetched."""


class RepositoryNotFound(HubError):
    """There is no such repository, or it is private and the token gives no access."""


class GatedRepository(HubError):
    """The repository asks for an agreement before it can be downloaded."""


class RevisionNotFound(HubError):
    """The repository has no such branch, tag or commit."""


class InvalidToken(HubError):
    """The access token was refused."""


class NoWriteAccess(HubError):
    """The token may not write to the repository, or not create it."""


class CommitConflict(HubError):
    """Somebody else committed to the repository in the meantime; nothing was overwritten."""


class HubUnreachable(HubError):
    """There is no network (or offline mode is on), and the files are not in the cache."""


class IncompleteRepository(HubError):
    """A file that every scvi-hub repository needs is missing."""


class UnsafeFile(ScgraftError):
    """The file refers to something that is not on the allow-list; nothing of it was executed."""


class CorruptFile(ScgraftError):
    """The file is cut, was changed, or is not of the format that it claims to be."""


class MovedFile(ScgraftError):
    """A file that a value reads when it is needed is no longer where it was when the value was loaded."""


class UnsupportedModel(ScgraftError):
    """The model class, or one of its options, is not supported."""


class BadOption(ScgraftError, ValueError):
    """An option has a value that it cannot have."""


class MissingExtra(ScgraftError, ImportError):
    """A part of scgraft needs a library that is not installed; the message says which extra brings it."""


class QueryError(ScgraftError):
    """The query cannot be used as it is."""


class NotCounts(QueryError):
    """No raw counts were found in the query, and none can be recovered."""


class GenesNotFound(QueryError):
    """Too few of the reference's genes were found in the query."""


class AmbiguousGenes(QueryError):
    """Several genes of the query or the reference answer to one name."""


class CovariateMissing(QueryError):
    """The query lacks a column that the reference model needs."""


class BatchColumn(QueryError):
    """The batch column is absent or has missing values."""


class EmptyCells(QueryError):
    """Some cells have no count in any gene of the reference."""


class UnknownBatch(ScgraftError):
    """A batch, or level of a covariate, that neither the reference nor the graft knows."""


class NoLabels(ScgraftError):
    """The reference holds nothing that labels could be transferred from."""


class FitDiverged(ScgraftError):
    """The loss became NaN; `graft` holds the last finite state."""

    def __init__(self, message: str, graft: object = None) -> None:
        super().__init__(message)
        self.graft = graft


class GraftError(ScgraftError):
    """A saved graft cannot be used."""


class BaseMismatch(GraftError):
    """The graft was made for another reference."""


class CorruptGraft(GraftError):
    """The saved graft is cut or was changed."""


class FormatTooNew(GraftError):
    """The file was written by a newer version of scgraft."""


class UnpublishedBase(GraftError):
    """The graft's reference is a local folder: nobody else could find it."""


class HoldsCounts(ScgraftError):
    """The files hold raw counts, and their upload was not asked for."""


class BatchClash(ScgraftError):
    """Two grafts give the same name to different batches."""


class OutputExists(ScgraftError):
    """The output is there already and would be overwritten."""


class CannotWrite(ScgraftError):
    """The output could not be written: a full disk, or a place that may not be written to. Nothing that was there is lost."""


class ClusterError(ScgraftError):
    """The scheduler or the workers of a cluster cannot be used, or went away."""
