"""What Bacula's catalog has of the layouts of a run's files.

Covers: what `forebay show --restore-object` prints.
Does not cover: the object's form (bacula_bridge.restore_object), restoring layouts (the plugin).
"""

from __future__ import annotations

from bacula_bridge import restore_object
from bacula_bridge.restore_object import RestoreObject
from cluster.bacula import known_catalog
from cluster.records import RunRecord
from cluster.settings import Settings
from filesystems.cephfs import layout as ceph
from filesystems.lustre import layout as lustre

_DESCRIBE = {"ceph": ceph.describe, "lustre": lustre.describe}


def restore_objects(settings: Settings, record: RunRecord) -> dict[str, object]:
    """Return the restore objects of a run's jobs; one that saved no layout has none.

    Raises CatalogUnavailable, RestoreObjectDamaged.
    """
    catalog = known_catalog(settings)
    jobs = [
        {
            "shard": job.shard,
            "jobid": job.jobid,
            "objects": [
                _json(restore_object.parse(job.jobid, text))
                for text in catalog.restore_objects(job.jobid, restore_object.NAME)
            ],
        }
        for job in record.jobs
    ]
    return {"run": record.run.number, "dataset": record.run.dataset, "jobs": jobs}


def _json(found: RestoreObject) -> dict[str, object]:
    return {
        "filesystem": found.filesystem,
        "identity": found.identity or None,
        "directories": found.directories,
        "layouts": [
            {
                "files": each.files,
                "bytes": each.bytes,
                "layout": _DESCRIBE[found.filesystem](each.layout),
            }
            for each in found.layouts
        ],
        "others": {"files": found.other_files, "bytes": found.other_bytes},
    }
