# One image for servers and workers alike: `docker run IMAGE simgan up --host 0.0.0.0`, with the
# passwords of docs/how-to/operate.md. It was never built: no Docker daemon ran where it was written.
FROM python:3.11-slim

RUN apt-get update && apt-get install -y --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/simgan
COPY . .
# git gives the version; the environment is the one that tests run in.
RUN make install
ENV PATH=/opt/simgan/.venv/bin:$PATH

# Runs start here, and everything that has to outlive the container is here.
WORKDIR /data
VOLUME /data
ENV SIMGAN_HOME=/data/.simgan
EXPOSE 4200 5000
CMD ["simgan", "--help"]
