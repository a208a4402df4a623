# A worker's own image: celray's environment on a base of the catalogue's choice, or with Debian
# packages more. Its Python must be where the images role's base has it; the last step proves that.
ARG BASE=python:3.11-slim-bookworm
ARG WORKER_DEPS=celray/worker-deps:built-by-the-images-role

# hadolint ignore=DL3006
FROM ${WORKER_DEPS} AS deps

# hadolint ignore=DL3006
FROM ${BASE}
ARG PACKAGES=""
# hadolint ignore=DL3002
USER 0:0
# The one step of any build that may use the network, and only where packages are asked for on a base
# that was not bootstrapped with them.
# hadolint ignore=DL3008,SC2086
RUN if [ -n "$PACKAGES" ]; then \
      apt-get update && apt-get install -y --no-install-recommends $PACKAGES \
      && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=deps /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
RUN /opt/venv/bin/python3 -c "import celery, aiohttp; from ray.job_submission import JobSubmissionClient" \
 || { echo "celray: this base has no Python on which celray's environment runs" >&2; exit 1; }
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT []
