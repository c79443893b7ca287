# Web, live, dispatcher, collector: everything that opens no model outside the sandbox.
FROM node:24-trixie-slim AS front
WORKDIR /front
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev

FROM python:3.13-slim-trixie
RUN useradd --uid 1000 --create-home slipway && install -d -o slipway /var/lib/slipway
WORKDIR /srv/slipway
COPY requirements/web.lock requirements/
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/web.lock
COPY . .
COPY --from=front /front/node_modules node_modules
USER slipway
ENV PYTHONUNBUFFERED=1 SLIPWAY_HOME=/var/lib/slipway
RUN python manage.py vendor_assets
VOLUME /var/lib/slipway
