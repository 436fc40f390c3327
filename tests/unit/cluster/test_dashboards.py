"""Dashboards and rules: Grafana's models take them, they speak of metrics that there are, they
are installed and written as files."""

import json
import re
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as DashboardModel
from typer.testing import CliRunner

from cluster.cli import app
from cluster.dashboards import grafana
from cluster.dashboards.alerts import ALERTS, rules
from cluster.dashboards.content import DASHBOARDS
from cluster.dashboards.files import FilesNotWritten, write_dashboards, write_prometheus
from cluster.dashboards.grafana import GrafanaFailed, GrafanaRefused, install
from cluster.dashboards.panels import COLUMNS, dashboard_json
from cluster.site_config import GrafanaTable, RayTable
from shards.measures import Kind
from shards.metric_catalogue import METRICS
from tests.support.grafana.server import TOKEN, running_grafana

DOCS = Path(__file__).parents[3] / "docs" / "operate"
# Of Grafana's units, those that are used; anything else is probably a mistake.
UNITS = {"short", "s", "ops", "Bps", "bytes", "percentunit", "bool_yes_no"}
register_default_plugins()

each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda d: d.uid)


def expressions():
    panels = [panel for dashboard in DASHBOARDS for panel in dashboard.panels]
    return [q.expression for panel in panels for q in panel.queries] + [a.value for a in ALERTS]


def named_metrics(expression):
    return {name.removeprefix("ray_") for name in re.findall(r"ray_forebay_\w+", expression)}


@each_dashboard
def test_grafanas_models_take_a_dashboard_as_it_is(dashboard):
    given = dashboard_json(dashboard)
    model = DashboardModel.from_json(json.loads(json.dumps(given)))
    assert (model.uid, model.title) == (dashboard.uid, dashboard.title)
    kept = json.loads(json.dumps(model, cls=JSONEncoder))
    assert kept["schemaVersion"] == given["schemaVersion"]
    for before, after in zip(given["panels"], kept["panels"], strict=True):
        for key in ("id", "type", "title", "gridPos", "datasource"):
            assert after[key] == before[key]
        assert after["fieldConfig"]["defaults"]["unit"] in UNITS
        assert after["fieldConfig"]["defaults"] == before["fieldConfig"]["defaults"]
        assert after["options"].keys() >= before["options"].keys()
        queries = [(target["refId"], target["expr"]) for target in after["targets"]]
        assert queries == [(target["refId"], target["expr"]) for target in before["targets"]]
    names = [variable["name"] for variable in kept["templating"]["list"]]
    assert names == ["datasource", "dataset"]


@each_dashboard
def test_panels_fill_rows_and_never_overlap(dashboard):
    taken = set()
    for panel in dashboard_json(dashboard)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_uids_are_for_ever():
    assert [dashboard.uid for dashboard in DASHBOARDS] == [
        *("forebay-overview", "forebay-scan", "forebay-streams"),
        *("forebay-changes", "forebay-capacity"),
    ]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_speaks_of_metrics_and_labels_that_there_are(expression):
    labels = {"le", "Name"}
    for name in named_metrics(expression):
        metric = METRICS[name.removesuffix("_bucket") if name.endswith("_bucket") else name]
        assert (metric.kind is Kind.HISTOGRAM) == name.endswith("_bucket")
        labels.update(metric.labels)
    for listed in re.findall(r"(?:by|on) \(([a-zA-Z, ]+)\)", expression):
        assert set(listed.split(", ")) <= labels, expression
    if "rate(" in expression or "increase(" in expression:
        for name in re.findall(r"(?:rate|increase)\(ray_(forebay_\w+)", expression):
            assert name.endswith(("_total", "_bucket")), "rates are of counters"


def test_every_metric_is_on_a_dashboard_or_in_a_rule():
    shown = {name.removesuffix("_bucket") for text in expressions() for name in named_metrics(text)}
    assert set(METRICS) - shown == set()


def test_rules_have_a_runbook_and_runbooks_a_rule():
    headings = re.findall(r"^## (Forebay\w+)$", (DOCS / "alerts.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(alert.name for alert in ALERTS)
    for rule in rules()["groups"][0]["rules"]:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/operate/alerts.md"
        assert anchor in {heading.lower() for heading in headings}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_the_page_of_metrics_is_the_catalogue():
    rows = [
        f"| `ray_{metric.name}` | {metric.kind} | {metric.unit} |"
        f" {', '.join(metric.labels) or '-'} | {metric.help} |"
        for metric in METRICS.values()
    ]
    text = (DOCS / "metrics.md").read_text()
    written = [line for line in text.splitlines() if line.startswith("| `ray_")]
    assert written == rows, "make docs/operate/metrics.md say:\n" + "\n".join(rows)


def test_the_page_of_dashboards_lists_them():
    text = (DOCS / "dashboards.md").read_text()
    for dashboard in DASHBOARDS:
        assert f"`{dashboard.uid}`" in text
    assert "No Grafana server was part of the tests" in text


# Grafana


@pytest.fixture
def table(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with running_grafana() as server:
        yield GrafanaTable(url=server.url, token_file=token, folder="Backups"), server


def test_dashboards_are_installed_and_installing_again_updates_them(table):
    table, server = table
    installed = install(table)
    assert server.wrong == []
    assert server.folders["forebay"]["title"] == "Backups"
    assert [made["uid"] for made in installed] == [dashboard.uid for dashboard in DASHBOARDS]
    assert installed[0]["url"].startswith(f"{server.url}/d/forebay-overview/")
    assert set(server.dashboards) == {dashboard.uid for dashboard in DASHBOARDS}
    install(table)
    assert {made["version"] for made in server.dashboards.values()} == {2}
    install(table.model_copy(update={"folder": "Forebay"}))
    assert server.folders["forebay"]["title"] == "Forebay"
    assert len(server.folders) == 1
    assert not [path for _, path in server.calls if "/id/" in path]


def test_the_stand_in_refuses_what_the_description_does_not_allow(table, monkeypatch):
    table, server = table
    monkeypatch.setattr(grafana, "dashboard_json", lambda dashboard: {"title": "", "panels": []})
    with pytest.raises(GrafanaFailed, match="did not take the dashboards"):
        install(table)
    assert server.wrong


def test_a_wrong_token_is_refused_and_not_shown(table):
    table, _ = table
    table.token_file.write_text("glsa_wrong")
    with pytest.raises(GrafanaRefused, match=r"token in .*/token") as refusal:
        install(table)
    assert "glsa_wrong" not in str(refusal.value)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((403, "application/json", '{"message": "no permission"}'), GrafanaRefused, "Editor"),
        ((404, "application/json", '{"message": "no such route"}'), GrafanaFailed, "no such route"),
        ((502, "text/html", "<h1>bad gateway</h1>"), GrafanaFailed, "Server Error 502"),
        ((500, "text/plain", "a message that is no JSON"), GrafanaFailed, "not Grafana's"),
        ((200, "text/html", "<h1>log in</h1>"), GrafanaFailed, "not Grafana's"),
        ((200, "application/json", "[]"), GrafanaFailed, "not Grafana's"),
    ],
)
def test_what_grafana_answers_becomes_a_sentence(table, answer, error, said):
    table, server = table
    server.answer = answer
    with pytest.raises(error, match=said) as raised:
        install(table)
    assert table.url in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_a_grafana_that_is_not_there(table):
    table, server = table
    server.server_close()
    server.shutdown()
    with pytest.raises(GrafanaFailed, match="cannot be reached"):
        install(table)


def test_a_grafana_below_a_path_is_asked_there(table):
    table, server = table
    server.answer = (404, "application/json", '{"message": "nothing"}')
    below = table.model_copy(update={"url": f"{server.url}/grafana"})
    with pytest.raises(GrafanaFailed):
        install(below)
    assert {path.startswith("/grafana/api/") for _, path in server.calls} == {True}


# Files


def test_files_for_provisioning(tmp_path):
    paths = write_dashboards(tmp_path, "http://prometheus:9090")
    assert write_dashboards(tmp_path, "http://prometheus:9090") == paths
    assert sorted(paths) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    provider = yaml.safe_load((tmp_path / "provisioning/dashboards/forebay.yaml").read_text())
    folder = Path(provider["providers"][0]["options"]["path"])
    found = {json.loads(path.read_text())["uid"] for path in folder.glob("*.json")}
    assert found == {dashboard.uid for dashboard in DASHBOARDS}
    source = yaml.safe_load((tmp_path / "provisioning/datasources/forebay.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o644}


def test_files_for_prometheus(tmp_path):
    configuration, written = write_prometheus(tmp_path, Path("/var/lib/ray"))
    scraped = yaml.safe_load(configuration.read_text())["scrape_configs"][0]
    discovery = "/var/lib/ray/prom_metrics_service_discovery.json"
    assert scraped["file_sd_configs"] == [{"files": [discovery]}]
    assert yaml.safe_load(written.read_text()) == rules()


def test_a_sites_nodes_are_asked_of_its_dashboard(tmp_path):
    ray = RayTable(dashboard="http://10.0.0.11:8265/", token_file="/etc/forebay/ray.token")
    configuration, _ = write_prometheus(tmp_path, ray=ray)
    (scraped,) = yaml.safe_load(configuration.read_text())["scrape_configs"]
    (asked,) = scraped["http_sd_configs"]
    assert asked["url"] == "http://10.0.0.11:8265/api/prometheus/sd"
    assert asked["authorization"] == {"type": "Bearer", "credentials_file": "forebay-ray.token"}
    assert "copy of /etc/forebay/ray.token" in configuration.read_text()
    assert "file_sd_configs" not in scraped
    configuration, _ = write_prometheus(tmp_path, ray=RayTable(token_file=None))
    (asked,) = yaml.safe_load(configuration.read_text())["scrape_configs"][0]["http_sd_configs"]
    assert "authorization" not in asked


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FilesNotWritten, match=r"cannot write .*file.*File exists"):
        write_prometheus(tmp_path / "file")


# The commands


def test_the_commands(tmp_path, table, monkeypatch):
    table, _ = table
    run = CliRunner().invoke
    done = run(app, ["dashboards", "write", str(tmp_path / "a"), "--json"])
    assert len(json.loads(done.stdout)["files"]) == len(DASHBOARDS) + 2
    done = run(app, ["dashboards", "prometheus", str(tmp_path / "b")])
    assert done.stdout.splitlines()[-1] == str(tmp_path / "b" / "forebay-rules.yml")
    site = tmp_path / "forebay.toml"
    site.write_text(
        f'state = "{tmp_path}/state"\n[bacula]\ncatalog = "/catalog.db"\n[[mover]]\nname = "m"\n'
        'client = "m-fd"\n[[dataset]]\nname = "d"\nroot = "/d"\nshards = 1\n'
    )
    for more, key in (([], "http_sd_configs"), (["--ray-temp-dir", "/r"], "file_sd_configs")):
        target = str(tmp_path / "b")
        done = run(app, ["dashboards", "prometheus", target, "--config", str(site), *more])
        assert done.exit_code == 0, done.exception
        (scraped,) = yaml.safe_load((tmp_path / "b/prometheus.yml").read_text())["scrape_configs"]
        assert key in scraped
    done = run(app, ["dashboards", "install", "--config", str(site)])
    assert "no table [grafana]" in str(done.exception)
    text = f'{site.read_text()}[grafana]\nurl = "{table.url}"\ntoken_file = "{table.token_file}"\n'
    site.write_text(text)
    monkeypatch.setenv("FOREBAY_CONFIG", str(site))
    done = run(app, ["dashboards", "install", "--json"])
    assert done.exit_code == 0, done.exception
    assert len(json.loads(done.stdout)["dashboards"]) == len(DASHBOARDS)
