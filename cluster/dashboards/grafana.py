"""Installing the dashboards through Grafana's HTTP API.

Covers: the folder, the dashboards, what Grafana's errors mean. Calls by uid only.
Does not cover: data sources and permissions, which are the site's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import (
    GrafanaClientError,
    GrafanaException,
    GrafanaUnauthorizedError,
)
from grafana_api.grafana_face import GrafanaFace

from cluster.dashboards.content import DASHBOARDS
from cluster.dashboards.panels import dashboard_json
from cluster.site_config import GrafanaTable, read_secret
from shards.errors import ForebayError

FOLDER_UID = "forebay"
TIMEOUT_S = 20.0
WORDS_MAX = 300  # of what Grafana says
FORBIDDEN, NOT_FOUND = 403, 404


class GrafanaRefused(ForebayError):
    """Grafana does not take the token: (URL, token file, what it said)."""

    template = (
        "Grafana at {0} refuses the token in {1} ({2}); make one for a service account with the"
        " role Editor"
    )


class GrafanaFailed(ForebayError):
    """Grafana did not do it: (URL, why)."""

    template = (
        "Grafana at {0} did not take the dashboards: {1}; `forebay dashboards write DIR` makes"
        " files for its provisioning instead"
    )


def install(table: GrafanaTable) -> list[dict[str, str]]:
    """Make the folder and the dashboards, or bring them up to date; return uid, title and URL."""
    url = urlsplit(table.url)
    prefix = f"{url.path.strip('/')}/" if url.path.strip("/") else ""
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    token = read_secret(table.token_file)
    with _sentences(table, token):
        api = GrafanaFace(token, host, url.port, prefix, url.scheme, timeout=TIMEOUT_S)
        _make_folder(api, table.folder)
        installed = []
        for dashboard in DASHBOARDS:
            answer = api.dashboard.update_dashboard(
                {
                    "dashboard": dashboard_json(dashboard),
                    "folderUid": FOLDER_UID,
                    "overwrite": True,
                    "message": "forebay dashboards install",
                }
            )
            place = f"{url.scheme}://{url.netloc}{answer.get('url', '')}"
            installed.append({"uid": dashboard.uid, "title": dashboard.title, "url": place})
    return installed


def _make_folder(api: GrafanaFace, title: str) -> None:
    try:
        folder = api.folder.get_folder(FOLDER_UID)
    except GrafanaClientError as error:
        if error.status_code != NOT_FOUND:
            raise
        api.folder.create_folder(title, FOLDER_UID)
        return
    if folder.get("title") != title:
        api.folder.update_folder(FOLDER_UID, title, overwrite=True)


@contextmanager
def _sentences(table: GrafanaTable, token: str) -> Iterator[None]:
    try:
        yield
    except GrafanaException as error:
        # A server, or a proxy before it, may answer with what it was asked.
        said = " ".join(str(error.message).replace(token, "***").split())[:WORDS_MAX]
        if isinstance(error, GrafanaUnauthorizedError) or error.status_code == FORBIDDEN:
            refusal = GrafanaRefused(table.url, str(table.token_file), said)
            raise refusal from None
        raise GrafanaFailed(table.url, said) from None
    except (requests.ConnectionError, requests.Timeout) as error:
        reason = f"it does not answer within {TIMEOUT_S:.0f} s, or cannot be reached"
        raise GrafanaFailed(table.url, reason) from error
    except (requests.RequestException, ValueError, TypeError, AttributeError) as error:
        # The library reads answers as JSON, whatever they are.
        raise GrafanaFailed(table.url, "it gave an answer that is not Grafana's") from error
