# Optimizer workers, rollout workers and the node: onnx and ONNX Runtime beside the control plane.
FROM python:3.13-slim-trixie
RUN useradd --uid 1000 --create-home slipway && install -d -o slipway /var/lib/slipway
WORKDIR /srv/slipway
COPY requirements/worker.lock requirements/toolchain-*.lock requirements/
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/worker.lock
# `docker compose build --build-arg TOOLCHAINS="openvino tensorrt torch sklearn"`; see optimizer/toolchains.py.
# Where it shall have a GPU, `cuda` too.
ARG TOOLCHAINS=""
RUN for key in $TOOLCHAINS; do python -m venv /opt/toolchains/$key && /opt/toolchains/$key/bin/pip install \
    --no-cache-dir --require-hashes --no-deps -r requirements/toolchain-$key.lock || exit 1; done
COPY . .
USER slipway
ENV PYTHONUNBUFFERED=1 SLIPWAY_HOME=/var/lib/slipway SLIPWAY_TOOLCHAINS=/opt/toolchains
VOLUME /var/lib/slipway
