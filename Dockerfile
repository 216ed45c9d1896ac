# One image for head, workers, driver and MLflow server (target "runtime"), and PostgreSQL beside it
# (target "postgres"). It builds from the package index or, where there is none, from the wheels
# in deploy/wheelhouse. Pin the base further with --build-arg BASE=python@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# What pip is told to install as torch, e.g. "torch==2.13.0 --index-url ..." for another build.
ARG TORCH="torch==2.13.0"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_FIND_LINKS=/wheelhouse
COPY deploy/wheelhouse/ /wheelhouse/
WORKDIR /src
COPY pyproject.toml constraints.txt ./
COPY deploy/requirements.py deploy/
# torch by itself: left to the resolver, another build of several gigabytes comes in.
RUN python3 -m venv /opt/venv \
    && if ls /wheelhouse/*.whl >/dev/null 2>&1; then export PIP_NO_INDEX=1; fi \
    && /opt/venv/bin/pip install -c constraints.txt ${TORCH} \
    && /opt/venv/bin/python deploy/requirements.py cluster > requirements.txt \
    && /opt/venv/bin/pip install -c constraints.txt -r requirements.txt

FROM build AS wheel
COPY README.md CHANGELOG.md ./
COPY orchestrator orchestrator
COPY trainables trainables
COPY search_spaces search_spaces
RUN /opt/venv/bin/pip wheel --no-index --no-deps --no-build-isolation -w dist .

FROM ${BASE} AS user
# The secrets are files that only their owner reads, so the image's user is their owner.
ARG UID=10001
RUN useradd --uid "$UID" --create-home --shell /usr/sbin/nologin orchestrator

FROM user AS runtime
COPY --from=build /opt/venv /opt/venv
# The wheel by itself and last: an edit makes a small layer.
COPY --from=wheel /src/dist /dist
RUN /opt/venv/bin/pip install --no-index --no-deps --no-cache-dir /dist/*.whl
RUN install -d -o orchestrator -g orchestrator -m 700 /store /artifacts
ARG GIT_SHA=unknown
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token \
    ORCHESTRATOR_SECRETS=/run/secrets \
    ORCHESTRATOR_HOME=/store/home \
    ORCHESTRATOR_GIT_SHA=${GIT_SHA}
LABEL org.opencontainers.image.revision=${GIT_SHA}
USER orchestrator
WORKDIR /home/orchestrator
CMD ["python", "-m", "orchestrator.deployment.node", "worker"]

FROM user AS postgres
# The packaged default cluster is not wanted: deploy/postgres-start.sh makes one on the volume.
RUN mkdir -p /etc/postgresql-common \
    && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf \
    && apt-get update \
    && apt-get install -y --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o orchestrator -g orchestrator -m 700 /databases
COPY deploy/postgres-start.sh /usr/local/bin/postgres-start
ENV PGDATA=/databases/data
USER orchestrator
CMD ["postgres-start"]
