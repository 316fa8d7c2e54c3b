"""The files of this folder that are made of others; a test says when one is old.

    .venv/bin/python deploy/k8s/generate.py

kustomize reads no file above the folder of its kustomization.yaml, so what lives elsewhere in the
repository has to be copied; and NATS's configuration is what `fairlead nats-config` prints.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from fairlead.natsconfig import Cluster, Options, Tls, config

HERE = Path(__file__).parent
DEPLOY = HERE.parent

CLUSTER = Cluster("fairlead", ("nats-0.nats", "nats-1.nats", "nats-2.nats"))
TLS = Tls(*(f"/etc/nats-tls/{name}" for name in ("tls.crt", "tls.key", "ca.crt")))
STORE = "8GB"
"""Of the volume's 10 GiB."""

RULE = """\
# Made of deploy/prometheus/alerts.yaml by deploy/k8s/generate.py: change that, then run this.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: fairlead
spec:
"""


def generated() -> dict[Path, str]:
    """Each file with what it should hold."""
    base = Options(file_store=STORE, cluster=CLUSTER)
    secured = Options(file_store=STORE, cluster=CLUSTER, tls=TLS, auth=True)
    rules = (DEPLOY / "prometheus/alerts.yaml").read_text()
    return {
        HERE / "base/nats.conf": config(base),
        HERE / "components/tls/nats.conf": config(secured),
        HERE / "overlays/dev/nats.conf": config(Options(file_store=STORE)),
        HERE / "components/monitoring/prometheusrule.yaml": RULE
        + textwrap.indent(rules[rules.index("groups:") :], "  "),
        HERE / "components/tracing/otel-collector.yaml": (
            DEPLOY / "otel-collector.yaml"
        ).read_text(),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
