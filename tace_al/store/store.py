"""The Store: everything a campaign knows, through verbs.

The verbs are those of the small classes next door (`Structures`, `Labels`, `Candidates`, ...),
bound here under one roof; their docstrings are there, and `help(store.add_label)` shows them.

The campaign process is the only writer of most records; claims and moves are atomic for any number
of processes. `status`, `report` and others may read at any time.
"""

import errno
import json
import logging
import os
import re
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import final

from tace_al.core.errors import StorageFull, StoreError
from tace_al.store.border import guarded
from tace_al.store.campaigns import Campaigns
from tace_al.store.candidates import Candidates
from tace_al.store.chunks import Chunks
from tace_al.store.connection import PATIENCE_S, URI_VARIABLE, Connection, connect, masked
from tace_al.store.damage import Damage
from tace_al.store.labels import Labels
from tace_al.store.lineage import Lineages
from tace_al.store.models import Models
from tace_al.store.records import RECORDS, CampaignRecord
from tace_al.store.structures import Structures
from tace_al.store.table import Table

CAMPAIGN_FILE = "campaign.json"
_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@final
class Store:
    """The records of one campaign; open it with `Store.open`, close it or use `with`.

    Parameters
    ----------
    connection
        The database.
    campaign
        Identifier of the campaign.
    directory
        The campaign's directory.
    """

    def __init__(self, connection: Connection, campaign: str, directory: Path) -> None:
        self.connection = connection
        self.campaign_id = campaign
        self.directory = directory
        campaigns = Campaigns(connection, campaign)
        self.start_campaign = campaigns.start
        self.campaign = campaigns.record
        self.finish_campaign = campaigns.finish
        self.log = campaigns.log
        self.events = campaigns.events
        self.counts = campaigns.counts
        structures = Structures(connection, campaign)
        self.add_structure = structures.add
        self.structure = structures.frame
        self.structures = structures.frames
        self.structure_record = structures.record
        labels = Labels(connection, campaign)
        self.add_fidelity = labels.add_fidelity
        self.fidelities = labels.fidelities
        self.add_label = labels.add
        self.add_failure = labels.add_failure
        self.has_label = labels.has
        self.labels = labels.records
        self.labels_of_structure = labels.of_structure
        self.label_arrays = labels.arrays
        self.labelled_frames = labels.frames
        candidates = Candidates(connection, campaign)
        self.add_candidate = candidates.add
        self.move_candidate = candidates.move
        self.claim_candidates = candidates.claim
        self.heartbeat = candidates.heartbeat
        self.release_stale = candidates.release_stale
        self.candidates = candidates.records
        self.candidate = candidates.record
        self.prediction = candidates.prediction
        models = Models(connection, campaign, directory)
        self.add_training_set = models.add_training_set
        self.training_set = models.training_set
        self.add_model = models.add
        self.models = models.models
        self.model = models.model
        self.add_generation = models.add_generation
        self.move_generation = models.move_generation
        self.update_generation = models.update_generation
        self.generation = models.generation
        self.generations = models.generations
        self.serving = models.serving
        chunks = Chunks(connection, campaign)
        self.add_chunk = chunks.add
        self.move_chunk = chunks.move
        self.chunks = chunks.records
        self.chunk = chunks.record
        lineages = Lineages(connection, campaign)
        self.lineage = lineages.lineage
        self.lineage_of_file = lineages.of_file

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        uri: str | None = None,
        campaign: str | None = None,
        create: bool = True,
        patience_s: float = PATIENCE_S,
    ) -> "Store":
        """Open the Store of a campaign directory.

        Parameters
        ----------
        directory
            The campaign's directory; `campaign.json` in it says which campaign and database it is.
        uri
            MongoDB server, or `@FILE` with its address; TACE_AL_MONGO_URI, what `campaign.json`
            says, or the embedded database when None.
        campaign
            Identifier for a new campaign; made up when None.
        create
            Make the directory a campaign if it is none.
        patience_s
            How long a verb waits for a MongoDB server that stopped answering, in seconds.

        Raises
        ------
        StoreError
            The directory is no campaign (`create=False`) or another one.
        DatabaseUnreachable
            No database answers.
        """
        directory = Path(directory).resolve()
        known = _read_campaign_file(directory)
        if known is None and not create:
            raise StoreError(
                f"{directory} holds no campaign ({CAMPAIGN_FILE} is missing); give the directory "
                "that `tace-al run` printed"
            )
        uri = uri or os.environ.get(URI_VARIABLE) or _known_uri(directory, known)
        if uri is not None and uri.startswith("@"):
            uri = f"@{Path(uri[1:]).expanduser().resolve()}"
        connection = connect(directory, uri, patience_s=patience_s)
        try:
            if known is None:
                known = _write_campaign_file(directory, _identifier(directory, campaign), uri)
            identifier = known["campaign"]
            if campaign is not None and campaign != identifier:
                raise StoreError(
                    f"{directory} holds campaign {identifier!r}, not {campaign!r}; choose another "
                    "directory"
                )
            store = cls(connection, identifier, directory)
            store.create_indexes()
            store._check_home(known["uri"])
            store._warn_of_damage()
        except BaseException:
            connection.close()
            raise
        return store

    @guarded
    def create_indexes(self) -> None:
        """Make the indexes of every record class."""
        for record in RECORDS:
            Table(record, self.connection, self.campaign_id).create_indexes()

    @guarded
    def _check_home(self, home: str) -> None:
        """Raise when the campaign was started in another database than this one."""
        here = masked(self.connection.uri) if self.connection.uri else ""
        if here and home.startswith("@"):
            return
        records = Table(CampaignRecord, self.connection, self.campaign_id).objects
        if here != home and not records.count():
            raise StoreError(
                f"the campaign in {self.directory} lives in "
                f"{home or 'its embedded database'}, not in {self.connection.description}; "
                f"{'name that by' if home else 'leave out'} --db and {URI_VARIABLE}"
            )

    def _warn_of_damage(self) -> None:
        """Say so when documents have changed on the disk."""
        if damaged := Damage(self.connection).documents():
            _log.warning(
                "%s has damaged documents (%d); `tace-al db check %s` names them",
                self.connection.description,
                len(damaged),
                self.directory,
            )

    def close(self) -> None:
        """Leave the database."""
        self.connection.close()

    def __enter__(self) -> "Store":
        """Return the Store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def _identifier(directory: Path, campaign: str | None) -> str:
    """Return a new campaign's identifier: the wanted one, or the folder's name and a number."""
    if campaign is not None:
        if not _NAME.fullmatch(campaign):
            raise StoreError(
                f"{campaign!r} is no campaign identifier; use up to 64 letters, digits, '.', '_' "
                "and '-', a letter or digit first"
            )
        return campaign
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", directory.name).lstrip("._-")[:48] or "campaign"
    return f"{stem}-{uuid.uuid4().hex[:12]}"


def _read_campaign_file(directory: Path) -> dict[str, str] | None:
    """Return what `campaign.json` says, None without one."""
    path = directory / CAMPAIGN_FILE
    try:
        content = json.loads(path.read_bytes())
        return {"campaign": str(content["campaign"]), "uri": str(content.get("uri") or "")}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}); restore it, or start a campaign in another directory"
        ) from error


def _write_campaign_file(directory: Path, campaign: str, uri: str | None) -> dict[str, str]:
    """Publish the identifier; whoever is first wins, and everybody gets the winner's."""
    content = json.dumps({"campaign": campaign, "uri": masked(uri) if uri else ""})
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_new(directory / CAMPAIGN_FILE, content)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no room left to write {directory / CAMPAIGN_FILE}; free some space and run the "
                "same command again, nothing was lost"
            ) from error
        raise StoreError(
            f"{directory / CAMPAIGN_FILE} cannot be written ({error.strerror}); choose a campaign "
            "directory that you may write to"
        ) from error
    known = _read_campaign_file(directory)
    assert known is not None
    return known


def _write_new(path: Path, content: str) -> None:
    """Write a file that must not exist yet, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _known_uri(directory: Path, known: dict[str, str] | None) -> str | None:
    """Return the server that a campaign was started on."""
    if known is None or not known["uri"]:
        return None
    if "***" in known["uri"]:
        raise StoreError(
            f"the campaign in {directory} lives at {known['uri']}; give the address with its "
            f"password by --db or {URI_VARIABLE}"
        )
    return known["uri"]
