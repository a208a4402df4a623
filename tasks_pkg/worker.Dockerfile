# What a Celery worker needs, without our code: that is one thin layer above (code.Dockerfile).
# Nothing here uses the network: the wheels stand in the context, fetched from the lock beforehand.
# Plain instructions only, so that the legacy builder and BuildKit give the same image.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS worker-venv
# By this label the images role removes what a finished build leaves behind.
LABEL celray.stage=build
WORKDIR /build
# A second environment holds pip, so that the one we ship has none.
RUN python3 -m venv --without-pip /opt/venv && python3 -m venv /build/tool
COPY wheelhouse wheelhouse
COPY worker.lock worker.lock
RUN /build/tool/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
      --disable-pip-version-check --no-index --find-links wheelhouse \
      --require-hashes --no-deps -r worker.lock
# A worker talks to Ray over HTTP alone: Ray's servers, jars and libraries stay out, and the
# import at the end proves that the Jobs API client does not miss them.
WORKDIR /opt/venv/lib/python3.11/site-packages
RUN rm -rf ray/core/src ray/jars ray/cpp ray/rllib ray/serve ray/tune ray/train ray/data \
      ray/llm ray/dashboard/client ray/autoscaler/aws ray/autoscaler/gcp ray/autoscaler/azure \
      ray/tests ray/_private/runtime_env/agent/thirdparty_files \
 && find . -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && /opt/venv/bin/python -c "import aiohttp; from ray.job_submission import JobSubmissionClient"

FROM ${BASE} AS worker
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
COPY --from=worker-venv /opt/venv /opt/venv
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT []
