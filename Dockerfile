# One image for servers and workers alike: `docker run IMAGE simgan up --host 0.0.0.0`, with the
# passwords of docs/operate.md. It was never built: there was no Docker where it was written.
FROM python:3.11-slim

WORKDIR /opt/simgan
COPY . .
RUN pip install --no-cache-dir -c requirements.lock -e .

# Runs start here, and everything that has to outlive the container is here.
WORKDIR /data
VOLUME /data
ENV SIMGAN_HOME=/data/.simgan
EXPOSE 4200 5000
CMD ["simgan", "--help"]
