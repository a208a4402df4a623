# Our code and that of task packages, above the worker's dependencies: the one layer that changes with
# a task file. It is built on each host, so that an edit ships a few kilobytes instead of an image.
# The images role sets the modes of what is copied here, so that no umask keeps it from its user.
ARG WORKER_DEPS=celray/worker-deps:built-by-the-images-role

FROM ${WORKER_DEPS}
ARG CELRAY_CODE_VERSION=unknown
ENV PYTHONPATH=/opt/celray:/opt/celray/packages \
    CELRAY_CODE_VERSION=${CELRAY_CODE_VERSION}
LABEL celray.code=${CELRAY_CODE_VERSION}
COPY tasks /opt/celray/tasks
COPY packages /opt/celray/packages
