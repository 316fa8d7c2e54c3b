"""A real Prometheus and promtool: those of the PATH, or what install-prometheus.sh has unpacked."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.parse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fairlead.dev import ports
from fairlead.testing.program import running
from support.system import request, until_ready

UNPACKED = Path(sys.prefix, "prometheus")


def executable(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    found = shutil.which(name, path=UNPACKED) or shutil.which(name)
    assert found is not None, f"{name} is not there; `make .venv/promtool` installs it"
    return found


CONFIG = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
scrape_configs:
  - job_name: fairlead
    static_configs: [ {{ targets: {targets} }} ]
"""


class Prometheus:
    """One that scrapes each second. Attributes: url: where it answers."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: `metric` (labels) and `value` of each series."""
        asked = urllib.parse.urlencode({"query": expression})
        status, _, body = await request(f"{self.url}/api/v1/query?{asked}")
        answer = json.loads(body)
        assert status == 200, f"{expression}: {answer}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def labels(self, label: str, expression: str) -> list[str]:
        """The values that a label has, as Grafana's `label_values`."""
        asked = urllib.parse.urlencode({"match[]": expression})
        _, _, body = await request(f"{self.url}/api/v1/label/{label}/values?{asked}")
        found: list[str] = json.loads(body)["data"]
        return found


def _configured(folder: Path, targets: Sequence[str]) -> Path:
    folder.mkdir()
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(targets=json.dumps(list(targets))))
    return config


@asynccontextmanager
async def prometheus(folder: Path, targets: Sequence[str]) -> AsyncIterator[Prometheus]:
    """Scrape these (host:port) until the end of the block."""
    config = _configured(folder, targets)
    address = f"127.0.0.1:{ports.free_port()}"
    argv = [executable("prometheus"), f"--config.file={config}", f"--web.listen-address={address}"]
    argv += [f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
    with running(argv, folder):
        made = Prometheus(f"http://{address}")
        await until_ready(f"{made.url}/-/ready")
        yield made
