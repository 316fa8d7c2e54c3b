# The console: what lives and what is executed, on a page; reads, and with a token ends runs. Build from the
# repository's root:
#   docker build -f deploy/console.Dockerfile -t fairlead-console .
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
COPY deploy/locks/console.txt /src/lock.txt
COPY --from=wheel /wheels /wheels
# Each package as its hash says, so that two builds of one commit hold the same; deploy/locks/README.md
# says how they are renewed. pip serves the build alone: the venv that is copied below holds what runs and
# nothing that installs.
RUN python3 -m venv /opt/fairlead \
    && /opt/fairlead/bin/pip install --no-cache-dir --require-hashes -r /src/lock.txt \
    && /opt/fairlead/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && /opt/fairlead/bin/pip uninstall --yes setuptools pip

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 fairlead \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /srv --shell /usr/sbin/nologin fairlead
COPY --from=venv /opt/fairlead /opt/fairlead
# In a container loopback reaches nobody. Publish it on the host's loopback alone: whoever reaches it sees
# which rooms there are, and who has FAIRLEAD_TOKEN may end runs.
ENV PATH=/opt/fairlead/bin:$PATH \
    FAIRLEAD_HOST=0.0.0.0 \
    FAIRLEAD_PORT=8002
# In figures, so that Kubernetes' runAsNonRoot can tell it is not root.
USER 10001:10001
WORKDIR /srv
EXPOSE 8002
# /livez, not /readyz: while NATS is away it says so on its page.
# The empty ProxyHandler: an HTTP_PROXY handed to the container is not asked for loopback.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['FAIRLEAD_PORT'] + '/livez', timeout=2)"]
# Exec form: fairlead is process 1 and gets SIGTERM; a shell would keep it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["fairlead", "console"]
