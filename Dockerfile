# Both commands: docker build -t spikeport . && docker run --shm-size 1g spikeport
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /spikeport
COPY . .
RUN make .venv/.installed PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"
CMD ["sh", "-c", "make demo && make test"]
