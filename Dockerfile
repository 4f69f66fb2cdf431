# Both commands: docker build -t spikeport . && docker run --shm-size 1g spikeport
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /spikeport
COPY . .
# --build-arg PIP_OPTIONS="--extra-index-url URL" takes torch's CPU build, see README.md.
ARG PIP_OPTIONS=""
RUN make .venv/.installed PIP_OPTIONS="$PIP_OPTIONS"
CMD ["sh", "-c", "make demo && make test"]
