# A Ray node. It holds none of our code: jobs bring their own (runtime_env).
# Nothing here uses the network: the wheels stand in the context, fetched from the lock beforehand.
# Plain instructions only, so that the legacy builder and BuildKit give the same image.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS ray-venv
# By this label the images role removes what a finished build leaves behind.
LABEL celray.stage=build
WORKDIR /build
RUN python3 -m venv --without-pip /opt/venv && python3 -m venv /build/tool
COPY wheelhouse wheelhouse
COPY ray.lock ray.lock
RUN /build/tool/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
      --disable-pip-version-check --no-index --find-links wheelhouse \
      --require-hashes --no-deps -r ray.lock
# Job code arrives with each job (runtime_env), Java and C++ workers are not offered.
WORKDIR /opt/venv/lib/python3.11/site-packages
RUN rm -rf ray/jars ray/cpp \
 && find . -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +

FROM ${BASE} AS ray
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
COPY --from=ray-venv /opt/venv /opt/venv
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT []
