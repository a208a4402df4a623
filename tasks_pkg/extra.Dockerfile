# What task packages need beyond our locks, above the worker's or Ray's image. Built on each host
# from a wheelhouse that is complete: no network, and no dependency is resolved here.
ARG BELOW=celray/worker-deps:built-by-the-images-role

FROM ${BELOW} AS extra
# By this label the images role removes what a finished build leaves behind.
LABEL celray.stage=build
USER 0:0
WORKDIR /build
RUN python3 -m venv /build/tool
COPY wheelhouse wheelhouse
RUN /build/tool/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
      --disable-pip-version-check --no-index --no-deps --target /opt/extra wheelhouse/*.whl \
 && echo "import site; site.addsitedir('/opt/extra')" > /build/celray-extra.pth
USER 10001:10001

FROM ${BELOW}
COPY --from=extra /opt/extra /opt/extra
COPY --from=extra /build/celray-extra.pth /opt/venv/lib/python3.11/site-packages/celray-extra.pth
