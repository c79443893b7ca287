# The FastAPI stack in a cluster (slipway/replica-fastapi), and what fetches the variant of every stack before it starts.
# No control plane is in it: no Django, no credentials, no database.
FROM python:3.13-slim-trixie
RUN useradd --uid 1000 --create-home slipway
WORKDIR /srv/slipway
COPY requirements/serve.lock requirements/
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/serve.lock
COPY controlplane/__init__.py controlplane/
COPY controlplane/core/__init__.py controlplane/core/errors.py controlplane/core/onnx_session.py \
    controlplane/core/openvino_ir.py controlplane/core/plugins.py controlplane/core/
COPY deployments/__init__.py deployments/
COPY deployments/domain deployments/domain
COPY deployments/stacks deployments/stacks
# A pod's file system is read-only.
RUN python -m compileall -q .
USER slipway
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/srv/slipway
EXPOSE 8000
CMD ["python", "-m", "deployments.stacks.fastapi.replica", "/etc/slipway/config.json"]
