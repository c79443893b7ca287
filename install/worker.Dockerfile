# Optimizer workers, rollout workers and the node: onnx and ONNX Runtime beside the control plane.
FROM python:3.13-slim-trixie
RUN useradd --uid 1000 --create-home slipway && install -d -o slipway /var/lib/slipway
WORKDIR /srv/slipway
COPY requirements/worker.lock requirements/
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/worker.lock
COPY . .
USER slipway
ENV PYTHONUNBUFFERED=1 SLIPWAY_HOME=/var/lib/slipway
VOLUME /var/lib/slipway
