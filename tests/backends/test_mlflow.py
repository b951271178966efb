"""MLflow: the real client, the real server, and servers that are dead, deaf or strict."""

from __future__ import annotations

import datetime as dt
import http.server
import importlib.metadata
import ipaddress
import math
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from blackboxml import open_run
from blackboxml.backends import Logged
from blackboxml.backends import mlflow as module
from blackboxml.backends.mlflow import MLflowBackend, experiment_name
from blackboxml.conversion import convert
from blackboxml.tracker import NullTracker, setup, setup_tracker
from tests.mlflow_server import serving

pytestmark = [
    # MLflow's own dependencies warn of one another.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
VARIABLES = (
    *("MLFLOW_EXPERIMENT_NAME", "WB_PROJECT", "WANDB_PROJECT", "WB_PROJECT_NAME"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_INSECURE_TLS"),
    *("AMSC_API_KEY", "AM_SC_API_KEY", "RANK"),
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No file or variable of the user's plays a part."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def client(mlflow_server, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    return mlflow.MlflowClient()


def test_tr20_the_variable_goes_before_the_argument(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/ada/examples/vit.py"])
    assert experiment_name(None) == "ezpz-examples-vit"
    for name in ("WB_PROJECT_NAME", "WANDB_PROJECT", "WB_PROJECT"):
        monkeypatch.setenv(name, f"by.{name}")
        assert experiment_name(None) == f"by-{name}"
    assert experiment_name("my.project") == "my-project"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "the.variable")
    assert experiment_name("my.project") == "the-variable"


def test_tr20_metrics_have_steps_and_names_as_ever(client, mlflow_server, caplog):
    tracker = setup_tracker("my.steps", "mlflow", rank=0)
    run = tracker.mlflow_run
    before = int(time.time() * 1e3)
    tracker.log({"loss": 0.5, "loss/mean": 0.4, "loss/std": 0.1, "lr": 1, "note": "x"})
    tracker.log({"loss": 0.25, "part": 2, "on": True, "rows": [1]}, commit=False)
    tracker.log({"loss": math.nan, "odd (name)": 1})
    tracker.log({"loss": math.inf}, step=7)
    after = int(time.time() * 1e3)
    backend = tracker.get_backend("mlflow")
    tracker.finish()
    history = {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]
        for run_id in [run.info.run_id]
        for name in client.get_run(run_id).data.metrics
    }
    loss = history.pop("loss")
    assert sorted(step for step, _ in loss) == [1, 1, 7]
    (nan,) = [value for _, value in loss if math.isnan(value)]
    assert min(value for _, value in loss if value is not nan) == 0.25
    assert max(value for _, value in loss if value is not nan) > 1e300  # infinity, in a database
    assert history == {
        "loss/local": [(0, 0.5)],
        "loss/mean": [(0, 0.4)],
        "loss/std": [(0, 0.1)],
        "lr": [(0, 1.0)],
        "part": [(1, 2.0)],
        "on": [(1, 1.0)],
        "odd _name_": [(1, 1.0)],
    }
    stamp = client.get_metric_history(run.info.run_id, "lr")[0].timestamp
    assert before <= stamp <= after
    found = client.get_run(run.info.run_id)
    assert found.info.status == "FINISHED"
    assert client.get_experiment(found.info.experiment_id).name == "my-steps"
    where = f"experiments/{found.info.experiment_id}/runs/{run.info.run_id}"
    assert backend.run_url == f"{mlflow_server}/#/{where}"
    assert [record.getMessage() for record in caplog.records if record.name == "blackboxml"] == [
        "Tracker backend mlflow leaves out 'note': it takes numbers, not a str",
        "Tracker backend mlflow left out 2 values",
    ]


def test_tr20_parameters_are_flat_and_whole(client, monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0 1"])
    long = "x" * 9000
    config = {"model": {"depth": 3, "layers": [1, 2]}, "lr": 0.1, "long": long}
    tracker = setup_tracker("parameters", "mlflow", config, rank=0)
    run_id = tracker.mlflow_run.info.run_id
    tracker.log_config({"lr": 0.1, "seed": 1})
    tracker.log_config({"lr": 0.2, "more": 2})
    tracker.finish()
    params = client.get_run(run_id).data.params
    own = {key.removeprefix("config."): params[key] for key in params if key.startswith("config.")}
    shortened = own.pop("long")
    assert own == {
        "model.depth": "3",
        "model.layers": "[1, 2]",
        "lr": "0.1",
        "seed": "1",
        "more": "2",
    }
    assert len(shortened) == 6000
    assert shortened.endswith("x … (whole in params/config.long.txt)")
    assert load(client, run_id, "params/config.long.txt") == long
    assert "mlflow.log_config() failed: ValueError: config.lr stays '0.1'" in caplog.text
    known = {key.removeprefix("ezpz.") for key in params if key.startswith("ezpz.")}
    assert known >= {
        *("version", "hostname", "machine", "scheduler", "world_size", "rank", "local_rank"),
        *("working_directory", "timestamp", "date", "year", "month", "day", "python_version"),
        *("torch_version", "command"),
    }
    assert params["ezpz.command"] == "train.py --lr '0 1'"
    assert params["ezpz.working_directory"] == os.getcwd()
    assert params["ezpz.world_size"] == "1"


def load(client, run_id, name):
    with open(client.download_artifacts(run_id, name), encoding="utf-8", newline="") as file:
        return file.read()


def test_tr20_tables_images_and_artifacts_are_artifacts(client, tmp_path, caplog):
    (tmp_path / "plots/deep").mkdir(parents=True)
    (tmp_path / "plots/deep/a.txt").write_text("a")
    (tmp_path / "report.md").write_text("# Report")
    (tmp_path / "sample.png").write_bytes(b"\x89PNG")
    tracker = setup_tracker("artifacts", "mlflow", rank=0)
    run_id = tracker.mlflow_run.info.run_id
    tracker.log_table("eval/predictions", ["x", "y"], [[1, "a,b"]])
    tracker.log_image("samples/first", tmp_path / "sample.png", caption="Epoch 1")
    missing = tmp_path / "missing"
    files = {"none": missing, "plots": tmp_path / "plots", "report": tmp_path / "report.md"}
    tracker.log_artifacts(files)
    tracker.finish()
    assert "mlflow.log_artifacts() failed" in caplog.text
    assert load(client, run_id, "tables/eval/predictions.csv") == 'x,y\n1,"a,b"\n'
    sent = client.download_artifacts(run_id, "images/samples/first.png")
    assert Path(sent).read_bytes() == b"\x89PNG"
    assert client.get_run(run_id).data.tags["images/samples/first.png"] == "Epoch 1"
    assert load(client, run_id, "plots/deep/a.txt") == "a"
    assert load(client, run_id, "report/report.md") == "# Report"


def test_tr20_another_rank_makes_no_run(client):
    before = {each.name for each in client.search_experiments()}
    backend = MLflowBackend("other.rank", {"lr": 1}, rank=1)
    backend.log({"a": 1})
    backend.log_config({"a": 1})
    backend.log_table("t", [], [])
    backend.log_image("i", "none.png")
    backend.log_artifacts({"a": "none"})
    backend.finish()
    assert (backend.run, backend.run_url) == (None, None)
    assert {each.name for each in client.search_experiments()} == before


def test_tr20_a_script_that_crashes_has_failed(client):
    script = (
        "from blackboxml.tracker import setup_tracker\n"
        "tracker = setup_tracker('crash', 'mlflow', rank=0)\n"
        "tracker.log({'loss': 0.5})\n"
        "import time\n"
        "until = time.monotonic() + 200\n"
        "while tracker.mlflow_run is None and time.monotonic() < until: time.sleep(0.1)\n"
        "print(tracker.mlflow_run.info.run_id, flush=True)\n"
        "raise ValueError\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )
    run = client.get_run(done.stdout.split()[0])
    assert (run.info.status, run.data.metrics) == ("FAILED", {"loss": 0.5})


def test_tr23_what_was_logged_comes_back_as_a_run(client, mlflow_server, tmp_path):
    tracker = setup_tracker("come.back", "mlflow", {"lr": 0.1}, rank=0)
    for step in range(300):
        tracker.log({f"train/metric_{number}": step + number / 7 for number in range(10)}, step)
    tracker.finish()
    report = convert(mlflow_server, tmp_path / "runs")
    runs = [open_run(each.target) for each in report.runs if each.target is not None]
    (run,) = [run for run in runs if run.config.get("config.lr") == "0.1" and "train" in run.groups]
    table = run.polars("train")
    assert table["metric_3"].to_list() == [step + 3 / 7 for step in range(300)]


def test_a_server_that_refuses_is_left_out(monkeypatch, caplog):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = setup_tracker("p", "mlflow", rank=0)
    assert isinstance(tracker, NullTracker)
    assert tracker.mlflow_run is None
    said = [record for record in caplog.records if record.name == "blackboxml"]
    assert len(said) == 1
    assert "Tracker backend mlflow is left out: MlflowException" in said[0].getMessage()


def test_a_server_that_never_answers_holds_nobody(monkeypatch, caplog):
    monkeypatch.setattr(setup, "CONNECTING", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        tracker = setup_tracker("p", "mlflow", rank=0, timeout=0.3)
        started = time.monotonic()
        for step in range(1000):
            tracker.log({"loss": 1 / (step + 1)}, step)
        assert tracker.mlflow_run is None
        tracker.finish()
        assert time.monotonic() - started < 3
        (thread,) = [each for each in threading.enumerate() if each.name == "blackboxml mlflow"]
        thread.join(60)
    said = [record.getMessage() for record in caplog.records if record.name == "blackboxml"]
    assert said[:2] == [
        "Tracker backend mlflow is not connected after 0.2 s; what is logged waits for it",
        (
            "Tracker backend mlflow has not taken all within 0.3 s: 1000 × log, 1 × finish left, "
            "and lost if the process ends before it does"
        ),
    ]
    assert "mlflow is left out: MlflowException" in said[2]


def test_a_server_that_is_killed_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with serving(tmp_path) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        tracker = setup_tracker("killed", "mlflow,csv", outdir=tmp_path / "out", rank=0)
        assert tracker.mlflow_run is not None
        for step in range(500):
            tracker.log({"loss": 1 / (step + 1)}, step)
            if step == 250:
                server.kill()
        tracker.finish(60)
    said = [record.getMessage() for record in caplog.records if record.name == "blackboxml"]
    assert sum("mlflow.log() failed: MlflowException" in line for line in said) == 1
    assert sum("mlflow.finish() failed: MlflowException" in line for line in said) == 1
    assert all("failed" in line for line in said)
    assert len(said) <= 3  # the third counts the points
    assert len((tmp_path / "out/metrics.csv").read_text().splitlines()) == 501


# ---- what a server is told


class Asked(http.server.BaseHTTPRequestHandler):
    """Refuses, and keeps the headers of what it was asked."""

    def do_GET(self):
        self.server.asked.append(self.headers)
        self.send_response(403)
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - as the class above wants it

    def log_message(self, *_):
        pass


@pytest.fixture
def strict():
    """A server that refuses everything."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def connect(home, **variables):
    """Set up a tracker in a process of its own, with the plugin installed; return what it says."""
    points = importlib.metadata.entry_points(group="mlflow.request_header_provider")
    path = [os.environ.get("PYTHONPATH", "")]
    if "blackboxml" not in points.names:  # a checkout that was installed before there was one
        folder = home / "site/blackboxml_plugin-1.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: blackboxml-plugin\n")
        (folder / "entry_points.txt").write_text(
            "[mlflow.request_header_provider]\n"
            "blackboxml = blackboxml.backends.mlflow.headers:ApiKey\n"
        )
        path.append(str(home / "site"))
    script = (
        "from blackboxml.tracker import setup_tracker\n"
        "print(type(setup_tracker('p', 'mlflow', rank=0)).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=home,
        timeout=120,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        | variables,
    )
    assert done.stdout == "NullTracker\n"
    return done.stderr


def test_tr21_files_and_variables_name_the_server_and_the_keys(home, strict):
    uri = f"http://127.0.0.1:{strict.server_port}"
    (home / ".amsc.env").write_text(
        "AMSC_API_KEY=of-the-user\nMLFLOW_TRACKING_URI=http://[::1]:9\n"
    )
    (home / ".env").write_text(
        f"MLFLOW_TRACKING_URI={uri}\nMLFLOW_TRACKING_TOKEN=of-the-project\nOTHER=x\n"
    )
    said = connect(home)
    assert f"{uri} refuses (403); set MLFLOW_TRACKING_TOKEN or AMSC_API_KEY" in said
    assert strict.asked
    for headers in strict.asked:
        assert headers["X-Api-Key"] == "of-the-user"
        assert headers["Authorization"] == "Bearer of-the-project"


def test_tr21_a_variable_goes_before_the_file_of_the_user(home, strict):
    (home / ".amsc.env").write_text("AM_SC_API_KEY=of-the-file\n")
    uri = f"http://127.0.0.1:{strict.server_port}"
    connect(home, MLFLOW_TRACKING_URI=uri, AM_SC_API_KEY="of-the-shell")
    assert {headers["X-Api-Key"] for headers in strict.asked} == {"of-the-shell"}


def test_tr21_without_a_key_there_is_no_header(home, strict):
    connect(home, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{strict.server_port}")
    assert strict.asked
    assert not any("X-Api-Key" in headers for headers in strict.asked)


def certify(folder):
    """Write a key and a certificate of 127.0.0.1 that nobody signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    path = folder / "server.pem"
    path.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def test_tr21_a_certificate_that_nobody_signed_is_accepted_on_request(home, strict):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certify(home))
    strict.socket = context.wrap_socket(strict.socket, server_side=True)
    strict.handle_error = lambda *_: None  # a client that does not trust it hangs up
    uri = f"https://127.0.0.1:{strict.server_port}"
    assert "SSLError" in connect(home, MLFLOW_TRACKING_URI=uri)
    assert not strict.asked
    (home / ".amsc.env").write_text("MLFLOW_TRACKING_INSECURE_TLS=true\n")
    assert "refuses (403)" in connect(home, MLFLOW_TRACKING_URI=uri)
    assert strict.asked


def test_a_store_without_a_server_has_no_address(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    backend = MLflowBackend("local", rank=0)
    good = Logged({"loss": 0.5, "big": 2**2000}, 3, True, 0.0)
    bad = Logged({"loss": 9.0}, "later", True, 0.0)
    backend.log_many([bad, good])  # what is wrong with one does not take the others with it
    backend.finish()
    assert "leaves out 'step': it takes numbers, not a str" in caplog.text
    assert backend.run_url is None
    assert backend._client.get_metric_history(backend.run.info.run_id, "loss")[0].step == 3


def test_statistics_are_those_that_history_makes():
    assert module.STATISTICS == ("mean", "max", "min", "std")
