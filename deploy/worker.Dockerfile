# The worker: runs the project. As built it runs the chat example; your own image stands on it:
#   FROM fairlead-worker
#   COPY my_project.py /srv/app/
#   ENV FAIRLEAD_TARGET=/srv/app/my_project.py
# Build from the repository's root:
#   docker build -f deploy/worker.Dockerfile -t fairlead-worker .
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY deploy/locks/build.txt build.txt
RUN python3 -m venv /build && /build/bin/pip install --no-cache-dir --require-hashes -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY edge edge
COPY workers workers
COPY console console
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${PYTHON_IMAGE} AS venv
COPY deploy/locks/process.txt /src/lock.txt
COPY --from=wheel /wheels /wheels
# Each package as its hash says, so that two builds of one commit hold the same; deploy/locks/README.md
# says how they are renewed. pip serves the build alone: the venv that is copied below holds what runs and
# nothing that installs. Packages of yours are found in /srv/packages, behind Fairlead's own: another
# version of one of these would be passed over, so install yours with these as constraints.
RUN python3 -m venv /opt/fairlead \
    && /opt/fairlead/bin/pip install --no-cache-dir --require-hashes -r /src/lock.txt \
    && /opt/fairlead/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && /opt/fairlead/bin/pip freeze --exclude fairlead > /opt/fairlead/constraints.txt \
    && echo /srv/packages > "$(/opt/fairlead/bin/python -c 'import site; print(site.getsitepackages()[0])')/yours.pth" \
    && /opt/fairlead/bin/pip uninstall --yes setuptools pip

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 fairlead \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /srv --shell /usr/sbin/nologin fairlead
COPY --from=venv /opt/fairlead /opt/fairlead
COPY examples/chat/app.py /srv/app/app.py
# In a container loopback reaches nobody: probes come from outside, so the admin port listens on all
# interfaces. Don't publish it; who reaches it may publish into any room.
ENV PATH=/opt/fairlead/bin:$PATH \
    FAIRLEAD_TARGET=/srv/app/app.py \
    FAIRLEAD_ADMIN_HOST=0.0.0.0 \
    FAIRLEAD_ADMIN_PORT=8001
# In figures, so that Kubernetes' runAsNonRoot can tell it is not root.
USER 10001:10001
WORKDIR /srv/app
EXPOSE 8001
# /livez, not /readyz: while NATS is away or the worker drains, what it has in hand is worth keeping.
# The empty ProxyHandler: an HTTP_PROXY handed to the container is not asked for loopback.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['FAIRLEAD_ADMIN_PORT'] + '/livez', timeout=2)"]
# The drain begins on SIGTERM. Exec form: fairlead is process 1 and gets it; a shell would keep it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["fairlead", "worker"]
